"""Hidden states of every layer of a Flax model, captured from outside the model."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gordon2020.analysis import likeness

LAYERS = r'embeddings|layer_\d+'  # names of the modules whose outputs are hidden states


def hidden_states(model, params, batch, layers=LAYERS):
  """Captures what the embeddings and each layer of a model give.

  Args:
    model: a Flax module called with input_ids, segment_ids and valid.
    params: its parameters.
    batch: dict with 'input_ids', 'segment_ids' int and 'valid' bool, each [batch, length].
    layers: regex of the names of the layers' modules; of several outputs the first counts.

  Returns:
    float32 [layers + 1, batch, length, hidden], in the order of the model.

  Raises:
    ValueError: no module has such a name.
  """
  wanted = lambda module, method: (
    method == '__call__' and re.fullmatch(layers, module.name or '') is not None
  )
  inputs = (batch['input_ids'], batch['segment_ids'], batch['valid'])
  _, seen = model.apply(
    {'params': params}, *inputs, capture_intermediates=wanted, mutable=['intermediates']
  )
  states = dict(_outputs(seen.get('intermediates', {})))
  if not states:
    raise ValueError(f'no module of {type(model).__name__} has a name like {layers!r}')
  return jnp.stack([states[name].astype(jnp.float32) for name in sorted(states, key=_place)])


def reader(model, layers=LAYERS):
  """`hidden_states` of one model, compiled once: (params, batch) -> the states."""
  return jax.jit(lambda params, batch: hidden_states(model, params, batch, layers))


def text(batches, tokens):
  """Takes batches of plain text until they hold `tokens` valid tokens.

  Args:
    batches: held-out batches of pre-training; `plain` restores their text.
    tokens: how many valid tokens are enough.

  Returns:
    A list of dicts of 'input_ids', 'segment_ids' and 'valid'.
  """
  chosen, seen = [], 0
  for batch in batches:
    chosen.append(plain(batch))
    seen += int(chosen[-1]['valid'].sum())
    if seen >= tokens:
      break
  return chosen


def plain(batch):
  """The inputs of a pre-training batch with the targets back at their positions.

  A batch of a decoder hides nothing and stays as it is.
  """
  ids = np.array(batch['input_ids'])
  if 'positions' in batch:
    row, column = np.nonzero(np.asarray(batch['weights']) > 0)
    ids[row, np.asarray(batch['positions'])[row, column]] = np.asarray(batch['targets'])[
      row, column
    ]
  return {
    'input_ids': ids,
    'segment_ids': np.asarray(batch['segment_ids']),
    'valid': np.asarray(batch['valid']),
  }


def compare(read, params, others, batches):
  """The cosine between the hidden states of a model and those of another (Figure 2b).

  Args:
    read: a `reader`.
    params: the parameter tree of the model.
    others: what `read` gives for the other model, for each batch.
    batches: dicts of 'input_ids', 'segment_ids' and 'valid'.

  Returns:
    (mean, standard deviation, number) over tokens; the first two float64 [layers + 1].
  """
  total = None
  for batch, other in zip(batches, others, strict=True):
    states = np.asarray(read(params, batch))
    total = likeness.add(total, likeness.likeness(states, other, batch['valid']))
  return *likeness.summary(total), total.tokens


def _outputs(tree, path=''):
  for name, value in tree.items():
    if name == '__call__':
      first = value[0][0] if isinstance(value[0], tuple) else value[0]
      yield path, first
    else:
      yield from _outputs(value, f'{path}/{name}' if path else name)


def _place(path):
  name = path.rsplit('/', 1)[-1]
  return int(name.rsplit('_', 1)[-1]) if '_' in name else -1

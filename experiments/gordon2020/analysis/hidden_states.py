"""The hidden states of every layer of a model, without a word about them in the model."""

import re

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gordon2020.analysis import likeness

LAYERS = r'embeddings|layer_\d+'  # names of the modules whose outputs are hidden states


def hidden_states(model, params, batch, layers=LAYERS):
  """float32 [layers + 1, batch, length, hidden]: what the embeddings and each layer give, in the model's order.

  Args:
    model: a Flax module called with input_ids, segment_ids and valid.
    params: its parameters.
    batch: dict with 'input_ids', 'segment_ids' int and 'valid' bool, each [batch, length].
    layers: regex of the names of its layers' modules; of several outputs the first counts.

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
  """Whole batches of plain text, until there are `tokens` valid tokens: what was hidden from the model is put back.

  batches: held-out batches of pre-training. Returns dicts of 'input_ids', 'segment_ids', 'valid'.
  """
  chosen, seen = [], 0
  for batch in batches:
    chosen.append(plain(batch))
    seen += int(chosen[-1]['valid'].sum())
    if seen >= tokens:
      break
  return chosen


def plain(batch):
  """The inputs of a pre-training batch with the targets at their positions again, no [MASK] and no random piece.

  From a decoder nothing was hidden.
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


def compare(read, ours, theirs, batches):
  """(mean, sd, tokens) of the cosine between two parameter trees' hidden states: Figure 2b of Gordon et al. 2020.

  read: a `reader`. Mean and deviation are over tokens, float64 [layers + 1] each.
  """
  total = None
  for batch in batches:
    a, b = (np.asarray(read(params, batch)) for params in (ours, theirs))
    total = likeness.add(total, likeness.likeness(a, b, batch['valid']))
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

"""Drops whole blocks: a plain model with fewer layers, which other programs load."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prunejax.oneshot import decoder
from prunejax.oneshot.decoder import Decoder
from prunejax.oneshot.recover import next_token_loss
from prunejax.pruning.paths import named_leaves

# Fields of a config that hold an entry for each layer.
PER_LAYER = ('layer_types', 'heads_per_layer', 'intermediate_per_layer')
LAYER = re.compile(r'encoder/layer_(\d+)/(.*)')


def by_angle(
  model: Decoder,
  params: Any,
  batches: Any,
  count: int,
  say: Callable[[str], Any] = lambda line: None,
) -> list[int]:
  """Chooses the neighbouring blocks that change the direction of the hidden state least.

  The distance between the hidden states h of the last token in front of block l and behind block
  l + count - 1 is arccos(cos(h, h')) / pi, averaged over segments (Gromov et al., 2024, eq. 4). The
  blocks with the smallest distance are chosen.

  Args:
    model: the model as three functions, with hidden states [segments, length, width].
    params: its parameters.
    batches: the calibration, a pytree of arrays [segments, ...].
    count: how many blocks are dropped.
    say: prints a line.

  Returns:
    Numbers of blocks, neighbours, in order.

  Raises:
    ValueError: a count out of range.
    FloatingPointError: a hidden state that is not finite.
  """
  blocks = _checked(model, params, count)
  leaves, runs = named_leaves(params), _compiled(blocks)
  embed, ends = jax.jit(model.embed), []
  for i in range(len(jax.tree.leaves(batches)[0])):
    hidden = embed(params, jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 1]), batches))
    states = [np.asarray(hidden[0, -1])]
    for block in blocks:
      hidden = runs[block.run](decoder.read(leaves, block), hidden)
      states.append(np.asarray(hidden[0, -1]))
    ends.append(np.stack(states))
  ends = np.float64(np.stack(ends))  # [segments, blocks + 1, width]
  with np.errstate(divide='ignore', invalid='ignore'):  # refused below
    ends /= np.linalg.norm(ends, axis=-1, keepdims=True)
  cosines = np.clip(np.sum(ends[:, : len(blocks) + 1 - count] * ends[:, count:], -1), -1, 1)
  distances = np.mean(np.arccos(cosines) / np.pi, 0)
  if not np.isfinite(distances).all():
    raise FloatingPointError('a hidden state is not finite, or 0: there is no angle to it')
  first = int(np.argmin(distances))
  say(f'blocks {first} to {first + count - 1}: angular distance {distances[first]:.4f}')
  return list(range(first, first + count))


def by_perplexity(
  model: Decoder,
  params: Any,
  batches: Any,
  count: int,
  say: Callable[[str], Any] = lambda line: None,
) -> list[int]:
  """Chooses blocks one after the other: always the one without which the loss is lowest.

  The loss is the mean cross-entropy of the next tokens (Kim et al., 2024, section 3.1, whose
  perplexity orders alike).

  Args:
    model: the model as three functions.
    params: its parameters.
    batches: the calibration, tokens [segments, length].
    count: how many blocks are dropped.
    say: prints a line.

  Returns:
    Numbers of blocks, in order.

  Raises:
    ValueError: a count out of range; segments of one token.
    FloatingPointError: no block can be dropped with a finite loss.
  """
  blocks = _checked(model, params, count)
  if np.shape(batches)[1] < 2:
    raise ValueError('segments of one token have no next token: expected at least two')
  leaves, runs = named_leaves(params), _compiled(blocks)
  embed = jax.jit(model.embed)
  head = jax.jit(lambda params, hidden, batch: next_token_loss(model.head(params, hidden), batch))
  parts = [jnp.asarray(batches[i : i + 1]) for i in range(len(batches))]
  dropped: list[int] = []
  for _ in range(count):
    left = [i for i in range(len(blocks)) if i not in dropped]
    losses = dict.fromkeys(left, 0.0)
    for part in parts:
      hidden = embed(params, part)
      for place, i in enumerate(left):
        without = hidden  # the blocks before i are run once for all that are dropped after them
        for j in left[place + 1 :]:
          without = runs[blocks[j].run](decoder.read(leaves, blocks[j]), without)
        losses[i] += float(head(params, without, part)) / len(parts)
        hidden = runs[blocks[i].run](decoder.read(leaves, blocks[i]), hidden)
    best = min(left, key=lambda i: losses[i] if np.isfinite(losses[i]) else np.inf)
    if not np.isfinite(losses[best]):
      raise FloatingPointError(f'the loss without block {best} is {losses[best]}')
    dropped.append(best)
    say(f'without block {best}: perplexity {np.exp(min(losses[best], 700)):.2f}')
  return sorted(dropped)


def drop(params: Mapping, size: Any, blocks: Sequence[int]) -> tuple[dict, Any]:
  """Returns a model of `prunejax.models` without some of its layers.

  Args:
    params: its parameters, with layers encoder/layer_0, 1, ...
    size: its size, a config of transformers.
    blocks: numbers of the layers to leave out.

  Returns:
    The parameters, whose layers are numbered anew, and the smaller size.
  """
  total = size.num_hidden_layers
  kept = [i for i in range(total) if i not in set(blocks)]
  number = {old: new for new, old in enumerate(kept)}
  leaves = {}
  for path, leaf in traverse_util.flatten_dict(params, sep='/').items():
    match = LAYER.fullmatch(path)
    if match is None:
      leaves[path] = leaf
    elif int(match[1]) in number:
      leaves[f'encoder/layer_{number[int(match[1])]}/{match[2]}'] = leaf
  size = copy.deepcopy(size)
  for field in PER_LAYER:
    if getattr(size, field, None):
      setattr(size, field, [getattr(size, field)[i] for i in kept])
  size.num_hidden_layers = len(kept)
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def _checked(model, params, count):
  blocks = decoder.blocks_of(model, params)
  if isinstance(count, bool) or not isinstance(count, int) or not 0 < count < len(blocks):
    raise ValueError(
      f'{count!r} blocks cannot be dropped of {len(blocks)}: expected 1 to {len(blocks) - 1}'
    )
  return blocks


def _compiled(blocks):
  """{function of a block: compiled (weights, hidden) -> hidden}."""
  return {
    run: jax.jit(lambda flat, hidden, run=run: run(decoder.nested(flat), hidden)[0])
    for run in dict.fromkeys(block.run for block in blocks)
  }

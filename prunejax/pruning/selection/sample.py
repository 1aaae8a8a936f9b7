"""A search over a small part of the scores, which says where the first pass over all counts.

The part is one score of up to 64, taken at equal distances, which each device finds in what it
holds. It is stored, so that the search reads it from a cache.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.leaf_kinds import kinds, stacked
from prunejax.pruning.selection import counts, passes, threshold
from prunejax.pruning.selection.keys import TOP, order_key
from prunejax.pruning.selection.threshold import STEPS, Bracket, Goal

LARGEST_STEP = 64
FEWEST = 4096  # scores of a group that are in its sample at least
SIGMAS = 3.5
_PARTS = np.array([True, True, False, True, False, False])  # of six passes, those by equal parts


def first_keys(leaves, shapes, block: passes.Block, goal: Goal, bracket: Bracket):
  """Returns the keys that the first pass counts at, uint32 [STEPS, leaves, *cells].

  The second value is how many passes over the sample it took to find them.
  """
  steps = {name: _step(shapes[name], block) for name in block.names}
  if all(step == 1 for _, step in steps.values()):
    return threshold.guess(bracket, goal, True), jnp.int32(0)
  sample = {name: _thinned(leaves[name], *steps[name]) for name in block.names}
  stacks = [(names, stacked(sample, names)) for names in kinds(sample)]
  stands = [name for names, _ in stacks for name in names]
  order = np.array([stands.index(name) for name in block.names])
  step = np.array([steps[name][1] for name in block.names], np.int32)
  widest = np.concatenate([np.full(b - a, step[a:b].max()) for a, b in block.groups])
  step, widest = (
    np.broadcast_to(x.reshape((-1,) + (1,) * len(block.cells)), block.sizes.shape)
    for x in (step, widest.astype(np.int32))
  )
  whole = goal.total(jnp.asarray(block.sizes))
  size = threshold.to_float(whole)
  share = threshold.to_float(goal.wanted) / size
  # The standard deviation of a rank found in the sample. Ranks stay within what it can show.
  sigma = jnp.sqrt(size * share * (1 - share) * np.where(widest == 1, 0, widest).astype(np.float32))
  least = counts.widen(jnp.asarray(widest))
  most = counts.subtract(whole, least)

  def search(sign):
    shift = counts.widen((SIGMAS * sigma).astype(jnp.int32) * sign)
    rank = counts.carried(goal.wanted.hi + shift.hi, goal.wanted.lo + shift.lo)
    rank = _where(counts.at_least(rank, least), rank, least)
    aim = goal._replace(wanted=_where(counts.at_least(most, rank), rank, most))

    def one_pass(carried):
      turn, bracket = carried
      keys = threshold.guess(bracket, aim, jnp.asarray(_PARTS)[turn % len(_PARTS)])
      ends = jnp.concatenate([keys, *(end[None] for end in passes.span(bracket))])
      columns = []
      for names, stack in stacks:
        rows = np.array([block.names.index(name) for name in names])
        cells = (len(names), *(block.cells or (1,) * (stack.ndim - 1)))
        shape = (STEPS + 2, *cells)
        # A stack of one leaf has a first axis of length 1, over which nothing is added either.
        inner = (2, *cells[1:])
        sums = passes.totals(stack, ends[:, rows].reshape(shape), inner, block.devices)
        sums = sums if block.devices > 1 else jnp.stack(sums)
        columns.append(sums.reshape(STEPS + 1, len(names), *block.cells))
      table = jnp.concatenate(columns, 1)[:, order] * step[None]
      sums = lax.bitcast_convert_type(table[STEPS], jnp.uint32)
      return turn + 1, threshold.narrowed(bracket, aim, keys, table[:STEPS], sums)

    def wide(carried):
      near = threshold.to_float(threshold.inside(carried[1], aim)) <= sigma
      return ~jnp.all(threshold.done(carried[1], aim) | near)

    whole_range = threshold.start(
      jnp.zeros(block.sizes.shape, jnp.uint32),
      jnp.full(block.sizes.shape, TOP),
      jnp.asarray(block.sizes),
      aim,
    )
    return lax.while_loop(wide, one_pass, (jnp.int32(0), whole_range))

  turns, both = jax.vmap(search)(jnp.array([1, -1], jnp.int32))
  below, above = (jax.tree.map(lambda x, side=side: x[side], both) for side in (0, 1))
  high = jnp.maximum(above.high, below.low)
  between = Bracket(below.low, high, below.at_low, above.at_high, below.low, high < below.low)
  keys = threshold.guess(between, goal, False, sigma)
  return jnp.concatenate([below.low[None], keys[1:-1], high[None]]), jnp.max(turns)


def _where(flag, a, b):
  return jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)


def _step(score, block):
  """(axis, step): the sample has the middle one of every `step` neighbours along `axis`.

  Every device has as many of them as the next, so that none has to move.
  """
  best = (0, 1)
  size = math.prod(score.shape) // math.prod(block.cells)
  for axis, length in enumerate(score.shape):
    if block.cells and block.cells[axis] != 1:
      continue
    for step in range(2, LARGEST_STEP + 1):
      fits = length % (step * block.devices) == 0 and size // step >= FEWEST
      if fits and (step > 2 * best[1] or (axis == best[0] and step > best[1])):
        best = (axis, step)
  return best


def _thinned(leaf, axis, step):
  score = leaf.read(leaf.arrays, None)
  if step > 1:
    split = score.reshape(score.shape[:axis] + (-1, step) + score.shape[axis + 1 :])
    score = lax.index_in_dim(split, step // 2, axis + 1, keepdims=False)
  return order_key(score)

"""A search over a small part of the scores, which says where the first pass over all counts.

The part is one score of up to 64, taken at equal distances, which each device finds in what it
holds. It is stored, so that the search reads it from a cache.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts
from prunejax.pruning.leaf_kinds import kinds, stacked
from prunejax.pruning.selection import passes, threshold
from prunejax.pruning.selection.threshold import STEPS, Bracket, Goal

LARGEST_STEP = 64
SIGMAS = (-3.5, -1.5, -0.5, 0, 0.5, 1.5, 3.5)
FEWEST = 4096  # scores of a group that are in its sample at least
PRIMES = (2, 3, 5, 7, 11)


def first_keys(leaves, shapes, block: passes.Block, goal: Goal, whole: Bracket):
  """Returns the keys that the first pass counts at, uint32 [STEPS, leaves, *cells].

  The first of them is 1, the lowest key that is not NaN's. The second value is how many passes over
  the sample it took to find them; 0 for so few scores, on several devices, that there is no sample.
  """
  steps = {name: steps_of(shapes[name].shape, block.devices, block.cells) for name in block.names}
  few = sum(math.prod(score.shape) for score in shapes.values()) < passes.MANY
  if few or all(math.prod(step) == 1 for step in steps.values()):
    return threshold.guess(whole, goal, True).at[0].set(1), jnp.int32(0)
  turns = [row - begin for begin, end in block.groups for row in range(begin, end)]
  sample = {
    name: thinned(leaves[name].read(leaves[name].arrays), steps[name], turn)
    for name, turn in zip(block.names, turns, strict=True)
  }
  stacks = [(names, stacked(sample, names)) for names in kinds(sample)]
  order = np.argsort([block.names.index(name) for names, _ in stacks for name in names])
  step = np.array([math.prod(steps[name]) for name in block.names], np.int32)
  widest = np.concatenate([np.full(b - a, step[a:b].max(), np.int32) for a, b in block.groups])
  step, widest = (
    np.broadcast_to(x.reshape((-1,) + (1,) * len(block.cells)), block.sizes.shape)
    for x in (step, widest)
  )
  size = goal.total(jnp.asarray(block.sizes))
  share = threshold.to_float(goal.wanted) / threshold.to_float(size)
  # The standard deviation of a rank found in the sample. Ranks stay within what it can show.
  known = np.where(widest == 1, 0, widest).astype(np.float32)
  sigma = jnp.sqrt(threshold.to_float(size) * share * (1 - share) * known)
  least = counts.widen(jnp.asarray(widest))
  most = counts.subtract(size, least)

  def search(far):
    shift = counts.widen((far * sigma).astype(jnp.int32))
    rank = counts.carried(goal.wanted.hi + shift.hi, goal.wanted.lo + shift.lo)
    rank = _where(counts.at_least(rank, least), rank, least)
    aim = goal._replace(wanted=_where(counts.at_least(most, rank), rank, most))

    def one_pass(carried):
      turn, bracket = carried
      keys = threshold.guess(bracket, aim, turn % 3 < 2)
      columns = []
      for names, stack in stacks:
        rows = np.array([block.names.index(name) for name in names])
        cells = (len(names), *(block.cells or (1,) * (stack.ndim - 1)))
        found = passes.count(stack, keys[:, rows].reshape(-1, *cells), block.devices)
        columns.append(jnp.stack(found).reshape(STEPS, len(names), *block.cells))
      found = jnp.concatenate(columns, 1)[:, order] * step[None]
      return turn + 1, threshold.narrowed(bracket, aim, keys, found)

    def wide(carried):
      near = threshold.to_float(threshold.inside(carried[1], aim)) <= sigma
      return ~jnp.all(threshold.done(carried[1], aim) | near)

    return lax.while_loop(wide, one_pass, (jnp.int32(0), whole))

  steps_taken, ends = jax.vmap(search)(jnp.array([SIGMAS[-1], SIGMAS[0]]))
  below, above = (jax.tree.map(lambda x, side=side: x[side], ends) for side in (0, 1))
  high = jnp.maximum(above.high, below.low)
  between = whole._replace(low=below.low, high=high, at_low=below.at_low, at_high=above.at_high)
  keys = threshold.guess(between, goal, False, sigma, SIGMAS)
  ends = below.low[None], keys[1:3], keys[4:6], high[None]
  return jnp.concatenate([jnp.ones_like(keys[:1]), *ends]), jnp.max(steps_taken)


def _where(flag, a, b):
  return jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)


def steps_of(shape, devices: int, cells=()) -> tuple[int, ...]:
  """Returns how far a sample is apart along each axis; the product is LARGEST_STEP at most.

  Scores that rise along one axis are sampled along all of them.

  Args:
    shape: of the leaf.
    devices: how many devices the leaf lies on. Every device has as many of the sample as the next,
      so that nothing has to move.
    cells: one length for each axis, 1 where scores compete; () if all of them do.
  """
  steps = [1] * len(shape)
  size = math.prod(shape) // math.prod(cells)
  for _ in range(LARGEST_STEP.bit_length()):
    for axis, length in enumerate(shape):
      competes = not cells or cells[axis] == 1
      fits = length % (2 * steps[axis] * devices) == 0
      step = 2 * math.prod(steps)
      if competes and fits and step <= LARGEST_STEP and size >= FEWEST * step:
        steps[axis] *= 2
  return tuple(steps)


def thinned(array, steps, turn=0):
  """Returns one of every `step` neighbours along each axis; of turn 0 the middle one.

  Leaves that share a threshold need turns of their own: if they are alike, what one sample misses
  all of them would miss.
  """
  for axis, step in enumerate(steps):
    if step > 1:
      split = array.reshape(array.shape[:axis] + (-1, step) + array.shape[axis + 1 :])
      # Fractions of this kind fill the interval evenly, however many turns there are.
      fraction = math.modf(0.5 + turn * math.sqrt(PRIMES[axis % len(PRIMES)]))[0]
      array = lax.index_in_dim(split, int(step * fraction), axis + 1, keepdims=False)
  return array

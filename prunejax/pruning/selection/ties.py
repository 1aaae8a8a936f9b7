"""Scores that tie at the threshold: which of them stay.

The search for a threshold runs once more, over the places of the ties. Places fall from the leaf's
size, at its first position, to 1, at its last.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts
from prunejax.pruning.selection import passes, threshold

SCOPE = 'ties'  # of the search, in compiled programs; it reads nothing where no scores tie


def cuts(leaves, shapes, blocks, goals, brackets):
  """Returns for each block the cuts, uint32 [leaves, *cells], and how many passes that took.

  A score at the threshold stays if its place is at or above the cut.

  Args:
    leaves: {name: passes.Leaf}, which read keys.
    shapes: {name: jax.ShapeDtypeStruct} of the leaves.
    blocks: list of passes.Block; goals and brackets have one entry for each.
    goals: how many scores stay.
    brackets: the ended search; thresholds are at `low`.
  """
  tied_leaves, alone, aims, begin = {}, [], [], []
  for block, goal, bracket in zip(blocks, goals, brackets, strict=True):
    for row, name in enumerate(block.names):
      arrays = leaves[name].arrays, _as_cells(bracket.low[row], shapes[name]), jnp.uint32(1)
      tied_leaves[name] = passes.Leaf(_places(leaves[name].read), arrays)
    size = np.array([math.prod(shapes[name].shape) for name in block.names], np.uint32)
    size = jnp.asarray(
      np.broadcast_to(size.reshape((-1,) + (1,) * len(block.cells)), block.sizes.shape)
    )
    tied = bracket.at_low - bracket.at_high
    served = _served(block, counts.subtract(goal.wanted, goal.total(bracket.at_high)), tied)
    needed = jnp.where(threshold.settled(bracket, goal), tied, served)
    alone.append(block._replace(groups=tuple((i, i + 1) for i in range(len(block.names)))))
    aims.append(passes.goal_of(alone[-1], counts.widen(needed)))
    begin.append(threshold.start(jnp.ones_like(size), size + 1, tied))
  keys = [threshold.guess(*pair, False) for pair in zip(begin, aims, strict=True)]
  parts = lambda step: step % 3 == 2
  with jax.named_scope(SCOPE):
    ended, steps, _ = passes.search(tied_leaves, alone, aims, begin, keys, parts)
  return [bracket.low for bracket in ended], steps


def _places(read):
  def tied(arrays):
    arrays, level, one = arrays
    key = read(arrays)
    return jnp.where(key == level, place_of(key.shape, one), np.uint32(0))

  return tied


def _served(block, missing, tied):
  """Returns how many of its ties each leaf keeps: leaf after leaf, as many as are missing."""
  if all(end - begin == 1 for begin, end in block.groups):
    return counts.narrow(missing)
  served = []
  for begin, end in block.groups:
    lack, some = jax.tree.map(lambda values, at=slice(begin, end): values[at], (missing, tied))
    rest = counts.subtract(lack, counts.running(counts.widen(some)))
    served.append(counts.clipped(rest, some))
  return jnp.concatenate(served)


def _as_cells(values, score):
  """One value a cell, shaped to compare with a leaf's scores."""
  return values.reshape(values.shape or (1,) * score.ndim)


def place_of(shape, one=1):
  """Returns uint32 places of a leaf's scores, from its size down to 1, without an array in memory.

  `one` is 1. As an array it keeps XLA from storing the places before a loop.
  """
  place, stride = jnp.full(shape, math.prod(shape), jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    step = np.uint32(stride) * jnp.asarray(one, jnp.uint32).reshape((1,) * len(shape))
    place = place - lax.broadcasted_iota(jnp.uint32, shape, axis) * step
    stride *= shape[axis]
  return place

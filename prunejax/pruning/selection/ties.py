"""Scores that tie at the threshold: which of them stay.

The search for a threshold runs once more, over the places of the ties. Places fall from the leaf's
size, at its first position, to 1, at its last. With the masks so far, a zero that is kept so far is
`size` places higher, so that it stays before one that is already pruned.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import counts, passes, threshold
from prunejax.pruning.selection.keys import ZERO, order_key
from prunejax.pruning.selection.threshold import STEPS


def cuts(leaves, shapes, blocks, goals, brackets, old):
  """Returns for each block the cuts, uint32 [leaves, *cells], and how many passes that took.

  A score at the threshold stays if its place is at or above the cut.
  """

  def places(leaf, name):
    mask = () if old is None else old[name]

    def read(arrays, row):
      arrays, mask, levels, one = arrays
      score, level = leaf.read(arrays, row), _as_cells(levels, row, shapes[name].shape)
      place = place_of(score.shape, one)
      if old is not None:
        place = place + ((level == ZERO) & mask).astype(jnp.uint32) * np.uint32(score.size)
      return jnp.where(order_key(score) == level, place, np.uint32(0))

    return lambda levels: passes.Leaf(read, (leaf.arrays, mask, levels, jnp.uint32(1)))

  tied_leaves = {
    name: places(leaves[name], name)(bracket.low)
    for block, bracket in zip(blocks, brackets, strict=True)
    for name in block.names
  }
  closed = [~threshold.settled(b, g) for b, g in zip(brackets, goals, strict=True)]
  sizes = [
    jnp.asarray(
      np.stack([np.full(b.cells, math.prod(shapes[n].shape), np.uint32) for n in b.names])
    )
    for b in blocks
  ]
  kept = [jnp.zeros(size.shape, jnp.int32) for size in sizes]
  if old is not None and any(end - begin > 1 for block in blocks for begin, end in block.groups):
    # Of leaves that share a threshold, zeros kept so far go first, of whatever leaf.
    everything = [
      (jnp.ones(size.shape, bool), none) for size, none in zip(sizes, kept, strict=True)
    ]
    at = [jnp.broadcast_to(size[None] + 1, (STEPS, *size.shape)) for size in sizes]
    empty = [(jnp.zeros_like(size),) * 2 for size in sizes]
    number = lambda: [c[0] for c, _ in passes.count(tied_leaves, blocks, at, empty, everything)]
    zeros = [jnp.any(c & (b.low == ZERO)) for c, b in zip(closed, brackets, strict=True)]
    kept = lax.cond(jnp.any(jnp.stack(zeros)), number, lambda: kept)
  alone, aims, begin = [], [], []
  for block, goal, bracket, open_, size, some in zip(
    blocks, goals, brackets, closed, sizes, kept, strict=True
  ):
    tied = jnp.where(open_, bracket.at_low - bracket.at_high, 0)
    missing = counts.subtract(goal.wanted, goal.total(bracket.at_high))
    needed = jnp.where(open_, _served(block, missing, tied, jnp.where(open_, some, 0)), tied)
    alone.append(block._replace(groups=tuple((i, i + 1) for i in range(len(block.names)))))
    aims.append(passes.goal_of(alone[-1], counts.widen(needed), by_value=False))
    high = size + 1 if old is None else 2 * size + 1
    bracket = threshold.start(jnp.ones_like(size), high, tied, aims[-1])
    begin.append(bracket._replace(low=jnp.where(open_, bracket.low, 1)))

  def one_pass(carried):
    step, brackets = carried
    parts = step % 3 == (2 if old is None else 0)
    keys = [threshold.guess(b, g, parts) for b, g in zip(brackets, aims, strict=True)]
    needed = [passes.open_leaves(b, g) for b, g in zip(brackets, aims, strict=True)]
    spans = [passes.span(b) for b in brackets]
    found = passes.count(tied_leaves, alone, keys, spans, needed)
    return step + 1, [
      threshold.narrowed(b, g, k, number, sums)
      for b, g, k, (number, sums) in zip(brackets, aims, keys, found, strict=True)
    ]

  unsettled = lambda carried: ~passes.all_done(carried[1], aims)
  steps, brackets = lax.while_loop(unsettled, one_pass, (jnp.int32(0), begin))
  return [bracket.low for bracket in brackets], steps


def _served(block, missing, tied, kept):
  """Returns how many of its ties each leaf keeps: kept zeros first, then leaf after leaf."""
  if all(end - begin == 1 for begin, end in block.groups):
    return counts.narrow(missing)
  served = []
  for begin, end in block.groups:
    one = lambda values, part=slice(begin, end): values[part]
    lack, first, rest = jax.tree.map(one, missing), one(kept), one(tied - kept)
    every = jax.tree.map(lambda limb: limb[None], counts.total(counts.widen(first)))
    after = counts.subtract(
      lack, jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), every, lack)
    )
    served.append(
      counts.clipped(counts.subtract(lack, counts.running(counts.widen(first))), first)
      + counts.clipped(counts.subtract(after, counts.running(counts.widen(rest))), rest)
    )
  return jnp.concatenate(served)


def _as_cells(values, row, shape):
  """Row `row` of [leaves, *cells], shaped to compare with a leaf's scores."""
  return values[row] if values.ndim > 1 else values[row].reshape((1,) * len(shape))


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

"""Scores that tie at the threshold: which of them stay.

The search for a threshold runs once more, over the places of the ties. Places fall from the leaf's
size, at its first position, to 1, at its last. Where a leaf lies on one device, a pass that counts
the ties of every row, and notes the first and the last, leaves the search little to do.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts, placement
from prunejax.pruning.selection import passes, threshold
from prunejax.pruning.selection.threshold import Bracket

FEWEST_COLUMNS = 128  # of a row whose ties are counted, so that the counts need little memory
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
    begin.append(placement.varying_as(threshold.start(jnp.ones_like(size), size + 1, tied), tied))
  parts = lambda step: step % 3 == 2
  with jax.named_scope(SCOPE):
    begin = _in_rows(leaves, shapes, blocks, aims, begin, brackets)
    keys = [threshold.guess(*pair, False) for pair in zip(begin, aims, strict=True)]
    ended, steps, _ = passes.search(tied_leaves, alone, aims, begin, keys, parts)
  return [bracket.low for bracket in ended], steps


def _in_rows(leaves, shapes, blocks, aims, begin, brackets):
  """Narrows brackets of places to a part of a row, in one pass over leaves on one device.

  Args:
    leaves: see `cuts`.
    shapes: see there.
    blocks: see there.
    aims: how many ties stay.
    begin: the brackets of all places.
    brackets: the ended search for thresholds.

  Returns:
    The brackets; they are as before where few scores are in leaves whose ties are not settled.
  """
  size = sum(float(np.sum(block.sizes, dtype=np.float64)) for block in blocks)
  if blocks[0].devices > 1:
    return begin
  asked = [~threshold.done(*pair) for pair in zip(begin, aims, strict=True)]
  pairs = zip(asked, blocks, strict=True)
  left = sum(jnp.sum(jnp.where(flag, np.float32(block.sizes), 0)) for flag, block in pairs)
  arrays = {name: leaf.arrays for name, leaf in leaves.items()}

  def of_leaf(block, row, bracket, aim, whole):
    name = block.names[row]
    if not _are_of_rows(block.cells) or min(shapes[name].shape[-1:], default=0) < FEWEST_COLUMNS:
      return jax.tree.map(lambda x: x[row], whole)
    tied = leaves[name].read(arrays[name]) == _as_cells(bracket.low[row], shapes[name])
    cut = _cut_in_row(tied, counts.narrow(aim.wanted)[row].reshape(-1))
    return jax.tree.map(lambda x: x.reshape(block.cells), cut)

  def narrow():
    narrowed = []
    for block, flag, *rest in zip(blocks, asked, brackets, aims, begin, strict=True):
      rows = [of_leaf(block, row, *rest) for row in range(len(block.names))]
      found = jax.tree.map(lambda *x: jnp.stack(x), *rows)
      choose = lambda new, old, flag=flag: jnp.where(flag, new, old)
      narrowed.append(jax.tree.map(choose, found, rest[-1]))
    return narrowed

  return lax.cond(left >= passes.FEW_LEFT * size, narrow, lambda: begin)


def _are_of_rows(cells):
  """Whether whole rows compete: axes that have cells of their own come first, and not the last."""
  own = [length > 1 for length in cells]
  return own == sorted(own, reverse=True) and not any(own[-1:])


def _cut_in_row(tied, wanted) -> Bracket:
  """The bracket of places within the row in which the wanted ties end: arrays [cells].

  Args:
    tied: bool, shaped like the leaf; cells lie along its first axes.
    wanted: int32 [cells], at least 1 and below the number of ties, or the result means nothing.
  """
  columns = tied.shape[-1]
  at = lax.broadcasted_iota(jnp.int32, tied.shape, tied.ndim - 1)
  # Three outputs: XLA on a CPU fuses a reduction only if it has several.
  operands = tied.astype(jnp.int32), jnp.where(tied, at, columns), jnp.where(tied, at, -1)
  joined = lambda a, b: (a[0] + b[0], jnp.minimum(a[1], b[1]), jnp.maximum(a[2], b[2]))
  none = np.int32(0), np.int32(columns), np.int32(-1)
  found = lax.reduce(operands, none, joined, (tied.ndim - 1,))
  number, first, last = (x.reshape(wanted.size, -1) for x in found)
  upto = jnp.cumsum(number, axis=1)
  row = jnp.sum(upto < wanted[:, None], axis=1, dtype=jnp.int32)
  here = lambda x: jnp.take_along_axis(x, row[:, None], axis=1, mode='clip')[:, 0]
  many, before = here(number), here(upto) - here(number)
  # The place of the first column of the row.
  rows = number.shape[1]
  start = tied.size - (jnp.arange(wanted.size, dtype=jnp.int32) * rows + row) * columns
  first, last = (start - here(x) for x in (first, last))
  one, every = wanted - before == 1, wanted - before == many
  return Bracket(
    jnp.where(one, first, jnp.where(every, last, last + 1)).astype(jnp.uint32),
    jnp.where(one, first + 1, first).astype(jnp.uint32),
    before + jnp.where(one, 1, jnp.where(every, many, many - 1)),
    jnp.where(one, before, before + 1),
    jnp.zeros_like(one),
  )


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

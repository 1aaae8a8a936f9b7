"""Exact selection of the highest scores by counting.

A score read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a key. A search over a sample says where to ask. The same search
over all scores finds the threshold, and once more over positions where scores tie at it. Counts
decide, so the result is exact, and the same on every mesh. Nothing is sorted, gathered or copied.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import placement
from prunejax.pruning.leaf_kinds import kinds
from prunejax.pruning.selection import counts, passes, sample, threshold, ties
from prunejax.pruning.selection.counts import Wide
from prunejax.pruning.selection.keys import TOP, ZERO, order_key
from prunejax.pruning.selection.passes import Block, Scores


class Selected(NamedTuple):
  """`masks` {name: bool, shaped like the scores}; `nan` {name: bool scalar, some score is NaN}."""

  masks: dict[str, jax.Array]
  nan: dict[str, jax.Array]


class Found(NamedTuple):
  """Where groups are cut, for each block.

  Scores at or above `brackets.low` stay, except those at it whose place is below `cuts`.
  `nan` {name: bool scalar}. `passes` {stage: how often it read}.
  """

  brackets: list
  cuts: list
  nan: dict[str, jax.Array]
  passes: dict[str, Any]


def plain(scores: dict) -> Scores:
  """Returns scores that are in memory anyway as `Scores`."""
  return Scores(lambda sources: sources, scores)


def select(scores: Scores, wanted: dict, old: dict | None = None) -> Selected:
  """Keeps the highest scores of every group, exactly as many as asked.

  NaN is the lowest score, then -inf .. -0.0 < 0.0 .. inf. Of equal scores, earlier leaves and lower
  positions stay.

  Args:
    scores: scores by leaf, in the order in which ties are served.
    wanted: {leaf names: how many stay}. Leaves of one key share one threshold, and the count is one
      scalar, int32 or `counts.Wide`. A key of a single leaf may have an int32 array that broadcasts
      against the scores: 1 on the axes along which scores compete.
    old: masks so far, by leaf. With them 0.0 and -0.0 are equal, and zeros kept so far win over
      zeros already pruned.

  Returns:
    The masks, and for each leaf whether some score is NaN.

  Raises:
    ValueError: for float64 scores, and for a leaf too large to be counted in int32.
  """
  shapes = jax.eval_shape(scores.read, scores.sources)
  _check(shapes)
  blocks, goals = _blocks(shapes, wanted, placement.devices(scores.sources))
  masks = {name: jnp.ones(score.shape, bool) for name, score in shapes.items()}
  nan = {name: jnp.zeros((), bool) for name in shapes}
  if blocks:
    found = find(scores, shapes, blocks, goals, old)
    masks |= _masks(scores, blocks, goals, found, old)
    nan |= found.nan
  return Selected(masks, nan)


def find(scores, shapes, blocks, goals, old) -> Found:
  """Returns where every group of every block is cut."""
  leaves = {name: _ranked(leaf, old is not None) for name, leaf in passes.readers(scores).items()}
  keyed = {
    name: leaf._replace(read=lambda arrays, row, leaf=leaf: order_key(leaf.read(arrays, row)))
    for name, leaf in leaves.items()
  }
  begin, asked, turns = [], [], []
  for block, goal in zip(blocks, goals, strict=True):
    low = jnp.zeros(block.sizes.shape, jnp.uint32)
    bracket = threshold.start(low, jnp.full_like(low, TOP), jnp.asarray(block.sizes), goal)
    keys, turn = sample.first_keys(leaves, shapes, block, goal, bracket)
    begin.append(bracket)
    asked.append(keys)
    turns.append(turn)

  def one_pass(carried):
    step, brackets, asked, nan = carried
    first = step == 0
    # In the first pass the sum counts NaN, whose key is 0: 0 lies one above 2^32 - 1.
    spans = [
      (jnp.where(first, np.uint32(0xFFFFFFFF), low), jnp.where(first, np.uint32(2), width))
      for low, width in map(passes.span, brackets)
    ]
    needed = [passes.open_leaves(b, g, first) for b, g in zip(brackets, goals, strict=True)]
    found = passes.count(keyed, blocks, asked, spans, needed)
    nan = [jnp.where(first, sums > 0, flag) for flag, (_, sums) in zip(nan, found, strict=True)]
    brackets = [
      threshold.narrowed(bracket, goal, keys, number, sums)
      for bracket, goal, keys, (number, sums) in zip(brackets, goals, asked, found, strict=True)
    ]
    brackets = [b._replace(has_mean=b.has_mean & ~first) for b in brackets]
    asked = [threshold.guess(b, g, step % 3 == 2) for b, g in zip(brackets, goals, strict=True)]
    return step + 1, brackets, asked, nan

  unsettled = lambda carried: (carried[0] == 0) | ~passes.all_done(carried[1], goals)
  flags = [jnp.zeros(bracket.low.shape, bool) for bracket in begin]
  carried = (jnp.int32(0), begin, asked, flags)
  steps, brackets, _, flags = lax.while_loop(unsettled, one_pass, carried)
  cuts, tie_steps = ties.cuts(leaves, shapes, blocks, goals, brackets, old)
  nan = {
    name: jnp.any(flag[row])
    for block, flag in zip(blocks, flags, strict=True)
    for row, name in enumerate(block.names)
  }
  number = {'sample': jnp.max(jnp.stack(turns)), 'scores': steps, 'ties': tie_steps}
  return Found(brackets, cuts, nan, number)


def _masks(scores, blocks, goals, found, old):
  sources, brackets, cuts = lax.optimization_barrier((scores.sources, found.brackets, found.cuts))
  zero = [(b.low == ZERO) & ~threshold.settled(b, g) for b, g in zip(brackets, goals, strict=True)]

  def masks(aged):
    out = {}
    arrays = scores.read(sources)
    for block, bracket, cut, tied in zip(blocks, brackets, cuts, zero, strict=True):
      for row, name in enumerate(block.names):
        score = _unsigned(arrays[name]) if old is not None else arrays[name]
        shape = block.cells or (1,) * score.ndim
        level, end, flag = (x[row].reshape(shape) for x in (bracket.low, cut, tied))
        place = ties.place_of(score.shape)
        if aged:
          place = place + (flag & old[name]).astype(jnp.uint32) * np.uint32(score.size)
        # One comparison for scores above the threshold and at it: a key used twice would be stored.
        out[name] = order_key(score) >= level + (place < end).astype(jnp.uint32)
    return out

  if old is None:
    return masks(False)
  some = jnp.any(jnp.stack([jnp.any(flag) for flag in zero]))
  return lax.cond(some, lambda: masks(True), lambda: masks(False))


def _ranked(leaf, aged):
  """How a leaf's scores are read. With masks so far, these say which of two zeros goes first."""
  return leaf._replace(read=lambda arrays, row: _unsigned(leaf.read(arrays, row))) if aged else leaf


def _unsigned(score):
  return jnp.where(score == 0, jnp.zeros_like(score), score)


def _check(shapes):
  for name, score in shapes.items():
    size = math.prod(score.shape)
    if size > counts.LARGEST_LEAF:
      raise ValueError(f'{name!r} has {size} units; a leaf may have {counts.LARGEST_LEAF}')
    if score.dtype == jnp.float64:
      raise ValueError(f'the scores of {name!r} are float64; cast them to float32 to rank them')


def _blocks(shapes, wanted, devices):
  """Returns the blocks of all leaves that have scores, and their goals.

  All leaves that compete as a whole are one block. Leaves cut in cells are one block a kind.
  """
  place = {name: i for i, name in enumerate(shapes)}
  whole, cells = [], {}
  for names, count in wanted.items():
    names = tuple(sorted((n for n in names if math.prod(shapes[n].shape)), key=place.__getitem__))
    count = count if isinstance(count, Wide) else Wide(np.int32(0), jnp.asarray(count, jnp.int32))
    if names and math.prod(count.lo.shape) == 1:
      whole += [(names, Wide(*(jnp.reshape(limb, ()) for limb in count)))]
    elif names:
      (name,) = names
      cells[name] = count.lo.reshape(
        (1,) * (len(shapes[name].shape) - count.lo.ndim) + count.lo.shape
      )
  blocks, goals = [], []

  def add(names, groups, wanted):
    each = wanted.lo.shape[1:]
    size = lambda name: math.prod(shapes[name].shape) // math.prod(each)
    sizes = np.stack([np.full(each, size(name), np.int32) for name in names])
    blocks.append(Block(tuple(names), each, groups, sizes, devices))
    goals.append(passes.goal_of(blocks[-1], counts.carried(wanted.hi, wanted.lo), by_value=True))

  if whole:
    ends = np.cumsum([0] + [len(names) for names, _ in whole]).tolist()
    limbs = zip(*(count for names, count in whole for _ in names), strict=True)
    names = [name for group, _ in whole for name in group]
    add(names, tuple(zip(ends[:-1], ends[1:], strict=True)), Wide(*map(jnp.stack, limbs)))
  for names in kinds({name: shapes[name] for name in cells}, cells):
    count = jnp.stack([cells[name] for name in names])
    add(names, tuple((i, i + 1) for i in range(len(names))), Wide(jnp.zeros_like(count), count))
  return blocks, goals

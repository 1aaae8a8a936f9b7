"""Exact selection of the highest scores by counting.

A score read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a key. A search over a sample says where to ask. The same search
over all scores finds the threshold, and once more over positions where scores tie at it. Counts
decide, so the result is exact, and the same on every mesh. Of many scores nothing is sorted,
gathered or copied; few scores on one device are laid into tables, see `few.py`.
"""

import collections
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts, placement
from prunejax.pruning.counts import Wide
from prunejax.pruning.leaf_kinds import kinds
from prunejax.pruning.selection import few, passes, sample, threshold, ties
from prunejax.pruning.selection.keys import TOP, ranked_key
from prunejax.pruning.selection.passes import Block, Leaf, Scores

FEW_CELLS = 128  # of a leaf; their counts are so small that devices may exchange them


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
    ValueError: for float64 scores, for a leaf too large to be counted in int32, and for several
      counts of leaves that share a threshold.
  """
  shapes = jax.eval_shape(scores.read, scores.sources)
  _check(shapes, wanted)
  devices = placement.devices(scores.sources)
  masks = {name: jnp.ones(score.shape, bool) for name, score in shapes.items()}
  nan = {name: jnp.zeros((), bool) for name in shapes}
  if devices == 1 and sum(math.prod(score.shape) for score in shapes.values()) < passes.MANY:
    few_masks, few_nan = few.select(scores.read(scores.sources), wanted, old)
    return Selected(masks | few_masks, nan | few_nan)
  leaves = passes.readers(scores)
  blocks, goals = _blocks(shapes, leaves, wanted, devices)
  if blocks:
    leaves = _keys(leaves, old, blocks)
    found = find(leaves, shapes, blocks, goals)
    masks |= _masks(leaves, shapes, blocks, found)
    nan |= found.nan
  return Selected(masks, nan)


def find(leaves, shapes, blocks, goals) -> Found:
  """Returns where every group of every block is cut."""
  whole, keys, turns = [], [], []
  arrays = [leaf.arrays for leaf in leaves.values()]
  goals = [goal._replace(wanted=placement.varying_as(goal.wanted, arrays)) for goal in goals]
  for block, goal in zip(blocks, goals, strict=True):
    low = jnp.zeros(block.sizes.shape, jnp.uint32)
    above_all = jnp.full_like(low, (TOP >> block.spare) + 1)
    start = threshold.start(low, above_all, jnp.asarray(block.sizes))
    whole.append(placement.varying_as(start, arrays))
    first, turn = sample.first_keys(leaves, shapes, block, goal, whole[-1])
    keys.append(first)
    turns.append(turn)
  third = lambda step: step % 3 == 0
  brackets, steps, numbers = passes.search(leaves, blocks, goals, whole, keys, third, nan=True)
  cuts, tie_steps = ties.cuts(leaves, shapes, blocks, goals, brackets)
  nan: dict[str, jax.Array] = {}
  for block, number in zip(blocks, numbers, strict=True):
    flags = jnp.any((number < block.sizes).reshape(len(block.names), -1), axis=1)
    nan |= {name: flags[row] for row, name in enumerate(block.names)}
  number = {'sample': jnp.max(jnp.stack(turns)), 'scores': steps, 'ties': tie_steps}
  return Found(brackets, cuts, nan, number)


def _masks(leaves, shapes, blocks, found):
  arrays = {name: leaf.arrays for name, leaf in leaves.items()}
  arrays, brackets, cuts = lax.optimization_barrier((arrays, found.brackets, found.cuts))
  masks = {}
  for block, bracket, cut in zip(blocks, brackets, cuts, strict=True):
    for row, name in enumerate(block.names):
      shape = block.cells or (1,) * shapes[name].ndim
      level, end = bracket.low[row].reshape(shape), cut[row].reshape(shape)
      place = ties.place_of(shapes[name].shape)
      # One comparison for scores above the threshold and at it: a key used twice would be stored.
      masks[name] = leaves[name].read(arrays[name]) >= level + (place < end).astype(jnp.uint32)
  return masks


def _keys(leaves, old, blocks):
  """Returns how to read each leaf's keys."""

  def keys(read, spare):
    return lambda arrays: ranked_key(read(arrays[0]), arrays[1]) >> spare

  spare = {name: block.spare for block in blocks for name in block.names}
  return {
    name: Leaf(keys(leaf.read, spare[name]), (leaf.arrays, None if old is None else old[name]))
    for name, leaf in leaves.items()
    if name in spare
  }


def _check(shapes, wanted):
  for names, count in wanted.items():
    shape = jnp.shape(count.lo if isinstance(count, Wide) else count)
    if len(names) > 1 and math.prod(shape) != 1:
      raise ValueError(f'the leaves {names} share a threshold: one count is needed, not {shape}')
  for name, score in shapes.items():
    size = math.prod(score.shape)
    if size > counts.LARGEST_LEAF:
      raise ValueError(f'{name!r} has {size} units; a leaf may have {counts.LARGEST_LEAF}')
    if score.dtype == jnp.float64:
      raise ValueError(f'the scores of {name!r} are float64; cast them to float32 to rank them')


def _blocks(shapes, leaves, wanted, devices):
  """Returns the blocks of all leaves that have scores, and their goals.

  All leaves that compete as a whole are one block. So are leaves cut in the same few cells, such as
  their layers; leaves cut in many are one block a kind, because their cells may be divided among
  devices. The search is in the program once a block.
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
    spare = np.uint32(min(leaves[name].spare for name in names))
    blocks.append(Block(tuple(names), each, groups, sizes, devices, spare))
    goals.append(passes.goal_of(blocks[-1], counts.carried(wanted.hi, wanted.lo)))

  if whole:
    ends = np.cumsum([0] + [len(names) for names, _ in whole]).tolist()
    limbs = zip(*(count for names, count in whole for _ in names), strict=True)
    names = [name for group, _ in whole for name in group]
    add(names, tuple(zip(ends[:-1], ends[1:], strict=True)), Wide(*map(jnp.stack, limbs)))
  small = {name: count for name, count in cells.items() if count.size <= FEW_CELLS}
  many = {name: count for name, count in cells.items() if name not in small}
  alike = collections.defaultdict(list)
  for name, count in small.items():
    alike[count.shape].append(name)
  for names in (*alike.values(), *kinds({name: shapes[name] for name in many}, many)):
    count = jnp.stack([cells[name] for name in names])
    add(names, tuple((i, i + 1) for i in range(len(names))), Wide(jnp.zeros_like(count), count))
  return blocks, goals

"""Selection among few scores on one device, by a program that compiles quickly.

The search of `highest.py` reads each leaf by an operation of its own. A small model has as many
leaves as a large one, and compiling would take longer than many of its runs. Its scores cost little
to copy: all leaves that compete as a whole are laid into one table, and those that are cut alike
into another. The threshold is then found three bits at a time, and so is the place of the last
score that stays among those that tie.
"""

import collections
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts, placement
from prunejax.pruning.counts import Wide
from prunejax.pruning.selection import passes, ties
from prunejax.pruning.selection.keys import TOP, ranked_key
from prunejax.pruning.selection.threshold import STEPS

BITS = STEPS.bit_length()  # that a pass finds
WIDTH = 1024  # of a row of leaves that compete as a whole


class Table(NamedTuple):
  """Leaves in one array of rows.

  Attributes:
    keys: uint32 [rows, *axes]. NaN is 1; where a leaf does not fill its last row, keys are 0.
    wanted: int32 [groups, *cells], how many keys stay; a cell has length 1 along the axes on which
      keys compete.
    sizes: int [groups, *cells], how many keys there are, without those that fill rows.
    group: int [rows], the group of each row. Where there are as many groups, each has one row.
    rows: {name of a leaf: its first row and the row behind its last}.
  """

  keys: jax.Array
  wanted: jax.Array
  sizes: np.ndarray
  group: np.ndarray
  rows: dict[str, tuple[int, int]]


def select(scores: dict, wanted: dict, old: dict | None = None) -> tuple[dict, dict]:
  """Selects as `highest.select` does.

  Args:
    scores: {name: array}.
    wanted: see `highest.select`.
    old: see there.

  Returns:
    {name: mask} and {name: bool scalar, some score is NaN}, of the leaves in `wanted` that hold
    scores.
  """
  tables = _tables(scores, wanted, old)
  if not tables:
    return {}, {}
  keys = [table.keys for table in tables]
  goals = placement.varying_as([table.wanted for table in tables], keys)
  every = [jnp.asarray(table.sizes, jnp.int32) for table in tables]
  levels, reached = _highest(tables, keys, goals, every, TOP + np.uint32(1))
  ones = [level[None] + np.uint32(1) for level in levels]
  above = [_count(*item)[0] for item in zip(tables, keys, ones, strict=True)]
  less = lambda a, b: [x - y for x, y in zip(a, b, strict=True)]
  at = [key == _of_rows(*pair) for key, *pair in zip(keys, tables, levels, strict=True)]
  tied = [jnp.where(tie, ties.place_of(tie.shape), np.uint32(0)) for tie in at]
  most = np.uint32(max(key.size for key in keys))
  with jax.named_scope(ties.SCOPE):
    cuts, _ = _highest(tables, tied, less(goals, above), less(reached, above), most)
  masks, nan = {}, {}
  for table, level, tie, cut in zip(tables, levels, tied, cuts, strict=True):
    late = tie < _of_rows(table, cut)
    mask = table.keys >= _of_rows(table, level) + late.astype(jnp.uint32)
    has_nan = jnp.any(table.keys.reshape(len(mask), -1) == 1, 1)
    of_leaf = np.repeat(np.arange(len(table.rows)), [b - a for a, b in table.rows.values()])
    flags = jnp.any(has_nan[None] & (np.arange(len(table.rows))[:, None] == of_leaf), 1)
    for flag, (name, (begin, end)) in zip(flags, table.rows.items(), strict=True):
      nan[name] = flag
      masks[name] = jnp.ravel(mask[begin:end])[: scores[name].size].reshape(scores[name].shape)
  return masks, nan


def _highest(tables, keys, wanted, at_zero, most):
  """A key that the wanted number of keys reach, in each group; else the highest that more reach.

  Args:
    tables: list of Table.
    keys: for each table, uint32 like its keys.
    wanted: for each table, int32 [groups, *cells].
    at_zero: how many keys reach 0, likewise; keys that fill rows or do not tie are left out.
    most: the highest key that there can be.

  Returns:
    For each table uint32 [groups, *cells], most + 1 at most, and int32, how many keys reach it. The
    search ends early where all groups have the wanted number.
  """
  last = most + np.uint32(1)

  def one_pass(carried):
    shift, low, reached = carried
    found = []
    for table, key, goal, start, reach in zip(tables, keys, wanted, low, reached, strict=True):
      number = np.arange(1, STEPS + 1, dtype=np.uint32).reshape((-1,) + (1,) * start.ndim)
      step = number << jnp.maximum(shift, 0).astype(jnp.uint32)
      asked = start[None] + jnp.minimum(step, (last - start)[None])
      count = _count(table, key, asked)
      enough = count >= goal[None]
      higher = jnp.max(jnp.where(enough, asked, start[None]), 0)
      found.append((higher, jnp.min(jnp.where(enough, count, reach[None]), 0)))
    return shift - BITS, [start for start, _ in found], [reach for _, reach in found]

  def searching(carried):
    shift, _, reached = carried
    is_open = [jnp.any(reach != goal) for reach, goal in zip(reached, wanted, strict=True)]
    return (shift > -BITS) & jnp.any(jnp.stack(is_open))

  zero = [jnp.zeros(goal.shape, jnp.uint32) for goal in wanted]
  start = placement.varying_as((zero, at_zero), keys)
  shift = jnp.int32(int(most).bit_length() - BITS)
  return lax.while_loop(searching, one_pass, (shift, *start))[1:]


def _count(table, keys, asked):
  """How many keys reach each of `asked` [numbers, groups, *cells]: int32 of the same shape."""
  at = _of_rows(table, asked, axis=1)
  found = jnp.stack(passes.count(keys, at, 1)).reshape(at.shape)
  if len(table.group) == asked.shape[1]:
    return found
  own = table.group[:, None] == np.arange(asked.shape[1])  # leaves that compete as a whole
  return jnp.sum(jnp.where(own[None], found, 0), 1, dtype=jnp.int32)[..., None]


def _of_rows(table, values, axis=0):
  """The value of the group of each row."""
  if len(table.group) == values.shape[axis]:
    return values
  return jnp.take(values, table.group, axis=axis)


def _tables(scores: dict, wanted: dict, old: dict | None) -> list[Table]:
  """Lays leaves into tables; the arguments are those of `select`."""
  place = {name: i for i, name in enumerate(scores)}
  whole, alike = [], collections.defaultdict(list)
  for names, count in wanted.items():
    names = tuple(sorted((n for n in names if scores[n].size), key=place.__getitem__))
    size = sum(scores[name].size for name in names)
    count = count if isinstance(count, Wide) else counts.widen(jnp.asarray(count, jnp.int32))
    # A search for more than there are would never end early.
    count = counts.clipped(count, np.int32(size // max(count.lo.size, 1)))
    if names and count.size == 1:
      whole.append((names, count))
    elif names:
      shape = scores[names[0]].shape
      cells = (1,) * (len(shape) - count.ndim) + count.shape
      alike[shape, cells].append((names, count))
  tables = [_table(scores, old, whole, (1,))] if whole else []
  return tables + [_table(scores, old, group, cells) for (_, cells), group in alike.items()]


def _table(scores, old, groups, cells):
  """The table of groups of leaves (names, count); a leaf with several cells is a row."""
  names = [name for names, _ in groups for name in names]
  size = {name: scores[name].size for name in names}
  shape = scores[names[0]].shape if math.prod(cells) > 1 else (min(WIDTH, max(size.values())),)
  width = math.prod(shape)
  rows = {name: -(-size[name] // width) for name in names}

  def laid(arrays, dtype, fill):
    parts = []
    for name in names:
      rest = rows[name] * width - size[name]
      parts += [jnp.ravel(arrays[name]).astype(dtype), np.full(rest, fill, dtype)]
    return jnp.concatenate(parts).reshape(-1, *shape)

  old = None if old is None else laid(old, bool, False)
  keys = ranked_key(laid(scores, jnp.float32, 0), old) + np.uint32(1)
  if len(shape) == 1:
    filled = np.concatenate([size[name] - width * np.arange(rows[name]) for name in names])
    is_leaf = lax.broadcasted_iota(jnp.int32, keys.shape, 1) < np.int32(filled)[:, None]
    keys = jnp.where(is_leaf, keys, np.uint32(0))
  ends = np.cumsum([rows[name] for name in names])
  each = math.prod(cells)
  number = [sum(size[name] for name in names) // each for names, _ in groups]
  group = np.repeat(np.arange(len(groups)), [sum(map(rows.get, names)) for names, _ in groups])
  return Table(
    keys,
    jnp.stack([count.reshape(cells) for _, count in groups]),
    np.stack([np.full(cells, n) for n in number]),
    group,
    {name: (int(end) - rows[name], int(end)) for name, end in zip(names, ends, strict=True)},
  )

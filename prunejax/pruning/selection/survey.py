"""The last step of a selection: which scores are left in the bracket, row by row of every leaf.

One pass finds, for each row, how many scores the bracket holds, their largest, their smallest and
their sum. That names up to three scores a row, or any number of equal ones. From these few the
threshold is found exactly, and the position from which ties at the threshold are pruned.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import bracket as brackets
from prunejax.pruning.selection import counts
from prunejax.pruning.selection.bracket import Bracket, Goal, rows, sums

TAIL = 32  # a row is as many trailing axes as hold this many scores
_STEPS = np.arange(1, 8, dtype=np.int32)


class Seen(NamedTuple):
  """Scores of the bracket by row, of all blocks whose rows lie alike: `keys` and how often each
  occurs, three [problems, *lead] each; `lost` are rows with scores that are not named, `nan` those
  with a score that is NaN.
  """

  keys: tuple
  times: tuple
  lost: jax.Array
  nan: jax.Array


class Edge(NamedTuple):
  """Where problems are cut, vectors over problems: the key of the lowest score kept (uint32), how
  many scores lie above it, how many at it and how many of these stay (int32), and where (uint32: a
  tie at flat position p stays if p < cut).
  """

  key: jax.Array
  above: jax.Array
  tied: jax.Array
  needed: jax.Array
  cut: jax.Array


def lead(shape) -> int:
  """How many leading axes tell the rows of a leaf apart."""
  axis = len(shape) - 1
  while axis and math.prod(shape[axis:]) < TAIL:
    axis -= 1
  return axis


def room(shapes) -> np.ndarray:
  """How many scores a problem's bracket may hold for rows with more than three to be rare, [problems]."""
  return np.array(
    [max(3, math.prod(shape[: lead(shape)]) // 5) for count, shape in shapes for _ in range(count)],
    np.float32,
  )


def look(keys: list, low, high, kinds) -> list[Seen]:
  """What the bracket [low, high) (one a problem) holds; rows of blocks of one kind are stacked."""
  found, row = [], 0
  for key in keys:
    inside = (key >= rows(low, row, key)) & (key < rows(high, row, key))
    here = jnp.where(inside, key, np.uint32(0))
    parts = (here, jnp.where(inside, ~key, np.uint32(0)), here, inside.astype(jnp.int32))
    parts += ((key == 0).astype(jnp.int32),)
    zeros = (np.uint32(0),) * 3 + (np.int32(0),) * 2
    found.append(lax.reduce(parts, zeros, _joined, tuple(range(1 + lead(key.shape[1:]), key.ndim))))
    row += len(key)
  return [_named(*parts) for parts in neighbours(found, kinds)]


def _joined(a, b):
  return jnp.maximum(a[0], b[0]), jnp.maximum(a[1], b[1]), a[2] + b[2], a[3] + b[3], a[4] + b[4]


def neighbours(found: list, kinds) -> list:
  """Tuples of arrays [problems, *rest], those of one kind joined. Others are not, though their rest be
  the same: they may lie on a mesh in another way, and would be moved to lie alike.
  """
  runs = {}
  for kind, parts in zip(kinds, found, strict=True):
    runs.setdefault(kind, []).append(parts)
  return [tuple(jnp.concatenate(part) for part in zip(*run, strict=True)) for run in runs.values()]


def _named(most, inverse, total, times, nan) -> Seen:
  least = ~inverse
  equal = (most == least) & (times > 0)
  once = lambda n: (~equal & (times >= n) & (times <= 3)).astype(jnp.int32)
  # Sums of keys wrap around, and so does the difference: the third of three is exact.
  return Seen(
    (most, least, total - most - least),
    (jnp.where(equal, times, once(2)), once(2), once(3)),
    ~equal & (times > 3),
    nan > 0,
  )


def nans(seen: list[Seen]):
  """bool [problems]: some score is NaN."""
  return jnp.concatenate([jnp.any(s.nan, tuple(range(1, s.nan.ndim))) for s in seen])


def resolved(seen: list[Seen], goal: Goal):
  """bool [problems] (or [1] for a common goal): every score in the bracket is named."""
  lost = jnp.concatenate([jnp.any(s.lost, tuple(range(1, s.lost.ndim))) for s in seen])
  return ~jnp.any(lost, keepdims=True) if goal.common else ~lost


def tightened(bracket: Bracket, seen: list[Seen], goal: Goal) -> Bracket:
  """The bracket without the empty stretches at its ends: no count changes."""
  over = lambda fn, field, empty: jnp.concatenate(
    [fn(jnp.where(_any(s), s.keys[field], empty), tuple(range(1, s.lost.ndim))) for s in seen]
  )
  most, least = over(jnp.max, 0, np.uint32(0)), over(jnp.min, 1, brackets.TOP)
  if goal.common:
    most, least = jnp.max(most, keepdims=True), jnp.min(least, keepdims=True)
  some = least <= most
  return bracket._replace(
    low=jnp.where(some, jnp.maximum(least, bracket.low), bracket.low),
    high=jnp.where(some, jnp.minimum(most + 1, bracket.high), bracket.high),
  )


def _any(s):
  return s.lost | (s.times[0] > 0)


def closed(bracket: Bracket, seen: list[Seen], goal: Goal) -> Bracket:
  """The bracket of the one key, found among the scores that are named."""

  def counted(thresholds):
    each = goal.each(thresholds, len(bracket.above))
    return _weigh(seen, each, lambda key, threshold: key >= threshold) + bracket.above[:, None]

  def one_pass(narrow):
    part = jnp.maximum((narrow.high - narrow.low) >> 3, 1)[:, None]
    thresholds = jnp.minimum(
      narrow.low[:, None] + part * np.arange(1, 8, dtype=np.uint32), narrow.high[:, None]
    )
    return brackets.narrowed(narrow, thresholds, counted(thresholds), goal)

  # `above` of the loop follows its bracket; what is named is counted from the bracket it began with.
  return lax.while_loop(lambda b: jnp.any(b.high - b.low > 1), one_pass, bracket)


def tied(bracket: Bracket, seen: list[Seen], goal: Goal) -> jax.Array:
  """int32 [problems]: scores at the key of a closed bracket."""
  key = goal.each(bracket.low, len(bracket.above))
  return _weigh(seen, key[:, None], lambda a, b: a == b)[:, 0]


def _weigh(seen, thresholds, holds):
  """int32 [problems, n]: how many named scores hold against each threshold."""
  found, row = [], 0
  for s in seen:
    columns = []
    for i in range(thresholds.shape[1]):
      at = rows(thresholds[:, i], row, s.lost)
      hits = sum(
        jnp.where(holds(key, at), times, 0) for key, times in zip(s.keys, s.times, strict=True)
      )
      columns.append(hits)
    found.append(jnp.stack(sums(columns), 1))
    row += len(s.lost)
  return jnp.concatenate(found)


def tie_rows(seen: list[Seen], key) -> list:
  """int32 [problems, *lead] of each stack: ties at `key` (one a problem) in every row."""
  found, row = [], 0
  for s in seen:
    at = rows(key, row, s.lost)
    found.append(sum(jnp.where(k == at, t, 0) for k, t in zip(s.keys, s.times, strict=True)))
    row += len(s.lost)
  return found


def cut(ties: list, needed, read_ties, shapes) -> jax.Array:
  """uint32 [problems]: the flat position before which ties stay, so that exactly `needed` do.

  Args:
    ties: int32 [problems, *lead] of each stack: ties by row.
    needed: int32 [problems], at most as many as there are.
    read_ties: a function of lead positions, uint32 [problems], to flags [problems, tail], in order.
    shapes: (problems, shape of one) of each block.
  """
  row, before = _prefix(ties, needed)
  tails = [math.prod(shape[lead(shape) :]) for _, shape in shapes]
  tail = np.concatenate(
    [np.full(count, size) for (count, _), size in zip(shapes, tails, strict=True)]
  )
  rest = needed - before

  def inside():
    last = np.concatenate(
      [np.full(count, math.prod(shape[: lead(shape)]) - 1) for count, shape in shapes]
    )
    flags = read_ties(jnp.minimum(row, last.astype(np.int32)).astype(jnp.uint32))
    return _prefix([flag.astype(jnp.int32) for flag in flags], rest - 1)[0] + 1

  column = lax.cond(jnp.any(rest > 0), inside, lambda: jnp.zeros_like(row))
  column = jnp.where(rest > 0, column, 0)
  return row.astype(jnp.uint32) * tail.astype(np.uint32) + column.astype(jnp.uint32)


def _prefix(weights: list, needed):
  """For each problem the largest r so that positions before r weigh at most `needed`, and what they
  weigh: both int32.
  """
  places = [_place(w.shape[1:]) for w in weights]
  size = np.concatenate([np.full(len(w), math.prod(w.shape[1:])) for w in weights]).astype(np.int32)

  def weighed(ends):
    found, row = [], 0
    for w, place in zip(weights, places, strict=True):
      part = [jnp.where(place < rows(ends[:, i], row, w), w, 0) for i in range(ends.shape[1])]
      found.append(jnp.stack(sums(part), 1))
      row += len(w)
    return jnp.concatenate(found)

  def one_pass(carried):
    low, high = carried
    ends = jnp.minimum(
      low[:, None] + jnp.maximum((high - low) >> 3, 1)[:, None] * _STEPS, high[:, None]
    )
    fits = jnp.sum(weighed(ends) <= needed[:, None], 1, dtype=jnp.int32)
    ladder = jnp.concatenate([low[:, None], ends, high[:, None]], 1)
    pick = lambda index: jnp.sum(
      jnp.where(np.arange(9) == index[:, None], ladder, 0), 1, dtype=jnp.int32
    )
    return pick(fits), pick(fits + 1)

  whole = weighed(jnp.asarray(size)[:, None])[:, 0] <= needed
  low = jnp.where(whole, size, 0)
  high = jnp.where(whole, size + 1, size)
  low, _ = lax.while_loop(lambda c: jnp.any(c[1] - c[0] > 1), one_pass, (low, high))
  return low, weighed(low[:, None])[:, 0]


def _place(shape):
  """int32 flat positions, without an array in memory."""
  place, stride = jnp.zeros(shape, jnp.int32), 1
  for axis in reversed(range(len(shape))):
    place = place + lax.broadcasted_iota(jnp.int32, shape, axis) * np.int32(stride)
    stride *= shape[axis]
  return place


def positions(shape):
  """uint32 flat positions of a leaf, without an array in memory."""
  return _place(shape).astype(jnp.uint32)


def decided(above, tied, goal: Goal, order) -> jax.Array:
  """int32 [problems]: how many of the scores `tied` at its edge a problem keeps, with `above` above it.

  A common goal serves problems in `order` (the place of each among the leaves).
  """
  if not goal.common:
    return counts.narrow(goal.kept) - above
  return served(counts.subtract(goal.kept, counts.total(counts.widen(above[:, None]))), tied, order)


def served(missing: counts.Wide, tied, order) -> jax.Array:
  """int32 [problems]: how many of its `tied` each problem keeps of `missing` in all, problems served in `order`."""
  before = jax.tree.map(
    lambda limb: limb[order], counts.running(counts.widen(tied[np.argsort(order)]))
  )
  return counts.clipped(counts.subtract(missing, before), tied)

"""Where the lowest score kept must lie: a bracket of keys that every pass over the scores narrows.

Each pass counts the scores at or above seven thresholds, so the bracket is always right, whatever
chose the thresholds. They are chosen well by three guides in turn: quantiles of a small sample, then
straight-line interpolation between the known counts, then eight equal parts, which bound the number
of passes for any data.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import counts

TOP = np.uint32(0xFF800001)  # above the key of inf
SAMPLE = 8192  # scores of a leaf that guide the first pass
_STEPS = np.arange(1, 8, dtype=np.uint32)


class Goal(NamedTuple):
  """How many scores stay: of every problem (`common` False), or of all problems together."""

  kept: counts.Wide
  common: bool

  def whole(self, found) -> counts.Wide:
    """Counts by problem, int32 [problems, ...], as the counts that the goal is about."""
    return counts.total(counts.widen(found[:, None])) if self.common else counts.widen(found)

  def each(self, values, problems):
    """Values of the goal's brackets, one for every problem."""
    return jnp.broadcast_to(values, (problems, *values.shape[1:])) if self.common else values


class Bracket(NamedTuple):
  """The key of the lowest score kept is in [low, high); uint32 [problems], or [1] for a common goal.

  `at_low` >= kept > `at_high` are the scores at or above either end; `above` is int32 [problems],
  those of each problem at or above `high`.
  """

  low: jax.Array
  high: jax.Array
  at_low: counts.Wide
  at_high: counts.Wide
  above: jax.Array

  @property
  def inside(self):
    """How many scores lie in the bracket, float32: a guess is made of it, no decision."""
    return to_float(counts.subtract(self.at_low, self.at_high))


def start(sizes: list[int], goal: Goal) -> Bracket:
  whole = counts.wide(sum(sizes) if goal.common else sizes)
  whole = counts.Wide(*(jnp.reshape(limb, (-1,)) for limb in whole))
  nothing = (goal.kept.hi == 0) & (goal.kept.lo == 0)
  none = jax.tree.map(jnp.zeros_like, whole)
  low = jnp.where(nothing, TOP, np.uint32(0))
  at_low = jax.tree.map(lambda a: jnp.where(nothing, 0, a), whole)
  return Bracket(low, jnp.full_like(low, TOP), at_low, none, jnp.zeros(len(sizes), jnp.int32))


def narrowed(bracket: Bracket, thresholds, found, goal: Goal) -> Bracket:
  """The bracket after `found` scores (int32 [problems, n]) were counted at or above rising
  `thresholds` [., n].
  """
  whole = goal.whole(found)
  reached = counts.at_least(whole, jax.tree.map(lambda limb: limb[:, None], goal.kept))
  rung = jnp.sum(reached, axis=1, dtype=jnp.int32)
  ladder = lambda first, middle, last: jnp.concatenate([first[:, None], middle, last[:, None]], 1)
  pick = functools.partial(_pick, rung)
  keys = ladder(bracket.low, thresholds, bracket.high)
  all_counts = jax.tree.map(ladder, bracket.at_low, whole, bracket.at_high)
  above = jnp.concatenate([found, bracket.above[:, None]], 1)
  return Bracket(
    pick(keys),
    _pick(rung + 1, keys),
    jax.tree.map(pick, all_counts),
    jax.tree.map(functools.partial(_pick, rung + 1), all_counts),
    _pick(goal.each(rung, len(above)), above),
  )


def _pick(index, table):
  """table[i, index[i]], without a gather."""
  hit = np.arange(table.shape[1]) == index[:, None]
  return jnp.sum(jnp.where(hit, table, 0), axis=1, dtype=table.dtype)


def sample(keys: list, goal: Goal) -> jax.Array:
  """Keys at fixed places, uint32: [problems, SAMPLE], or [1, as many in all] for a common goal, where
  a leaf's share follows its size.
  """
  sizes = [int(np.prod(key.shape[1:])) for key in keys]
  total = sum(len(key) * size for key, size in zip(keys, sizes, strict=True))
  wanted = SAMPLE * sum(len(key) for key in keys)
  rows = []
  for key, size in zip(keys, sizes, strict=True):
    count = max(1, round(wanted * size / total)) if goal.common else SAMPLE
    # An irrational stride: a plain one would see the same few columns again and again.
    place = np.unravel_index(
      (np.arange(count) * 0.6180339887498949 % 1 * size).astype(np.int64), key.shape[1:]
    )
    rows.append(key[(slice(None), *(jnp.asarray(axis, jnp.int32) for axis in place))])
  return (
    jnp.concatenate([row.reshape(1, -1) for row in rows], 1)
    if goal.common
    else jnp.concatenate(rows)
  )


def grain(drawn) -> jax.Array:
  """The power of two that divides every key of the sample: 2^16 for scores that were bfloat16, more
  where they take few values, 1 for most.
  """
  either = lax.reduce(drawn, np.uint32(0), lax.bitwise_or, (1,))
  return jnp.maximum(either & (~either + 1), 1)


def guess(kind, bracket: Bracket, goal: Goal, drawn, step):
  """Seven rising thresholds in [low, high]: uint32 [., 7]. `kind`: 0 sample, 1 line, 2 equal parts.
  Keys are thought to be multiples of `step`, uint32 [.].
  """
  step = step[:, None]
  guides = (
    lambda: _by_sample(bracket, goal, drawn),
    lambda: _by_line(bracket, goal),
    lambda: _by_parts(bracket),
  )
  found = (lax.switch(kind, guides) + (step - 1)) & ~(step - 1)
  # Where points coincide, the sample saw one value many times: the next key closes the bracket on it.
  points = [found[:, :1]]
  for i in range(1, 7):
    points.append(jnp.maximum(found[:, i : i + 1], points[-1] + step))
  narrow = (bracket.high - bracket.low)[:, None] <= 8 * step
  found = jnp.where(narrow, bracket.low[:, None] + step * _STEPS, jnp.concatenate(points, 1))
  return jnp.clip(found, bracket.low[:, None], bracket.high[:, None])


def _share(bracket, goal):
  """The place of the goal inside the bracket, counted from its top as a share of `inside`."""
  wanted = to_float(counts.subtract(goal.kept, bracket.at_high))
  return jnp.clip(wanted / jnp.maximum(bracket.inside, 1), 0, 1)


def _by_sample(bracket, goal, drawn):
  at_or_above = lambda key: jnp.sum(drawn >= key[:, None], 1, dtype=jnp.int32).astype(jnp.float32)
  over, upto = at_or_above(bracket.high), at_or_above(bracket.low)
  share, seen = _share(bracket, goal), upto - over
  middle, width = over + share * seen, jnp.sqrt(seen * share * (1 - share)) + 0.5
  ranks = jnp.stack([middle + 3 * width, middle, middle - 3 * width], 1)
  low, key, high = jnp.moveaxis(_at_ranks(drawn, jnp.rint(ranks).astype(jnp.int32)), 1, 0)
  low, high = jnp.maximum(low, bracket.low), jnp.minimum(high, bracket.high)
  key = jnp.clip(key, low, high)
  between = lambda a, b, t: a + ((b - a).astype(jnp.float32) * np.float32(t)).astype(jnp.uint32)
  points = [low, between(low, key, 0.6), between(low, key, 0.87), key]
  return jnp.stack([*points, between(key, high, 0.13), between(key, high, 0.4), high], 1)


def _at_ranks(drawn, ranks):
  """For each rank r about the largest key that r keys of the sample reach, TOP for r <= 0; three bits
  a pass, until few keys are left in question.
  """

  def one_pass(carried):
    place, key, _ = carried
    shift = (30 - 3 * place).astype(jnp.uint32)
    steps = _STEPS << shift
    tried = key[:, :, None] + steps
    # Two bits are left of 32 for the first pass: higher steps would wrap around.
    fits = (steps >> shift) == _STEPS
    found = jnp.where(fits, count([drawn], tried.reshape(len(drawn), -1)).reshape(tried.shape), 0)
    digit = jnp.sum((found >= ranks[:, :, None]) & fits, -1, dtype=jnp.int32)
    none = jnp.zeros_like(found[:, :, :1])
    ladder = jnp.concatenate([none + drawn.shape[1], found, none], 2)
    rung = lambda j: jnp.sum(jnp.where(np.arange(9) == j[:, :, None], ladder, 0), -1)
    open_ = jnp.any((rung(digit) - rung(digit + 1) > 4) & (ranks > 0))
    return place + 1, key + (digit.astype(jnp.uint32) << shift), open_

  start = (jnp.int32(0), jnp.zeros(ranks.shape, jnp.uint32), jnp.bool_(True))
  _, found, _ = lax.while_loop(lambda c: (c[0] < 11) & c[2], one_pass, start)
  return jnp.where(ranks <= 0, TOP, found)


def _by_line(bracket, goal):
  share, inside = _share(bracket, goal)[:, None], bracket.inside[:, None]
  spread = (jnp.sqrt(inside * share * (1 - share)) + 0.5) / jnp.maximum(inside, 1)
  place = jnp.clip(
    1 - share + spread * np.array([-3.5, -1.5, -0.5, 0, 0.5, 1.5, 3.5], np.float32), 0, 1
  )
  low, high = (to_score(key)[:, None] for key in (bracket.low, bracket.high))
  line = low + (high - low) * place
  width = (bracket.high - bracket.low)[:, None]
  # Scores in a bracket lie evenly by value, if it is finite at both ends.
  by_key = bracket.low[:, None] + (width.astype(jnp.float32) * place).astype(jnp.uint32)
  bits = lax.bitcast_convert_type(line, jnp.uint32)
  by_value = jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
  return jnp.where(jnp.isfinite(line), by_value, by_key)


def _by_parts(bracket):
  part = jnp.maximum((bracket.high - bracket.low) >> 3, 1)
  return bracket.low[:, None] + part[:, None] * _STEPS


def to_score(key):
  """The float32 score of a key; NaN for the key 0."""
  return lax.bitcast_convert_type(
    jnp.where(key >> 31 == 1, key & np.uint32(0x7FFFFFFF), ~key), jnp.float32
  )


def to_float(count: counts.Wide):
  return count.hi.astype(jnp.float32) * 65536 + count.lo.astype(jnp.float32)


def count(keys: list, thresholds) -> jax.Array:
  """int32 [problems, n]: the keys of every block at or above thresholds [problems, n]."""
  columns, row = [[] for _ in range(thresholds.shape[1])], 0
  for key in keys:
    hits = [
      (key >= rows(thresholds[:, i], row, key)).astype(jnp.int32) for i in range(len(columns))
    ]
    for column, found in zip(columns, sums(hits), strict=True):
      column.append(found)
    row += len(key)
  return jnp.stack([jnp.concatenate(column) for column in columns], 1)


def sums(arrays: list) -> tuple:
  """int32 sums over all axes but the first. One reduction with many outputs fuses with what made its
  inputs; one output alone would not, on CPU.
  """
  add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
  return lax.reduce(
    tuple(arrays), (np.int32(0),) * len(arrays), add, tuple(range(1, arrays[0].ndim))
  )


def rows(vector, row, key):
  """The rows of a vector over problems that belong to `key` [n, ...], shaped to broadcast."""
  return vector[row : row + len(key)].reshape((-1,) + (1,) * (key.ndim - 1))

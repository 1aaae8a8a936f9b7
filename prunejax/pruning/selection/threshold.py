"""The search for a threshold: brackets of keys that every pass over the scores narrows.

A pass counts the scores at or above seven keys. Counts alone decide which part of a bracket stays,
so the result is exact, whatever chose the keys. Straight lines between the known counts choose
them; every third pass takes eight equal parts instead, which bounds the passes for any data.

All arrays here are [leaves, *cells]: one value for each group of scores that competes in a leaf.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning.selection import counts
from prunejax.pruning.selection.counts import Wide
from prunejax.pruning.selection.keys import order_key, to_score

STEPS = 7
_PARTS = np.arange(1, STEPS + 1, dtype=np.uint32)
_SIGMAS = np.array([-3.5, -1.5, -0.5, 0, 0.5, 1.5, 3.5], np.float32)
_EVEN = np.array([0.25, 0.5, 0.75, 1, 0.25, 0.5, 0.75], np.float32)


class Bracket(NamedTuple):
  """The lowest key that stays is in [low, high), both uint32.

  `at_low` and `at_high`, int32, count the leaf's own keys at or above either end. `mean`, uint32, is
  the mean of the keys inside, where `whole` is True; it only guides.
  """

  low: jax.Array
  high: jax.Array
  at_low: jax.Array
  at_high: jax.Array
  mean: jax.Array
  whole: jax.Array


class Goal(NamedTuple):
  """How many scores stay in every group: `wanted`, and the sum over the leaves of a group.

  `total` maps int32 [..., leaves, *cells] to Wide counts of the groups, one for each leaf; `wrapped`
  maps uint32 to uint32 sums modulo 2^32. `line` says that keys are float32 scores, which lie evenly
  by value rather than by key.
  """

  wanted: Wide
  total: Callable
  wrapped: Callable
  line: bool


def start(low, high, at_low, goal: Goal) -> Bracket:
  """Returns the bracket of all keys: `at_low` of them are in [low, high)."""
  nothing = (goal.wanted.hi == 0) & (goal.wanted.lo == 0)
  return Bracket(
    jnp.where(nothing, high, low),
    high,
    jnp.where(nothing, 0, at_low),
    jnp.zeros_like(at_low),
    low,
    jnp.zeros(low.shape, bool),
  )


def settled(bracket: Bracket, goal: Goal):
  """Bool: exactly the wanted scores are at or above `low`."""
  at_low = goal.total(bracket.at_low)
  return (at_low.hi == goal.wanted.hi) & (at_low.lo == goal.wanted.lo)


def done(bracket: Bracket, goal: Goal):
  """Bool: settled, or the bracket holds one key, whose scores are ties."""
  return settled(bracket, goal) | (bracket.high - bracket.low <= 1)


def inside(bracket: Bracket, goal: Goal):
  """Float32: how many scores of the group the bracket holds."""
  return to_float(counts.subtract(goal.total(bracket.at_low), goal.total(bracket.at_high)))


def narrowed(bracket: Bracket, goal: Goal, keys, found, spread) -> Bracket:
  """Returns the bracket after one pass.

  Args:
    keys: rising uint32 [STEPS, leaves, *cells] in [low, high].
    found: int32 of the same shape, the leaf's scores at or above each.
    spread: uint32 [leaves, *cells], the leaf's sum of `key - low` over the bracket, modulo 2^32.
  """
  ladder = jnp.concatenate([bracket.low[None], keys, bracket.high[None]])
  rungs = jnp.concatenate([bracket.at_low[None], found, bracket.at_high[None]])
  wanted = jax.tree.map(lambda limb: limb[None], goal.wanted)
  rung = jnp.sum(counts.at_least(goal.total(found), wanted), 0, dtype=jnp.int32)
  low, high = _pick(ladder, rung), _pick(ladder, rung + 1)
  at_low, at_high = _pick(rungs, rung), _pick(rungs, rung + 1)
  many = counts.subtract(goal.total(bracket.at_low), goal.total(bracket.at_high))
  fits = to_float(many) * (bracket.high - bracket.low).astype(jnp.float32) < 2.0**31
  number = jnp.maximum(counts.narrow(many), 1).astype(jnp.uint32)
  left = counts.subtract(goal.total(at_low), goal.total(at_high))
  moved = Bracket(
    low,
    high,
    at_low,
    at_high,
    bracket.low + goal.wrapped(spread) // number,
    fits & (left.hi == many.hi) & (left.lo == many.lo),
  )
  still = done(bracket, goal)
  return jax.tree.map(lambda old, new: jnp.where(still, old, new), bracket, moved)


def _pick(table, index):
  """table[index[i], i], without a gather."""
  rung = np.arange(len(table), dtype=np.int32).reshape((-1,) + (1,) * index.ndim)
  return jnp.sum(jnp.where(rung == index[None], table, 0), 0, dtype=table.dtype)


def guess(bracket: Bracket, goal: Goal, parts, sigma=None):
  """Returns rising keys to count at: uint32 [STEPS, leaves, *cells] in [low, high].

  Args:
    parts: bool scalar, True for equal parts.
    sigma: float32, how far off the line may be, in scores; by default the square-root law.
  """
  low, high = bracket.low, bracket.high
  many = jnp.maximum(inside(bracket, goal), 0)
  rank = to_float(counts.subtract(goal.wanted, goal.total(bracket.at_high)))
  middle = 1 - jnp.clip((rank + 0.5) / (many + 1), 0, 1)
  if sigma is None:
    sigma = jnp.sqrt(many * middle * (1 - middle)) + 0.5
  sigma = jnp.broadcast_to(sigma, low.shape)
  low, high, many, middle, sigma, mean, whole = (
    values[None] for values in (low, high, many, middle, sigma, bracket.mean, bracket.whole)
  )
  column = lambda values: values.reshape((-1,) + (1,) * (low.ndim - 1))
  reach = middle + column(_SIGMAS) * sigma / (many + 1)
  even = column(_EVEN)
  below = jnp.maximum(reach, middle * even)
  above = jnp.minimum(reach, middle + (1 - middle) * even)
  place = jnp.where(column(_SIGMAS) <= 0, below, above)
  width = high - low
  by_key = low + (width.astype(jnp.float32) * place).astype(jnp.uint32)
  if goal.line:
    first, last = to_score(low), to_score(high)
    value = first + (last - first) * place
    by_key = jnp.where(jnp.isfinite(value), order_key(value), by_key)
  steps = column(_PARTS)
  equal = low + jnp.maximum(width >> 3, 1) * steps
  keys = jnp.where(parts | (width <= 8), equal, by_key)
  keys = jnp.clip(keys, low, high)
  ends = jnp.where(
    column(np.arange(STEPS)) <= 3,
    jnp.minimum(keys, mean),
    jnp.maximum(keys, mean + 1),
  )
  exact = column(np.arange(STEPS)) == 3
  ends = jnp.where(exact, mean, ends)
  ends = jnp.where(column(np.arange(STEPS)) == 4, mean + 1, ends)
  return jnp.where(whole, ends, keys)


def to_float(count: Wide):
  """Returns float32 counts: for guesses only."""
  return count.hi.astype(jnp.float32) * 65536 + count.lo.astype(jnp.float32)

"""The search for a threshold: brackets of keys that every pass over the scores narrows.

A pass counts the scores at or above seven keys. Counts alone decide which part of a bracket stays,
so the result is exact, whatever chose the keys. Straight lines between the known counts choose
them; every third pass takes eight equal parts instead, which bounds the passes for any data.

Arrays are [leaves, *cells] unless said otherwise: one value for each group of scores that competes
in a leaf.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning.selection import counts
from prunejax.pruning.selection.counts import Wide
from prunejax.pruning.selection.keys import order_key, to_score

STEPS = 7  # keys that a pass counts at: a pass of eleven costs more than it saves
_SIGMAS = np.array([-3.5, -1.5, -0.5, 0, 0.5, 1.5, 3.5], np.float32)
_EVEN = np.array([0.25, 0.5, 0.75, 1, 0.25, 0.5, 0.75], np.float32)


class Bracket(NamedTuple):
  """The lowest key that stays is in [low, high), both uint32.

  `at_low` and `at_high`, int32, count the leaf's own keys at or above either end. Where `has_mean`
  is True, `mean`, uint32, is the mean of the keys inside. It guides the search and decides nothing.
  """

  low: jax.Array
  high: jax.Array
  at_low: jax.Array
  at_high: jax.Array
  mean: jax.Array
  has_mean: jax.Array


class Goal(NamedTuple):
  """How many scores stay in each group, and how counts of leaves add up to counts of groups.

  `wanted` is Wide. `total` maps int32 [..., leaves, *cells] to the Wide counts of the leaf's group;
  `wrapped` maps uint32 to the group's sum modulo 2^32. `by_value` says that keys are float32
  scores, which are spread evenly by value rather than by key.
  """

  wanted: Wide
  total: Callable
  wrapped: Callable
  by_value: bool


def start(low, high, at_low, goal: Goal) -> Bracket:
  """Returns the bracket of all keys: `at_low` of them are in [low, high)."""
  nothing = (goal.wanted.hi == 0) & (goal.wanted.lo == 0)
  none = jnp.zeros_like(at_low)
  return Bracket(
    jnp.where(nothing, high, low), high, jnp.where(nothing, 0, at_low), none, low, none > 0
  )


def settled(bracket: Bracket, goal: Goal):
  """Returns bool: exactly the wanted number of scores is at or above `low`."""
  return _equal(goal.total(bracket.at_low), goal.wanted)


def done(bracket: Bracket, goal: Goal):
  """Returns bool: settled, or the bracket holds one key, whose scores tie."""
  return settled(bracket, goal) | (bracket.high - bracket.low <= 1)


def inside(bracket: Bracket, goal: Goal) -> Wide:
  """Returns how many scores of the group the bracket holds."""
  return counts.subtract(goal.total(bracket.at_low), goal.total(bracket.at_high))


def narrowed(bracket: Bracket, goal: Goal, keys, found, sums) -> Bracket:
  """Returns the bracket after one pass; brackets that are done stay as they are.

  Args:
    bracket: the bracket before the pass.
    goal: how many scores stay.
    keys: rising uint32 [STEPS, leaves, *cells] in [low, high].
    found: int32 of the same shape, the leaf's scores at or above each.
    sums: uint32 [leaves, *cells], the leaf's sum of `key - low` over the bracket, modulo 2^32.
  """
  ladder = jnp.concatenate([bracket.low[None], keys, bracket.high[None]])
  rungs = jnp.concatenate([bracket.at_low[None], found, bracket.at_high[None]])
  wanted = jax.tree.map(lambda limb: limb[None], goal.wanted)
  rung = jnp.sum(counts.at_least(goal.total(found), wanted), 0, dtype=jnp.int32)
  many = inside(bracket, goal)
  fits = to_float(many) * (bracket.high - bracket.low).astype(jnp.float32) < 2.0**31
  mean = goal.wrapped(sums) // jnp.maximum(counts.narrow(many), 1).astype(jnp.uint32)
  after = Bracket(
    _pick(ladder, rung),
    _pick(ladder, rung + 1),
    _pick(rungs, rung),
    _pick(rungs, rung + 1),
    bracket.low + mean,
    fits,
  )
  # The mean was that of the old bracket: it holds for the new one if no score has left.
  after = after._replace(has_mean=fits & _equal(inside(after, goal), many))
  still = done(bracket, goal)
  return jax.tree.map(lambda old, new: jnp.where(still, old, new), bracket, after)


def _equal(a: Wide, b: Wide):
  return (a.hi == b.hi) & (a.lo == b.lo)


def _pick(table, index):
  """Returns table[index[i], i], without a gather."""
  rung = _column(np.arange(len(table), dtype=np.int32), index.ndim)
  return jnp.sum(jnp.where(rung == index[None], table, 0), 0, dtype=table.dtype)


def _column(values, ndim):
  return values.reshape((-1,) + (1,) * ndim)


def guess(bracket: Bracket, goal: Goal, parts, sigma=None):
  """Returns rising keys to count at: uint32 [STEPS, leaves, *cells] in [low, high].

  Args:
    bracket: what is known so far.
    goal: how many scores stay.
    parts: bool scalar, True for equal parts.
    sigma: float32, how far off the line may be, in scores; by default the square-root law.
  """
  many = jnp.maximum(to_float(inside(bracket, goal)), 0)
  rank = to_float(counts.subtract(goal.wanted, goal.total(bracket.at_high)))
  middle = 1 - jnp.clip((rank + 0.5) / (many + 1), 0, 1)
  sigma = jnp.sqrt(many * middle * (1 - middle)) + 0.5 if sigma is None else sigma
  low, high, mean, middle, reach = (
    x[None] for x in (bracket.low, bracket.high, bracket.mean, middle, sigma / (many + 1))
  )
  sigmas, even, step = (
    _column(x, bracket.low.ndim) for x in (_SIGMAS, _EVEN, np.arange(STEPS, dtype=np.uint32))
  )
  below = jnp.maximum(middle + sigmas * reach, middle * even)
  above = jnp.minimum(middle + sigmas * reach, middle + (1 - middle) * even)
  place, width = jnp.where(step <= 3, below, above), high - low
  line = low + (width.astype(jnp.float32) * place).astype(jnp.uint32)
  if goal.by_value:
    first, last = to_score(low), to_score(high)
    value = first + (last - first) * place
    line = jnp.where(jnp.isfinite(value), order_key(value), line)
  equal = low + jnp.maximum(width >> 3, 1) * (step + 1)
  keys = jnp.clip(jnp.where(parts | (width <= 8), equal, line), low, high)
  # The mean parts two scores that differ, and is the key of all where they do not.
  around = jnp.where(step < 4, jnp.minimum(keys, mean), jnp.maximum(keys, mean + 1))
  around = jnp.where(step == 3, mean, jnp.where(step == 4, mean + 1, around))
  return jnp.where(bracket.has_mean[None], around, keys)


def to_float(count: Wide):
  """Returns float32 counts: for guesses only."""
  return count.hi.astype(jnp.float32) * 65536 + count.lo.astype(jnp.float32)

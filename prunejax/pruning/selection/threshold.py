"""The search for a threshold: brackets of keys that every pass over the scores narrows.

A pass counts the scores at or above seven keys. The counts decide which part of a bracket stays, so
the result is exact, whatever chose the keys.

Arrays are [leaves, *cells] unless said otherwise: one value for each group of scores that competes
in a leaf.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts
from prunejax.pruning.counts import Wide

STEPS = 7  # keys that a pass counts at
SIGMAS = (-2.7, -1.3, -0.5, 0, 0.5, 1.3, 2.7)  # their distances from the straight line
SHARES = (0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75)  # at most, of the way to the end of the bracket
FEW = 4  # scores that are parted best by equal parts


class Bracket(NamedTuple):
  """The lowest key that stays is in [low, high), both uint32.

  `at_low` and `at_high`, int32, count the leaf's own keys at or above either end. `lumps`, bool:
  the last pass left more scores inside than it would have left of evenly spread ones. It guides
  the search and decides nothing.
  """

  low: jax.Array
  high: jax.Array
  at_low: jax.Array
  at_high: jax.Array
  lumps: jax.Array


class Goal(NamedTuple):
  """How many scores stay in each group, and how counts of leaves add up to counts of groups.

  `wanted` is Wide. `total` maps int32 [..., leaves, *cells] to the Wide counts of the leaf's group.
  """

  wanted: Wide
  total: Callable


def start(low, high, at_low) -> Bracket:
  """Returns the bracket of all keys: `at_low` of them are in [low, high)."""
  none = jnp.zeros_like(at_low)
  return Bracket(low, high, at_low, none, none > 0)


def settled(bracket: Bracket, goal: Goal):
  """Returns bool: exactly the wanted number of scores is at or above `low`."""
  return _equal(goal.total(bracket.at_low), goal.wanted)


def done(bracket: Bracket, goal: Goal):
  """Returns bool: an end leaves the wanted number, or the bracket holds one key, which ties."""
  ends = settled(bracket, goal) | _equal(goal.total(bracket.at_high), goal.wanted)
  return ends | (bracket.high - bracket.low <= 1)


def ended(bracket: Bracket, goal: Goal) -> Bracket:
  """Returns a bracket that is done, with `low` at the end that leaves the wanted number, if any."""
  above = _equal(goal.total(bracket.at_high), goal.wanted)
  return bracket._replace(
    low=jnp.where(above, bracket.high, bracket.low),
    at_low=jnp.where(above, bracket.at_high, bracket.at_low),
  )


def inside(bracket: Bracket, goal: Goal) -> Wide:
  """Returns how many scores of the group the bracket holds."""
  return counts.subtract(goal.total(bracket.at_low), goal.total(bracket.at_high))


def narrowed(bracket: Bracket, goal: Goal, keys, found) -> Bracket:
  """Returns the bracket after one pass; brackets that are done stay as they are.

  Args:
    bracket: the bracket before the pass.
    goal: how many scores stay.
    keys: uint32 [STEPS, leaves, *cells] in [low, high], in any order.
    found: int32 of the same shape, the leaf's scores at or above each.
  """
  enough = counts.at_least(goal.total(found), jax.tree.map(lambda limb: limb[None], goal.wanted))
  # Counts fall as keys rise.
  highest = lambda flag, values, other: jnp.maximum(jnp.max(jnp.where(flag, values, 0), 0), other)
  lowest = lambda flag, values, other: jnp.min(jnp.where(flag, values, other[None]), 0)
  after = Bracket(
    highest(enough, keys, bracket.low),
    lowest(~enough, keys, bracket.high),
    lowest(enough, found, bracket.at_low),
    highest(~enough, found, bracket.at_high),
    bracket.lumps,
  )
  # The square-root law with a margin of 4.
  left, before = to_float(inside(after, goal)), to_float(inside(bracket, goal))
  after = after._replace(lumps=left * left > 16 * (before + 1))
  still = done(bracket, goal)
  return jax.tree.map(lambda old, new: jnp.where(still, old, new), bracket, after)


def guess(bracket: Bracket, goal: Goal, parts, sigma=None, sigmas=SIGMAS):
  """Returns keys to count at: uint32 [STEPS, leaves, *cells] in [low, high].

  The keys lie around the straight line between the known counts, or they cut the bracket in equal
  parts, which bound the number of passes for any data.

  Args:
    bracket: what is known so far.
    goal: how many scores stay.
    parts: bool scalar, True for equal parts in any case.
    sigma: float32, how far off the line may be, in scores; by default the square-root law.
    sigmas: the distances of the keys from the line, in `sigma`.
  """
  many = jnp.maximum(to_float(inside(bracket, goal)), 0)
  rank = to_float(counts.subtract(goal.wanted, goal.total(bracket.at_high)))
  middle = 1 - jnp.clip((rank + 0.5) / (many + 1), 0, 1)
  sigma = jnp.sqrt(many * middle * (1 - middle)) + 0.5 if sigma is None else sigma
  unit, width = (sigma / (many + 1))[None], bracket.high - bracket.low
  low, high = bracket.low[None], bracket.high[None]
  column = lambda values: np.asarray(values, np.float32).reshape((-1,) + (1,) * width.ndim)
  to_key = lambda share: jnp.rint(width[None].astype(jnp.float32) * share).astype(jnp.uint32)
  reach = column(sigmas)
  side = jnp.where(reach < 0, middle[None], 1 - middle[None])
  line = middle[None] + jnp.sign(reach) * jnp.minimum(jnp.abs(reach) * unit, column(SHARES) * side)
  # Windows side by side, which hold every key of the bracket.
  number, half = column(range(1, STEPS + 1)).astype(jnp.uint32), width[None] // (2 * STEPS)
  window = jnp.where(number == STEPS, high - 1 - half, low + 1 + half * (2 * number - 1))
  equal = jnp.where(half == 0, low + number, window)
  # Where every key has one score, the line is exact.
  exact = many == width.astype(jnp.float32)
  equally = (parts | (bracket.lumps & ~exact) | (many <= FEW) | (width <= 8))[None]
  # Scores are often round numbers, so that round keys part them best.
  keys = jnp.where(equally, equal, low + to_key(line))
  slack = to_key(jnp.where(exact, 0, 0.1 * unit))
  keys = _roundest(keys, jnp.where(equally, half, slack))
  # All that is left in a bracket of round numbers lies at its lower end.
  at_low = (bracket.lumps & ~exact & jnp.logical_not(parts))[None] & (column(range(STEPS)) == 0)
  return jnp.clip(jnp.where(at_low, low + 1, keys), low, high)


def _roundest(key, slack):
  """Returns the number with the most zeros at its end among those `slack` or less from `key`."""
  slack = jnp.minimum(slack, jnp.minimum(key - 1, ~key))
  top, bottom = key + slack, key - slack - 1
  return top & (np.uint32(0xFFFFFFFF) << (31 - lax.clz(top ^ bottom)))


def to_float(count: Wide):
  """Returns float32 counts: for guesses only."""
  return count.hi.astype(jnp.float32) * 65536 + count.lo.astype(jnp.float32)


def _equal(a: Wide, b: Wide):
  return (a.hi == b.hi) & (a.lo == b.lo)

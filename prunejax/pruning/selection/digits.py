"""Selection for trees of few scores: the threshold digit by digit, three bits a pass, eleven passes.

Where all scores fit into a cache, passes are cheap and a small program is worth more than a short
one: this one has no branch that depends on the data.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import bracket as brackets
from prunejax.pruning.selection import counts, survey
from prunejax.pruning.selection.bracket import Goal

_DIGITS = np.arange(1, 8, dtype=np.uint32)


def find(keys: list, sizes: list[int], order, goal: Goal) -> tuple[survey.Edge, jax.Array]:
  """The edges of keys in blocks [problems, *shape], and bool [problems]: some score is NaN."""

  def enough(found):
    reached = counts.at_least(
      goal.whole(found), jax.tree.map(lambda limb: limb[:, None], goal.kept)
    )
    return goal.each(reached, len(found))

  nan = jnp.concatenate([jnp.any(key == 0, tuple(range(1, key.ndim))) for key in keys])
  key, above, tied, keys = _search(keys, sizes, enough, 11)
  key = jnp.minimum(key, brackets.TOP)  # where nothing is kept
  needed = survey.decided(above, tied, goal, order)
  passes = -(-max(sizes).bit_length() // 3)

  def places(row, block):
    place = np.uint32(math.prod(block.shape[1:])) - survey.positions(block.shape[1:])
    return jnp.where(block == brackets.rows(key, row, block), place, np.uint32(0))

  # Ties stay from the first position on: the place, counted from the end, down to which they do.
  wanted = jnp.where(jnp.any((needed > 0) & (needed < tied)), passes, 0)
  place, *_ = _search(keys, sizes, lambda found: found >= needed[:, None], passes, wanted, places)
  size = jnp.asarray(sizes, jnp.uint32)
  cut = jnp.where(needed == 0, 0, jnp.where(needed >= tied, size, size - place + 1))
  return survey.Edge(key, above, tied, needed, cut.astype(jnp.uint32)), nan


def _search(keys, sizes, reached, passes, wanted=None, seen=lambda row, key: key):
  """For each problem the largest uint32 for which `reached(counts at or above it)` holds, how many
  lie above it, how many at it; and the keys to go on with, since a loop whose input is used again
  after it makes XLA copy that input.

  `reached` maps int32 [problems, 7] to bool and falls as thresholds rise; `seen(row, block)` is what
  is compared.
  """

  def one_pass(i, carried):
    # Without the barrier XLA hoists `seen` out of the loop, at the price of a copy of the data.
    (key, above, tied), keys = lax.optimization_barrier(carried)
    shift = (3 * (passes - 1 - i)).astype(jnp.uint32)
    steps = _DIGITS << shift
    fits = (steps >> shift) == _DIGITS
    looked, row = [], 0
    for block in keys:
      looked.append(seen(row, block))
      row += len(block)
    found = jnp.where(fits, brackets.count(looked, key[:, None] + steps), 0)
    digit = jnp.sum(reached(found) & fits, axis=1, dtype=jnp.int32)
    ladder = jnp.concatenate([(above + tied)[:, None], found, above[:, None]], 1)
    rung = lambda j: jnp.sum(jnp.where(np.arange(9) == j[:, None], ladder, 0), 1, dtype=jnp.int32)
    above = rung(digit + 1)
    return (key + (digit.astype(jnp.uint32) << shift), above, rung(digit) - above), keys

  zeros = jnp.zeros(len(sizes), jnp.uint32)
  start = (zeros, zeros.astype(jnp.int32), jnp.asarray(sizes, jnp.int32))
  found, keys = lax.fori_loop(0, passes if wanted is None else wanted, one_pass, (start, keys))
  return *found, keys

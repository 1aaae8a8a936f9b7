"""Exact selection of the highest scores by counting.

A float32 read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a threshold: seven thresholds a pass, three bits of the answer,
eleven passes. Ties at the threshold go to the lower position, found the same way. Every pass is
compares and a sum: over a mesh only counts cross devices, and the result does not depend on the
mesh.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts

_DIGITS = np.arange(1, 8, dtype=np.uint32)


def order_key(scores) -> jax.Array:
  """uint32 keys in the order of the scores (read as float32): NaN lowest, then -inf .. -0.0 < 0.0
  .. inf.
  """
  bits = lax.bitcast_convert_type(jnp.asarray(scores).astype(jnp.float32), jnp.uint32)
  key = jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
  return jnp.where(bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000), np.uint32(0), key)


def kth_highest(scores: dict, kept) -> jax.Array:
  """For each leaf the key of its `kept`-th highest score [leaves]; a leaf that keeps none gets a
  key above every score.
  """
  return _search(_keys_of(scores), lambda found: found >= kept[:, None], len(scores), passes=11)


def kth_highest_of_all(scores: dict, kept: counts.Wide) -> jax.Array:
  """The key of the `kept`-th highest score among all leaves together [1]."""
  reached = lambda found: counts.at_least(counts.total(counts.widen(found)), kept)[None]
  return _search(_keys_of(scores), reached, 1, passes=11)


def count_from(scores: dict, keys) -> tuple[jax.Array, jax.Array]:
  """For each leaf how many scores lie above its key and how many at it, int32 [leaves] each."""
  rows = [
    _count(order_key(score), (key, key + 1))
    for score, key in zip(scores.values(), keys, strict=True)
  ]
  found = jnp.stack(rows) if rows else jnp.zeros((0, 2), jnp.int32)
  above = jnp.where(keys == np.uint32(0xFFFFFFFF), 0, found[:, 1])
  return above, found[:, 0] - above


def top(scores: dict, kept: dict) -> dict:
  """Masks (bool, shaped like the scores) of the `kept[name]` highest scores of each leaf; ties go
  to the lower flat position.
  """
  _check_sizes(scores)
  if not scores:
    return {}
  goal = jnp.stack([jnp.asarray(kept[name], jnp.int32) for name in scores])
  edge = kth_highest(scores, goal)
  above, tied = count_from(scores, edge)
  needed = goal - above
  cut = _cut_ties(scores, edge, needed, jnp.any(needed < tied))
  masks = {}
  for i, (name, score) in enumerate(scores.items()):
    key = order_key(score)
    masks[name] = (key > edge[i]) | ((key == edge[i]) & (_from_the_end(score.shape) >= cut[i]))
  return masks


def _cut_ties(scores, edge, needed, undecided):
  """For each leaf the place, counted from the end, from which tied scores stay. No pass is made
  where every tie stays.
  """
  longest = max(score.size for score in scores.values())
  passes = -(-max(longest, 1).bit_length() // 3)

  def places(carried):
    return [
      jnp.where(order_key(score) == edge[i], _from_the_end(score.shape), np.uint32(0))
      for i, score in enumerate(carried.values())
    ]

  reached = lambda found: found >= needed[:, None]
  return _search((places, scores), reached, len(scores), passes, jnp.where(undecided, passes, 0))


def _keys_of(scores):
  return (lambda carried: [order_key(score) for score in carried.values()]), scores


def _search(keyed, reached, rows, passes, wanted=None):
  """The largest uint32 thresholds [rows] for which `reached(counts at or above them)` holds, three
  bits a pass.
  """
  keys_of, scores = keyed

  def one_pass(i, found):
    shift = (3 * (passes - 1 - i)).astype(jnp.uint32)
    steps = _DIGITS << shift
    thresholds = jnp.broadcast_to(found[:, None] + steps, (max(rows, len(scores)), 7))
    # The barrier keeps XLA from hoisting the keys out of the loop, which would cost a copy of the
    # data.
    keys = keys_of(lax.optimization_barrier(scores))
    hits = jnp.stack([_count(key, tuple(row)) for key, row in zip(keys, thresholds, strict=True)])
    fits = (steps >> shift) == _DIGITS
    digit = jnp.sum(reached(hits) & fits, axis=1, dtype=jnp.uint32)
    return found + (digit << shift)

  start = jnp.zeros(rows, jnp.uint32)
  return lax.fori_loop(0, passes if wanted is None else wanted, one_pass, start)


def _count(key, thresholds):
  """int32 number of keys at or above each threshold; one reduction with many outputs, which XLA
  fuses with the compares.
  """
  hits = tuple((key >= threshold).astype(jnp.int32) for threshold in thresholds)
  add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
  return jnp.stack(lax.reduce(hits, (np.int32(0),) * len(hits), add, tuple(range(key.ndim))))


def _from_the_end(shape):
  """uint32: size for the first position, 1 for the last, without an array in memory."""
  place = jnp.full(shape, math.prod(shape), jnp.uint32)
  stride = 1
  for axis in reversed(range(len(shape))):
    place = place - lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
    stride *= shape[axis]
  return place


def _check_sizes(scores):
  for name, score in scores.items():
    if score.size > counts.LARGEST_LEAF:
      raise ValueError(
        f'{name!r} has {score.size} units; one leaf may have at most {counts.LARGEST_LEAF}'
      )

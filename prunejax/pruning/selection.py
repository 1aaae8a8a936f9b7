"""Exact selection of the highest scores by counting.

A float32 read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a threshold: seven thresholds a pass, three bits of the answer,
eleven passes. Ties at the threshold go to the lower position, found the same way. Every pass is
compares and a sum: over a mesh only counts cross devices, and the result does not depend on the
mesh.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts
from prunejax.pruning.groups import kinds, stacked

_DIGITS = np.arange(1, 8, dtype=np.uint32)


class Edge(NamedTuple):
  """Where a leaf's scores are cut, one row a leaf: the key of the lowest score kept, and how many
  lie above it and at it.
  """

  key: jax.Array
  above: jax.Array
  tied: jax.Array


def order_key(scores) -> jax.Array:
  """uint32 keys in the order of float32 scores: NaN lowest, then -inf .. -0.0 < 0.0 .. inf."""
  bits = lax.bitcast_convert_type(jnp.asarray(scores).astype(jnp.float32), jnp.uint32)
  key = jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
  return jnp.where(bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000), np.uint32(0), key)


def edges(scores: dict, kept) -> Edge:
  """The edge of each leaf's `kept` highest scores; `kept` is int32 [leaves] in dict order."""
  keys, order = _keys(scores)
  goal = kept[order][:, None]
  return _in_order_of(order, _search(keys, lambda found: found >= goal, passes=11)[0])


def common_edge(scores: dict, kept: counts.Wide) -> Edge:
  """The edge of the `kept` highest scores of all leaves together: one key, counts by leaf."""
  keys, order = _keys(scores)

  def reached(found):
    enough = counts.at_least(counts.total(counts.widen(found)), kept)
    return jnp.broadcast_to(enough, found.shape)

  return _in_order_of(order, _search(keys, reached, passes=11)[0])


def top(scores: dict, kept: dict) -> dict:
  """Masks (bool, shaped like the scores) of each leaf's `kept[name]` highest scores; ties go to the
  lower flat position.
  """
  if not scores:
    return {}
  keys, order = _keys(scores)
  names = list(scores)
  goal = jnp.stack([jnp.asarray(kept[names[i]], jnp.int32) for i in order])
  edge, keys = _search(keys, lambda found: found >= goal[:, None], passes=11)
  needed = goal - edge.above
  cut, keys = _cut_ties(keys, edge.key, needed, jnp.any(needed < edge.tied))
  masks, row = {}, 0
  for key in keys:
    at, place = _rows(edge.key, row, key), _rows(cut, row, key)
    kind = (key > at) | ((key == at) & (_from_the_end(key.shape[1:]) >= place))
    masks.update({names[order[row + i]]: mask for i, mask in enumerate(kind)})
    row += len(key)
  return {name: masks[name] for name in scores}


def _keys(scores):
  """Keys stacked by kind, and for each of their rows the leaf's place in the dict."""
  for name, score in scores.items():
    if score.size > counts.LARGEST_LEAF:
      raise ValueError(f'{name!r} has {score.size} units; a leaf may have {counts.LARGEST_LEAF}')
  place = {name: i for i, name in enumerate(scores)}
  gathered = kinds(scores)
  order = np.array([place[name] for names in gathered for name in names], np.int32)
  return [stacked(scores, names, order_key) for names in gathered], order


def _in_order_of(order, edge):
  return Edge(*(field[np.argsort(order)] for field in edge))


def _cut_ties(keys, at, needed, undecided):
  """For each row the place, counted from the end, from which ties stay. Where all ties stay no pass
  is made.
  """
  longest = max(math.prod(key.shape[1:]) for key in keys)
  passes = -(-max(longest, 1).bit_length() // 3)

  def places(row, key):
    return jnp.where(key == _rows(at, row, key), _from_the_end(key.shape[1:]), np.uint32(0))

  wanted = jnp.where(undecided, passes, 0)
  cut, keys = _search(keys, lambda found: found >= needed[:, None], passes, wanted, places)
  return cut.key, keys


def _search(keys, reached, passes, wanted=None, seen=lambda row, key: key):
  """For each row the largest uint32 for which `reached(counts at or above it)` holds, three bits a
  pass.

  `reached` maps int32 [rows, 7] to bool [rows, 7] and falls as thresholds rise; `seen(row, keys)`
  is what is compared. Returns (edge, keys): go on with these keys, since a loop whose input is used
  again after it makes XLA copy that input.
  """

  def one_pass(i, carried):
    # Without the barrier XLA hoists `seen` out of the loop, at the price of a copy of the data.
    edge, keys = lax.optimization_barrier(carried)
    shift = (3 * (passes - 1 - i)).astype(jnp.uint32)
    steps = _DIGITS << shift
    fits = (steps >> shift) == _DIGITS
    row, found = 0, []
    for key in keys:
      thresholds = [_rows(edge.key + step, row, key) for step in steps]
      found.append(_count(seen(row, key), thresholds))
      row += len(key)
    found = jnp.where(fits, jnp.concatenate(found), 0)
    digit = jnp.sum(reached(found) & fits, axis=1, dtype=jnp.int32)
    ladder = jnp.concatenate([(edge.above + edge.tied)[:, None], found, edge.above[:, None]], 1)
    rung = lambda j: jnp.sum(jnp.where(np.arange(9) == j[:, None], ladder, 0), 1, dtype=jnp.int32)
    above = rung(digit + 1)
    return Edge(edge.key + (digit.astype(jnp.uint32) << shift), above, rung(digit) - above), keys

  sizes = np.array([math.prod(key.shape[1:]) for key in keys for _ in range(len(key))], np.int32)
  start = Edge(jnp.zeros(len(sizes), jnp.uint32), jnp.zeros(len(sizes), jnp.int32), jnp.asarray(sizes))
  return lax.fori_loop(0, passes if wanted is None else wanted, one_pass, (start, keys))


def _count(key, thresholds):
  """int32 [rows, thresholds]: keys at or above each. One reduction with many outputs fuses with its
  compares.
  """
  hits = tuple((key >= threshold).astype(jnp.int32) for threshold in thresholds)
  add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
  found = lax.reduce(hits, (np.int32(0),) * len(hits), add, tuple(range(1, key.ndim)))
  return jnp.stack(found, axis=1)


def _rows(vector, row, key):
  """The rows of `vector` [all rows] that belong to `key` [n, ...], shaped to broadcast."""
  return vector[row : row + len(key)].reshape((-1,) + (1,) * (key.ndim - 1))


def _from_the_end(shape):
  """uint32: size for the first position, 1 for the last, without an array in memory."""
  place = jnp.full(shape, math.prod(shape), jnp.uint32)
  stride = 1
  for axis in reversed(range(len(shape))):
    place = place - lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
    stride *= shape[axis]
  return place

"""Which scores are the highest? Exact selection by counting, ties broken by position."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import counts as counts


class Scores(NamedTuple):
  """Scores that are read again and again, not stored: `read(sources) -> {name: array}`."""

  read: Callable[[Any], dict]
  sources: Any


class Selected(NamedTuple):
  """masks: {name: bool}; nan: {name: bool scalar}."""

  masks: dict
  nan: dict


def plain(scores: dict) -> Scores:
  """Scores that are in memory anyway."""
  return Scores(lambda sources: sources, scores)


def order_key(scores) -> jax.Array:
  """uint32 keys in the order of float32 scores: NaN lowest, then -inf .. -0.0 < 0.0 .. inf."""
  bits = lax.bitcast_convert_type(jnp.asarray(scores).astype(jnp.float32), jnp.uint32)
  key = jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
  return jnp.where(bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000), np.uint32(0), key)


def select(scores: Scores, counts_of: dict, old: dict | None = None) -> Selected:
  """INTERIM: one bit a pass."""
  read = scores.read(scores.sources)
  if old is not None:
    read = {
      n: jnp.where(s == 0, jnp.where(old[n], 0.0, -0.0), s.astype(jnp.float32))
      for n, s in read.items()
    }
  for name, s in read.items():
    if s.size > counts.LARGEST_LEAF:
      raise ValueError(f'{name!r} has {s.size} units; a leaf may have {counts.LARGEST_LEAF}')
  masks = {}
  for names, kept in counts_of.items():
    if len(names) == 1 and not isinstance(kept, counts.Wide):
      masks[names[0]] = _alone(read[names[0]], jnp.asarray(kept, jnp.int32))
    else:
      kept = kept if isinstance(kept, counts.Wide) else counts.widen(jnp.asarray(kept, jnp.int32))
      masks |= _together({n: read[n] for n in names}, kept)
  nan = {n: jnp.any(jnp.isnan(s)) for n, s in read.items()}
  return Selected({n: masks[n] for n in read}, nan)


def _alone(score, kept):
  kept = kept.reshape((1,) * (score.ndim - kept.ndim) + kept.shape)
  axes = tuple(a for a in range(score.ndim) if kept.shape[a] == 1)
  key = order_key(score)
  total = lambda flags: jnp.sum(flags, axis=axes, keepdims=True, dtype=jnp.int32)

  def raised(i, edge):
    higher = edge | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(total(key >= higher) >= kept, higher, edge)

  edge = lax.fori_loop(0, 32, raised, jnp.zeros(kept.shape, jnp.uint32))
  needed = kept - total(key > edge)
  tied, place, stride = key == edge, jnp.zeros(score.shape, jnp.int32), 1
  for axis in reversed(axes):
    place = place + lax.broadcasted_iota(jnp.int32, score.shape, axis) * np.int32(stride)
    stride *= score.shape[axis]
  bits = max(int(stride).bit_length(), 1)

  def reached(i, end):
    further = end + (jnp.int32(1) << (bits - 1 - i))
    return jnp.where(total(tied & (place < further)) <= needed, further, end)

  end = lax.fori_loop(0, bits, reached, jnp.zeros(kept.shape, jnp.int32))
  return jnp.where(kept <= 0, False, (key > edge) | (tied & (place < end)))


def _together(read, kept):
  keys = {n: order_key(s) for n, s in read.items()}

  def total(flags):
    each = jnp.stack([jnp.sum(f(keys[n]), dtype=jnp.int32) for n in keys for f in [flags]])
    return counts.total(counts.widen(each))

  def raised(i, edge):
    higher = edge | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(counts.at_least(total(lambda k: k >= higher), kept), higher, edge)

  edge = lax.fori_loop(0, 32, raised, jnp.uint32(0))
  missing = counts.subtract(kept, total(lambda k: k > edge))
  tied = jnp.stack([jnp.sum(k == edge, dtype=jnp.int32) for k in keys.values()])
  before = counts.running(counts.widen(tied))
  needed = counts.clipped(counts.subtract(missing, before), tied)
  above = [jnp.sum(k > edge, dtype=jnp.int32) for k in keys.values()]
  return {n: _alone(s, above[i] + needed[i]) for i, (n, s) in enumerate(read.items())}

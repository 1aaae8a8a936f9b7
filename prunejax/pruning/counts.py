"""Exact integer arithmetic on counts of weights.

Counts go beyond 2^24 and 2^31, and a sparsity may only be known at run time.

JAX has no 64-bit integers unless the whole program asks for them, so a large count is two limbs of
16 and 31 bits.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import placement

# A sparsity is read to seven decimals: float32(0.9) is 0.89999998, and 0.9 of 100,000,000 weights
# must still be 90,000,000.
DECIMALS = 10**7
LIMB = 16
LARGEST_LEAF = 2**31 - 1


class Wide(NamedTuple):
  """Counts up to 2^47: hi * 2^16 + lo with 0 <= lo < 2^16, both int32 and of one shape."""

  hi: jax.Array
  lo: jax.Array


def wide(counts) -> Wide:
  """Python integers (one, or a list) as limbs."""
  counts = np.asarray(counts, np.int64)
  return Wide(jnp.asarray(counts >> LIMB, jnp.int32), jnp.asarray(counts & 0xFFFF, jnp.int32))


def widen(counts) -> Wide:
  """int32 counts as limbs."""
  return Wide(counts >> LIMB, counts & 0xFFFF)


def carried(hi, lo) -> Wide:
  """Limbs whose low part has grown past 16 bits, or below zero, made regular again."""
  return Wide(hi + (lo >> LIMB), lo & 0xFFFF)


def total(counts: Wide, axis=0) -> Wide:
  """The sum of up to 2^15 counts."""
  return carried(
    jnp.sum(counts.hi, axis, dtype=jnp.int32), jnp.sum(counts.lo, axis, dtype=jnp.int32)
  )


def running(counts: Wide) -> Wide:
  """For each of up to 2^15 counts, the sum of those before it."""
  before = lambda x: jnp.cumsum(x, dtype=jnp.int32) - x
  return carried(before(counts.hi), before(counts.lo))


def subtract(a: Wide, b: Wide) -> Wide:
  """Returns a - b."""
  return carried(a.hi - b.hi, a.lo - b.lo)


def at_least(a: Wide, b: Wide):
  """Returns bool: a >= b."""
  return (a.hi > b.hi) | ((a.hi == b.hi) & (a.lo >= b.lo))


def narrow(a: Wide):
  """Limbs of counts below 2^31 as int32."""
  return (a.hi << LIMB) + a.lo


def clipped(a: Wide, limit):
  """min(max(a, 0), limit) as int32, for an int32 limit."""
  inside = jnp.where(at_least(a, widen(limit)), limit, narrow(a))
  return jnp.where(a.hi < 0, 0, inside)


def multiply_divide(count: Wide, factor, divisor, plus=0) -> tuple[Wide, jax.Array]:
  """Returns floor((count * factor + plus) / divisor) and the remainder, exactly.

  0 <= factor <= divisor < 2^29 and plus <= divisor.

  Horner's rule over the bits of `count`: each of the 47 rounds doubles quotient and remainder and
  adds the factor if the bit is set.
  """
  factor, divisor = jnp.asarray(factor, jnp.int32), jnp.asarray(divisor, jnp.int32)
  shape = jnp.broadcast_shapes(count.hi.shape, factor.shape, divisor.shape)
  zero = placement.varying_as(jnp.zeros(shape, jnp.int32), (count, factor, divisor))

  def round_of(i, carry):
    quotient, rest = carry
    place = 46 - i
    high = (count.hi >> jnp.maximum(place - LIMB, 0)) & 1
    low = (count.lo >> jnp.minimum(place, LIMB - 1)) & 1
    rest = 2 * rest + jnp.where(place >= LIMB, high, low) * factor
    return carried(2 * quotient.hi, 2 * quotient.lo + rest // divisor), rest % divisor

  quotient, rest = lax.fori_loop(0, 47, round_of, (Wide(zero, zero), zero))
  rest = rest + plus
  return carried(quotient.hi, quotient.lo + rest // divisor), rest % divisor


def kept(sizes, sparsity) -> Wide:
  """Returns how many of `sizes` units stay: n - floor(n * s + 1/2), s read to seven decimals.

  `sizes` are Python integers (one, or a list); `sparsity` is a float32 scalar or one value a size,
  in [0, 1].
  """
  removed, _ = multiply_divide(wide(sizes), _decimals(sparsity), DECIMALS, plus=DECIMALS // 2)
  return subtract(wide(sizes), removed)


def share(sizes, fraction) -> jax.Array:
  """floor(n * fraction) of int32 counts, which may be traced, as int32; `fraction` as in `kept`."""
  return narrow(multiply_divide(widen(sizes), _decimals(fraction), DECIMALS)[0])


def _decimals(fraction):
  """A float32 in [0, 1] in parts of DECIMALS, int32."""
  binary = jnp.clip(jnp.rint(jnp.asarray(fraction, jnp.float32) * np.float32(1 << 28)), 0, 1 << 28)
  return narrow(multiply_divide(wide(DECIMALS), binary.astype(jnp.int32), 1 << 28, plus=1 << 27)[0])


def block_sum(x, sizes) -> jax.Array:
  """Returns float32 sums over blocks, the same in any order of adding.

  `sizes` has one length an axis; the last block of an axis may be short.

  A float sum depends on how a mesh splits it, and one unit's rank may hang on the last bit. Here
  each value is cut, relative to the largest, into four signed limbs of 12 bits, the limbs are
  summed as integers, and only the total is rounded.
  """
  x = jnp.asarray(x, jnp.float32)
  finite = jnp.isfinite(x)
  known = jnp.where(finite, x, 0)
  exponent = lax.bitcast_convert_type(jnp.max(jnp.abs(known), initial=0.0), jnp.uint32) & np.uint32(
    0x7F800000
  )
  scale = lax.bitcast_convert_type(jnp.maximum(exponent, np.uint32(1 << 23)), jnp.float32)
  rest, limbs = known / scale * 0.5, []
  for _ in range(4):
    rest = rest * 4096.0
    limbs.append(rest.astype(jnp.int32))
    rest = rest - limbs[-1].astype(jnp.float32)
  top = 1
  for axis, size in enumerate(sizes):
    while size > 1:
      step = min(size, 1 << 18)
      limbs = [_add_blocks(limb, axis, step) for limb in limbs]
      limbs, top = _regular([jnp.zeros_like(limbs[0])] + limbs), top - 1
      size = -(-size // step)
  # Limbs of one sign, since a negative top above positive limbs would cancel and lose bits.
  sign = jnp.where(_regular(limbs)[0] < 0, -1, 1)
  limbs = _regular([sign * limb for limb in limbs])
  value = limbs[-1].astype(jnp.float32)
  for limb in limbs[-2::-1]:
    value = limb.astype(jnp.float32) + value * np.float32(1 / 4096)
  value = value * sign.astype(jnp.float32)
  return value * np.float32(4096.0**-top) * scale * 2.0 + count_blocks(
    jnp.where(finite, 0, x), sizes
  )


def count_blocks(x, sizes) -> jax.Array:
  """Returns plain sums over blocks in x's own dtype.

  They are for counts and flags, which no order of adding can change.
  """
  for axis, size in enumerate(sizes):
    x = _add_blocks(x, axis, size)
  return x


def _add_blocks(x, axis, size):
  if size <= 1:
    return x
  blocks = -(-x.shape[axis] // size)
  padding = [(0, 0)] * x.ndim
  padding[axis] = (0, blocks * size - x.shape[axis])
  x = jnp.pad(x, padding)
  x = x.reshape(x.shape[:axis] + (blocks, size) + x.shape[axis + 1 :])
  return jnp.sum(x, axis + 1, dtype=x.dtype)


def _regular(limbs):
  regular, carry = [], 0
  for limb in limbs[:0:-1]:
    limb = limb + carry
    carry, limb = limb >> 12, limb & 4095
    regular.append(limb)
  return [limbs[0] + carry] + regular[::-1]

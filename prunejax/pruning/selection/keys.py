"""Scores as unsigned integers of the same order, so that thresholds can be counted exactly."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TOP = np.uint32(0xFF800000)  # the key of inf
ZERO = np.uint32(1 << 31)  # the key of 0.0


def order_key(scores) -> jax.Array:
  """Returns uint32 keys in the order of float32 scores: NaN lowest, then -inf .. -0.0 < 0.0 .. inf.

  Args:
    scores: floating-point array of any shape; bfloat16 and float16 are widened.

  Raises:
    ValueError: for float64 scores. Their order is finer than that of float32.
  """
  scores = jnp.asarray(scores)
  if scores.dtype == jnp.float64:
    raise ValueError('scores are float64, which selection does not rank; cast scores to float32')
  scores = scores.astype(jnp.float32)
  bits = lax.bitcast_convert_type(scores, jnp.int32)
  key = lax.bitcast_convert_type(bits ^ ((bits >> 31) | np.int32(-(2**31))), jnp.uint32)
  return jnp.where(scores != scores, np.uint32(0), key)


def ranked_key(scores, old=None) -> jax.Array:
  """Returns `order_key` of scores; with masks so far, pruned zeros have the key of -0.0.

  Kept zeros have the key of 0.0 then, whatever their sign.
  """
  key = order_key(scores)
  return key if old is None else jnp.where(scores == 0, ZERO - 1 + old.astype(jnp.uint32), key)

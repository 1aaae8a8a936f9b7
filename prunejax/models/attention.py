"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) in two ways, equal in results.

'einsum' computes the matrix of weights, which dropout can act on. 'dot_product' leaves it to
`jax.nn.dot_product_attention`: on an NVIDIA GPU in bfloat16 that is cuDNN's flash attention, which
never stores the matrix; elsewhere XLA computes it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

KINDS = ('einsum', 'dot_product')


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  visible: jax.Array,
  *,
  kind: str = 'einsum',
  dtype: Any = jnp.float32,
  drop: Callable | None = None,
) -> jax.Array:
  """Mixes values by the softmax of query-key products. The softmax is float32 in any dtype.

  Args:
    query: [batch, length, heads, width].
    key: as query.
    value: as query.
    visible: bool [batch or 1, 1, length or 1, length], whether a query sees a key. A row that sees
      nothing gets equal weights.
    kind: one of `KINDS`.
    dtype: of the weights of 'einsum'.
    drop: acts on the weights; None for no dropout. 'dot_product' has no place for it.

  Returns:
    [batch, length, heads, width].

  Raises:
    ValueError: another kind; or 'dot_product' with dropout.
  """
  if kind not in KINDS:
    raise ValueError(f'model.attention={kind!r}: expected one of {", ".join(KINDS)}')
  if kind == 'einsum':
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) / math.sqrt(query.shape[-1])
    # The lowest finite value, so that a row that sees nothing does not become NaN.
    lowest = jnp.finfo(jnp.float32).min
    scores = jnp.where(visible, scores.astype(jnp.float32), lowest)
    weights = jax.nn.softmax(scores).astype(dtype)
    weights = weights if drop is None else drop(weights)
    return jnp.einsum('bhqk,bkhd->bqhd', weights, value)
  if drop is not None:
    raise ValueError(
      "model.attention='dot_product' has no dropout of attention weights: set"
      ' model.attention_dropout=0'
    )
  if not query.size:  # a layer of a shrunk model without heads
    return value
  batch, length = query.shape[:2]
  flash = jax.default_backend() == 'gpu' and query.dtype in (jnp.bfloat16, jnp.float16)
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    mask=jnp.broadcast_to(visible, (batch, 1, length, length)),
    implementation='cudnn' if flash else 'xla',
  )

"""Causal attention with grouped queries, in chunks of queries that read only the keys they see."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Queries of one chunk. A chunk reads no key after its last query, so half of the work of a long
# text is left out, and scores [heads, chunk, keys] stay small.
CHUNK = 256


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  valid: jax.Array | None = None,
  window: int | None = None,
  dropout: float = 0.0,
  rng: jax.Array | None = None,
  chunk: int = CHUNK,
) -> jax.Array:
  """Mixes values by softmax(query . key / sqrt(width)) over the tokens up to each query.

  The softmax is float32 in any compute dtype. A query that sees no token gets the mean of the
  values instead of NaN.

  Args:
    query: [batch, length, heads, width].
    key: [batch, length, groups, width]; `groups` divides `heads`, and neighbouring queries share a
      key, as in Ainslie et al. 2023.
    value: as `key`.
    valid: bool [batch, length], False at padding; None if all tokens are valid.
    window: a query sees itself and the `window` - 1 tokens before it; None for all before it.
    dropout: the share of weights that become 0; the others grow to keep the sum.
    rng: the random key of the dropout.
    chunk: queries that are computed together.

  Returns:
    [batch, length, heads, width] in the dtype of `value`.
  """
  batch, length, heads, width = query.shape
  groups = key.shape[2]
  if not heads:
    return query
  each = heads // groups
  # [batch, groups, heads of a group, length, width], so that the heads of a group share a product.
  query = (query / math.sqrt(width)).reshape(batch, length, groups, each, width)
  query = query.transpose(0, 2, 3, 1, 4)
  key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
  mixed = []
  for start in range(0, length, chunk):
    stop = min(start + chunk, length)
    first = 0 if window is None else max(0, start - window + 1)
    rows = query[:, :, :, start:stop].reshape(batch, groups, -1, width)
    scores = jnp.einsum('bgrd,bgkd->bgrk', rows, key[:, :, first:stop])
    scores = scores.reshape(batch, groups, each, stop - start, stop - first).astype(jnp.float32)
    back = jnp.arange(start, stop)[:, None] - jnp.arange(first, stop)[None]
    visible = back >= 0 if window is None else (back >= 0) & (back < window)
    if valid is not None:
      visible = visible & valid[:, None, None, None, first:stop]
    # Added to scores, and not put in their place: all heads share one small array, computed once.
    scores = scores + jnp.where(visible, 0.0, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    seen = value[:, :, first:stop]
    # Divided after the product with the values, which is smaller.
    if dropout:
      total = weights.sum(-1, keepdims=True)
      stays = jax.random.bernoulli(jax.random.fold_in(rng, start), 1 - dropout, weights.shape)
      part = _product(jnp.where(stays, weights / (1 - dropout), 0.0), seen)
    else:
      part, total = jax.lax.platform_dependent(
        weights, seen, cpu=_product_with_sums, default=_product_and_sums
      )
    mixed.append((part / total).astype(value.dtype))
  joined: Any = mixed[0] if len(mixed) == 1 else jnp.concatenate(mixed, axis=3)
  return joined.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def _product(weights, value):
  """Weights [batch, groups, heads of a group, rows, keys] times values [batch, groups, keys, _]."""
  rows = weights.astype(value.dtype).reshape(*value.shape[:2], -1, value.shape[2])
  out = jnp.einsum('bgrk,bgkd->bgrd', rows, value)
  return out.reshape(*weights.shape[:-1], value.shape[-1])


def _product_and_sums(weights, value):
  """(weights times value, the sums of weights [..., 1], float32)."""
  return _product(weights, value).astype(jnp.float32), weights.sum(-1, keepdims=True)


def _product_with_sums(weights, value):
  """As `_product_and_sums`, in one product: the sums are the weights times a column of ones.

  On a CPU this takes two thirds of the time. Where a width is padded to a tile it would take more.
  """
  ones = jnp.ones((*value.shape[:-1], 1), value.dtype)
  rows = weights.astype(value.dtype).reshape(*value.shape[:2], -1, value.shape[2])
  both = jnp.concatenate([value, ones], -1)
  out = jnp.einsum('bgrk,bgkd->bgrd', rows, both, preferred_element_type=jnp.float32)
  out = out.reshape(*weights.shape[:-1], both.shape[-1])
  return out[..., :-1], out[..., -1:]


class DropoutKey(nn.Module):
  """Draws the random key that a `nn.Dropout` in its place would draw."""

  @nn.compact
  def __call__(self):
    return self.make_rng('dropout')


def dropout_key(rate: float, deterministic: bool, keys: Any) -> jax.Array | None:
  """Returns the random key of the dropout of attention; None without dropout.

  Args:
    rate: of the dropout.
    deterministic: there is no dropout.
    keys: {name of a dropout: its key}, see `layer_stack.run`; {} inside the `nn.compact` call of a
      module, to draw it.
  """
  if deterministic or not rate:
    return None
  return keys['Dropout_0'] if 'Dropout_0' in keys else DropoutKey(name='Dropout_0')()

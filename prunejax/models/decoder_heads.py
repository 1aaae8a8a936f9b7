"""The two heads of decoders, and the initializers of their weights."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

HEADS = ('lm', 'classifier')


def run(
  x: jax.Array,
  valid: jax.Array,
  positions: jax.Array | None,
  heads: tuple[str, ...],
  lm: Callable[[jax.Array], jax.Array],
  classifier: Callable[[jax.Array], jax.Array],
) -> dict[str, jax.Array]:
  """Runs the heads of a decoder.

  Args:
    x: hidden states [batch, length, hidden], after the last norm.
    valid: bool [batch, length], False at padding.
    positions: int [batch, predictions], where 'lm' predicts the next token; None for all.
    heads: any of `HEADS`.
    lm: makes logits [..., vocabulary] of hidden states [..., hidden].
    classifier: makes logits [..., outputs].

  Returns:
    dict with 'sequence', x itself, and the logits of each head in float32: 'lm' [batch,
    predictions, vocabulary], or [batch, length, vocabulary] without `positions`; 'classifier'
    [batch, outputs]. The classifier reads the last valid token, or the first if none is valid.
  """
  out = {'sequence': x}
  if 'lm' in heads:
    hidden = x if positions is None else jnp.take_along_axis(x, positions[..., None], axis=1)
    out['lm'] = lm(hidden).astype(jnp.float32)
  if 'classifier' in heads:
    last = jnp.max(jnp.where(valid, jnp.arange(x.shape[1]), 0), axis=1)
    hidden = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
    out['classifier'] = classifier(hidden).astype(jnp.float32)
  return out


def head_without_bias(name: str, width: int, dtype: Any, init: Any) -> nn.Dense:
  """Returns the layer of a head, for a call inside of a compact method."""
  return nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name=name)


def check(heads: tuple[str, ...]) -> None:
  """Checks names of heads.

  Raises:
    ValueError: a name that is not in `HEADS`.
  """
  unknown = [head for head in heads if head not in HEADS]
  if unknown:
    raise ValueError(f'heads={heads!r}: unknown {unknown}, expected any of {list(HEADS)}')


def initializers(kind: str, deviation: float, hidden: int, depth: int) -> tuple[Any, Any, Any]:
  """Returns initializers of kernels, of kernels into the residual stream, and of word embeddings.

  Args:
    kind: 'normal': all have the standard deviation `deviation`. 'fan_in': kernels have
      1/sqrt(fan-in), divided by sqrt(2 * depth) into the residual stream; words have
      1/sqrt(hidden).
    deviation: of the kind 'normal'; not read by the other.
    hidden: width of the hidden states.
    depth: number of layers, at least 1.

  Raises:
    ValueError: another kind.
  """
  if kind == 'normal':
    return (nn.initializers.normal(deviation),) * 3
  if kind == 'fan_in':
    scaled = lambda by: nn.initializers.variance_scaling(by, 'fan_in', 'truncated_normal')
    return scaled(1.0), scaled(0.5 / depth), nn.initializers.normal(hidden**-0.5)
  raise ValueError(f'model.initializer={kind!r}: expected "normal" or "fan_in"')

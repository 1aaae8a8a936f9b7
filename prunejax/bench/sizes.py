"""The model sizes of the benches, and weights of these sizes."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import transformers

from prunejax.bench.names import SIZES

MATRICES = {'attention': ('query', 'key', 'value', 'output'), 'ffn': ('intermediate', 'output')}


def bert(size: str) -> transformers.BertConfig:
  """Returns the configuration of a size; 'base' and 'large' are the published ones."""
  layers, hidden, heads, intermediate, vocab = SIZES[size]
  return transformers.BertConfig(
    vocab_size=vocab,
    hidden_size=hidden,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    intermediate_size=intermediate,
  )


def shapes(size: str) -> dict[str, tuple[int, int]]:
  """Lists the encoder's six matrices a layer.

  Args:
    size: a name of SIZES.

  Returns:
    {path: shape}. 'base' has 72 leaves and 84,934,656 weights.
  """
  layers, hidden, _, intermediate, _ = SIZES[size]
  matrices = {}
  for layer in range(layers):
    for block, names in MATRICES.items():
      for name in names:
        rows = intermediate if (block, name) == ('ffn', 'output') else hidden
        columns = intermediate if name == 'intermediate' else hidden
        matrices[f'encoder/layer_{layer}/{block}/{name}/kernel'] = (rows, columns)
  return matrices


def _gaussian(key, shape):
  return 0.02 * jax.random.normal(key, shape)


# Distributions of weights: BERT's own, and others that are hard for a search of a threshold.
KINDS = {
  'gaussian': _gaussian,
  '80 % zeros': lambda key, shape: jnp.where(
    jnp.abs(x := _gaussian(key, shape)) < 0.02 * 1.2816, 0.0, x
  ),
  'constant': lambda key, shape: jnp.full(shape, 0.5),
  'nine values': lambda key, shape: jnp.clip(jnp.round(100 * _gaussian(key, shape)), -4, 4) / 4,
  'log-uniform': lambda key, shape: jnp.exp(
    jax.random.uniform(key, shape, minval=-40.0, maxval=10.0)
  ),
  'in order': lambda key, shape: jnp.linspace(-1, 1, shape[0] * shape[1]).reshape(shape),
}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _drawn(kind, shape, dtype, key):
  return KINDS[kind](key, shape).astype(dtype)


def weights(
  shapes: Mapping[str, tuple[int, int]], kind: str = 'gaussian', dtype: jnp.dtype = jnp.float32
) -> dict[str, jax.Array]:
  """Draws weights, leaf by leaf.

  Args:
    shapes: {path: shape}.
    kind: a name of KINDS.
    dtype: of the weights.

  Returns:
    {path: array}.
  """
  key = jax.random.key(0)
  return {
    name: _drawn(kind, shape, jnp.dtype(dtype), jax.random.fold_in(key, i))
    for i, (name, shape) in enumerate(shapes.items())
  }

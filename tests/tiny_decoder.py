"""A GPT-2 of three layers with random weights, for tests of one-shot pruning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import transformers

from prunejax.models import gpt2

SIZE = transformers.GPT2Config(
  vocab_size=61, n_positions=16, n_embd=32, n_layer=3, n_head=4, n_inner=128
)
LENGTH = 12


@functools.cache
def model_and_params():
  model = gpt2.Gpt2(SIZE, initializer='fan_in')
  ids = jnp.zeros((1, LENGTH), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), ids, ids, ids >= 0)['params']
  return model, jax.tree.map(np.asarray, params)


def tokens(segments, seed=0):
  """int32 [segments, LENGTH]."""
  draw = np.random.default_rng(seed).integers(0, SIZE.vocab_size, (segments, LENGTH))
  return draw.astype(np.int32)

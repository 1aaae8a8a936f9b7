"""A tiny Llama with its tokenizer, as a Hugging Face folder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import transformers

from prunejax.data import bpe
from prunejax.models import llama
from prunejax.models.hf import llama as llama_hf

LINES = [
  'the cat sat on the mat',
  'the hat that the cat had',
  'a mat and a hat, and 12 cats',
  'that is that.',
] * 5
SIZE = {
  'hidden_size': 24,
  'intermediate_size': 28,
  'num_hidden_layers': 2,
  'num_attention_heads': 6,
  'num_key_value_heads': 2,
  'max_position_embeddings': 64,
  'tie_word_embeddings': True,
  'bos_token_id': None,
  'eos_token_id': 0,
  'pad_token_id': None,
  'rope_parameters': {'rope_type': 'default', 'rope_theta': 100.0},
}


@functools.cache
def tokenizer():
  return bpe.train(LINES, 280)


def size(**more):
  vocab = tokenizer().get_vocab_size()
  return transformers.LlamaConfig(**{'vocab_size': vocab, **SIZE, **more})


def params(config, heads=('lm',), seed=0):
  """Large weights: with a deviation of 0.02, a wrong model would look right."""
  ids = jnp.zeros((1, 4), jnp.int32)
  shapes = jax.eval_shape(
    llama.Llama(config, heads, 2).init, jax.random.key(0), ids, ids, ids == 0
  )['params']
  rng = np.random.default_rng(seed)
  draw = lambda leaf: (0.3 * rng.normal(size=leaf.shape) + (leaf.ndim == 1)).astype(np.float32)
  return jax.tree.map(draw, shapes)


def write(folder, heads=('lm',), words=True, **more):
  """Writes a folder and returns (params, size)."""
  config = size(**more)
  tree = params(config, heads)
  llama_hf.save(folder, tree, config, tokenizer=tokenizer() if words else None)
  return tree, config

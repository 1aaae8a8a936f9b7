"""A small BERT with heads and neurons that can be cut out, and its outputs."""

import jax
import numpy as np
import transformers
from flax import traverse_util

from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf

SIZE = dict(
  vocab_size=40,
  hidden_size=16,
  num_hidden_layers=3,
  num_attention_heads=4,
  intermediate_size=12,
  max_position_embeddings=10,
  attention_probs_dropout_prob=0.0,
  hidden_dropout_prob=0.0,
)
HEADS, INNER = [0, 3, 4], [12, 0, 5]
KINDS = ('mlm', 'nsp')


def whole(act='gelu'):
  """(leaves, size): random kernels and biases. HEADS and INNER count what shrinking leaves."""
  size = transformers.BertConfig(**SIZE, hidden_act=act)
  rng = np.random.default_rng(0)
  shapes = {path: shape for path, shape in bert_hf._shapes(size, KINDS).items()}
  leaves = {path: rng.normal(size=shape).astype(np.float32) / 3 for path, shape in shapes.items()}
  at = 'encoder/layer_{}/{}'.format
  for name in (
    'query',
    'key',
    'value',
  ):  # all heads of layer 0: value biases still reach the output
    leaves[at(0, f'attention/{name}/kernel')][:] = 0
  leaves[at(1, 'attention/output/kernel')][4:8] = 0  # head 1 of layer 1: its output is not used
  leaves[at(2, 'attention/query/kernel')][:, :4] = 0  # attends uniformly, so it stays
  leaves[at(1, 'ffn/intermediate/kernel')][:] = 0  # constant neurons
  leaves[at(2, 'ffn/output/kernel')][:4] = 0
  leaves[at(2, 'ffn/intermediate/kernel')][:, 4:7] = 0
  return leaves, size


def tree(leaves):
  return traverse_util.unflatten_dict(leaves, sep='/')


def inputs():
  rng = np.random.default_rng(1)
  valid = np.ones((2, 7), bool)
  valid[1, 4:] = False
  return rng.integers(0, 40, (2, 7)), rng.integers(0, 2, (2, 7)), valid


def outputs(leaves, size):
  return jax.jit(lambda p: bert.Bert(size, KINDS).apply({'params': p}, *inputs()))(tree(leaves))

"""Both ways to compute attention have equal results, and an oracle in numpy has them too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from prunejax.models import attention, bert, gpt2

RNG = np.random.default_rng(0)
QUERY, KEY, VALUE = RNG.normal(size=(3, 2, 6, 2, 8)).astype(np.float32)
PADDED = (np.arange(6)[None] < np.array([6, 3])[:, None])[:, None, None, :]
VISIBLE = {
  'all': np.ones((1, 1, 1, 6), bool),
  'padding': PADDED,
  'causal': np.tril(np.ones((6, 6), bool))[None, None],
  'causal and padding': np.tril(np.ones((6, 6), bool))[None, None] & PADDED,
}


def oracle(visible):
  """Softmax of query-key products in float64 (Vaswani et al. 2017, equation 1)."""
  scores = np.einsum('bqhd,bkhd->bhqk', QUERY, KEY, dtype=np.float64) / np.sqrt(8)
  weights = np.exp(scores - scores.max(-1, keepdims=True)) * visible
  return np.einsum('bhqk,bkhd->bqhd', weights / weights.sum(-1, keepdims=True), VALUE)


@pytest.mark.parametrize('name', VISIBLE)
@pytest.mark.parametrize('kind', attention.KINDS)
def test_attention_is_that_of_the_paper(kind, name):
  got = attention.attend(QUERY, KEY, VALUE, jnp.asarray(VISIBLE[name]), kind=kind)
  np.testing.assert_allclose(got, oracle(VISIBLE[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  'module, size, head',
  [
    (bert.Bert, transformers.BertConfig, 'mlm'),
    (gpt2.Gpt2, transformers.GPT2Config, 'lm'),
  ],
  ids=['bert', 'gpt2'],
)
def test_logits_and_gradients_are_equal(module, size, head):
  small = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
  size = size(**small, intermediate_size=32, max_position_embeddings=16)
  ids = np.random.default_rng(1).integers(0, 50, (2, 6))
  valid = np.arange(6)[None] < np.array([6, 3])[:, None]
  one, other = (module(size, (head,), attention=kind) for kind in attention.KINDS)
  params = one.init(jax.random.key(0), ids, ids * 0, valid)['params']

  def loss(params, model):
    outputs = jax.tree.leaves(model.apply({'params': params}, ids, ids * 0, valid))
    outputs = [jnp.where(valid[..., None], x, 0) if x.ndim == 3 else x for x in outputs]
    return sum(jnp.sum(jnp.sin(x)) for x in outputs), outputs

  (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params, one)
  (_, same), equal = jax.value_and_grad(loss, has_aux=True)(params, other)
  for a, b in zip(*map(jax.tree.leaves, ((logits, gradient), (same, equal))), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_had_is_refused():
  with pytest.raises(ValueError, match="attention='flash': expected one of einsum, dot_product"):
    attention.attend(QUERY, KEY, VALUE, VISIBLE['all'], kind='flash')
  with pytest.raises(ValueError, match='set model.attention_dropout=0'):
    attention.attend(QUERY, KEY, VALUE, VISIBLE['all'], kind='dot_product', drop=lambda w: w)

"""Llama's class and OPT against logits of PyTorch's (tests/reference/make_decoder_reference.py)."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.models import causal_attention, llama, opt, parts
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import opt as opt_hf

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'decoders'
CASES = sorted(path.name for path in REFERENCE.iterdir() if path.is_dir())


def files_of(case):
  return opt_hf if case.startswith('opt') else llama_hf


def read(case):
  heads = ('classifier',) if case.endswith('classifier') else ('lm',)
  params, size = files_of(case).load(REFERENCE / case, heads=heads)
  with np.load(REFERENCE / case / 'logits.npz') as file:
    stored = dict(file)
  module = opt.Opt if case.startswith('opt') else llama.Llama
  return params, size, stored, module(size, heads, 3), heads[0]


@pytest.mark.parametrize('case', CASES)
def test_logits_equal_the_reference(case):
  params, size, stored, module, head = read(case)
  valid = stored['valid']
  apply = jax.jit(lambda ids, valid: module.apply({'params': params}, ids, None, valid)[head])
  with jax.default_matmul_precision('highest'):
    logits = jax.device_get(apply(stored['input_ids'], valid))
  assert logits.dtype == np.float32 and logits.shape == stored['logits'].shape
  # Outputs at padding are not compared: PyTorch's depend on how it was called.
  at = valid if head == 'lm' else slice(None)
  np.testing.assert_allclose(logits[at], stored['logits'][at], rtol=0, atol=2e-5)
  assert np.abs(stored['logits'][at]).max() > 1


def by_hand(query, key, value, valid, window):
  """Attention of one query after the other, in float64."""
  batch, length, heads, width = query.shape
  each, out = heads // key.shape[2], np.zeros(query.shape)
  for b in range(batch):
    for h in range(heads):
      for i in range(length):
        first = 0 if window is None else max(0, i - window + 1)
        seen = [j for j in range(first, i + 1) if valid is None or valid[b, j]]
        scores = np.float64(key[b, seen, h // each]) @ query[b, i, h] / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights / weights.sum() @ np.float64(value[b, seen, h // each])
  return out


@pytest.mark.parametrize('window', [None, 1, 3, 20])
@pytest.mark.parametrize('chunk', [4, 5, 64])
@pytest.mark.parametrize('padded', [False, True])
def test_attention_in_chunks_is_attention(window, chunk, padded):
  rng = np.random.default_rng(0)
  query = rng.normal(size=(2, 11, 6, 4)).astype(np.float32)
  key, value = rng.normal(size=(2, 2, 11, 2, 4)).astype(np.float32)
  valid = np.arange(11)[None] < np.array([[11], [7]]) if padded else None
  with jax.default_matmul_precision('highest'):
    got = causal_attention.attend(query, key, value, valid=valid, window=window, chunk=chunk)
  real = np.ones((2, 11), bool) if valid is None else valid
  want = by_hand(query, key, value, valid, window) if not padded else None
  if padded:  # a query at padding may see nothing: only the others are compared
    want = np.stack(
      [by_hand(query[b : b + 1], key[b : b + 1], value[b : b + 1], None, window)[0] for b in (0, 1)]
    )
  np.testing.assert_allclose(np.asarray(got)[real], want[real], rtol=0, atol=1e-5)
  assert np.isfinite(got).all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_attention_sums_its_weights_alike_on_every_platform(dtype):
  rng = np.random.default_rng(1)
  weights = jnp.asarray(rng.uniform(size=(2, 3, 2, 5, 7)), jnp.float32)
  value = jnp.asarray(rng.normal(size=(2, 3, 7, 4)), dtype)
  with jax.default_matmul_precision('highest'):
    apart = causal_attention._product_and_sums(weights, value)
    at_once = causal_attention._product_with_sums(weights, value)
  want = np.einsum('bgerk,bgkd->bgerd', np.float64(weights), np.float64(value))
  for product, total in (apart, at_once):
    assert product.dtype == total.dtype == jnp.float32
    atol = 1e-6 if dtype == 'float32' else 0.03  # weights, or the product, rounded to 8 bits
    np.testing.assert_allclose(product, want, rtol=0, atol=atol)
    np.testing.assert_allclose(total[..., 0], np.float64(weights).sum(-1), rtol=0, atol=atol)


@pytest.mark.parametrize('case', [case for case in CASES if not case.endswith('classifier')])
def test_the_parts_of_a_decoder_are_the_decoder(case):
  params, size, stored, *_ = read(case)
  ids = stored['input_ids'][:1]  # the row without padding
  assert stored['valid'][0].all()
  with jax.default_matmul_precision('highest'):
    decoder = parts.of(size)
    hidden = decoder.embed(params, ids)
    for i, block in enumerate(decoder.blocks):
      np.testing.assert_allclose(hidden[0], stored['hidden'][i, 0], rtol=0, atol=2e-5)
      hidden = block(decoder.take(params, i), hidden)
    logits = decoder.head(params, hidden)
  np.testing.assert_allclose(logits[0], stored['logits'][0], rtol=0, atol=2e-5)
  assert len(set(decoder.blocks)) == (2 if case == 'qwen2-windows' else 1)
  assert decoder.paths == ('encoder/layer_0', 'encoder/layer_1')
  other = decoder.put(params, 1, 'new')
  assert decoder.take(other, 1) == 'new' and decoder.take(params, 1) != 'new'
  assert 'encoder' not in decoder.outer(params) and decoder.take(other, 0) is decoder.take(
    params, 0
  )


def test_the_parts_of_gpt2_are_gpt2():
  from prunejax.models import gpt2
  from prunejax.models.hf import gpt2 as gpt2_hf

  params, size = gpt2_hf.load(REFERENCE.parent / 'gpt2')
  ids = np.arange(12, dtype=np.int32)[None]
  decoder = parts.of(size)
  hidden = decoder.embed(params, ids)
  for i, block in enumerate(decoder.blocks):
    hidden = block(decoder.take(params, i), hidden)
  want = gpt2.Gpt2(size).apply({'params': params}, ids, ids, ids >= 0)['lm']
  np.testing.assert_allclose(decoder.head(params, hidden), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize('case', ['llama-biases', 'mistral', 'opt'])
def test_a_later_token_and_padding_change_no_earlier_logit(case):
  params, _, stored, module, _ = read(case)
  apply = jax.jit(lambda ids, valid: module.apply({'params': params}, ids, None, valid)['lm'])
  ids, valid = stored['input_ids'], stored['valid']
  before = np.asarray(apply(ids, valid))
  noise = np.random.default_rng(0).integers(0, 39, ids.shape).astype(np.int32)
  after = np.asarray(apply(np.where(valid, ids, noise), valid))
  np.testing.assert_array_equal(before[valid], after[valid])
  late = np.arange(10) >= 5
  after = np.asarray(apply(np.where(late, noise, ids), valid))
  np.testing.assert_array_equal(before[0, :5], after[0, :5])
  assert np.abs(before - after)[0, 5:].max() > 0.1


def test_dropout_acts_on_attention_and_half_precision_stays_near():
  params, size, stored, module, _ = read('llama')
  ids, valid = stored['input_ids'], stored['valid']
  size.attention_dropout = 0.5
  run = lambda key: llama.Llama(size).apply(
    {'params': params}, ids, None, valid, deterministic=False, rngs={'dropout': key}
  )['lm']
  one, again, two = (run(jax.random.key(k)) for k in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  assert np.abs(one - two)[valid].max() > 0.1
  half = llama.Llama(size, dtype=jnp.bfloat16).apply({'params': params}, ids, None, valid)
  assert half['sequence'].dtype == jnp.bfloat16 and half['lm'].dtype == jnp.float32
  pair = half['lm'][valid].ravel(), stored['logits'][valid].ravel()
  assert np.corrcoef(*pair)[0, 1] > 0.99

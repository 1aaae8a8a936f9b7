"""GPT-2 against logits stored from the PyTorch classes (tests/reference/make_gpt2_reference.py)."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import traverse_util

from prunejax.models import gpt2
from prunejax.models.hf import gpt2 as gpt2_hf

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'gpt2'


@pytest.fixture(scope='module')
def stored():
  with np.load(REFERENCE / 'logits.npz') as file:
    return dict(file)


@pytest.fixture(scope='module')
def loaded():
  return gpt2_hf.load(REFERENCE)


def runner(model, params, **how):
  """run(ids, valid, positions) of the model, compiled, in full float32 on any backend."""
  apply = jax.jit(
    lambda ids, valid, positions: model.apply({'params': params}, ids, ids, valid, positions, **how)
  )

  def run(ids, valid, positions=None):
    with jax.default_matmul_precision('highest'):
      return jax.device_get(apply(ids, valid, positions))

  return run


@pytest.fixture(scope='module')
def run(loaded):
  params, size = loaded
  return runner(gpt2.Gpt2(size), params)


@pytest.fixture(scope='module')
def outputs(stored, run):
  """Every output of the model, under the names of the reference."""
  params, size = gpt2_hf.load(REFERENCE / 'classification', heads=('classifier',))
  keep = lambda module, _: re.fullmatch(r'layer_\d', module.name or '') is not None
  how = {'capture_intermediates': keep, 'mutable': ['intermediates']}
  classified, seen = runner(gpt2.Gpt2(size, ('classifier',), 3), params, **how)(
    stored['input_ids'], stored['valid']
  )
  layers, tables = seen['intermediates']['encoder'], params['embeddings']
  first = tables['word']['embedding'][stored['input_ids']] + tables['position']['embedding'][:12]
  hidden = [first, *(layers[f'layer_{i}']['__call__'][0] for i in range(2))]
  out = run(stored['input_ids'], stored['valid'])
  return {**out, 'hidden': np.stack(hidden), 'classifier': classified['classifier']}


@pytest.mark.parametrize('name', ['sequence', 'hidden', 'lm', 'classifier'])
def test_outputs_equal_the_reference(name, stored, outputs):
  assert outputs[name].dtype == jnp.float32
  assert outputs[name].shape == stored[name].shape
  # Outputs at padding are not compared: PyTorch's depend on how it was called.
  valid = stored['valid'] if name != 'classifier' else np.ones(5, bool)
  at = (slice(None), valid) if name == 'hidden' else valid
  np.testing.assert_allclose(outputs[name][at], stored[name][at], rtol=0, atol=1e-5)


def test_the_reference_would_show_a_wrong_activation_or_norm(stored, loaded):
  params, size = loaded
  valid = stored['valid']
  for n, wrong in ((1, {'activation_function': 'gelu'}), (2, {'layer_norm_epsilon': 1e-3})):
    # One layer shows it, and compiles faster.
    other = transformers.GPT2Config.from_dict({**size.to_dict(), **wrong, 'n_layer': n})
    keep = lambda module, _, n=n: module.name == f'layer_{n - 1}'
    _, seen = runner(
      gpt2.Gpt2(other, ()), params, capture_intermediates=keep, mutable=['intermediates']
    )(stored['input_ids'], valid)
    out = seen['intermediates']['encoder'][f'layer_{n - 1}']['__call__'][0]
    assert np.abs(out - stored['hidden'][n])[valid].max() > 1e-4, wrong


def test_lengths_and_padding_change_no_valid_token(stored, run, outputs):
  ids, valid = stored['input_ids'], stored['valid']
  noise = np.random.default_rng(0).integers(0, 280, valid.shape)
  changed = run(np.where(valid, ids, noise), valid)
  np.testing.assert_array_equal(changed['lm'][valid], outputs['lm'][valid])
  longer = run(np.pad(ids, ((0, 0), (0, 6))), np.pad(valid, ((0, 0), (0, 6))))
  np.testing.assert_allclose(longer['lm'][:, :12][valid], outputs['lm'][valid], rtol=0, atol=1e-5)
  alone = run(ids[1:2, :7], np.ones((1, 7), bool))  # by itself, without padding
  assert valid[1].sum() == 7
  np.testing.assert_allclose(alone['lm'][0], stored['lm'][1, :7], rtol=0, atol=1e-5)


def test_the_classifier_reads_the_last_valid_token(stored):
  params, size = gpt2_hf.load(REFERENCE / 'classification', heads=('classifier',))
  run = runner(gpt2.Gpt2(size, ('classifier',), 3), params)
  ids, valid = stored['input_ids'], stored['valid']
  noise = run(np.where(valid, ids, 7), valid)['classifier']
  np.testing.assert_allclose(noise, stored['classifier'], rtol=0, atol=1e-5)
  last = valid.sum(1) - 1
  for at, moves in ((last, True), (np.minimum(last + 1, 11), False)):
    other = ids.copy()
    other[np.arange(5), at] = (other[np.arange(5), at] + 1) % 280
    moved = np.abs(run(other, valid)['classifier'] - stored['classifier']).max(1) > 1e-3
    assert (moved[valid.sum(1) < 12] == moves).all()
  assert np.isfinite(run(ids, np.zeros_like(valid))['classifier']).all()


def test_a_later_token_never_changes_an_earlier_logit(stored, run):
  rng = np.random.default_rng(1)
  ids = rng.integers(0, 280, (8, 18)).astype(np.int32)
  valid = np.ones((8, 18), bool)
  before = run(ids, valid)['lm']
  cuts = np.arange(1, 17, 2)
  for what in ('tokens', 'padding'):
    later = np.arange(18)[None] >= cuts[:, None]
    other = np.where(later, rng.integers(0, 280, ids.shape), ids)
    after = run(other, valid & ~later if what == 'padding' else valid)['lm']
    np.testing.assert_array_equal(after[~later], before[~later])
    assert np.abs(after - before)[later].max() > 0.1


def test_positions_choose_where_the_head_predicts(stored, run, outputs):
  positions = np.array([[0, 3, 11], [1, 1, 2], [5, 0, 4], [8, 7, 6], [0, 0, 0]], np.int32)
  picked = run(stored['input_ids'], stored['valid'], positions)['lm']
  want = np.take_along_axis(outputs['lm'], positions[..., None], axis=1)
  np.testing.assert_allclose(picked, want, rtol=0, atol=1e-6)


def test_bf16_compute_stays_near_float32(stored, loaded):
  params, size = loaded
  out = runner(gpt2.Gpt2(size, dtype=jnp.bfloat16), params)(stored['input_ids'], stored['valid'])
  assert out['sequence'].dtype == jnp.bfloat16 and out['lm'].dtype == np.float32
  assert (
    np.corrcoef(out['lm'][stored['valid']].ravel(), stored['lm'][stored['valid']].ravel())[0, 1]
    > 0.95
  )


def test_dropout_acts_where_it_should_and_follows_its_rng(stored, loaded):
  params, size = loaded
  none = {'resid_pdrop': 0.0, 'embd_pdrop': 0.0, 'attn_pdrop': 0.0, 'n_layer': 1}

  def drawing(**rates):
    small = transformers.GPT2Config.from_dict({**size.to_dict(), **none, **rates})
    return lambda key, ids, valid: gpt2.Gpt2(small).apply(
      {'params': params}, ids, ids, valid, deterministic=False, rngs={'dropout': key}
    )['lm']

  given = (stored['input_ids'], stored['valid'])
  for rates, draws in (
    ({}, 0),
    ({'embd_pdrop': 0.3}, 1),
    ({'attn_pdrop': 0.3}, 1),
    ({'resid_pdrop': 0.3}, 2),
  ):
    traced = str(jax.make_jaxpr(drawing(**rates))(jax.random.key(0), *given))
    assert len(re.findall(r'name=_bernoulli', traced)) == draws, rates
  apply = jax.jit(drawing(attn_pdrop=0.3))
  one, again, two = (apply(jax.random.key(k), *given) for k in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  assert np.abs(one - two)[stored['valid']].max() > 0.1


def shapes(size, heads):
  ids = jnp.zeros((1, 8), jnp.int32)
  tree = jax.eval_shape(gpt2.Gpt2(size, heads).init, jax.random.key(0), ids, ids, ids == 0)[
    'params'
  ]
  return traverse_util.flatten_dict(tree, sep='/')


def test_published_size_and_prunable_matrices():
  base = shapes(transformers.GPT2Config(), gpt2.HEADS)
  counts = json.loads((REFERENCE / 'counts.json').read_text())
  total = sum(
    int(np.prod(x.shape)) for path, x in base.items() if not path.startswith('classifier')
  )
  assert total == counts['GPT2LMHeadModel at 124M'] == 124_439_808
  assert base['classifier/kernel'].shape == (768, 2) and 'classifier/bias' not in base
  matched = {path: x for path, x in base.items() if re.fullmatch(gpt2.PRUNABLE, path)}
  assert len(matched) == 12 * 6 + 1 and all(len(x.shape) == 2 for x in matched.values())
  assert sum(int(np.prod(x.shape)) for x in matched.values()) == 50257 * 768 + 12 * 12 * 768 * 768
  from prunejax.models import bert

  assert matched.keys() == {path for path in base if re.fullmatch(bert.PRUNABLE, path)}


TINY = {
  'vocab_size': 400,
  'n_embd': 64,
  'n_layer': 1,
  'n_head': 4,
  'n_inner': 256,
  'n_positions': 32,
}


def deviation(leaf):
  return np.sqrt(np.square(leaf).mean())


def test_initial_weights_are_float32_with_the_deviation_stated():
  ids = jnp.zeros((1, 4), jnp.int32)
  model = gpt2.Gpt2(
    transformers.GPT2Config(**TINY), ('lm',), dtype=jnp.bfloat16, initializer='fan_in'
  )
  params = jax.jit(model.init)(jax.random.key(0), ids, ids, ids == 0)['params']
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('float32')}
  layer, tables = params['encoder']['layer_0'], params['embeddings']
  for leaf, want in (
    (tables['word']['embedding'], 64**-0.5),
    (tables['position']['embedding'], 64**-0.5),
    (layer['attention']['query']['kernel'], 64**-0.5),
    (layer['ffn']['intermediate']['kernel'], 64**-0.5),
    (layer['attention']['output']['kernel'], 128**-0.5),
    (layer['ffn']['output']['kernel'], 512**-0.5),
  ):
    assert deviation(leaf) == pytest.approx(want, rel=0.05)


def test_gpt2s_own_initial_weights():
  draws = gpt2.initializers('normal', transformers.GPT2Config(**{**TINY, 'n_layer': 8}))
  for draw, want in zip(draws, (0.02, 0.02 / 4, 0.02, 0.02), strict=True):
    assert deviation(draw(jax.random.key(0), (64, 256), jnp.float32)) == pytest.approx(
      want, rel=0.05
    )


@pytest.mark.parametrize(
  ('change', 'kwargs', 'length', 'message'),
  [
    ({'activation_function': 'swish7'}, {}, 8, "activation_function='swish7'"),
    ({'n_head': 5}, {}, 8, 'hidden_size=64 .* num_attention_heads=5'),
    ({}, {'heads': ('mlm',)}, 8, "unknown \\['mlm'\\]"),
    ({}, {}, 33, 'sequence of 33 tokens .* max_position_embeddings=32'),
    ({}, {'initializer': 'zeros'}, 8, "model.initializer='zeros'"),
  ],
)
def test_an_unsupported_config_is_one_clear_error(change, kwargs, length, message):
  ids = jnp.zeros((1, length), jnp.int32)
  model = gpt2.Gpt2(transformers.GPT2Config(**{**TINY, **change}), **kwargs)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids == 0)

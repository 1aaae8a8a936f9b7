"""BERT against logits stored from the PyTorch classes (tests/reference/make_bert_reference.py)."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import traverse_util

from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'bert'
ALL_HEADS = ('mlm', 'nsp', 'classifier')
GIVEN = ('input_ids', 'segment_ids', 'valid')


@pytest.fixture(scope='module')
def stored():
  with np.load(REFERENCE / 'logits.npz') as file:
    return dict(file)


@pytest.fixture(scope='module')
def pretrained():
  return bert_hf.load(REFERENCE)


def runner(model, params):
  """run(given, **more) of the model, compiled, in full float32 on any backend."""
  apply = jax.jit(
    lambda params, given, positions, rngs, deterministic: model.apply(
      {'params': params}, **given, positions=positions, rngs=rngs, deterministic=deterministic
    ),
    static_argnames='deterministic',
  )

  def run(given, positions=None, rngs=None, deterministic=True):
    given = {name: given[name] for name in GIVEN}
    with jax.default_matmul_precision('highest'):
      return jax.device_get(apply(params, given, positions, rngs, deterministic=deterministic))

  return run


@pytest.fixture(scope='module')
def run(pretrained):
  params, size = pretrained
  return runner(bert.Bert(size), params)


@pytest.fixture(scope='module')
def outputs(stored, run):
  """Every output of the model, under the names of the reference."""
  params, size = bert_hf.load(REFERENCE / 'classification', heads=('classifier',))
  classified = runner(bert.Bert(size, ('classifier',), size.num_labels), params)(stored)
  picked = run(stored, stored['positions'])
  return {**run(stored), 'mlm_picked': picked['mlm'], 'classifier': classified['classifier']}


@pytest.mark.parametrize('name', ['sequence', 'pooled', 'mlm', 'mlm_picked', 'nsp', 'classifier'])
def test_outputs_equal_the_reference(name, stored, outputs):
  assert outputs[name].dtype == jnp.float32
  assert outputs[name].shape == stored[name].shape
  np.testing.assert_allclose(outputs[name], stored[name], rtol=0, atol=1e-5)


def test_the_reference_would_show_a_wrong_activation_segment_or_padding(stored, run, pretrained):
  # The comparison above can only detect these faults if each changes outputs by far more than 1e-5.
  params, size = pretrained
  tanh = transformers.BertConfig.from_dict({**size.to_dict(), 'hidden_act': 'gelu_new'})
  wrong = {
    'approximate gelu': runner(bert.Bert(tanh), params)(stored),
    'segments': run({**stored, 'segment_ids': 0 * stored['segment_ids']}),
    'padding': run({**stored, 'valid': np.ones_like(stored['valid'])}),
  }
  for what, out in wrong.items():
    assert np.abs(out['mlm'] - stored['mlm']).max() > 1e-4, what


def test_bf16_compute_stays_near_float32(stored, pretrained):
  params, size = pretrained
  out = runner(bert.Bert(size, dtype=jnp.bfloat16), params)(stored)
  assert out['sequence'].dtype == out['pooled'].dtype == jnp.bfloat16
  assert out['mlm'].dtype == out['nsp'].dtype == np.float32
  for name in ('sequence', 'pooled', 'mlm', 'nsp'):
    value = np.asarray(out[name], np.float32)
    assert np.isfinite(value).all()
    # bfloat16 has eight bits of mantissa: this only shows that nothing is badly wrong.
    assert np.corrcoef(value.ravel(), stored[name].ravel())[0, 1] > 0.95


def test_padding_does_not_change_valid_tokens(stored, run, outputs):
  valid = stored['valid']
  noise = np.random.default_rng(0).integers(5, 61, valid.shape)
  changed = run(
    {
      'input_ids': np.where(valid, stored['input_ids'], noise),
      'segment_ids': np.where(valid, stored['segment_ids'], 1),
      'valid': valid,
    }
  )
  longer = run({name: np.pad(stored[name], ((0, 0), (0, 6))) for name in GIVEN})
  for name in ('sequence', 'mlm'):
    np.testing.assert_array_equal(changed[name][valid], outputs[name][valid])
    short = longer[name][:, : valid.shape[1]]
    np.testing.assert_allclose(short[valid], outputs[name][valid], rtol=0, atol=1e-5)
  np.testing.assert_array_equal(changed['nsp'], outputs['nsp'])
  assert np.abs(changed['sequence'] - outputs['sequence'])[~valid].max() > 0.1


def test_a_row_of_padding_alone_is_finite(stored, run):
  out = run({**stored, 'valid': np.zeros_like(stored['valid'])})
  assert all(np.isfinite(value).all() for value in out.values())


def test_mlm_gradient_reaches_the_tied_word_embeddings(stored, pretrained):
  params, size = pretrained
  given = [stored[name] for name in GIVEN]

  def loss_of(params):
    out = bert.Bert(size).apply({'params': params}, *given, stored['positions'])
    return -jax.nn.log_softmax(out['mlm'])[..., 7].mean()

  grad = jax.jit(jax.grad(loss_of))(params)
  word = np.asarray(grad['embeddings']['word']['embedding'])
  unseen = np.setdiff1d(np.arange(size.vocab_size), stored['input_ids'])
  assert unseen.size > 0  # rows that get a gradient only through the softmax
  assert (np.abs(word[unseen]).max(axis=1) > 0).all()
  assert np.abs(grad['mlm']['bias']).max() > 0
  assert np.abs(grad['nsp']['kernel']).max() == 0
  leaves = traverse_util.flatten_dict(grad, sep='/')
  idle = {path for path, g in leaves.items() if not np.abs(g).max() > 0}
  assert idle == {'nsp/kernel', 'nsp/bias', 'pooler/kernel', 'pooler/bias'}


def test_dropout_is_off_unless_asked_for_and_follows_its_rng(stored, run, outputs, pretrained):
  rng = lambda seed: {'dropout': jax.random.key(seed)}
  np.testing.assert_array_equal(run(stored, rngs=rng(1))['mlm'], outputs['mlm'])
  one, again, two = (run(stored, None, rng(seed), False)['mlm'] for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, again)
  assert np.abs(one - two).max() > 0.1
  assert np.abs(one - outputs['mlm']).max() > 0.1


@pytest.mark.parametrize(
  ('used', 'rates'),
  [
    ('nothing', {}),
    ('everything', {'hidden_dropout_prob': 0.3, 'classifier_dropout': 0.0}),
    ('everything', {'attention_probs_dropout_prob': 0.3}),
    ('classifier', {'classifier_dropout': 0.3}),
  ],
)
def test_each_dropout_rate_acts_where_it_should(used, rates, stored):
  params, size = bert_hf.load(REFERENCE / 'classification', heads=('classifier',))
  none = {'hidden_dropout_prob': 0.0, 'attention_probs_dropout_prob': 0.0}
  size = transformers.BertConfig.from_dict({**size.to_dict(), **none, **rates})
  run = runner(bert.Bert(size, ('classifier',), size.num_labels), params)
  out = run(stored, None, {'dropout': jax.random.key(0)}, False)
  moved = {name for name in out if np.abs(out[name] - stored[name]).max() > 1e-2}
  still = {name for name in out if np.abs(out[name] - stored[name]).max() <= 1e-5}
  everything = {'sequence', 'pooled', 'classifier'}
  assert moved == {'nothing': set(), 'everything': everything, 'classifier': {'classifier'}}[used]
  assert still == everything - moved


def shapes(size, heads, num_outputs=2):
  ids = jnp.zeros((1, 8), jnp.int32)
  model = bert.Bert(size, heads, num_outputs)
  tree = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids == 0)['params']
  return traverse_util.flatten_dict(tree, sep='/')


@pytest.fixture(scope='module')
def base():
  return shapes(transformers.BertConfig(), ALL_HEADS)


def test_bert_base_has_as_many_weights_as_the_pytorch_class(base):
  counts = json.loads((REFERENCE / 'counts.json').read_text())
  size_of = lambda keep: sum(int(np.prod(x.shape)) for path, x in base.items() if keep(path))
  head = lambda path: path.startswith(ALL_HEADS)
  assert size_of(lambda p: not p.startswith('classifier')) == 110_106_428
  assert counts['BertForPreTraining at BERT-Base'] == 110_106_428
  assert size_of(lambda path: not head(path)) == counts['BertModel at BERT-Base'] == 109_482_240
  assert size_of(lambda path: path.startswith('classifier')) == 768 * 2 + 2


def test_prunable_is_the_papers_list_of_matrices(base):
  matched = {path: x for path, x in base.items() if re.fullmatch(bert.PRUNABLE, path)}
  assert len(matched) == 12 * 6 + 2
  for layer in range(12):
    inside = {path for path in matched if path.startswith(f'encoder/layer_{layer}/')}
    attention = {f'attention/{name}/kernel' for name in ('query', 'key', 'value', 'output')}
    ffn = {'ffn/intermediate/kernel', 'ffn/output/kernel'}
    assert inside == {f'encoder/layer_{layer}/{name}' for name in attention | ffn}
  rest = {path for path in matched if not path.startswith('encoder/')}
  assert rest == {'embeddings/word/embedding', 'pooler/kernel'}
  assert sum(int(np.prod(x.shape)) for x in matched.values()) == 108_965_376
  assert all(len(x.shape) == 2 for x in matched.values())


TINY = {
  'vocab_size': 400,
  'hidden_size': 64,
  'num_hidden_layers': 1,
  'num_attention_heads': 4,
  'intermediate_size': 256,
  'max_position_embeddings': 32,
}
# Deviation of a normal truncated at two deviations, as TensorFlow's and BERT's is.
CUT = 0.8796


@pytest.mark.parametrize(
  ('kind', 'expected'),
  [
    ('normal', {'word': 0.02 * CUT, 'position': 0.02 * CUT, 'ffn': 0.02 * CUT, 'out': 0.02 * CUT}),
    ('fan_in', {'word': 64**-0.5, 'position': 64**-0.5, 'ffn': 64**-0.5, 'out': 256**-0.5}),
  ],
)
def test_initial_weights_are_float32_with_the_deviation_stated(kind, expected):
  model = bert.Bert(transformers.BertConfig(**TINY), dtype=jnp.bfloat16, initializer=kind)
  ids = jnp.zeros((1, 4), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), ids, ids, ids == 0)['params']
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('float32')}
  tables, ffn = params['embeddings'], params['encoder']['layer_0']['ffn']
  drawn = {
    'word': tables['word']['embedding'],
    'position': tables['position']['embedding'],
    'ffn': ffn['intermediate']['kernel'],
    'out': ffn['output']['kernel'],
  }
  for name, leaf in drawn.items():
    assert np.sqrt(np.square(leaf).mean()) == pytest.approx(expected[name], rel=0.05), name


def test_sinusoids_are_vaswanis():
  table = np.asarray(bert.sinusoids(None, (32, 64))) / np.sqrt(2 / 64)
  for position, k in ((0, 0), (5, 3), (31, 31)):
    angle = position / 10000 ** (2 * k / 64)
    np.testing.assert_allclose(table[position, 2 * k], np.sin(angle), atol=1e-6)
    np.testing.assert_allclose(table[position, 2 * k + 1], np.cos(angle), atol=1e-6)


@pytest.mark.parametrize(
  ('change', 'kwargs', 'length', 'message'),
  [
    ({'hidden_act': 'silu'}, {}, 8, "hidden_act='silu'"),
    ({'num_attention_heads': 5}, {}, 8, 'hidden_size=64 .* num_attention_heads=5'),
    ({}, {'heads': ('mlm', 'nps')}, 8, "unknown \\['nps'\\]"),
    ({}, {}, 33, 'sequence of 33 tokens .* max_position_embeddings=32'),
    ({}, {'initializer': 'zeros'}, 8, "model.initializer='zeros'"),
  ],
)
def test_an_unsupported_config_is_one_clear_error(change, kwargs, length, message):
  ids = jnp.zeros((1, length), jnp.int32)
  model = bert.Bert(transformers.BertConfig(**{**TINY, **change}), **kwargs)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids == 0)

"""BERT written to a Hugging Face folder: every bit kept, every wrong tree refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers
from checkpoint_cases import PIECES, REFERENCE, assert_same_bits, flat, refusal
from flax import traverse_util

from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf


@pytest.mark.parametrize(
  ('source', 'heads'),
  [('.', ('mlm', 'nsp')), ('.', ('mlm',)), ('.', ()), ('classification', ('classifier',))],
)
def test_round_trip_keeps_every_bit(source, heads, tmp_path):
  params, size = bert_hf.load(REFERENCE / source, heads=heads)
  bert_hf.save(tmp_path / 'a' / 'out', params, size, vocab=PIECES)
  again, size_again = bert_hf.load(tmp_path / 'a' / 'out', heads=heads)
  assert_same_bits(again, params)
  names = ('vocab_size', 'hidden_size', 'num_hidden_layers', 'intermediate_size', 'num_labels')
  assert all(getattr(size, name) == getattr(size_again, name) for name in names)
  # The file holds the tensors that PyTorch wrote, with the same names.
  theirs = safetensors.numpy.load_file(REFERENCE / source / 'model.safetensors')
  ours = safetensors.numpy.load_file(tmp_path / 'a' / 'out' / 'model.safetensors')
  assert ours.keys() <= theirs.keys()
  assert len(ours) == len(theirs) or heads in ((), ('mlm',))
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name], name)


def test_params_are_what_the_model_makes_itself():
  params, size = bert_hf.load(REFERENCE)
  ids = jnp.zeros((1, 4), jnp.int32)
  made = jax.eval_shape(bert.Bert(size).init, jax.random.key(0), ids, ids, ids == 0)['params']
  assert jax.tree.map(lambda x: x.shape, made) == jax.tree.map(lambda x: x.shape, params)
  assert isinstance(params, dict) and isinstance(params['encoder']['layer_0'], dict)


def test_every_name_maps_to_a_name_of_its_own():
  params, _ = bert_hf.load(REFERENCE)
  params |= bert_hf.load(REFERENCE / 'classification', heads=('classifier',))[0]
  names = [bert_hf.hf_name(path) for path in flat(params)]
  assert len(set(names)) == len(names)
  assert bert_hf.hf_name('encoder/layer_11/ffn/norm/scale') == (
    'bert.encoder.layer.11.output.LayerNorm.weight'
  )


def test_saved_files_and_their_contents(tmp_path):
  params, size = bert_hf.load(REFERENCE)
  bert_hf.save(tmp_path / 'out', params, size, vocab=PIECES, lowercase=False)
  names = {'config.json', 'model.safetensors', 'vocab.txt', 'tokenizer_config.json'}
  assert {path.name for path in (tmp_path / 'out').iterdir()} == names
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  with safetensors.safe_open(tmp_path / 'out' / 'model.safetensors', 'np') as file:
    assert file.metadata() == {'format': 'pt'}
  config = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert config['architectures'] == ['BertForPreTraining']
  assert (config['model_type'], config['dtype']) == ('bert', 'float32')
  assert (tmp_path / 'out' / 'vocab.txt').read_text() == (REFERENCE / 'vocab.txt').read_text()
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  assert tokenizer('piece0 piece7 Piece7')['input_ids'] == [2, 5, 12, 1, 3]


@pytest.mark.parametrize(
  ('heads', 'architecture'),
  [
    ((), 'BertModel'),
    (('mlm',), 'BertForMaskedLM'),
    (('nsp',), 'BertForNextSentencePrediction'),
    (('classifier',), 'BertForSequenceClassification'),
    (('mlm', 'nsp'), 'BertForPreTraining'),
  ],
)
def test_the_config_names_the_class_of_the_heads(heads, architecture, tmp_path):
  params, size = bert_hf.load(REFERENCE)
  params['classifier'] = {'kernel': np.zeros((24, 5), 'f'), 'bias': np.zeros(5, 'f')}
  body = {k: v for k, v in params.items() if k in heads or k not in bert.HEADS}
  bert_hf.save(tmp_path / 'out', body, size)
  loaded, size_loaded = bert_hf.load(tmp_path / 'out', heads=heads)
  assert_same_bits(loaded, body)
  assert size_loaded.architectures == [architecture]
  assert size_loaded.num_labels == (5 if heads == ('classifier',) else 2)
  assert size.num_labels == 2  # the caller's own is left alone


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_width_files_are_read_as_float32(dtype, tmp_path):
  params, size = bert_hf.load(REFERENCE)
  bert_hf.save(tmp_path / 'out', params, size, dtype=dtype)
  loaded, _ = bert_hf.load(tmp_path / 'out')
  rounded = jax.tree.map(lambda x: np.asarray(jnp.asarray(x, dtype), np.float32), params)
  assert_same_bits(loaded, rounded)
  assert json.loads((tmp_path / 'out' / 'config.json').read_text())['dtype'] == dtype
  ratio = [(d / 'model.safetensors').stat().st_size for d in (REFERENCE, tmp_path / 'out')]
  assert ratio[1] < 0.6 * ratio[0]


def test_jax_arrays_and_exact_zeros_survive(tmp_path):
  params, size = bert_hf.load(REFERENCE)
  params = jax.tree.map(lambda x: jnp.where(jnp.abs(x) < 0.2, -0.0, x), params)
  bert_hf.save(tmp_path / 'out', params, size)
  assert_same_bits(bert_hf.load(tmp_path / 'out')[0], jax.device_get(params))


def test_trees_that_are_not_the_model_are_refused(tmp_path):
  params, size = bert_hf.load(REFERENCE)
  leaves = flat(params)
  wrong = {
    'missing: pooler/kernel': {k: v for k, v in leaves.items() if k != 'pooler/kernel'},
    'unknown: extra/bias': {**leaves, 'extra/bias': np.zeros(3, 'f')},
    'pooler/bias: expected shape (24,), found (23,)': {**leaves, 'pooler/bias': np.zeros(23, 'f')},
    'unknown: params/': {f'params/{k}': v for k, v in leaves.items()},
  }
  for part, tree in wrong.items():
    tree = traverse_util.unflatten_dict(tree, sep='/')
    assert part in refusal(bert_hf.save, tmp_path / 'out', tree, size)
  big = traverse_util.unflatten_dict({**leaves, 'pooler/bias': np.full(24, 1e6, 'f')}, sep='/')
  message = refusal(bert_hf.save, tmp_path / 'out', big, size, dtype='float16')
  assert "pooler/bias holds weights too large for dtype='float16'" in message
  assert "dtype='int8'" in refusal(bert_hf.save, tmp_path / 'out', params, size, dtype='int8')
  assert list(tmp_path.iterdir()) == []


def test_saving_over_a_directory_replaces_its_files_and_keeps_others(tmp_path):
  directory = shutil.copytree(REFERENCE, tmp_path / 'bert')
  (directory / 'notes.txt').write_text('mine')
  params, size = bert_hf.load(directory)
  doubled = jax.tree.map(lambda x: 2 * x, params)
  bert_hf.save(directory, doubled, size)
  assert_same_bits(bert_hf.load(directory)[0], doubled)
  assert (directory / 'notes.txt').read_text() == 'mine'
  assert [path.name for path in directory.parent.iterdir()] == ['bert']
  (directory / 'tokenizer.json').write_text('{}')
  assert 'tokenizer.json' in refusal(bert_hf.save, directory, params, size, vocab=PIECES)
  (directory / 'tokenizer.json').unlink()
  assert_same_bits(bert_hf.load(directory)[0], doubled)

"""BERT read from a Hugging Face folder: names, shapes, spellings, and errors."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from checkpoint_cases import PIECES, REFERENCE, assert_same_bits, flat, refusal

from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import convert

WORD = 'bert.embeddings.word_embeddings.weight'
QUERY = 'bert.encoder.layer.0.attention.self.query.weight'


@pytest.fixture
def folder(tmp_path):
  """edit(tensors=f, config=g): a copy of the reference with both rewritten in place."""
  directory = tmp_path / 'bert'
  shutil.copytree(REFERENCE, directory)

  def edit(tensors=None, **config):
    path = directory / 'model.safetensors'
    if tensors is not None:
      stored = safetensors.numpy.load_file(path)
      changed = tensors(stored)
      safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in changed.items()}, path)
    raw = json.loads((directory / 'config.json').read_text())
    (directory / 'config.json').write_text(json.dumps({**raw, **config}))
    return directory

  return edit


# ---- spellings of other programs


def bare(stored):
  return {name.removeprefix('bert.'): x for name, x in stored.items()}


def tensorflow(stored):
  spell = lambda n: n.replace('LayerNorm.weight', 'LayerNorm.gamma').replace(
    'LayerNorm.bias', 'LayerNorm.beta'
  )
  return {spell(name): x for name, x in stored.items()}


def with_copies(stored):
  return {
    **stored,
    'bert.embeddings.position_ids': np.arange(18)[None],
    'cls.predictions.decoder.weight': stored['bert.embeddings.word_embeddings.weight'],
    'cls.predictions.decoder.bias': stored['cls.predictions.bias'],
  }


def bias_in_the_decoder_only(stored):
  stored['cls.predictions.decoder.bias'] = stored.pop('cls.predictions.bias')
  return stored


@pytest.mark.parametrize(
  'respell',
  [bare, tensorflow, with_copies, bias_in_the_decoder_only, lambda s: bare(tensorflow(s))],
)
def test_other_spellings_load_the_same(respell, folder):
  assert_same_bits(bert_hf.load(folder(respell))[0], bert_hf.load(REFERENCE)[0])


def test_a_bare_bert_model_loads_without_heads(folder):
  only_body = lambda s: {k: v for k, v in bare(s).items() if not k.startswith('cls.')}
  assert_same_bits(
    bert_hf.load(folder(only_body), heads=())[0], bert_hf.load(REFERENCE, heads=())[0]
  )


def test_a_config_without_model_type_is_taken_for_bert(folder):
  directory = folder()
  raw = json.loads((directory / 'config.json').read_text())
  del raw['model_type']
  (directory / 'config.json').write_text(json.dumps(raw))
  assert_same_bits(bert_hf.load(directory)[0], bert_hf.load(REFERENCE)[0])


# ---- wrong tensors


def test_all_faults_come_in_one_message(folder):
  def spoil(stored):
    del stored['bert.encoder.layer.1.output.dense.bias']
    stored['bert.encoder.layer.3.output.dense.bias'] = np.zeros(24, 'f')
    stored['pair_outputs.weight'] = np.zeros((2, 24), 'f')
    stored['bert.encoder.layer.0.intermediate.dense.weight'] = np.zeros((24, 40), 'f')
    return stored

  message = refusal(bert_hf.load, folder(spoil))
  assert 'missing: bert.encoder.layer.1.output.dense.bias;' in message
  assert 'unknown: ' in message and 'pair_outputs.weight' in message
  assert 'bert.encoder.layer.3.output.dense.bias' in message
  assert (
    'bert.encoder.layer.0.intermediate.dense.weight: expected shape (40, 24), found (24, 40)'
  ) in message


@pytest.mark.parametrize('head', ['mlm', 'nsp', 'classifier'])
def test_an_absent_head_is_named(head, folder):
  starts = ('cls.predictions', 'cls.seq_relationship', 'classifier')
  body = lambda stored: {k: v for k, v in stored.items() if not k.startswith(starts)}
  message = refusal(bert_hf.load, folder(body), heads=(head,))
  assert f'the head {head!r} was asked for and is not there' in message
  assert bert_hf.hf_name(f'{head}/bias') in message
  assert not any(repr(other) in message for other in bert.HEADS if other != head)


def test_long_lists_are_cut_short(folder):
  message = refusal(bert_hf.load, folder(lambda stored: {'other': stored[QUERY]}))
  assert re.search(r'missing: .* and \d+ more', message) and len(message) < 2000


@pytest.mark.parametrize(
  ('config', 'parts'),
  [
    ({'num_hidden_layers': 4}, ('missing: bert.encoder.layer.3.',)),
    ({'num_hidden_layers': 2}, ('unknown: bert.encoder.layer.2.',)),
    ({'intermediate_size': 41}, ('expected shape (41, 24), found (40, 24)',)),
    ({'hidden_size': 27}, ('embeddings.word_embeddings.weight: expected shape (61, 27)',)),
    ({'vocab_size': 62}, ('word_embeddings.weight: expected shape (62, 24), found (61, 24)',)),
    ({'hidden_act': 'silu'}, ('config.json', "hidden_act='silu'", 'gelu')),
    ({'num_attention_heads': 5}, ('hidden_size=24', 'num_attention_heads=5')),
    ({'num_attention_heads': 0}, ('num_attention_heads=0',)),
    ({'num_hidden_layers': 10**9}, ('num_hidden_layers=1000000000',)),
    ({'hidden_size': 'wide'}, ('config.json', 'hidden_size', 'wide')),
    ({'model_type': 'roberta'}, ("model_type 'roberta'", 'expected "bert"')),
    ({'position_embedding_type': 'relative_key'}, ("position_embedding_type='relative_key'",)),
    ({'is_decoder': True}, ('is_decoder=True', 'expected False')),
    ({'intermediate_size': -1}, ('config.json', 'intermediate_size=-1', 'expected an integer')),
    (
      {'intermediate_size': 10**12},
      ('config.json', 'intermediate_size=1000000000000', 'expected an integer'),
    ),
    ({'type_vocab_size': 0}, ('config.json', 'type_vocab_size=0', 'expected an integer')),
    (
      {'max_position_embeddings': -5},
      ('config.json', 'max_position_embeddings=-5', 'expected an integer'),
    ),
    (
      {'layer_norm_eps': float('nan')},
      ('config.json', 'layer_norm_eps=nan', 'expected a finite number'),
    ),
    (  # a key that our model does not read, and one inside another
      {'task_specific_params': {'a': [0.5, float('-inf')]}},
      ('config.json', "task_specific_params={'a': [0.5, -inf]}", 'expected a finite number'),
    ),
    (
      {'layer_norm_eps': -1e-12},
      ('config.json', 'layer_norm_eps=-1e-12', 'expected a finite number'),
    ),
    (
      {'initializer_range': float('inf')},
      ('config.json', 'initializer_range=inf', 'expected a finite number'),
    ),
    (
      {'hidden_dropout_prob': 5.0},
      ('config.json', 'hidden_dropout_prob=5.0', 'expected a number from 0'),
    ),
    (
      {'attention_probs_dropout_prob': -0.1},
      ('config.json', 'attention_probs_dropout_prob=-0.1', 'expected a number from 0'),
    ),
    (
      {'classifier_dropout': 1.0},
      ('config.json', 'classifier_dropout=1.0', 'expected a number from 0'),
    ),
    ({'num_labels': 10**7}, ('config.json', 'num_labels=10000000', 'expected an integer from 0')),
    ({'model_type': ['bert']}, ('config.json', "model_type=['bert']", 'expected a string')),
  ],
)
def test_a_config_that_the_tensors_or_the_model_do_not_fit(config, parts, folder):
  message = refusal(bert_hf.load, folder(**config))
  assert all(part in message for part in parts), message


def test_untied_copies_are_refused_only_where_they_matter(folder):
  def untie(stored):
    return {**stored, 'cls.predictions.decoder.weight': 2 * stored[WORD]}

  directory = folder(untie)
  message = refusal(bert_hf.load, directory)
  assert WORD in message and 'cls.predictions.decoder.weight differ' in message
  assert_same_bits(bert_hf.load(directory, heads=())[0], bert_hf.load(REFERENCE, heads=())[0])


@pytest.mark.parametrize('dtype', ['int8', 'bool', 'float64'])
def test_tensors_of_another_kind_are_named(dtype, folder):
  message = refusal(bert_hf.load, folder(lambda s: {**s, QUERY: s[QUERY].astype(dtype)}))
  assert QUERY in message and 'expected F32, F16 or BF16' in message


def test_an_unknown_head_is_named():
  assert "unknown ['qa']" in refusal(bert_hf.load, REFERENCE, heads=('mlm', 'qa'))


# ---- vocabularies


@pytest.mark.parametrize('lines', [60, 62, 5, 0])
def test_a_vocabulary_of_another_size_is_refused(lines, tmp_path):
  pieces = [f'w{i}' for i in range(lines)]
  (tmp_path / 'other.txt').write_text(''.join(f'{piece}\n' for piece in pieces))
  for vocab in (pieces, tmp_path / 'other.txt', str(tmp_path / 'other.txt')):
    message = refusal(bert_hf.load, REFERENCE, vocab=vocab)
    assert f'of {lines} pieces does not fit the 61 rows' in message
  params, size = bert_hf.load(REFERENCE)
  assert '61 rows' in refusal(bert_hf.save, tmp_path / 'out', params, size, vocab=pieces)
  assert not (tmp_path / 'out').exists()


def test_rows_rounded_up_for_the_hardware_are_accepted(tmp_path):
  params, size = bert_hf.load(REFERENCE)
  size.vocab_size = 64
  params['embeddings']['word']['embedding'] = np.zeros((64, 24), 'f')
  params['mlm']['bias'] = np.zeros(64, 'f')
  bert_hf.save(tmp_path / 'out', params, size, vocab=PIECES)
  assert bert_hf.load(tmp_path / 'out', vocab=PIECES)[1].vocab_size == 64
  assert '64 rows' in refusal(bert_hf.load, tmp_path / 'out', vocab=[*PIECES, *'abcd'])


@pytest.mark.parametrize('last', ['piece0', 'two\nlines'])
def test_pieces_that_would_shift_the_ids_are_refused(last, tmp_path):
  params, size = bert_hf.load(REFERENCE)
  message = refusal(bert_hf.save, tmp_path / 'out', params, size, vocab=[*PIECES[:-1], last])
  assert repr(last)[1:-1] in message


# ---- from pre-training to a task


def test_transfer_replaces_the_shared_leaves_and_names_the_fresh():
  params, size = bert_hf.load(REFERENCE)
  ids = jnp.zeros((1, 4), jnp.int32)
  model = bert.Bert(size, ('classifier',), 3)
  fresh = jax.jit(model.init)(jax.random.key(0), ids, ids, ids == 0)['params']
  tree, stayed = convert.transfer(params, fresh)
  assert sorted(stayed) == ['classifier/bias', 'classifier/kernel']
  assert jax.tree.structure(tree) == jax.tree.structure(fresh)
  for path, leaf in flat(tree).items():
    np.testing.assert_array_equal(leaf, flat(fresh if path in stayed else params)[path], path)
  assert 'mlm' not in tree


def test_transfer_refuses_other_shapes_and_strangers():
  params, _ = bert_hf.load(REFERENCE / 'classification', heads=('classifier',))
  fresh = {'classifier': {'kernel': np.zeros((24, 2), 'f'), 'bias': np.zeros(2, 'f')}}
  message = refusal(convert.transfer, params, fresh)
  assert 'classifier/kernel is (24, 3) pre-trained and (24, 2) fresh' in message
  assert 'classifier/bias is (3,) pre-trained and (2,) fresh' in message
  message = refusal(convert.transfer, {'params': params}, params)
  assert 'no leaf to transfer' in message and 'params/embeddings/norm/bias' in message


def test_read_size_needs_the_config_alone(tmp_path):
  (tmp_path / 'config.json').write_text((REFERENCE / 'config.json').read_text())
  assert bert_hf.read_size(str(tmp_path)).to_dict() == bert_hf.load(REFERENCE)[1].to_dict()
  (tmp_path / 'config.json').write_text('{"model_type": "distilbert"}')
  assert "'distilbert'" in refusal(bert_hf.read_size, tmp_path)

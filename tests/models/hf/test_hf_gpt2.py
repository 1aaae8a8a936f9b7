"""GPT-2 in and out of a Hugging Face folder: every bit is kept, every wrong file is refused."""

import json
import pathlib
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import transformers
from checkpoint_cases import assert_same_bits, flat, refusal

from prunejax.data import bpe
from prunejax.models import gpt2
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf import gpt2 as gpt2_hf

REFERENCE = pathlib.Path(__file__).parents[2] / 'reference' / 'gpt2'
WORD = 'transformer.wte.weight'
JOINED = 'transformer.h.0.attn.c_attn.weight'


@pytest.fixture
def folder(tmp_path):
  """edit(tensors=f, **config): a copy of the reference with both rewritten in place."""
  directory = tmp_path / 'gpt2'
  shutil.copytree(REFERENCE, directory)

  def edit(tensors=None, **config):
    path = directory / 'model.safetensors'
    if tensors is not None:
      changed = tensors(safetensors.numpy.load_file(path))
      safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in changed.items()}, path)
    raw = json.loads((directory / 'config.json').read_text())
    (directory / 'config.json').write_text(json.dumps({**raw, **config}))
    return directory

  return edit


@pytest.fixture(scope='module')
def vocab():
  return bpe.parts(bpe.load(REFERENCE))


@pytest.mark.parametrize(
  ('source', 'heads'), [('.', ('lm',)), ('.', ()), ('classification', ('classifier',))]
)
def test_round_trip_keeps_every_bit_and_every_name(source, heads, tmp_path, vocab):
  params, size = gpt2_hf.load(REFERENCE / source, heads=heads)
  gpt2_hf.save(tmp_path / 'a' / 'out', params, size, vocab=vocab)
  again, size_again = gpt2_hf.load(tmp_path / 'a' / 'out', heads=heads)
  assert_same_bits(again, params)
  names = (
    'vocab_size',
    'n_embd',
    'n_layer',
    'n_head',
    'n_inner',
    'num_labels',
    'pad_token_id',
    'eos_token_id',
  )
  assert all(getattr(size, name) == getattr(size_again, name) for name in names)
  theirs = safetensors.numpy.load_file(REFERENCE / source / 'model.safetensors')
  ours = safetensors.numpy.load_file(tmp_path / 'a' / 'out' / 'model.safetensors')
  assert ours.keys() == theirs.keys()
  for name in ours:
    np.testing.assert_array_equal(ours[name], theirs[name], name)
  config = json.loads((tmp_path / 'a' / 'out' / 'config.json').read_text())
  assert (
    config['architectures']
    == json.loads((REFERENCE / source / 'config.json').read_text())['architectures']
  )
  assert config['model_type'] == 'gpt2'


def test_query_key_and_value_are_the_thirds_of_c_attn():
  params, _ = gpt2_hf.load(REFERENCE)
  stored = safetensors.numpy.load_file(REFERENCE / 'model.safetensors')
  attention = params['encoder']['layer_0']['attention']
  for i, name in enumerate(('query', 'key', 'value')):
    np.testing.assert_array_equal(
      attention[name]['kernel'], stored[JOINED][:, 24 * i : 24 * (i + 1)]
    )
    assert attention[name]['bias'].shape == (24,)


def test_the_folder_is_one_for_transformers(tmp_path, vocab):
  params, size = gpt2_hf.load(REFERENCE)
  size.pad_token_id = None
  gpt2_hf.save(tmp_path / 'out', params, size, vocab=vocab)
  names = {'config.json', 'model.safetensors', 'vocab.json', 'merges.txt', 'tokenizer_config.json'}
  assert {path.name for path in (tmp_path / 'out').iterdir()} == names | {'checksums.json'}
  for name in ('vocab.json', 'merges.txt'):
    assert (tmp_path / 'out' / name).read_text() == (REFERENCE / name).read_text()
  assert transformers.AutoConfig.from_pretrained(tmp_path / 'out').pad_token_id == 280
  assert size.pad_token_id is None  # the caller's own is left alone
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  for text, ids in json.loads((REFERENCE / 'tokens.json').read_text()):
    assert theirs(text)['input_ids'] == ids


def bare(stored):
  return {name.removeprefix('transformer.'): x for name, x in stored.items()}


def with_buffers_and_copies(stored):
  square = np.tril(np.ones((1, 1, 18, 18), bool))
  return {
    **stored,
    'lm_head.weight': stored[WORD],
    'transformer.h.0.attn.bias': square,
    'transformer.h.2.attn.masked_bias': np.float32(-1e4).reshape(1),
  }


@pytest.mark.parametrize(
  'respell', [bare, with_buffers_and_copies, lambda s: bare(with_buffers_and_copies(s))]
)
def test_other_spellings_load_the_same(respell, folder):
  assert_same_bits(gpt2_hf.load(folder(respell))[0], gpt2_hf.load(REFERENCE)[0])


def test_an_untied_copy_is_refused_only_where_it_matters(folder):
  directory = folder(lambda stored: {**stored, 'lm_head.weight': 2 * stored[WORD]})
  message = refusal(gpt2_hf.load, directory)
  assert WORD in message and 'lm_head.weight' in message and 'differ' in message
  assert_same_bits(gpt2_hf.load(directory, heads=())[0], gpt2_hf.load(REFERENCE, heads=())[0])


def test_all_faults_come_in_one_message(folder):
  def spoil(stored):
    del stored['transformer.h.1.ln_2.bias']
    stored['transformer.h.3.ln_2.bias'] = np.zeros(24, 'f')
    stored[JOINED] = stored[JOINED].T
    return stored

  message = refusal(gpt2_hf.load, folder(spoil), heads=('lm', 'classifier'))
  assert 'missing: score.weight, transformer.h.1.ln_2.bias' in message
  assert "the head 'classifier' was asked for and is not there" in message
  assert 'unknown: transformer.h.3.ln_2.bias' in message
  assert f'{JOINED}: expected shape (24, 72), found (72, 24)' in message


@pytest.mark.parametrize(
  ('config', 'parts'),
  [
    ({'n_layer': 4}, ('missing: transformer.h.3.',)),
    ({'n_inner': None}, ('mlp.c_fc.weight: expected shape (24, 96), found (24, 40)',)),
    (
      {'activation_function': 'swish7'},
      ('config.json', "activation_function='swish7'", 'gelu_new'),
    ),
    ({'n_head': 5}, ('hidden_size=24', 'num_attention_heads=5')),
    ({'n_head': 0}, ('num_attention_heads=0',)),
    ({'n_layer': 10**9}, ('num_hidden_layers=1000000000',)),
    ({'vocab_size': 10**12}, ('vocab_size=1000000000000',)),
    ({'n_inner': 10**12}, ('n_inner=1000000000000',)),
    ({'n_positions': -1}, ('n_positions=-1',)),
    ({'n_embd': 'wide'}, ('config.json', 'n_embd', 'wide')),
    ({'model_type': 'bert'}, ("model_type 'bert'", 'expected "gpt2"')),
    ({'tie_word_embeddings': False}, ('tie_word_embeddings=False', 'expected True')),
    ({'scale_attn_by_inverse_layer_idx': True}, ('scale_attn_by_inverse_layer_idx=True',)),
    ({'n_inner': 0}, ('config.json', 'n_inner=0', 'expected an integer')),
    (
      {'layer_norm_epsilon': float('nan')},
      ('config.json', 'layer_norm_epsilon=nan', 'expected a finite number'),
    ),
    ({'resid_pdrop': 1.5}, ('config.json', 'resid_pdrop=1.5', 'expected a number from 0')),
    ({'embd_pdrop': -1.0}, ('config.json', 'embd_pdrop=-1.0', 'expected a number from 0')),
    ({'num_labels': 10**7}, ('config.json', 'num_labels=10000000', 'expected an integer from 0')),
  ],
)
def test_a_config_that_the_tensors_or_the_model_do_not_fit(config, parts, folder):
  message = refusal(gpt2_hf.load, folder(**config))
  assert all(part in message for part in parts), message


def test_hostile_and_damaged_files_are_refused(folder, tmp_path):
  directory = folder()
  whole = (directory / 'model.safetensors').read_bytes()
  for length in (0, 4, 999, len(whole) // 2):
    (directory / 'model.safetensors').write_bytes(whole[:length])
    assert 'damaged' in refusal(gpt2_hf.load, directory)

  class Bomb:
    def __reduce__(self):
      return (pathlib.Path.touch, (tmp_path / 'ran',))

  (directory / 'model.safetensors').unlink()
  (directory / 'pytorch_model.bin').write_bytes(pickle.dumps(Bomb()))
  assert 'pickle' in refusal(gpt2_hf.load, directory)
  assert not (tmp_path / 'ran').exists()
  (directory / 'config.json').write_text('[' * 100_000)
  assert 'config.json' in refusal(gpt2_hf.load, directory)


def test_vocabularies_that_do_not_fit(folder, tmp_path, vocab):
  directory = folder()
  ids = json.loads((directory / 'vocab.json').read_text())
  (directory / 'vocab.json').write_text(json.dumps({**ids, 'more': 281}))
  assert 'of 282 pieces does not fit the 281 rows' in refusal(gpt2_hf.load, directory)
  params, size = gpt2_hf.load(REFERENCE)
  pieces, merges = vocab
  for wrong, words in (
    ((pieces[:-1], merges), '280 pieces'),
    (([*pieces[:-1], 'last'], merges), 'lacks <|endoftext|>'),
    (([*pieces[:5], pieces[4], *pieces[6:]], merges), 'twice'),
    ((pieces, [('no', 'such')]), "'no' 'such'"),
  ):
    assert words in refusal(gpt2_hf.save, tmp_path / 'out', params, size, vocab=wrong)
  assert not (tmp_path / 'out').exists()
  (directory / 'tokenizer.json').write_text('{}')
  assert 'tokenizer.json' in refusal(gpt2_hf.save, directory, params, size, vocab=vocab)


def test_trees_that_are_not_the_model_are_refused(tmp_path):
  params, size = gpt2_hf.load(REFERENCE)
  norm = params['norm']
  for part, tree in {
    'missing: norm/bias': {**params, 'norm': {'scale': norm['scale']}},
    'unknown: pooler/bias': {**params, 'pooler': {'bias': np.zeros(3, 'f')}},
    'norm/bias: expected shape (24,), found (23,)': {
      **params,
      'norm': {**norm, 'bias': np.zeros(23, 'f')},
    },
  }.items():
    assert part in refusal(gpt2_hf.save, tmp_path / 'out', tree, size)
  big = {**params, 'norm': {**norm, 'bias': np.full(24, 1e6, 'f')}}
  assert "norm/bias holds weights too large for dtype='float16'" in refusal(
    gpt2_hf.save, tmp_path / 'out', big, size, dtype='float16'
  )
  assert "dtype='int8'" in refusal(gpt2_hf.save, tmp_path / 'out', params, size, dtype='int8')
  assert list(tmp_path.iterdir()) == []


def test_half_width_files_labels_and_exact_zeros(tmp_path):
  params, size = gpt2_hf.load(REFERENCE)
  params = jax.tree.map(lambda x: jnp.where(jnp.abs(x) < 0.2, 0.0, x), params)
  params['classifier'] = {'kernel': jnp.ones((24, 5))}
  gpt2_hf.save(tmp_path / 'out', params, size, dtype='bfloat16')
  loaded, size_loaded = gpt2_hf.load(tmp_path / 'out', heads=('classifier',))
  assert_same_bits(
    loaded, jax.tree.map(lambda x: np.asarray(jnp.asarray(x, 'bfloat16'), np.float32), params)
  )
  assert size_loaded.num_labels == 5 and size_loaded.architectures == [
    'GPT2ForSequenceClassification'
  ]


def test_params_are_what_the_model_makes_itself():
  params, size = gpt2_hf.load(REFERENCE / 'classification', heads=('classifier',))
  ids = jnp.zeros((1, 4), jnp.int32)
  model = gpt2.Gpt2(size, ('classifier',), 3)
  made = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids == 0)['params']
  assert jax.tree.map(lambda x: x.shape, made) == jax.tree.map(lambda x: x.shape, params)
  names = [gpt2_hf.hf_name(path) for path in flat(params)]
  assert len(names) - len(set(names)) == 3 * 2 * 2  # of three leaves in c_attn, two share its name
  assert hf_folder.read_vocab(REFERENCE)[-1] == '<|endoftext|>'

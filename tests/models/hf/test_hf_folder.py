"""The files of a Hugging Face folder: missing, damaged, hostile, half-written."""

import json
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import safetensors.numpy
from checkpoint_cases import REFERENCE, assert_same_bits, refusal

from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.models.hf import stored


@pytest.fixture
def folder(tmp_path):
  return pathlib.Path(shutil.copytree(REFERENCE, tmp_path / 'bert'))


def contents(directory):
  return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def cut(length):
  def spoil(directory):
    path = directory / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:length])

  return spoil


@pytest.mark.parametrize(
  ('spoil', 'parts'),
  [
    (lambda d: (d / 'config.json').unlink(), ('config.json is missing',)),
    (lambda d: (d / 'config.json').write_text('{"a": '), ("config.json' cannot be read as JSON",)),
    (lambda d: (d / 'config.json').write_bytes(b'\xff\xfe{}'), ("config.json' is not UTF-8 text",)),
    (lambda d: (d / 'config.json').write_text('[]'), ('list: expected a JSON object',)),
    (lambda d: (d / 'model.safetensors').unlink(), ('model.safetensors is missing',)),
    (shutil.rmtree, ('config.json is missing',)),
    (cut(5000), ('model.safetensors is damaged',)),
    (cut(4), ('model.safetensors is damaged',)),
    (cut(0), ('model.safetensors is damaged',)),
    (lambda d: (d / 'model.safetensors').write_bytes(b'\xff' * 999), ('is damaged',)),
    (
      lambda d: (d / 'model.safetensors').rename(d / 'pytorch_model.bin'),
      ('pytorch_model.bin is a pickle', 'save_pretrained', 'safetensors'),
    ),
    (lambda d: (d / 'model.safetensors').rename(d / 'tf_model.h5'), ('tf_model.h5 is a Tens',)),
    (
      lambda d: (d / 'model.safetensors').rename(d / 'flax_model.msgpack'),
      ('flax_model.msgpack is a Flax file',),
    ),
    (
      lambda d: (d / 'model.safetensors').rename(d / 'model.safetensors.index.json'),
      ("model.safetensors.index.json' is not UTF-8 text",),
    ),
    (lambda d: (d / 'vocab.txt').write_text('[PAD]\n[UNK]\n'), ('of 2 pieces', '61 rows')),
    (lambda d: (d / 'vocab.txt').write_bytes(b'\xff\n' * 61), ("vocab.txt' is not UTF-8",)),
  ],
)
def test_files_that_are_missing_or_damaged(spoil, parts, folder):
  spoil(folder)
  message = refusal(bert_hf.load, folder)
  assert str(folder) in message
  assert all(part in message for part in parts), message


def test_every_truncation_of_the_weights_is_refused(folder):
  whole = (folder / 'model.safetensors').read_bytes()
  for length in range(0, len(whole), len(whole) // 40):
    (folder / 'model.safetensors').write_bytes(whole[:length])
    assert 'damaged' in refusal(hf_folder.read_tensors, folder)


@pytest.mark.parametrize('dtype', ['int8', 'bool', 'float64', 'int64'])
def test_tensors_of_another_kind_are_named_unless_ignored(dtype, tmp_path):
  tensors = {'buffer': np.ones(3, dtype), 'weight': np.ones(3, np.float16)}
  safetensors.numpy.save_file(tensors, tmp_path / 'model.safetensors')
  message = refusal(hf_folder.read_tensors, tmp_path)
  assert 'buffer (' in message and 'expected F32, F16 or BF16' in message
  assert list(hf_folder.read_tensors(tmp_path, ignore=r'buf+er')) == ['weight']


def test_a_pickle_is_never_opened(folder, tmp_path):
  class Bomb:
    def __reduce__(self):
      return (pathlib.Path.touch, (tmp_path / 'ran',))

  for name in ('model.safetensors', 'pytorch_model.bin'):
    (folder / name).write_bytes(pickle.dumps(Bomb()))
  assert 'damaged' in refusal(bert_hf.load, folder)
  (folder / 'model.safetensors').unlink()
  assert 'pickle' in refusal(bert_hf.load, folder)
  assert not (tmp_path / 'ran').exists()
  pickle.loads(pickle.dumps(Bomb()))
  assert (tmp_path / 'ran').exists()  # unpickling would have run the code


def test_read_vocab_reads_either_file_and_odd_line_ends(tmp_path):
  odd = ['[PAD]', 'a\u2028b', '\x85', ' ', 'é']
  (tmp_path / 'vocab.txt').write_bytes('\n'.join(odd).encode())
  assert hf_folder.read_vocab(tmp_path) == odd
  (tmp_path / 'vocab.txt').write_bytes(b'a\r\nb\r\n')
  assert hf_folder.read_vocab(tmp_path / 'vocab.txt') == ['a', 'b']
  (tmp_path / 'vocab.txt').unlink()
  assert hf_folder.read_vocab(tmp_path) is None
  assert hf_folder.read_vocab(['b', 'a']) == ['b', 'a']
  added = [{'content': '[X]', 'id': 2}]
  path = tmp_path / 'tokenizer.json'
  path.write_text(json.dumps({'model': {'vocab': {'b': 1, 'a': 0}}, 'added_tokens': added}))
  assert hf_folder.read_vocab(tmp_path) == ['a', 'b', '[X]']
  for text in ('{}', '[', '{"model": {"vocab": {"a": 1}}}', '{"model": {"vocab": 3}}', '[1]'):
    path.write_text(text)
    assert "tokenizer.json' " in refusal(hf_folder.read_vocab, tmp_path)
  assert 'absent.txt' in refusal(hf_folder.read_vocab, tmp_path / 'absent.txt')


def test_written_files_replace_their_namesakes_only(folder):
  before = contents(folder)
  weights = {'w': np.arange(6, dtype='f').reshape(2, 3).T}
  hf_folder.write(folder, {'config.json': '{"é": 1}'}, weights)
  after = contents(folder)
  changed = {'config.json', 'model.safetensors', 'checksums.json'}
  assert {name for name in after if after[name] != before.get(name)} == changed
  assert after.keys() == before.keys() | {'checksums.json'}
  assert hf_folder.read_config(folder) == {'é': 1}
  np.testing.assert_array_equal(hf_folder.read_tensors(folder)['w'], weights['w'])
  assert [path.name for path in folder.parent.iterdir()] == ['bert']


@pytest.mark.parametrize(
  'error', [OSError(28, 'No space left on device'), stored.Damaged('a.gguf: w is damaged')]
)
def test_a_failed_write_leaves_what_was_there(error, folder, monkeypatch):
  before = contents(folder)

  def fail(path, tensors, metadata):
    path.write_bytes(b'half')
    raise error

  monkeypatch.setattr(hf_folder.safetensors_file, 'write', fail)
  for target in (folder, folder.parent / 'new'):
    message = refusal(hf_folder.write, target, {'config.json': '{}'}, {'w': np.ones(2, 'f')})
    assert f'{target} cannot be written: {error}' in message
  assert contents(folder) == before
  assert [path.name for path in folder.parent.iterdir()] == ['bert']


def test_a_directory_under_a_file_is_refused(tmp_path):
  (tmp_path / 'file').write_text('')
  for target in (tmp_path / 'file', tmp_path / 'file' / 'out'):
    assert 'cannot be written' in refusal(hf_folder.write, target, {}, {'w': np.ones(2, 'f')})
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def written(tmp_path):
  out = tmp_path / 'ours'
  hf_folder.write(
    out, {'config.json': '{}', 'vocab.txt': 'a\n'}, {'w': np.arange(64, dtype=np.float32)}
  )
  return out


def test_any_changed_byte_of_a_folder_of_ours_is_seen(tmp_path):
  out = written(tmp_path)
  np.testing.assert_array_equal(hf_folder.read_tensors(out)['w'], np.arange(64.0, dtype=np.float32))
  files = contents(out)
  assert set(files) == {'config.json', 'vocab.txt', 'model.safetensors', 'checksums.json'}
  for name, whole in files.items():
    for at in range(0, len(whole), max(1, len(whole) // 40)):
      (out / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
      try:
        hf_folder.check(out)
        # Other white space in checksums.json changes no sum, but is another digest.
        assert name == 'checksums.json' and whole[at] in b' \n', (name, at)
      except hf_folder.CheckpointError as error:
        assert 'checksums.json' in str(error)
    (out / name).write_bytes(whole)
  hf_folder.check(out)


@pytest.mark.parametrize(
  ('spoil', 'words'),
  [
    (lambda d: (d / 'vocab.txt').unlink(), 'vocab.txt is missing: checksums.json names it'),
    (lambda d: (d / 'vocab.txt').write_text('b\n'), 'vocab.txt is not the file that was written'),
    (lambda d: (d / 'checksums.json').write_text('[]'), 'checksums.json is damaged'),
    (lambda d: (d / 'checksums.json').write_text('{"sha256": 3}'), 'checksums.json is damaged'),
    (
      lambda d: (d / 'checksums.json').write_text('{"sha256": {"../a": "0"}}'),
      'checksums.json is damaged',
    ),
  ],
)
def test_a_folder_that_its_checksums_do_not_fit_is_refused_by_name(spoil, words, tmp_path):
  out = written(tmp_path)
  spoil(out)
  with pytest.raises(hf_folder.CheckpointError, match=words):
    hf_folder.read_tensors(out)
  (out / 'checksums.json').unlink()
  hf_folder.read_tensors(out)  # a folder of others has no checksums


def test_a_folder_that_is_written_again_has_its_new_checksums(tmp_path):
  out = written(tmp_path)
  before = hf_folder.digest(out)
  hf_folder.write(out, {'config.json': '{}', 'vocab.txt': 'a\n'}, {'w': np.ones(64, np.float32)})
  hf_folder.check(out)
  assert hf_folder.digest(out) != before and hf_folder.digest(REFERENCE) == ''


def test_the_packaged_model_has_checksums():
  nano = pathlib.Path(hf_folder.__file__).parents[1] / 'nano'
  sums = json.loads((nano / 'checksums.json').read_text())['sha256']
  assert {'config.json', 'model.safetensors', 'vocab.txt', 'tokenizer_config.json'} == set(sums)
  hf_folder.check(nano)


# ---- shards


def split(directory, shards=3):
  """Writes the weights as several files and an index, as transformers does."""
  whole = safetensors.numpy.load_file(directory / 'model.safetensors')
  (directory / 'model.safetensors').unlink()
  shard_of = {}
  for i in range(shards):
    name = f'model-{i + 1:05}-of-{shards:05}.safetensors'
    part = {key: whole[key] for key in sorted(whole)[i::shards]}
    safetensors.numpy.save_file(part, directory / name, metadata={'format': 'pt'})
    shard_of |= dict.fromkeys(part, name)
  index = {'metadata': {'total_size': 1}, 'weight_map': shard_of}
  (directory / 'model.safetensors.index.json').write_text(json.dumps(index))
  return index


def test_shards_are_read_as_one_file(folder):
  whole = hf_folder.read_tensors(folder)
  split(folder)
  shards = hf_folder.read_tensors(folder, ignore=r'cls\..*')
  assert shards.keys() == {name for name in whole if not name.startswith('cls.')}
  assert all(np.array_equal(shards[name], whole[name]) for name in shards)
  assert_same_bits(bert_hf.load(folder)[0], bert_hf.load(REFERENCE)[0])


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda index, d: index.pop('weight_map'), 'lacks a weight_map'),
    (lambda index, d: index.update(weight_map=['a']), 'lacks a weight_map'),
    (lambda index, d: index['weight_map'].update(x='../../secret.safetensors'), 'lie beside it'),
    (lambda index, d: index['weight_map'].update(x=3), 'lacks a weight_map'),
    (lambda index, d: index['weight_map'].update(x=min(index['weight_map'].values())), ': x'),
    (lambda index, d: index['weight_map'].pop('bert.pooler.dense.bias'), ': bert.pooler.dense.b'),
    (
      lambda index, d: (d / 'model-00002-of-00003.safetensors').unlink(),
      'model-00002-of-00003.safetensors is missing: model.safetensors.index.json lists it',
    ),
    (
      lambda index, d: (d / 'model-00002-of-00003.safetensors').write_bytes(b'x' * 99),
      'model-00002-of-00003.safetensors is damaged',
    ),
  ],
)
def test_an_index_that_does_not_fit_is_refused(change, words, folder):
  index = split(folder)
  change(index, folder)
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  assert words in refusal(bert_hf.load, folder)


# ---- what is in the files


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_numbers_that_are_not_finite_are_named_with_their_count(dtype, folder):
  path = folder / 'model.safetensors'
  tensors = {k: v.astype(dtype) for k, v in safetensors.numpy.load_file(path).items()}
  tensors['bert.pooler.dense.weight'][3, :2] = np.nan, np.inf
  safetensors.numpy.save_file(tensors, path)
  message = refusal(bert_hf.load, folder)
  assert f'{path} holds NaN or infinite numbers in bert.pooler.dense.weight (2 of 576)' in message


@pytest.mark.parametrize('kind', [bert_hf, gpt2_hf])
@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'architectures': ['BertForTokenClassification']}, 'is of a BertForTokenClassification: exp'),
    ({'architectures': ['BertForMultipleChoice']}, 'is of a BertForMultipleChoice'),
    ({'architectures': ['GPT2DoubleHeadsModel']}, 'is of a GPT2DoubleHeadsModel: expected one of'),
    ({'architectures': 'BertModel'}, "architectures='BertModel': expected a list"),
    ({'architectures': [3]}, 'architectures=[3]: expected a list'),
    ({'id2label': {'0': 'a', '7': 'b'}}, 'id2label'),
    ({'id2label': {'0': 5}}, 'id2label'),
    ({'id2label': ['a', 'b']}, 'id2label'),
    ({'tie_word_embeddings': False}, 'tie_word_embeddings=False: expected True'),
  ],
)
def test_what_a_config_says_and_we_do_not_do_is_refused(kind, changes, words, tmp_path):
  name = 'bert' if kind is bert_hf else 'gpt2'
  raw = json.loads((REFERENCE.parent / name / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps(raw | changes))
  assert words in refusal(kind.read_size, tmp_path)


def test_pruned_heads_of_transformers_are_named(folder):
  raw = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps({**raw, 'pruned_heads': {'0': [1]}}))
  assert "pruned_heads={'0': [1]}" in refusal(bert_hf.load, folder)


def test_masks_of_the_model_that_was_there_go_with_it(folder):
  for name in ('masks.safetensors', 'pruning.json'):
    (folder / name).write_text('{}')
  (folder / 'notes.txt').write_text('mine')
  hf_folder.write(folder, {'config.json': '{}'}, {'w': np.ones(2, np.float32)})
  assert not (folder / 'masks.safetensors').exists() and not (folder / 'pruning.json').exists()
  assert (folder / 'notes.txt').exists()

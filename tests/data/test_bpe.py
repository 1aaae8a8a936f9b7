"""Byte-level BPE: ids of PyTorch's tokenizer, training, files, errors, labelled tasks."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from prunejax.data import bpe, finetuning, vocabulary
from prunejax.data.examples import Examples

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'gpt2'
STORED = json.loads((REFERENCE / 'tokens.json').read_text())
END = 280


@pytest.fixture(scope='module')
def tokenizer():
  return bpe.load(REFERENCE)


@pytest.fixture
def folder(tmp_path):
  return pathlib.Path(shutil.copytree(REFERENCE, tmp_path / 'gpt2'))


@pytest.mark.parametrize(('text', 'ids'), STORED)
def test_ids_are_those_of_transformers(text, ids, tokenizer):
  assert tokenizer.encode(text).ids == ids
  assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_one_vocabulary_file_equals_two(tokenizer, tmp_path):
  (tmp_path / 'tokenizer.json').write_text(tokenizer.to_str())
  for path in (tmp_path, tmp_path / 'tokenizer.json'):
    again = bpe.load(path)
    assert bpe.parts(again) == bpe.parts(tokenizer) and bpe.fingerprint(again) == bpe.fingerprint(
      tokenizer
    )
    assert [again.encode(text).ids for text, _ in STORED] == [ids for _, ids in STORED]
  raw = json.loads(tokenizer.to_str())
  raw['model']['merges'] = [
    ' '.join(pair) for pair in raw['model']['merges']
  ]  # as older files have them
  (tmp_path / 'tokenizer.json').write_text(json.dumps(raw))
  assert bpe.parts(bpe.load(tmp_path)) == bpe.parts(tokenizer)


def test_training_merges_what_is_commonest():
  tokenizer = bpe.train(['low lower lowest'] * 9 + ['new'], 262)
  pieces, merges = bpe.parts(tokenizer)
  assert pieces[0] == bpe.END and len(pieces) == 262 and len(set(pieces)) == 262
  assert {('l', 'o'), ('lo', 'w')} <= set(merges)
  text = 'lowest\n  naïve 猫\x00'
  assert tokenizer.decode(tokenizer.encode(text).ids) == text
  assert tokenizer.encode(f'low{bpe.END}low').ids[1] == 0
  assert bpe.is_byte_level(tokenizer) and bpe.fingerprint(tokenizer) != bpe.fingerprint(
    bpe.load(REFERENCE)
  )
  with pytest.raises(ValueError, match='data.vocab_size=256: expected at least 257'):
    bpe.train(['a'], 256)


def rewrite(name, change):
  def spoil(folder):
    path = folder / name
    value = json.loads(path.read_text()) if name.endswith('.json') else path.read_text()
    value = change(value)
    path.write_text(value if isinstance(value, str) else json.dumps(value))

  return spoil


@pytest.mark.parametrize(
  ('spoil', 'words'),
  [
    (lambda f: (f / 'merges.txt').unlink(), ['merges.txt', 'is missing']),
    (lambda f: (f / 'vocab.json').unlink(), ['no vocabulary', 'tokenizer.json', 'merges.txt']),
    (rewrite('vocab.json', lambda v: '{"a": '), ['vocab.json', 'JSON']),
    (rewrite('vocab.json', lambda v: list(v)), ['vocab.json', 'holds a list']),
    (rewrite('vocab.json', lambda v: '[' * 100_000), ['vocab.json', 'JSON']),
    (rewrite('vocab.json', lambda v: {**v, 'x y': 999}), ['vocab.json', 'not 0, 1, 2']),
    (rewrite('vocab.json', lambda v: {**v, 'x y': '281'}), ['vocab.json', 'not 0, 1, 2']),
    (
      rewrite('vocab.json', lambda v: {('end' if k == bpe.END else k): i for k, i in v.items()}),
      ['lacks <|endoftext|>'],
    ),
    (
      rewrite('vocab.json', lambda v: {('!!!' if k == '!' else k): i for k, i in v.items()}),
      ['1 of the 256 bytes'],
    ),
    (rewrite('merges.txt', lambda t: t + 'no such\n'), ['merges that do not fit 281 pieces']),
    (
      rewrite('merges.txt', lambda t: t + 'three of them\n'),
      ['merges.txt', 'line 26', 'two pieces'],
    ),
    (lambda f: (f / 'merges.txt').write_bytes(b'\xff\xfe a\n'), ['merges.txt', 'UTF-8']),
  ],
)
def test_a_damaged_vocabulary_is_named(spoil, words, folder):
  spoil(folder)
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    bpe.load(folder)
  assert all(word in str(error.value) for word in [str(folder), *words]), error.value


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'pre_tokenizer': {'type': 'BertPreTokenizer'}}, 'is not byte-level BPE'),
    ({'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': True}}, 'is not byte-level BPE'),
    ({'normalizer': {'type': 'Lowercase'}}, "normalizer 'Lowercase'"),
    ({'model': {'type': 'BPE', 'vocab': {}}}, 'merges'),
    ({'model': 3}, 'it is no tokenizer.json'),
  ],
)
def test_a_tokenizer_of_another_kind_is_refused(change, words, tokenizer, tmp_path):
  (tmp_path / 'tokenizer.json').write_text(json.dumps({**json.loads(tokenizer.to_str()), **change}))
  with pytest.raises(ValueError, match=words):
    bpe.load(tmp_path)


def test_files_too_large_are_not_read(folder, monkeypatch):
  monkeypatch.setattr(vocabulary, 'MAX_BYTES', 100)
  with pytest.raises(ValueError, match='expected at most 100'):
    bpe.load(folder)


def test_a_decoder_reads_two_texts_with_the_end_between(tokenizer):
  ids = lambda text: tokenizer.encode(text).ids
  rows = Examples(
    ['the cat', '', 'the cat sat on the mat'], ['a hat', 'a', 'that'], np.array([1, 0, 1], np.int32)
  )
  got = finetuning.encode(rows, tokenizer, 6)
  first = [*ids('the cat'), END, *ids('a hat')]
  want = [first + [END] * (6 - len(first)), [END, *ids('a'), END, END, END, END]]
  np.testing.assert_array_equal(got['input_ids'][:2], want)
  np.testing.assert_array_equal(got['valid'].sum(1)[:2], [len(first), 2])
  assert list(got['input_ids'][2]).count(END) == 1 and got['valid'][2].all(), (
    'the longer one is cut'
  )
  assert list(got['input_ids'][2][-len(ids('that')) :]) == ids('that')
  assert got['segment_ids'].max() == 0 and got['label'].tolist() == [1, 0, 1]


def test_a_decoder_reads_one_text_as_it_is(tokenizer):
  got = finetuning.encode(Examples(['the cat', ''], None, np.zeros(2, np.float32)), tokenizer, 4)
  ids = tokenizer.encode('the cat').ids
  np.testing.assert_array_equal(got['input_ids'], [ids + [END] * (4 - len(ids)), [END] * 4])
  np.testing.assert_array_equal(got['valid'].sum(1), [len(ids), 1])  # an empty text is one token
  with pytest.raises(ValueError, match=r"seq_len=2 has no room for 'a <\|endoftext\|> b'"):
    finetuning.encode(Examples(['a'], ['b'], np.zeros(1)), tokenizer, 2)

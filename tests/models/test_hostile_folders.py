"""Any field of a folder's JSON files replaced by anything: a value, or an error of one line."""

import copy
import json
import pathlib
import shutil
import tempfile

import hypothesis
import hypothesis.strategies as st
import pytest
from checkpoint_cases import REFERENCE

from prunejax.compress import read_sparse, sparse_file
from prunejax.data import bpe, wordpiece
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf import gpt2 as gpt2_hf

many = hypothesis.settings(max_examples=100, deadline=None)
GPT2 = REFERENCE.parent / 'gpt2'
# Numbers, texts and containers that a field should not be; a few that it could be.
SCALARS = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(-3, 100),
  st.sampled_from([2**31, 2**63, 10**30, -1, 1e308, float('nan'), float('inf'), -0.0]),
  st.sampled_from(['', 'a', '[UNK]', '<|endoftext|>', 'BPE', 'WordPiece', 'ByteLevel', 'x' * 300]),
)
VALUES = st.recursive(
  SCALARS,
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(st.sampled_from(['0', 'id', 'content', 'type', 'a']), inner, max_size=3),
  ),
  max_leaves=6,
)


def places(value, path=()):
  """The path of every field of a JSON value; of long lists and dicts, the first few."""
  yield path
  if isinstance(value, dict | list):
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys[:12]:
      yield from places(value[key], (*path, key))


def changed(value, path, new):
  """A copy of a JSON value with one field replaced."""
  if not path:
    return new
  value = copy.deepcopy(value)
  node = value
  for key in path[:-1]:
    node = node[key]
  node[path[-1]] = new
  return value


def tokenizer_of(kind):
  stored = wordpiece.load(REFERENCE) if kind == 'bert' else bpe.load(GPT2)
  return json.loads(stored.to_str())


SETTINGS = {
  'do_lower_case': True,
  'strip_accents': None,
  'tokenize_chinese_chars': True,
  'never_split': None,
  'mask_token': '[MASK]',
  'eos_token': '<|endoftext|>',
  'additional_special_tokens': ['<e>'],
  'added_tokens_decoder': {'61': {'content': '<e>', 'special': True}},
}
FILES = {
  'bert': {
    'tokenizer.json': tokenizer_of('bert'),
    'config.json': json.loads((REFERENCE / 'config.json').read_text()) | {'id2label': {'0': 'a'}},
    'tokenizer_config.json': SETTINGS,
    'added_tokens.json': {'<e>': 61},
    'special_tokens_map.json': {'additional_special_tokens': ['<e>']},
  },
  'gpt2': {
    'tokenizer.json': tokenizer_of('gpt2'),
    'config.json': json.loads((GPT2 / 'config.json').read_text()),
    'vocab.json': json.loads((GPT2 / 'vocab.json').read_text()),
    'tokenizer_config.json': SETTINGS | {'added_tokens_decoder': {}},
  },
}


def readers(kind):
  files, words = (bert_hf, wordpiece) if kind == 'bert' else (gpt2_hf, bpe)
  return (files.read_size, words.load, hf_folder.read_vocab, hf_folder.read_config)


@pytest.mark.parametrize('kind, file', [(kind, file) for kind in FILES for file in FILES[kind]])
@many
@hypothesis.given(st.data())
def test_any_field_may_be_anything(kind, file, data):
  content = FILES[kind][file]
  path = data.draw(st.sampled_from(list(places(content))))
  text = json.dumps(changed(content, path, data.draw(VALUES)))
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / 'model'
    shutil.copytree(REFERENCE if kind == 'bert' else GPT2, folder)
    (folder / file).write_text(text)
    for read in readers(kind):
      try:
        read(folder)
      except (ValueError, FileNotFoundError) as error:
        assert '\n' not in str(error) and len(str(error)) < 3000
        assert str(folder) in str(error), error


LEAVES = {'a/kernel': [[0.0, 1.5], [0.0, 0.0]], 'a/bias': [1.0, 2.0]}


@many
@hypothesis.given(st.data())
def test_any_field_of_a_sparse_file_may_be_anything(data):
  whole = sparse_file.encode(LEAVES, data.draw(st.sampled_from(sorted(sparse_file.VALUES))))
  size = int.from_bytes(whole[:8], 'little')
  head = json.loads(whole[8 : 8 + size])
  rows = json.loads(head['__metadata__']['prunejax'])
  if data.draw(st.booleans()):
    path = data.draw(st.sampled_from(list(places(rows))))
    rows = changed(rows, path, data.draw(VALUES))
    head['__metadata__']['prunejax'] = json.dumps(rows)
  else:
    head = changed(head, data.draw(st.sampled_from(list(places(head)))), data.draw(VALUES))
  text = json.dumps(head).encode()
  changed_file = len(text).to_bytes(8, 'little') + text + whole[8 + size :]
  right = read_sparse.decode(whole)
  try:
    leaves = read_sparse.decode(changed_file, most=2**16)
  except ValueError as error:
    assert '\n' not in str(error) and len(str(error)) < 500
  else:
    assert all((leaves[name] == right[name]).all() for name in leaves)

"""Every reader of ours, given damaged and hostile files: a ValueError or OSError, or an answer.

A file is flipped, cut, doubled or given hostile fields. A reader may then take little time and
memory, and may raise nothing but an error that a person can correct.
"""

import contextlib
import functools
import gzip
import importlib.util
import io
import json
import lzma
import pathlib
import resource
import shutil
import struct
import tarfile
import time
import warnings
from typing import NamedTuple

import glue_files
import numpy as np
import pytest
import tiny_llama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunejax import files
from prunejax.bench import table
from prunejax.compress import deep_compression, read_sparse, sparse_file
from prunejax.data import (
  bpe,
  corpus,
  glue,
  handwritten_digits,
  monks,
  tasks,
  text_files,
  tokenizer_file,
  wordpiece,
)
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import gpt2 as gpt2_hf
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import opt as opt_hf
from prunejax.pruning import criteria, schedules
from prunejax.report import compare, cost
from prunejax.train import configs, metrics_log, specs, workdir

REFERENCE = pathlib.Path(__file__).parent / 'reference'
MEMORY = 2**29  # bytes that a reader may take beyond those of the process
SECONDS = 5.0  # processor time of one file
# How many files for each reader, and how many texts.
TIMES = [15, pytest.param(60, marks=pytest.mark.slow)]
TEXT_TIMES = [75, pytest.param(300, marks=pytest.mark.slow)]


class Reader(NamedTuple):
  """One reader: `make(folder)` writes good files, `name` is the one that is damaged."""

  make: object
  name: str
  read: object  # folder -> anything


def _leaves():
  rng = np.random.default_rng(0)
  dense = rng.normal(size=(12, 9)).astype(np.float32)
  return {'a/kernel': dense * (rng.random((12, 9)) < 0.3), 'b/bias': dense[0], 'c': dense.T * 0}


def _text(name, data):
  return lambda folder: (folder / name).write_bytes(data)


def _copied(source):
  def make(folder):
    for path in (REFERENCE / source).iterdir():
      if path.is_file() and path.suffix != '.npz':
        shutil.copy(path, folder)

  return make


def _archive(folder, mode='w'):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode=mode) as archive:
    for i in range(4):
      data = f'Text {i} is here. It goes on.\n\nAnother document {i}.\n'.encode() * 3
      member = tarfile.TarInfo(f'wiki/{i}.txt')
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return buffer.getvalue()


def _glue(task):
  def make(folder):
    path = folder / 'glue' / glue.TASKS[task].folder
    path.mkdir(parents=True)
    for _, name in glue.TASKS[task].files:
      (path / name).write_text(glue_files.FILES[task][0], encoding='utf-8')

  return make


def _ledger(folder):
  row = {'experiment': 'e', 'preset': 'p', 'stage': 'pretrain', 'arm': 'pruned', 'sparsity': 0.5}
  rows = [{'cell': f'{i:012}', **row, 'seed': i, 'metrics': {'loss': 1.5 * i}} for i in range(3)]
  (folder / 'ledger.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def _cost(folder):
  (folder / 'cost').mkdir()
  row = {'how': 'together', 'cells': 2, 'compiles': 3, 'compile_seconds': 0.5}
  row |= {'device': 'cpu x1', 'device_seconds': 9.0}
  (folder / 'cost' / 'a.json').write_text(json.dumps(row))


def _bench(folder):
  machine = {'kind': 'cpu', 'device': 'cpu', 'cores': 2, 'ram_gib': 4, 'versions': {'jax': '0.10'}}
  part = {'command': 'c', 'date': 'd', 'commit': '', 'seconds': 1.0, 'rows': [], 'figures': []}
  results = {'machine': machine, 'size': 'tiny', 'benches': {'selection': part}}
  (folder / 'a.json').write_text(json.dumps(results))


def _corpus_cache(folder):
  np.save(folder / 'train.tokens.npy', np.arange(9, dtype=np.int32))
  np.save(folder / 'train.starts.npy', np.zeros(9, bool))
  np.save(folder / 'train.documents.npy', np.array([0, 9]))


WORK = {'steps': 3, 'init': '', 'data': {'task': ''}}


def _work(folder):
  (folder / 'config.json').write_text(json.dumps(WORK))
  (folder / 'result.json').write_text(json.dumps({'metrics': {'loss': 1.0}}))


def _documents(folder):
  return list(text_files.documents(folder / 'text'))


def _in_text(name, data):
  def make(folder):
    (folder / 'text').mkdir()
    (folder / 'text' / name).write_bytes(data)

  return make


PLAIN = b'Rain fell. It was wet.\n\n<doc id="1" url="u" title="t">\nSun.\n</doc>\n' * 5
JSONL = b''.join(json.dumps({'text': f'Text {i}.', 'id': i}).encode() + b'\n' for i in range(9))
IDX = struct.pack('>IIII', 0x803, 2, 3, 3) + bytes(18)
READERS = {
  'ledger': Reader(_ledger, 'ledger.jsonl', lambda f: compare.read(f)),
  'cost': Reader(_cost, 'cost/a.json', lambda f: cost.table(cost.read(f))),
  'grid': Reader(
    _text('grid.json', b'{"paper": "p", "preset": "q"}'), 'grid.json', compare.experiment_of
  ),
  'bench': Reader(_bench, 'a.json', lambda f: table.compare([f / 'a.json'])),
  'work config': Reader(_work, 'config.json', lambda f: workdir.owned(f, WORK)),
  'work result': Reader(_work, 'result.json', workdir.result),
  'metrics': Reader(
    _text('metrics.jsonl', b'{"step": 1, "kind": "train", "loss": 1.0}\n' * 4),
    'metrics.jsonl',
    lambda f: metrics_log._kept(f / 'metrics.jsonl', 2, 9),
  ),
  'bert config': Reader(_copied('bert'), 'config.json', lambda f: bert_hf.load(f)),
  'bert weights': Reader(_copied('bert'), 'model.safetensors', lambda f: bert_hf.load(f)),
  'gpt2 config': Reader(_copied('gpt2'), 'config.json', lambda f: gpt2_hf.load(f)),
  'gpt2 weights': Reader(_copied('gpt2'), 'model.safetensors', lambda f: gpt2_hf.load(f)),
  'llama config': Reader(_copied('decoders/qwen2'), 'config.json', lambda f: llama_hf.load(f)),
  'llama shards': Reader(
    _copied('decoders/llama'), 'model.safetensors.index.json', lambda f: llama_hf.load(f)
  ),
  'opt config': Reader(_copied('decoders/opt'), 'config.json', lambda f: opt_hf.load(f)),
  'tokenizer': Reader(
    lambda f: (f / 'tokenizer.json').write_text(tiny_llama.tokenizer().to_str()),
    'tokenizer.json',
    tokenizer_file.load,
  ),
  'wordpiece': Reader(_copied('bert'), 'vocab.txt', wordpiece.load),
  'bpe vocabulary': Reader(_copied('gpt2'), 'vocab.json', bpe.load),
  'bpe merges': Reader(_copied('gpt2'), 'merges.txt', bpe.load),
  'sparse file': Reader(
    lambda f: sparse_file.write(f / 'a', _leaves()), 'a', lambda f: sparse_file.read(f / 'a')
  ),
  'sparse file, int8': Reader(
    lambda f: sparse_file.write(f / 'a', _leaves(), 'int8'),
    'a',
    lambda f: read_sparse.load(f / 'a'),
  ),
  'deep compression': Reader(
    lambda f: (f / 'a').write_bytes(deep_compression.encode(_leaves())),
    'a',
    lambda f: deep_compression.read(f / 'a'),
  ),
  'text': Reader(_in_text('a.txt', PLAIN), 'text/a.txt', _documents),
  'jsonl': Reader(_in_text('a.jsonl', JSONL), 'text/a.jsonl', _documents),
  'gz': Reader(_in_text('a.txt.gz', gzip.compress(PLAIN)), 'text/a.txt.gz', _documents),
  'xz': Reader(_in_text('a.txt.xz', lzma.compress(PLAIN)), 'text/a.txt.xz', _documents),
  'tar': Reader(_in_text('a.tar', _archive(None)), 'text/a.tar', _documents),
  'tar.gz': Reader(_in_text('a.tar.gz', _archive(None, 'w:gz')), 'text/a.tar.gz', _documents),
  'corpus cache': Reader(
    _corpus_cache, 'train.tokens.npy', lambda f: corpus._from_cache(f, 'train')
  ),
  'corpus offsets': Reader(
    _corpus_cache, 'train.documents.npy', lambda f: corpus._from_cache(f, 'train')
  ),
  **{
    f'glue {task}': Reader(
      _glue(task),
      f'glue/{glue.TASKS[task].folder}/{glue.TASKS[task].files[0][1]}',
      functools.partial(lambda f, task: tasks.load(f'glue/{task}', 'train', root=f), task=task),
    )
    for task in ('cola', 'mrpc', 'stsb', 'qqp')
  },
  'monks': Reader(
    _text('a', b' 1 1 1 1 1 3 1 data_5\n 0 1 1 1 1 3 2 data_6\n'),
    'a',
    lambda f: monks.read(f / 'a'),
  ),
  'digits': Reader(_text('a', IDX), 'a', lambda f: handwritten_digits._idx(f, 'a', 3)),
}
if importlib.util.find_spec('gguf'):  # the extra of this name
  import gguf_files

  READERS['gguf'] = Reader(
    lambda f: gguf_files.write(f / 'a.gguf', gguf_files.tensors()),
    'a.gguf',
    lambda f: (llama_hf.load(f / 'a.gguf'), tokenizer_file.load(f / 'a.gguf')),
  )
HOSTILE = st.sampled_from(
  (
    *(None, True, -1, 0, 2**31, 2**63, 10**7, 10**400, -0.5, 0.5, 1e308, float('nan')),
    *(float('inf'), '', 'x' * 999, '../../etc/passwd', '<script>', '\ud800', '\x00', [], {}),
    *([[[]]], [-1, -1], [2**33], {'a': {}}, ['__reduce__'], [1] * 99),
  )
)


@contextlib.contextmanager
def limited():
  """Memory and processor time of one reader."""
  size = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  before = resource.getrlimit(resource.RLIMIT_AS)
  began = time.process_time()
  resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, before[1]))
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of a torn last line, for example
      yield
  except MemoryError as error:
    raise AssertionError('more memory than the file can need') from error
  except (ValueError, OSError):
    pass
  finally:
    resource.setrlimit(resource.RLIMIT_AS, before)
  assert time.process_time() - began < SECONDS


def damaged(draw, data):
  """Bytes with a few of them flipped, cut, doubled or zeroed."""
  data = bytearray(data)
  for _ in range(draw(st.integers(1, 4))):
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    kind = draw(st.sampled_from(('flip', 'flip', 'cut', 'double', 'zero', 'insert', 'remove')))
    if kind == 'flip' and data:
      data[at] ^= draw(st.integers(1, 255))
    elif kind == 'cut':
      del data[at:]
    elif kind == 'double':
      data[at:at] = data[at : at + draw(st.integers(1, 99))]
    elif kind == 'zero':
      data[at : at + 8] = bytes(8)
    elif kind == 'insert':
      data[at:at] = draw(st.binary(min_size=1, max_size=9))
    else:
      del data[at : at + draw(st.integers(1, 9))]
  return bytes(data)


def hostile(draw, data):
  """The bytes of a file with other values, or keys, in the JSON that it holds."""
  if data[:1] == b'{':
    lines = data.split(b'\n') if b'}\n{' in data else [data]
    at = draw(st.integers(0, len([line for line in lines if line.strip()]) - 1))
    lines[at] = _with_other(draw, lines[at])
    return b'\n'.join(lines)
  if len(data) > 10 and data[8:9] == b'{':  # safetensors: the length of a header, then the header
    size = int.from_bytes(data[:8], 'little')
    head = _with_other(draw, data[8 : 8 + size])
    return len(head).to_bytes(8, 'little') + head + data[8 + size :]
  fields = data.split(b'\t')
  fields[draw(st.integers(0, len(fields) - 1))] = str(draw(HOSTILE)).encode('utf-8', 'replace')
  return b'\t'.join(fields)


def _with_other(draw, text):
  value = json.loads(text)
  node, places = value, []
  while isinstance(node, dict | list) and node:
    key = draw(st.sampled_from(list(node) if isinstance(node, dict) else list(range(len(node)))))
    places.append((node, key))
    node = node[key]
    if isinstance(node, str) and node[:1] == '{' and draw(st.booleans()):  # JSON within JSON
      node = _with_other(draw, node).decode()
      places[-1][0][key] = node
      return json.dumps(value).encode()
  node, key = places[draw(st.integers(0, len(places) - 1))]
  if draw(st.booleans()) and isinstance(node, dict):
    del node[key]
  else:
    node[key] = draw(HOSTILE)
  return json.dumps(value).encode()


@pytest.fixture(scope='module')
def homes(tmp_path_factory):
  """{reader: a folder with its files}, made once."""
  made = {}
  for name, reader in READERS.items():
    made[name] = tmp_path_factory.mktemp('fuzz')
    reader.make(made[name])
  return made


@pytest.mark.parametrize('name', READERS)
def test_the_files_are_read_as_they_are(name, homes):
  assert READERS[name].read(homes[name]) is not None


@pytest.mark.parametrize('times', TIMES)
@pytest.mark.parametrize('how', [damaged, hostile])
@pytest.mark.parametrize('name', READERS)
def test_a_damaged_file_is_an_error_or_an_answer(name, how, times, homes):
  path, read = homes[name] / READERS[name].name, READERS[name].read
  good = path.read_bytes()

  @settings(
    max_examples=times,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
  )
  @given(st.data())
  def check(data):
    path.write_bytes(how(data.draw, good))
    with limited():
      read(homes[name])

  try:
    check()
  finally:
    path.write_bytes(good)


TEXTS = st.text(st.sampled_from('abcubic()[]{}<>=,.*+-@ 0123456789e\'"\\\n\x00_:/%é'), max_size=60)
WORDS = {
  'a spec': (
    lambda text: specs.parse(text, (schedules, criteria), 'key'),
    ('cubic(0.9, end=100)', '-' * 5000 + '1', '(' * 5000, 'cubic(1e999)', 'magnitude(' * 999),
  ),
  'a value': (
    lambda text: [configs.convert(text, default, 'key') for default in (1, 1.5, True, (), '')],
    ('[' * 5000, '{[]: 1}', '9' * 9999, '-' * 5000 + '1', '1e999', '()' * 999),
  ),
  'a corpus': (corpus.sources, ('a@0.1*3', 'a*' + '9' * 999, '+' * 999, 'a@' + '0' * 999)),
  'a path': (files.path, ('~' * 99, '\x00', 'x' * 9999, 'nothing://a')),
}


@pytest.mark.parametrize('times', TEXT_TIMES)
@pytest.mark.parametrize('name', WORDS)
def test_any_text_is_an_error_or_an_answer(name, times):
  read, known = WORDS[name]
  for text in known:
    with limited():
      read(text)

  @settings(max_examples=times, deadline=None, derandomize=True, database=None)
  @given(TEXTS)
  def check(text):
    with limited():
      read(text)

  check()

"""An untrusted file may be wrong, but cannot run code, write elsewhere or use all memory."""

import ast
import gzip
import io
import json
import lzma
import pathlib
import pickle
import struct
import sys
import tarfile

import jax
import numpy as np
import pytest
import tensorstore
import tiny_runs

from prunejax.data import corpus, glue, pydoc, text_files, wordpiece
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.report import compare, ledger
from prunejax.train import checkpoint

ROOMS = ('prunejax', 'configs', 'experiments')
FILES = sorted(path for room in ROOMS for path in (tiny_runs.ROOT / room).rglob('*.py'))
UNSAFE = {
  'pickle',
  '_pickle',
  'dill',
  'cloudpickle',
  'joblib',
  'shelve',
  'marshal',
  'torch',
  'yaml',
  'zipfile',
}
# What these files may import all the same, and why.
TRUSTED = {
  'dry_run.py': {'pickle'},  # to a worker that it starts itself
  'worker.py': {'pickle'},  # from the process that started it
  'torch_reference.py': {'torch'},  # a program in PyTorch to compare with, which unpickles nothing
}


class Bomb:
  """An object that runs code when it is unpickled."""

  def __reduce__(self):
    return sys.exit, ('code of a stranger ran',)


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(tiny_runs.ROOT)))
def test_no_source_unpickles_or_unpacks(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import | ast.ImportFrom):
      roots = (
        {alias.name.split('.')[0] for alias in node.names}
        if isinstance(node, ast.Import)
        else set()
      )
      roots |= {node.module.split('.')[0]} if isinstance(node, ast.ImportFrom) else set()
      assert not roots & UNSAFE - TRUSTED.get(path.name, set()), f'{path.name}:{node.lineno}'
    elif isinstance(node, ast.Call):
      name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
      assert name not in ('extract', 'extractall', 'unpack_archive', 'loadtxt'), (
        f'{path.name}:{node.lineno}'
      )
      if isinstance(node.func, ast.Name):
        assert name not in ('eval', 'exec', 'compile', '__import__'), f'{path.name}:{node.lineno}'
      if name == 'exec_module':
        assert path.name == 'configs.py'  # a config is Python, and the documentation says so
      for keyword in node.keywords:
        if keyword.arg in ('allow_pickle', 'trust_remote_code'):
          assert keyword.value.value is False, f'{path.name}:{node.lineno}'


def test_a_run_a_resume_and_an_init_unpickle_nothing(tmp_path, monkeypatch):
  whole = tiny_runs.finished('pruned')  # compiled, and its inputs cached

  def say(line):
    if 'train 9/12' in line:
      raise InterruptedError

  def refused(*_, **__):
    raise AssertionError('something was unpickled')

  for name in ('load', 'loads', 'Unpickler'):
    monkeypatch.setattr(pickle, name, refused)
  with pytest.raises(InterruptedError):
    tiny_runs.train(tiny_runs.config(), tmp_path, say=say)
  lines = []
  tiny_runs.train(tiny_runs.config(), tmp_path, say=lines.append)
  assert 'goes on at step 8' in lines[0]
  bert_hf.load(whole.folder / 'model')


def no_npy(path):
  np.save(path, np.array([Bomb()], object), allow_pickle=True)


def huge_npy(path):
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(
    header, {'descr': '<u2', 'fortran_order': False, 'shape': (2**50,)}
  )
  path.write_bytes(header.getvalue() + b'\0' * 64)


def coded_npy(path):
  header = (
    b"{'descr': __import__('sys').exit('code of a stranger ran'), "
    b"'fortran_order': False, 'shape': (1,)}"
  )
  path.write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header)


@pytest.mark.parametrize('hurt', [no_npy, huge_npy, coded_npy, lambda path: path.write_bytes(b'')])
def test_token_caches(tmp_path, hurt):
  tiny_runs.write_text(tmp_path / 'text', documents=5)
  words = wordpiece.from_vocab([*wordpiece.SPECIAL, 'ba', 'tu', '.'])
  how = dict(root=tmp_path, cache=tmp_path / 'cache')
  corpus.load('text', 'train', words, **how)
  [path] = (tmp_path / 'cache').rglob('train.tokens.npy')
  hurt(path)
  with pytest.raises(
    ValueError, match=r'train.tokens.npy is damaged .*delete .* to have it made again'
  ) as error:
    corpus.load('text', 'train', words, **how)
  assert '\n' not in str(error.value)


def test_caches_that_do_not_fit_together(tmp_path):
  tiny_runs.write_text(tmp_path / 'text', documents=5)
  words = wordpiece.from_vocab([*wordpiece.SPECIAL, 'ba', 'tu', '.'])
  how = dict(root=tmp_path, cache=tmp_path / 'cache')
  corpus.load('text', 'train', words, **how)
  [path] = (tmp_path / 'cache').rglob('train.documents.npy')
  np.save(path, np.array([0, 10**9]))
  with pytest.raises(ValueError, match='the arrays of train differ in length'):
    corpus.load('text', 'train', words, **how)


def safetensors_of(folder, header, data=b''):
  text = json.dumps(header).encode() if isinstance(header, dict) else header
  (folder / 'model.safetensors').write_bytes(struct.pack('<Q', len(text)) + text + data)


@pytest.mark.parametrize(
  'header',
  [
    {'a': {'dtype': 'F32', 'shape': [2**40], 'data_offsets': [0, 2**42]}},
    {'a': {'dtype': 'F32', 'shape': [2**33, 2**33], 'data_offsets': [0, 8]}},
    {'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [8, 0]}},
    {'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [-8, 0]}},
    b'{"a": ' + b'[' * 100_000,
    pickle.dumps(Bomb()),
  ],
)
def test_weights(tmp_path, header):
  safetensors_of(tmp_path, header, b'\0' * 8)
  with pytest.raises(hf_folder.CheckpointError, match='damaged or not a safetensors file'):
    hf_folder.read_tensors(tmp_path)
  (tmp_path / 'model.safetensors').write_bytes(struct.pack('<Q', 2**62) + b'{}')
  with pytest.raises(hf_folder.CheckpointError, match='damaged or not a safetensors file'):
    hf_folder.read_tensors(tmp_path)


def test_a_pickle_in_the_place_of_weights_is_named_and_left_alone(tmp_path):
  (tmp_path / 'pytorch_model.bin').write_bytes(pickle.dumps(Bomb()))
  with pytest.raises(hf_folder.CheckpointError, match='is a pickle, which could run code'):
    hf_folder.read_tensors(tmp_path)


@pytest.mark.parametrize('name', ['config.json', 'vocab.txt', 'tokenizer.json'])
def test_texts_of_a_model(tmp_path, name):
  path = tmp_path / name
  read = (
    hf_folder.read_config
    if name == 'config.json'
    else lambda folder: hf_folder.read_vocab(folder / name)
  )
  with open(path, 'wb') as stream:
    stream.truncate(2**41)
  with pytest.raises(
    hf_folder.CheckpointError, match=f'{name}.* has {2**41} bytes: expected at most'
  ):
    read(tmp_path)
  if name == 'vocab.txt':
    with pytest.raises(ValueError, match=f'has {2**41} bytes: expected at most'):
      wordpiece.load(path)
  else:
    path.write_text('{"a":' * 100_000)
    with pytest.raises(hf_folder.CheckpointError, match='cannot be read'):
      read(tmp_path)


def test_sizes_in_a_config_are_checked_before_anything_is_made(tmp_path):
  for key in ('num_hidden_layers', 'vocab_size', 'hidden_size'):
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert', key: 10**12}))
    with pytest.raises(hf_folder.CheckpointError, match=f'{key}={10**12}: expected an integer'):
      bert_hf.read_size(tmp_path)


def archive(path, members):
  with tarfile.open(path, 'w:xz') as tar:
    for name, data, kind, target in members:
      member = tarfile.TarInfo(name)
      member.size, member.type, member.linkname = len(data), kind, target
      tar.addfile(member, io.BytesIO(data))


def test_an_archive_is_read_as_a_stream_and_writes_nothing(tmp_path):
  inside = tmp_path / 'deep' / 'folder'
  inside.mkdir(parents=True)
  archive(
    inside / 'a.tar.xz',
    [
      ('../../outside.txt', b'One.', tarfile.REGTYPE, ''),
      ('/absolute.txt', b'Two.', tarfile.REGTYPE, ''),
      ('link', b'', tarfile.SYMTYPE, '/etc/passwd'),
      ('hard', b'', tarfile.LNKTYPE, '../../../etc/passwd'),
      ('device', b'', tarfile.CHRTYPE, ''),
      ('good.txt', b'Three.', tarfile.REGTYPE, ''),
    ],
  )
  before = sorted(tmp_path.rglob('*'))
  assert list(text_files.documents(inside)) == ['One.', 'Two.', 'Three.']
  assert sorted(tmp_path.rglob('*')) == before and not pathlib.Path('/absolute.txt').exists()


@pytest.mark.parametrize('name', ['a.txt.gz', 'a.txt.xz', 'a.tar.xz', 'a.txt'])
def test_a_text_that_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch, name):
  monkeypatch.setattr(text_files, 'MAX_BYTES', 2**20)
  data = b'a' * (2**20 + 1)
  if name.endswith('.tar.xz'):
    archive(tmp_path / name, [('bomb.txt', data, tarfile.REGTYPE, '')])
  else:
    opener = {'.gz': gzip.open, '.xz': lzma.open}.get(name[-3:], open)
    with opener(tmp_path / name, 'wb') as stream:
      stream.write(data)
  with pytest.raises(ValueError, match=f'{name}.*: one text of more than {2**20} bytes'):
    list(text_files.documents(tmp_path))


def test_tables_and_cached_prose_that_are_too_large(tmp_path, monkeypatch):
  folder = tiny_runs.write_glue(tmp_path)
  with open(folder / 'glue' / 'CoLA' / 'train.tsv', 'wb') as stream:
    stream.truncate(2**41)
  with pytest.raises(ValueError, match=f'train.tsv: {2**41} bytes; expected at most'):
    glue.read(folder, 'cola', 'train')
  monkeypatch.setattr(pydoc, 'MAX_CHARACTERS', 1000)
  monkeypatch.setattr(pydoc, 'build', lambda: [])
  with gzip.open(tmp_path / f'pydoc-{pydoc.signature()}.json.gz', 'wt') as stream:
    stream.write(' ' * 2000 + '[]')
  with pytest.warns(UserWarning, match='damaged cache .*more than 1000 characters'):
    assert pydoc.entries(tmp_path) == []


def test_a_checkpoint_that_declares_a_thousand_terabytes(tmp_path):
  small = {'params': {'a': jax.numpy.ones(4)}, 'step': jax.numpy.int32(4)}
  shapes = jax.eval_shape(lambda: small)
  where = jax.tree.map(lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]), shapes)
  with checkpoint.manager(tmp_path / 'checkpoints') as manager:
    checkpoint.save(manager, small, {})
    manager.wait_until_finished()
  folder = tmp_path / 'checkpoints' / '4' / 'state'
  base = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{folder}/'}, 'path': 'params.a/'}
  huge = {
    'shape': [2**48],
    'chunks': [2**48],
    'dtype': '<f4',
    'compressor': None,
    'fill_value': 1.0,
    'order': 'C',
  }
  spec = {
    'driver': 'zarr',
    'kvstore': base,
    'metadata': {**huge, 'filters': None, 'zarr_format': 2},
  }
  tensorstore.open(spec, create=True, delete_existing=True).result()
  with checkpoint.manager(tmp_path / 'checkpoints') as manager:
    with pytest.raises(ValueError, match='step 4 .its arrays are not those of this run'):
      checkpoint.restore(manager, shapes, where)


def test_a_ledger_and_a_work_directory(tmp_path):
  with open(tmp_path / 'ledger.jsonl', 'wb') as stream:
    stream.truncate(2**41)
  with pytest.raises(ValueError, match=f'has {2**41} bytes: expected at most'):
    ledger.read(tmp_path / 'ledger.jsonl')
  (tmp_path / 'grid.json').write_text('[' * 100_000)
  with pytest.raises(ValueError, match='grid.json. cannot be read as JSON'):
    compare.experiment_of(tmp_path)
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('[1]')
  with pytest.raises(ValueError, match='config.json. holds a list: expected a JSON object'):
    tiny_runs.train(tiny_runs.config(), tmp_path / 'run', say=pytest.fail)

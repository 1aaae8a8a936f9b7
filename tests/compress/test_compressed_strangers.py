"""Hostile compressed files are refused in one line before memory is taken; the table of bytes."""

import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from experiments.bytes import study
from prunejax.compress import codecs, deep_compression, read_sparse, sparse_file
from prunejax.report import ledger

RNG = np.random.default_rng(0)
KERNEL = (RNG.normal(size=(40, 30)) * (RNG.random((40, 30)) < 0.1)).astype(np.float32)
TREE = {'a/kernel': KERNEL, 'a/bias': np.ones(30, np.float32)}
GOOD = deep_compression.encode(TREE)


def forged(head, body=b''):
  """A Deep Compression file of any content with a correct checksum."""
  text = head if isinstance(head, bytes) else json.dumps(head).encode()
  rest = struct.pack('<Q', len(text)) + text + body
  return deep_compression.MAGIC + struct.pack('<I', zlib.crc32(rest)) + rest


def parts():
  """(head, body) of the good file."""
  size = struct.unpack_from('<Q', GOOD, 12)[0]
  return json.loads(GOOD[20 : 20 + size]), GOOD[20 + size :]


def changed(field, value):
  head, body = parts()
  head[0][field] = value
  return forged(head, body)


HOSTILE = {
  'empty': b'',
  'a pickle': b'\x80\x04N.' * 9,
  'cut short': GOOD[:-1],
  'more than it says': GOOD + b'\0',
  'one bit': GOOD[:200] + bytes([GOOD[200] ^ 1]) + GOOD[201:],
  'no JSON': forged(b'{"a": ' + b'[' * 100_000),
  'an object': forged({'a': 1}),
  'a number': forged([7]),
  'no known type': forged([['w', 'object', [1]]], b'\0' * 8),
  'huge dense': forged([['w', 'float32', [2**40]]], b'\0' * 8),
  'huge product': forged([['w', 'float32', [2**30, 2**30, 2**30]]], b'\0' * 8),
  'huge empty': forged([['w', 'float32', [2**20, 2**20], 5, 5, 0, 0, 0, 0, 1]], b'\0' * 17),
  'negative': forged([['w', 'float32', [-1, -4]]], b'\0' * 16),
  'twice': forged([['w', 'int8', [1]], ['w', 'int8', [1]]], b'\0\0'),
  'more entries than weights': changed(5, 2**40),
  'another codebook': changed(6, 3),
  'a codebook beyond its bits': changed(6, 32),
  'a wide code': changed(3, 64),
  'other stream lengths': changed(7, 10),
  'a larger leaf': changed(2, [40, 60]),
  'a smaller leaf': changed(2, [4, 30]),
  'no number': changed(4, 'five'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_deep_files(tmp_path, case):
  (tmp_path / 'a.deep').write_bytes(HOSTILE[case])
  if case == 'a larger leaf':  # zeros after the last entry are invisible damage
    assert deep_compression.read(tmp_path / 'a.deep')['a/kernel'].shape == (40, 60)
    return
  tracemalloc.start()
  with pytest.raises(ValueError, match=r"a\.deep': deep: ") as error:
    deep_compression.read(tmp_path / 'a.deep')
  most = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert '\n' not in str(error.value) and len(str(error.value)) < 400 and most < 2**24


def test_wrong_code_tables_and_streams():
  head, body = parts()
  shared = head[0][6]
  tables = slice(4 * shared, 4 * shared + (shared + 2) // 2 + 16)
  for at in range(tables.start, tables.stop):  # another length makes the code incomplete
    with pytest.raises(ValueError, match="deep: 'a/kernel' is damaged: "):
      deep_compression.decode(forged(head, body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :]))
  for seed in range(
    50
  ):  # random damage with a correct checksum: an array of the right shape, or a one-line error
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(body)))
    try:
      out = deep_compression.decode(forged(head, body[:at] + rng.bytes(1) + body[at + 1 :]))
      assert out['a/kernel'].shape == (40, 30)
    except ValueError as error:
      assert '\n' not in str(error)
  with pytest.raises(
    ValueError, match="'a/kernel' brings the arrays to 4800 bytes; accepted: 4000"
  ):
    deep_compression.decode(GOOD, most=4000)


def container(forms, tensors, body=b''):
  text = json.dumps({'__metadata__': {'prunejax': json.dumps(forms)}, **tensors}).encode()
  return struct.pack('<Q', len(text)) + text + body


def tensor(kind, shape, start, end):
  return {'dtype': kind, 'shape': shape, 'data_offsets': [start, end]}


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'\0' * 7,
    struct.pack('<Q', 2**62) + b'{}',
    struct.pack('<Q', 2) + b'[]',
    struct.pack('<Q', 2) + b'{}',
    struct.pack('<Q', 10**5) + b'[' * 10**5,
    container(
      {'w': ['mask', [2**40]]},
      {'w.mask': tensor('U8', [1], 0, 1), 'w.values': tensor('F32', [0], 1, 1)},
      b'\0',
    ),
    container(
      {'w': ['mask', [8]]},
      {'w.mask': tensor('U8', [1], 0, 1), 'w.values': tensor('I8', [1], 1, 2)},
      b'\xff\1',
    ),
    container(
      {'w': ['mask', [9]]},
      {'w.mask': tensor('U8', [1], 0, 1), 'w.values': tensor('I8', [1], 1, 2)},
      b'\x80\1',
    ),
    container(
      {'w': ['gaps', [9]]},
      {'w.gaps': tensor('U8', [1], 0, 1), 'w.values': tensor('I8', [1], 1, 2)},
      b'\x80\1',
    ),
    container(
      {'w': ['gaps', [9]]},
      {'w.gaps': tensor('U8', [2], 0, 2), 'w.values': tensor('I8', [1], 1, 2)},
      b'\1\1',
    ),
    container({'w': ['dense', [2]]}, {'w': tensor('F32', [2], 0, 8)}, b'\0' * 4),
    container({'w': ['dense', [2]]}, {'w': tensor('F32', [2], -8, 0)}, b'\0' * 8),
    container({'w': ['dense', [2]]}, {'w': tensor('OBJECT', [2], 0, 8)}, b'\0' * 8),
    container(
      {'w': ['dense', [4, 1]]},
      {'w': tensor('I8', [4], 0, 4), 'w.scale': tensor('F32', [2], 4, 12)},
      b'\0' * 12,
    ),
  ],
)
def test_sparse_files(tmp_path, data):
  (tmp_path / 'a').write_bytes(data)
  for read in (read_sparse.load, sparse_file.read):
    with pytest.raises(
      ValueError, match='not a sparse file of prunejax, or a damaged one'
    ) as error:
      read(tmp_path / 'a')
    assert '\n' not in str(error.value)


def test_a_sparse_file_cut_anywhere_is_refused():
  data = sparse_file.encode(TREE)
  for size in range(0, len(data) - 1, 97):
    with pytest.raises(ValueError, match='not a sparse file of prunejax, or a damaged one'):
      read_sparse.decode(data[:size])


def test_the_table_of_bytes_and_its_bounds():
  kernel = np.zeros(1 << 16, np.float32)
  kernel[RNG.choice(1 << 16, 1 << 12, replace=False)] = RNG.choice(
    np.float32([-2, -1, 1, 2]), 1 << 12
  )
  tree = {
    'w/kernel': kernel.reshape(256, 256),
    'w/bias': np.ones(7, np.float32),
    'e/embedding': np.ones((9, 9)),
  }
  rows = {row['codec']: row for row in codecs.table(tree, leave_out='e/.*', bits=3)}
  n, share = 1 << 16, 1 / 16
  mask = n * -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
  assert rows['bound: mask and float32 values']['bytes'] == int(
    np.ceil((mask + 32 * 4096) / 8 + 28)
  )
  assert rows['dense float32']['bytes'] == 4 * (n + 7) and rows['dense bfloat16']['rate'] == 2
  assert rows['CSR, float32']['bytes'] == 4 * 257 + 6 * 4096 + 28
  assert rows['bit mask, float32']['bytes'] == n // 8 + 4 * 4096 + 1 + 28
  low = rows['bound: mask and shared codes']['bytes']
  codes = (mask + 4096 * 2 + 4 * 32) / 8 + 28
  assert (
    codes * 0.99 < low <= np.ceil(codes) < rows['Deep Compression, 3 bits']['bytes'] < 1.2 * low
  )
  assert rows['Deep Compression, 3 bits']['bytes'] < rows['shared, 3 bits, fixed width']['bytes']
  lossless = [
    row for row in rows.values() if row['lossless'] and not row['codec'].startswith('bound')
  ]
  # A general-purpose packer finds repeated values, while the bound counts 32 bits each.
  own = [row for row in lossless if ' of dense' not in row['codec']]
  assert all(row['bytes'] >= rows['bound: mask and float32 values']['bytes'] for row in own)
  assert min(own, key=lambda row: row['bytes'])['codec'] == 'sparse file, float32'
  with pytest.raises(ValueError, match=r"leave_out='\.\*' leaves no weight"):
    codecs.table(tree, leave_out='.*')


def test_the_packaged_model_by_every_codec(tmp_path):
  study.reproduce('smoke', tmp_path / 'w', say=lambda line: None)
  [row] = ledger.read(tmp_path / 'w' / 'ledger.jsonl')
  sizes = row['metrics']
  assert (
    sizes['bound: mask and shared codes']
    < sizes['Deep Compression, 5 bits']
    < sizes['sparse file, int8']
  )
  assert sizes['Deep Compression, 5 bits'] < sizes['dense float32'] / 15
  assert 'Bytes of the packaged BERT: no embeddings' in (tmp_path / 'w' / 'report.md').read_text()
  with pytest.raises(ValueError, match='data.root=x: bytes reads no data'):
    study.reproduce('smoke', tmp_path / 'v', overrides={'data.root': 'x'})

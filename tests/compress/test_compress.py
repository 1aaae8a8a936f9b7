"""Indices, codes and both files survive a round trip, at any sparsity and shape."""

import pathlib
import subprocess
import sys

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from prunejax.compress import deep_compression, huffman, read_sparse, relative_index, sparse_file

many = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
SHAPES = ((0, 3), (1,), (), (1, 1), (7,), (5, 9), (40, 33), (3, 3, 2, 8))
KINDS = (np.float32, ml_dtypes.bfloat16, np.float16)


@st.composite
def trees(draw):
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  tree = {'steps': np.int32(draw(st.integers(0, 9)))}
  for number in range(draw(st.integers(0, 3))):
    shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(KINDS))
    kept = draw(st.sampled_from((0.0, 0.004, 0.1, 0.5, 1.0)))
    tree[f'layer_{number}/kernel'] = (rng.normal(size=shape) * (rng.random(shape) < kept)).astype(
      kind
    )
  return tree


def same(a, b):
  assert list(a) == list(b)
  for name, leaf in a.items():
    assert b[name].dtype == leaf.dtype and b[name].shape == leaf.shape
    np.testing.assert_array_equal(
      np.asarray(b[name], np.float64), np.asarray(leaf, np.float64), err_msg=name
    )


@many
@hypothesis.given(st.data(), st.integers(1, 16))
def test_relative_indices(data, bits):
  size = data.draw(st.integers(0, 3000))
  positions = np.array(
    sorted(data.draw(st.sets(st.integers(0, max(size - 1, 0)), max_size=min(size, 60)))), int
  )
  gaps, filler = relative_index.encode(positions, bits)
  assert gaps.max(initial=0) < 2**bits and (gaps[filler] == 2**bits - 1).all()
  np.testing.assert_array_equal(relative_index.decode(gaps, size)[~filler], positions)
  steps = np.diff(positions, prepend=-1)
  assert len(gaps) == sum(
    -(-step // 2**bits) for step in steps
  )  # one entry for every 2^bits or part of them
  packed = relative_index.pack(gaps, bits)
  assert len(packed) == -(-len(gaps) * bits // 8)
  np.testing.assert_array_equal(relative_index.unpack(packed, len(gaps), bits), gaps)


def test_the_papers_own_example_of_a_filler():
  gaps, filler = relative_index.encode(
    [1, 4, 15], 3
  )  # figure 2 counts from 0: differences 1 (of index 0), 3, 8 (filler), 3
  np.testing.assert_array_equal(gaps + 1, [2, 3, 8, 3])
  np.testing.assert_array_equal(filler, [False, False, True, False])
  with pytest.raises(ValueError, match='entry at 15 of an array of 15'):
    relative_index.decode(gaps, 15)
  with pytest.raises(ValueError, match='bits=17; accepted: 1 to 16'):
    relative_index.encode([1], 17)


@many
@hypothesis.given(
  st.lists(st.integers(0, 2**40), min_size=1, max_size=60), st.integers(0, 500), st.integers(0, 99)
)
def test_huffman(counts, count, seed):
  counts = np.array(counts)
  lengths = huffman.lengths(counts)
  assert ((lengths > 0) == (counts > 0)).all() and lengths.max() <= huffman.LONGEST
  used = np.flatnonzero(counts)
  if not used.size:
    return
  symbols = np.random.default_rng(seed).choice(used, count)
  data = huffman.encode(symbols, lengths)
  assert len(data) == -(-int(lengths[symbols].sum(dtype=np.int64)) // 8)
  np.testing.assert_array_equal(huffman.decode(data, lengths, count), symbols)
  words = [f'{c:0{n}b}' for c, n in zip(huffman.codes(lengths)[used], lengths[used], strict=True)]
  assert not any(a != b and b.startswith(a) for a in words for b in words)


def test_huffman_is_within_a_bit_of_the_entropy_over_several_stretches(monkeypatch):
  rng = np.random.default_rng(0)
  symbols = np.minimum(rng.geometric(0.3, 200_000), 31)
  counts = np.bincount(symbols)
  share = counts[counts > 0] / counts.sum()
  lengths = huffman.lengths(counts)
  mean = (lengths * counts).sum() / counts.sum()
  assert -(share * np.log2(share)).sum() <= mean < 1 - (share * np.log2(share)).sum()
  monkeypatch.setattr(huffman, 'STRETCH', 1000)
  data = huffman.encode(symbols, lengths)
  np.testing.assert_array_equal(huffman.decode(data, lengths, len(symbols)), symbols)
  for wrong, count in (
    (data[:-1], len(symbols)),
    (data + b'\0', len(symbols)),
    (data, len(symbols) - 9),
    (data, 9 * len(data)),
  ):
    with pytest.raises(ValueError, match='huffman: .* bytes'):
      huffman.decode(wrong, lengths, count)


@pytest.mark.parametrize('lengths', [[1, 1, 1], [2, 2], [3], [16, 1], [1] * 5000, [-1, 1]])
def test_invalid_code_tables(lengths):
  with pytest.raises(ValueError, match='huffman: '):
    huffman.decode(b'\0', lengths, 3)


@many
@hypothesis.given(trees(), st.integers(2, 12), st.integers(1, 12), st.booleans())
def test_deep_files_give_back_shared_weights_and_zeros(tree, bits, index_bits, entropy):
  how = dict(bits=bits, index_bits=index_bits, entropy=entropy)
  data = deep_compression.encode(tree, **how)
  out = deep_compression.decode(data)
  for name, leaf in tree.items():
    assert ((out[name] != 0) <= (leaf != 0)).all()
    if leaf.ndim < 2:
      np.testing.assert_array_equal(out[name], leaf)
    else:
      assert len(np.unique(out[name][leaf != 0])) <= 2**bits - 1
  same(
    out, deep_compression.decode(deep_compression.encode(out, **how))
  )  # the weights are shared already, so the file is exact
  assert sum(row['bytes'] for row in deep_compression.describe(data)) < len(data)


@many
@hypothesis.given(trees())
def test_sparse_files(tree):
  out = read_sparse.decode(sparse_file.encode(tree))
  for name, leaf in tree.items():
    np.testing.assert_array_equal(
      out[name], leaf.astype(np.float32) if leaf.dtype != np.int32 else leaf
    )
    assert out[name].dtype in (np.float32, np.int32)
  half = read_sparse.decode(sparse_file.encode(tree, 'bfloat16'))
  eight = read_sparse.decode(sparse_file.encode(tree, 'int8'))
  for name, leaf in tree.items():
    if leaf.dtype != np.int32:
      np.testing.assert_array_equal(half[name], leaf.astype(ml_dtypes.bfloat16).astype(np.float32))
      if leaf.ndim >= 2 and leaf.size:
        step = np.abs(leaf.astype(np.float32)).reshape(-1, leaf.shape[-1]).max(0) / 127
        assert (np.abs(eight[name] - leaf.astype(np.float32)) <= step * 0.51).all()
        assert ((eight[name] != 0) <= (leaf != 0)).all()


def test_the_smallest_form_is_chosen():
  rng = np.random.default_rng(0)
  n = 256 * 256
  leaf = lambda kept: (rng.normal(size=n) * (rng.random(n) < kept)).reshape(256, 256)
  size = lambda kept, dtype: len(sparse_file.encode({'w': leaf(kept)}, dtype))
  assert size(1.0, 'float32') < 4 * n + 200  # dense
  assert abs(size(0.5, 'float32') - (n / 8 + 2 * n)) < 0.02 * n  # mask
  assert size(0.01, 'float32') < n / 8  # gaps


def test_files_on_disk_and_a_reader_without_the_project(tmp_path):
  rng = np.random.default_rng(0)
  tree = {
    'a/kernel': rng.normal(size=(30, 20)) * (rng.random((30, 20)) < 0.1),
    'a/bias': np.float32([1, 0, 2]),
  }
  tree['a/kernel'] = tree['a/kernel'].astype(np.float32)
  sparse_file.write(tmp_path / 'a.safetensors', tree)
  same(sparse_file.read(tmp_path / 'a.safetensors'), tree)
  deep_compression.write(tmp_path / 'a.deep', tree, bits={'a/.*': 12}, index_bits=4)
  same(deep_compression.read(tmp_path / 'a.deep'), tree)
  source = pathlib.Path(read_sparse.__file__)
  (tmp_path / 'alone.py').write_text(source.read_text())
  assert len(source.read_text().splitlines()) <= 140
  code = (
    "import sys; import alone; out = alone.load('a.safetensors'); print(out['a/kernel'].sum());"
    "assert not {'jax', 'safetensors', 'ml_dtypes', 'prunejax'} & set(sys.modules)"
  )
  ran = subprocess.run(
    [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=False
  )
  assert ran.returncode == 0, ran.stderr
  np.testing.assert_allclose(float(ran.stdout), tree['a/kernel'].sum(), rtol=1e-5)


def test_wrong_arguments():
  one = {'w': np.ones((2, 2), np.float32)}
  for call, message in (
    (lambda: deep_compression.encode(one, bits=13), "bits=13 for 'w'; accepted: 1 to 12"),
    (lambda: deep_compression.encode(one, index_bits={'x': 5}), "index_bits=None for 'w'"),
    (lambda: deep_compression.encode({'w': np.full((2, 2), np.nan)}), "'w'.* not finite"),
    (
      lambda: deep_compression.encode({'w': np.ones(2, complex)}),
      "'w' is complex128; accepted: float32",
    ),
    (lambda: sparse_file.encode(one, 'int4'), "dtype='int4'; accepted: float32, bfloat16, int8"),
    (
      lambda: sparse_file.encode({'w': np.full((2, 2), np.inf)}),
      "'w' holds values that are not finite",
    ),
    (
      lambda: sparse_file.encode({'w': np.eye(99), 'w.values': np.ones(3)}),
      "both named 'w.values'",
    ),
  ):
    with pytest.raises(ValueError, match=message) as error:
      call()
    assert '\n' not in str(error.value)


def test_weights_that_come_to_share_the_value_zero_are_counted():
  with pytest.warns(UserWarning, match="4 weights of 'w' that are not 0 share the value 0"):
    data = deep_compression.encode({'w': np.float32([[-1, 1], [-2, 2]])}, bits=1)
  assert not deep_compression.decode(data)['w'].any()

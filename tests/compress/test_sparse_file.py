"""The sparse file: any pytree out and in, checksums, every field checked, old files read."""

import itertools
import json
import pathlib
import random
import tracemalloc
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

import prunejax
from prunejax.compress import read_sparse, sparse_file

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference'
RNG = np.random.default_rng(0)


def sparse(*shape, kept):
  return (RNG.normal(size=shape) * (RNG.random(shape) < kept)).astype(np.float32)


TREE = {
  'layer': {'kernel': sparse(40, 30, kept=0.4), 'bias': np.ones(30, np.float32)},
  'stack': [sparse(100, 100, kept=0.01), (sparse(6, 5, kept=1.0), np.int64(3))],
  'half': jnp.asarray(sparse(9, 9, kept=0.3), jnp.bfloat16),
  'flags': np.array([True, False]),
  'é': np.zeros((0, 4), np.float32),
}


def equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert left.dtype == right.dtype
    np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def test_any_pytree_comes_back(tmp_path):
  path = tmp_path / 'new folder' / 'pruned.safetensors'
  prunejax.save_sparse(path, TREE)
  equal(prunejax.load_sparse(path, TREE), TREE)
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), TREE)
  equal(prunejax.load_sparse(path, shapes), TREE)
  nested = prunejax.load_sparse(path)
  assert nested['half'].dtype == np.float32 and nested['stack']['1']['1'] == 3
  plain = {'a': {'b': {'kernel': TREE['stack'][0]}}}
  prunejax.save_sparse(path, plain)
  equal(prunejax.load_sparse(path), plain)
  assert [entry.name for entry in path.parent.iterdir()] == [path.name]
  with safetensors.safe_open(path, 'np') as file:
    assert sorted(file.keys()) == ['a/b/kernel.gaps', 'a/b/kernel.values']


def test_trees_that_do_not_fit_are_refused_by_name(tmp_path):
  path = tmp_path / 'a.safetensors'
  prunejax.save_sparse(path, {'a': np.float32([[1, 1e-5]]), 'n': np.int32(300)})
  for like, words in (
    ({'a': np.ones((1, 2), 'f')}, r"missing \[\], unknown \['n'\]"),
    ({'a': np.ones((1, 2), 'f'), 'n': 1, 'b': 1}, r"missing \['b'\], unknown \[\]"),
    ({'a': np.ones(2, 'f'), 'n': 1}, r"'a' is \(1, 2\), in `like` it is \(2,\)"),
    ({'a': np.ones((1, 2), 'f'), 'n': np.int8(1)}, "'n' loses values as int8"),
  ):
    with pytest.raises(ValueError, match=words):
      prunejax.load_sparse(path, like)
  prunejax.save_sparse(path, {'a': np.float32([1e-9]), 'a/b': np.float32([1])})
  with pytest.raises(ValueError, match="holds 'a/b' beside a leaf above or below it"):
    prunejax.load_sparse(path)
  with pytest.raises(ValueError, match="'a' loses values as float16"):
    prunejax.load_sparse(path, {'a': np.ones(1, 'f2'), 'a/b': np.ones(1, 'f')})
  for tree, words in (
    ({'a': {'b': np.ones(1)}, 'a/b': np.ones(1)}, "two leaves of the tree have the path 'a/b'"),
    ({'a': 'text'}, "'a' is <U4; accepted"),
    ({'a': jax.random.key(0)}, "'a' is key<fry>; accepted"),
  ):
    with pytest.raises(ValueError, match=words):
      prunejax.save_sparse(tmp_path / 'b', tree)
  assert not (tmp_path / 'b').exists()


def test_a_cast_that_makes_zeros_is_counted_or_refused(tmp_path):
  weights = {'w': np.array([[1.0, 1e-4, 0.0], [1e-5, 1.0, 1e-4]])}
  with pytest.warns(UserWarning, match='2 weights that are not 0 are 0 as int8'):
    prunejax.save_sparse(tmp_path / 'a', weights, 'int8')
  with pytest.raises(ValueError, match="'w' holds 2 values that are not 0 and would be 0 in floa"):
    prunejax.save_sparse(tmp_path / 'a', {'w': np.array([1e-50, 1.0, 2e-50])})
  prunejax.save_sparse(tmp_path / 'a', weights)  # no warning
  with pytest.raises(ValueError, match="'w' holds values that are not finite"):
    prunejax.save_sparse(tmp_path / 'a', {'w': np.array([np.nan])})


@pytest.mark.parametrize('dtype', sparse_file.VALUES)
def test_no_flipped_bit_gives_another_array(dtype):
  data = sparse_file.encode(TREE, dtype, texts={'config.json': '{"a": 1}'})
  right, texts = read_sparse.decode(data), sparse_file.read_texts(data)
  head = 8 + int.from_bytes(data[:8], 'little')
  random.seed(0)
  places = [*range(0, head, 3), *random.sample(range(head, len(data)), 300)]
  refused = 0
  for at, bit in zip(places, itertools.cycle(range(8))):
    flipped = bytearray(data)
    flipped[at] ^= 1 << bit
    try:
      leaves, words = read_sparse.decode(bytes(flipped)), sparse_file.read_texts(bytes(flipped))
    except ValueError as error:
      assert '\n' not in str(error) and len(str(error)) < 500
      refused += 1
      continue
    assert words in (texts, {}) and leaves.keys() == right.keys()
    assert all(np.array_equal(leaves[name], right[name]) for name in right)
  assert refused > 0.99 * len(places)


def container(rows, tensors, body=b''):
  text = json.dumps({'__metadata__': {'prunejax': json.dumps(rows)}, **tensors}).encode()
  return len(text).to_bytes(8, 'little') + text + body


def tensor(kind, shape, start, end):
  return {'dtype': kind, 'shape': shape, 'data_offsets': [start, end]}


FOUR = {'w': tensor('F32', [1], 0, 4)}
HOSTILE = {
  'signs that cancel': container(
    {'a': ['mask', [2**33]], 'b': ['mask', [-(2**33)]]},
    {f'{name}.{part}': tensor('U8', [0], 0, 0) for name in 'ab' for part in ('mask', 'values')},
  ),
  'eight bytes a weight': container({'w': ['dense', [2**17]]}, {'w': tensor('I64', [2**17], 0, 8)}),
  'a limit in bytes': container(
    {'w': ['dense', [2**18]]}, {'w': tensor('I64', [2**18], 0, 2**21)}, b'\0' * 2**21
  ),
  'a form': container({'w': ['rle', [1]]}, FOUR, b'\0' * 4),
  'signed gaps': container(
    {'w': ['gaps', [4]]},
    {'w.gaps': tensor('I8', [1], 0, 1), 'w.values': tensor('I8', [1], 1, 2)},
    b'\xff\1',
  ),
  'float gaps': container(
    {'w': ['gaps', [4]]},
    {'w.gaps': tensor('F32', [1], 0, 4), 'w.values': tensor('I8', [1], 4, 5)},
    b'\0' * 5,
  ),
  'two tensors in one place': container(
    {'w': ['dense', [1]], 'v': ['dense', [1]]}, {**FOUR, 'v': FOUR['w']}, b'\0' * 4
  ),
  'a hole': container({'w': ['dense', [1]]}, {'w': tensor('F32', [1], 4, 8)}, b'\0' * 8),
  'bytes of no tensor': container({'w': ['dense', [1]]}, FOUR, b'\0' * 8),
  'a tensor of no leaf': container({}, FOUR, b'\0' * 4),
  'a key twice': container({'w': ['dense', [1]]}, FOUR, b'\0' * 4).replace(
    b'"shape": [1]', b'"dtype":"F32"'
  ),
  'a shape that is no list': container({'w': ['dense', 1]}, FOUR, b'\0' * 4),
  'a number that is not finite': container({'w': ['dense', [1]]}, FOUR, b'\0\0\xc0\x7f'),
  'a boolean of 2': container({'w': ['dense', [1]]}, {'w': tensor('BOOL', [1], 0, 1)}, b'\2'),
  'bits after the last weight': container(
    {'w': ['mask', [1]]},
    {'w.mask': tensor('U8', [1], 0, 1), 'w.values': tensor('I8', [1], 1, 2)},
    b'\xc0\1',
  ),
  'another version': container({'version': 3, 'leaves': {}}, {}),
  'no checksum': container({'version': 2, 'leaves': {'w': ['dense', [1], None]}}, FOUR, b'\0' * 4),
  'a wrong checksum': container(
    {'version': 2, 'leaves': {'w': ['dense', [1], 7]}}, FOUR, b'\0' * 4
  ),
  'a huge integer': container({'w': ['dense', [10**4000] * 9]}, FOUR, b'\0' * 4),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_fields_are_refused_in_one_short_line_and_little_memory(case, tmp_path):
  (tmp_path / 'a').write_bytes(HOSTILE[case])
  tracemalloc.start()
  for read in (read_sparse.load, sparse_file.read, prunejax.load_sparse):
    with pytest.raises(ValueError, match='a sparse file|no regular file') as error:
      read(tmp_path / 'a', most=2**20)
    assert '\n' not in str(error.value) and len(str(error.value)) < 600
  assert tracemalloc.get_traced_memory()[1] < 2**24
  tracemalloc.stop()


def test_sizes_that_memory_does_not_hold_are_one_line(monkeypatch):
  def full(*_):
    raise MemoryError

  data = sparse_file.encode({'w': TREE['stack'][0]})
  monkeypatch.setattr(np, 'zeros', full)
  with pytest.raises(ValueError, match='do not fit into memory'):
    read_sparse.decode(data)


@pytest.mark.parametrize('path', ['/dev/zero', '/dev', '/absent'])
def test_only_regular_files_are_opened(path):
  for read in (read_sparse.load, prunejax.load_sparse):
    with pytest.raises(ValueError, match=f'{path}.* is no regular file of at most'):
      read(path)


def test_a_file_of_version_1_is_still_read():
  leaves = read_sparse.load(REFERENCE / 'sparse-version-1.safetensors')
  kernel = np.zeros((40, 30), np.float32)
  kernel.ravel()[::7] = np.arange(1, 173) / 64
  step = kernel.max(0) / 127
  assert (np.abs(leaves['a/kernel'] - kernel) <= 0.51 * step).all()
  np.testing.assert_array_equal(leaves['a/kernel'] != 0, kernel != 0)
  np.testing.assert_array_equal(leaves['a/bias'], np.arange(30))
  np.testing.assert_array_equal(leaves['n'], [3, -4])
  np.testing.assert_allclose(leaves['b'], np.eye(64), rtol=1e-6)
  for dtype in sparse_file.VALUES:
    old, new = (sparse_file.encode(TREE, dtype, version=version) for version in (1, 2))
    assert len(old) < len(new) < len(old) + 20 * len(jax.tree.leaves(TREE)) + 40
    old, new = read_sparse.decode(old), read_sparse.decode(new)
    assert all(np.array_equal(old[name], new[name]) for name in new)


def test_a_leaf_whose_name_ends_in_scale_scales_nothing():
  tree = {'w': np.float32([[1, 2]]), 'w.scale': np.float32([3, 3])}
  for version in (1, 2):
    out = read_sparse.decode(sparse_file.encode(tree, version=version))
    np.testing.assert_array_equal(out['w'], tree['w'])
  with pytest.raises(ValueError, match="both named 'w.scale'"):
    sparse_file.encode(tree, 'int8')


def test_texts_stand_beside_the_leaves():
  texts = {'config.json': '{"é": 1}\n', 'vocab.txt': 'a\nb\n'}
  data = sparse_file.encode({'w': np.ones(3, 'f')}, texts=texts)
  assert sparse_file.read_texts(data) == texts
  assert sparse_file.read_texts(sparse_file.encode({'w': np.ones(3, 'f')})) == {}
  crc = zlib.crc32(json.dumps(texts, sort_keys=True).encode())
  assert str(crc).encode() in data
  with pytest.raises(ValueError, match='texts do not have their checksum'):
    sparse_file.read_texts(data.replace(b'vocab.txt', b'vocab.txu'))

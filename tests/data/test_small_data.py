"""Digits and the MONK's problems: what is read, and what is said of files that are missing or damaged."""

import gzip
import struct

import numpy as np
import pytest

from prunejax.data import digits, monks


def idx(array):
  return (
    bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()
  )


@pytest.fixture
def mnist(tmp_path):
  rng = np.random.default_rng(0)
  (tmp_path / 'mnist').mkdir()
  arrays = {}
  for prefix, n in (('train', 7), ('t10k', 4)):
    arrays[prefix] = (
      rng.integers(0, 256, (n, 5, 6), np.uint8),
      rng.integers(0, 10, n).astype(np.uint8),
    )
    for kind, array in zip(('images-idx3', 'labels-idx1'), arrays[prefix], strict=True):
      (tmp_path / 'mnist' / f'{prefix}-{kind}-ubyte.gz').write_bytes(gzip.compress(idx(array)))
  return tmp_path, arrays


def test_packaged_digits():
  got = digits.load()
  assert got.train_images.shape == (1437, 8, 8) and got.test_images.shape == (360, 8, 8)
  assert got.train_images.dtype == np.float32 and got.train_labels.dtype == np.int32
  assert got.train_images.min() == 0 and got.train_images.max() == 1
  assert sorted(set(got.test_labels)) == list(range(10))
  assert len(digits.load(train=20, test=3).train_labels) == 20
  with pytest.raises(ValueError, match='1438 train examples asked.*1437'):
    digits.load(train=1438)


def test_mnist_files(mnist):
  root, arrays = mnist
  got = digits.load(str(root), train=6)
  assert got.name == 'MNIST'
  np.testing.assert_allclose(got.train_images, arrays['train'][0][:6] / 255, rtol=1e-6)
  np.testing.assert_array_equal(got.test_labels, arrays['t10k'][1])
  (root / 'mnist' / 't10k-labels-idx1-ubyte.gz').unlink()
  (root / 'mnist' / 't10k-labels-idx1-ubyte').write_bytes(idx(arrays['t10k'][1]))
  np.testing.assert_array_equal(digits.load(str(root)).test_labels, arrays['t10k'][1])


@pytest.mark.parametrize(
  ('data', 'said'),
  [
    (None, 'no file'),
    (b'not gzip', 'damaged gzip'),
    (gzip.compress(b'x' * 2000, 0)[:-900], 'damaged gzip'),
    (gzip.compress(b'<html>'), 'not an idx file'),
    (gzip.compress(idx(np.zeros((7, 5, 6), np.uint8))[:-1]), '209 bytes of data.*7x5x6'),
    (gzip.compress(idx(np.zeros((6, 5, 6), np.uint8))), '6 train images, but 7 labels'),
  ],
  ids=['none', 'no gzip', 'cut off', 'no idx', 'a byte short', 'too few'],
)
def test_damaged_mnist_is_one_error_with_the_file(mnist, data, said):
  path = mnist[0] / 'mnist' / 'train-images-idx3-ubyte.gz'
  path.unlink()
  if data is not None:
    path.write_bytes(data)
  with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
    digits.load(str(mnist[0]))
  assert 'mnist' in str(caught.value)


def test_root_without_mnist(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder .*mnist'):
    digits.load(str(tmp_path))


# Positive points of the whole space, as published.
@pytest.mark.parametrize(
  ('problem', 'size', 'positive', 'flipped'), [(1, 124, 216, 0), (2, 169, 142, 0), (3, 122, 228, 6)]
)
def test_generated_monks(problem, size, positive, flipped):
  got = monks.load(problem, seed=3)
  assert got.train_x.shape == (size, 17) and got.test_x.shape == (432, 17)
  assert got.test_y.sum() == positive and 'generated' in got.source
  assert np.all(got.train_x.sum(axis=1) == 6) and len(np.unique(got.train_x, axis=0)) == size
  truth = {tuple(x): y for x, y in zip(got.test_x, got.test_y, strict=True)}
  assert sum(truth[tuple(x)] != y for x, y in zip(got.train_x, got.train_y, strict=True)) == flipped
  assert not np.array_equal(got.train_x, monks.load(problem, seed=4).train_x)


def write_monk(folder, lines):
  (folder / 'monks').mkdir()
  for split in ('train', 'test'):
    (folder / 'monks' / f'monks-1.{split}').write_text('\n'.join(lines))


def test_monk_files(tmp_path):
  write_monk(tmp_path, [' 1 1 1 1 1 3 1 data_5', ' 0 3 2 2 1 4 2 data_7', ''])
  got = monks.load(1, str(tmp_path))
  np.testing.assert_array_equal(got.train_y, [1, 0])
  np.testing.assert_array_equal(np.flatnonzero(got.train_x[1]), [2, 4, 7, 8, 14, 16])


@pytest.mark.parametrize('line', ['1 1 1 1 1 5 1 x', '2 1 1 1 1 1 1 x', '1 1 1', '1 a 1 1 1 1 1 x'])
def test_damaged_monk_files(tmp_path, line):
  write_monk(tmp_path, [' 1 1 1 1 1 3 1 data_5', line])
  with pytest.raises(ValueError, match='monks-1.train, line 2'):
    monks.load(1, str(tmp_path))


def test_missing_monks(tmp_path):
  with pytest.raises(FileNotFoundError, match='monks-2.train'):
    monks.load(2, str(tmp_path))
  with pytest.raises(ValueError, match='accepted: 1, 2, 3'):
    monks.load(4)

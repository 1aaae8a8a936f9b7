"""Handwritten digits: what is read, and the errors for missing or damaged files."""

import gzip
import struct

import numpy as np
import pytest

from prunejax.data import handwritten_digits


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
  got = handwritten_digits.load()
  assert got.train_images.shape == (1437, 8, 8) and got.test_images.shape == (360, 8, 8)
  assert got.train_images.dtype == np.float32 and got.train_labels.dtype == np.int32
  assert got.train_images.min() == 0 and got.train_images.max() == 1
  assert sorted(set(got.test_labels)) == list(range(10))
  assert len(handwritten_digits.load(train=20, test=3).train_labels) == 20
  with pytest.raises(ValueError, match='train=1438: expected 1 to 1437'):
    handwritten_digits.load(train=1438)


def test_mnist_files(mnist):
  root, arrays = mnist
  got = handwritten_digits.load(str(root), train=6)
  assert got.name == 'MNIST'
  np.testing.assert_allclose(got.train_images, arrays['train'][0][:6] / 255, rtol=1e-6)
  np.testing.assert_array_equal(got.test_labels, arrays['t10k'][1])
  (root / 'mnist' / 't10k-labels-idx1-ubyte.gz').unlink()
  (root / 'mnist' / 't10k-labels-idx1-ubyte').write_bytes(idx(arrays['t10k'][1]))
  np.testing.assert_array_equal(handwritten_digits.load(str(root)).test_labels, arrays['t10k'][1])


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
    handwritten_digits.load(str(mnist[0]))
  assert 'mnist' in str(caught.value)


def test_root_without_mnist(tmp_path):
  with pytest.raises(FileNotFoundError, match='no folder .*mnist'):
    handwritten_digits.load(str(tmp_path))

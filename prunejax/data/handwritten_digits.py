"""Handwritten digits: scikit-learn's own 1,797 small ones, or MNIST from its four idx files."""

import gzip
import math
import pathlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

MNIST = {'train': 'train', 'test': 't10k'}
MOST = 2**27  # bytes of one file, unpacked: MNIST's largest has 47 MB
CLASSES = 10


class Digits(NamedTuple):
  """Images float32 [n, height, width] in [0, 1] and labels int32 [n], train and test; `name` says which digits."""

  name: str
  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray


def load(root='', train=None, test=None) -> Digits:
  """MNIST from `root`/mnist (28 x 28), or scikit-learn's digits (8 x 8) where no root is given.

  train, test: how many examples, the first of the file; all by default. scikit-learn's are cut in their own order,
  four fifths and one fifth. Raises FileNotFoundError, or ValueError for a damaged file or too many examples asked.
  """
  if root:
    folder = pathlib.Path(root).expanduser() / 'mnist'
    if not folder.is_dir():
      raise FileNotFoundError(
        f'digits: no folder {folder}; it holds the four idx files of MNIST, '
        "or leave the root empty for scikit-learn's digits"
      )
    name, parts = 'MNIST', [_pair(folder, prefix) for prefix in MNIST.values()]
  else:
    name, parts = "scikit-learn's digits", _packaged()
  cut = [
    _first(name, split, part, count)
    for split, part, count in zip(MNIST, parts, (train, test), strict=True)
  ]
  return Digits(name, *cut[0], *cut[1])


def _packaged():
  from sklearn.datasets import load_digits  # seconds to import, so only where it is asked for

  images, labels = load_digits(return_X_y=True)
  images, labels = np.float32(images.reshape(-1, 8, 8) / 16), np.int32(labels)
  at = len(images) * 4 // 5
  return (images[:at], labels[:at]), (images[at:], labels[at:])


def _first(name, split, part, count):
  images, labels = part
  count = len(images) if count is None else count
  if not 0 < count <= len(images):
    raise ValueError(f'digits: {count} {split} examples asked; {name} has 1 to {len(images)}')
  return images[:count], labels[:count]


def _pair(folder, prefix):
  images = _idx(folder, f'{prefix}-images-idx3-ubyte', 3)
  labels = _idx(folder, f'{prefix}-labels-idx1-ubyte', 1)
  if len(images) != len(labels):
    raise ValueError(f'{folder}: {len(images)} {prefix} images, but {len(labels)} labels')
  if labels.size and labels.max() >= CLASSES:
    raise ValueError(f'{folder}: a {prefix} label is {labels.max()}; accepted: 0 to 9')
  return np.float32(images) / np.float32(255), labels.astype(np.int32)


def _idx(folder, name, axes):
  """The uint8 array of an idx file (magic 0x0000_08_axes, sizes, bytes), plain or gzipped."""
  path = next((p for p in (folder / f'{name}.gz', folder / name) if p.is_file()), None)
  if path is None:
    raise FileNotFoundError(f'MNIST: no file {folder / name}.gz and none without .gz')
  try:
    with (gzip.open if path.suffix == '.gz' else open)(path, 'rb') as file:
      data = file.read(MOST + 1)
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(f'{path}: damaged gzip file ({error})') from None
  head = 4 + 4 * axes
  if len(data) < head or data[:4] != bytes([0, 0, 8, axes]):
    raise ValueError(
      f'{path}: not an idx file of bytes with {axes} axes; it starts with {data[:4].hex() or "nothing"}'
    )
  sizes = struct.unpack(f'>{axes}I', data[4:head])
  if len(data) - head != math.prod(sizes):
    raise ValueError(
      f'{path}: {len(data) - head} bytes of data, but its head says {"x".join(map(str, sizes))}'
    )
  return np.frombuffer(data, np.uint8, offset=head).reshape(sizes)

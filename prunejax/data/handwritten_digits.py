"""Handwritten digits: the 1,797 small ones of scikit-learn, or MNIST from its four idx files."""

import gzip
import math
import os
import pathlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

from prunejax.data import content

MNIST = {'train': 'train', 'test': 't10k'}  # split: prefix of its file names
MAX_BYTES = 2**27  # of one file, unpacked; MNIST's largest has 47 MB
CLASSES = 10


class Digits(NamedTuple):
  """Images and labels, to train and to test.

  Attributes:
    name: 'MNIST' or "scikit-learn's digits".
    train_images: float32 [n, height, width], from 0 to 1.
    train_labels: int32 [n], from 0 to 9.
    test_images: float32 [m, height, width], from 0 to 1.
    test_labels: int32 [m], from 0 to 9.
  """

  name: str
  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray


def load(root: str | os.PathLike = '', train: int | None = None, test: int | None = None) -> Digits:
  """Reads MNIST (28 x 28 pixels) or scikit-learn's digits (8 x 8 pixels).

  The first four fifths of scikit-learn's digits are to train, the last fifth to test.

  Args:
    root: folder with MNIST in mnist/; without one, scikit-learn's digits are read.
    train: number of training examples, the first ones; None for all.
    test: number of test examples, the first ones; None for all.

  Returns:
    The digits.

  Raises:
    FileNotFoundError: a folder or file that is missing.
    ValueError: a damaged file; more examples than there are.
  """
  if root:
    folder = pathlib.Path(root).expanduser() / 'mnist'
    if not folder.is_dir():
      raise FileNotFoundError(
        f'digits: no folder {folder}; expected the four idx files of MNIST in it, '
        "or an empty root for scikit-learn's digits"
      )
    name, parts = 'MNIST', [_pair(folder, prefix) for prefix in MNIST.values()]
  else:
    name, parts = "scikit-learn's digits", _packaged()
  splits = [
    _first(name, split, part, count)
    for split, part, count in zip(MNIST, parts, (train, test), strict=True)
  ]
  return Digits(name, *splits[0], *splits[1])


def fingerprint(root: str | os.PathLike = '') -> str:
  """Returns 12 hex digits that change with the digits that `load` reads; its errors are those."""
  return content.of_arrays(load(root)[1:])


def _packaged():
  from sklearn.datasets import load_digits  # takes seconds to import

  images, labels = load_digits(return_X_y=True)
  images, labels = np.float32(images.reshape(-1, 8, 8) / 16), np.int32(labels)
  border = len(images) * 4 // 5
  return (images[:border], labels[:border]), (images[border:], labels[border:])


def _first(name, split, part, count):
  images, labels = part
  count = len(images) if count is None else count
  if not 0 < count <= len(images):
    raise ValueError(f'digits: {split}={count}: expected 1 to {len(images)}, as many as {name} has')
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
      data = file.read(MAX_BYTES + 1)
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(f'{path}: damaged gzip file ({error})') from None
  header = 4 + 4 * axes
  if len(data) < header or data[:4] != bytes([0, 0, 8, axes]):
    raise ValueError(
      f'{path}: not an idx file of bytes with {axes} axes; '
      f'it starts with {data[:4].hex() or "nothing"}'
    )
  sizes = struct.unpack(f'>{axes}I', data[4:header])
  if len(data) - header != math.prod(sizes):
    raise ValueError(
      f'{path}: {len(data) - header} bytes of data; its header says {"x".join(map(str, sizes))}'
    )
  return np.frombuffer(data, np.uint8, offset=header).reshape(sizes)

"""Leaves that stay in a file and are read when they are needed, as a whole or in part.

A process that holds a part of a model reads the bytes of that part and no others, and a program
that goes through a model leaf by leaf never holds all of it.
"""

import abc
import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import safetensors

DTYPES = ('F32', 'F16', 'BF16')
PIECE = 2**25  # bytes of a large leaf that are read at a time


class Damaged(ValueError):
  """A file that cannot be read, or numbers in it that are not finite."""


class Leaf(abc.ABC):  # its kinds are no NamedTuples, which JAX would take for trees
  """A leaf that is read when it is needed. It has a `shape` and a `dtype`, as arrays have."""

  shape: tuple[int, ...]
  dtype: np.dtype
  # Whether rows of the leaf can be read without all others.
  by_rows: bool = True

  @abc.abstractmethod
  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part.

    Args:
      index: slices of the first axes of the leaf, without steps.

    Returns:
      An array of `dtype`. All numbers are finite.

    Raises:
      Damaged: the file cannot be read, or a number is not finite.
    """

  @property
  @abc.abstractmethod
  def files(self) -> frozenset[pathlib.Path]:
    """The files that it is read from."""

  @property
  def ndim(self) -> int:
    """The number of axes."""
    return len(self.shape)

  @property
  def size(self) -> int:
    """The number of entries."""
    return math.prod(self.shape)

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Reads the leaf where numpy or JAX asks for an array."""
    if copy is False:
      raise ValueError('a leaf in a file is copied when it is read')
    return np.asarray(self.read(), dtype)

  @property
  def nbytes(self) -> int:
    """The bytes of the leaf as an array."""
    return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Stored(Leaf):
  """A leaf of a model in a file: a tensor [rows, columns] or [n], or some of its columns.

  Attributes:
    file: the safetensors file.
    name: of the tensor in it.
    stored_shape: of the tensor.
    first: the first column that belongs to the leaf.
    last: the column after its last, on the last axis.
    transposed: the leaf is the transpose.
  """

  file: pathlib.Path
  name: str
  stored_shape: tuple[int, ...]
  first: int
  last: int
  transposed: bool = False

  @property
  def files(self) -> frozenset[pathlib.Path]:
    """The files that it is read from."""
    return frozenset([self.file])

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the leaf."""
    shape = (*self.stored_shape[:-1], self.last - self.first) if self.stored_shape else ()
    return shape[::-1] if self.transposed else shape

  @property
  def dtype(self) -> np.dtype:
    """The dtype in which parts are returned."""
    return np.dtype(np.float32)

  @property
  def T(self) -> 'Stored':  # noqa: N802, as numpy calls it
    """The transpose."""
    return dataclasses.replace(self, transposed=not self.transposed)

  def columns(self, start: int, stop: int) -> 'Stored':
    """Returns the leaf of the columns from `start` to `stop` of the tensor."""
    return dataclasses.replace(self, first=self.first + start, last=self.first + stop)

  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part as float32, see `Leaf.read`."""
    shape = self.shape
    whole = [slice(0, length) for length in shape]
    given = [part.indices(length)[:2] for part, length in zip(index, shape, strict=False)]
    lengths = (*(max(stop - start, 0) for start, stop in given), *shape[len(given) :])
    if 0 in lengths:  # which safetensors does not cut
      return np.zeros(lengths, np.float32)
    asked = [slice(*part) for part in given] + whole[len(given) :]
    asked = asked[::-1] if self.transposed else asked
    if asked:
      asked[-1] = slice(asked[-1].start + self.first, asked[-1].stop + self.first)
    with _opened(self.file) as file:
      part = file.get_slice(self.name)[tuple(asked)] if asked else file.get_tensor(self.name)
    part = np.asarray(part, np.float32)
    if not np.isfinite(part).all():
      raise Damaged(f'{self.file} holds NaN or infinite numbers in {self.name}')
    return np.ascontiguousarray(part.T if self.transposed else part)


@dataclasses.dataclass(frozen=True)
class Layers(Leaf):
  """Leaves of equal layers as one leaf [layers, ...]; see `models/layer_stack.py`."""

  layers: tuple[Any, ...]

  @property
  def files(self) -> frozenset[pathlib.Path]:
    """The files that it is read from."""
    return frozenset().union(*(layer.files for layer in self.layers))

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the leaf."""
    return (len(self.layers), *self.layers[0].shape)

  @property
  def dtype(self) -> np.dtype:
    """The dtype in which parts are returned."""
    return self.layers[0].dtype

  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part, see `Leaf.read`."""
    first, *rest = index or (slice(None),)
    layers = self.layers[first]
    # Of no layer the shape is still that of a part of one.
    parts = [layer.read(tuple(rest)) for layer in layers or self.layers[:1]]
    return np.stack(parts)[: len(layers)]


@dataclasses.dataclass(frozen=True)
class Bits(Leaf):
  """A mask in a file, eight weights to a byte, in order.

  Attributes:
    file: the safetensors file.
    name: of the tensor of bytes in it.
    shape: of the mask.
  """

  file: pathlib.Path
  name: str
  shape: tuple[int, ...]
  by_rows = False

  @property
  def files(self) -> frozenset[pathlib.Path]:
    """The files that it is read from."""
    return frozenset([self.file])

  @property
  def dtype(self) -> np.dtype:
    """The dtype in which parts are returned."""
    return np.dtype(bool)

  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part, see `Leaf.read`."""
    with _opened(self.file) as file:
      packed = file.get_tensor(self.name)
    bits = np.unpackbits(packed, count=math.prod(self.shape))
    return bits.astype(bool).reshape(self.shape)[index]


@dataclasses.dataclass(frozen=True)
class Cast(Leaf):
  """Another leaf in another dtype.

  Attributes:
    leaf: the other leaf.
    dtype: the dtype.
  """

  leaf: Any
  dtype: np.dtype

  @property
  def files(self) -> frozenset[pathlib.Path]:
    """The files that it is read from."""
    return self.leaf.files

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the leaf."""
    return self.leaf.shape

  @property
  def by_rows(self) -> bool:
    """As that of the other leaf."""
    return self.leaf.by_rows

  @property
  def T(self) -> 'Cast':  # noqa: N802, as numpy calls it
    """The transpose."""
    return dataclasses.replace(self, leaf=self.leaf.T)

  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part, see `Leaf.read`; a number that is too large for the dtype becomes infinite."""
    with np.errstate(over='ignore', under='ignore'):
      return self.leaf.read(index).astype(self.dtype, copy=False)


@contextlib.contextmanager
def _opened(file):
  try:
    with safetensors.safe_open(file, framework='np') as opened:
      yield opened
  except (safetensors.SafetensorError, OSError) as error:
    raise Damaged(f'{file} is damaged or not a safetensors file: {error}') from error


def is_stored(leaf: Any) -> bool:
  """Returns True for a leaf that is read when it is needed."""
  return isinstance(leaf, Leaf)


def whole(leaf: Any) -> Any:
  """Returns a leaf as an array."""
  if not is_stored(leaf):
    return leaf
  if not _in_pieces(leaf):
    return leaf.read()
  array, start = np.empty(leaf.shape, leaf.dtype), 0
  for piece in pieces(leaf):
    array[start : start + len(piece)] = piece
    start += len(piece)
  return array


def pieces(leaf: Any) -> Iterator[np.ndarray]:
  """Reads a large leaf in pieces along its first axis, and any other leaf or array at once."""
  if not is_stored(leaf) or not _in_pieces(leaf):
    yield np.asarray(whole(leaf))
    return
  step = max(PIECE // (leaf.nbytes // leaf.shape[0]), 1)
  for start in range(0, leaf.shape[0], step):
    yield leaf.read((slice(start, start + step),))


def _in_pieces(leaf):
  return leaf.by_rows and leaf.nbytes > PIECE


def columns(array: Any, start: int, stop: int) -> Any:
  """Returns the columns from `start` to `stop` of an array or of a stored tensor."""
  return array.columns(start, stop) if is_stored(array) else array[..., start:stop]


def as_leaf(array: Any) -> Any:
  """Returns an array as a leaf, float32; a stored tensor stays in its file."""
  return array if is_stored(array) else np.array(array, np.float32, order='C')

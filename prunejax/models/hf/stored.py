"""Tensors in safetensors files that are read part by part, when they are indexed.

A process that holds a part of a model reads the bytes of that part and no others.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import safetensors

DTYPES = ('F32', 'F16', 'BF16')


class Damaged(ValueError):
  """A file that cannot be read, or numbers in it that are not finite."""


@dataclasses.dataclass(frozen=True)  # no NamedTuple, which JAX would take for a tree
class Stored:
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
    """Reads a part.

    Args:
      index: slices of the first axes of the leaf, without steps.

    Returns:
      float32. All numbers are finite.

    Raises:
      Damaged: the file cannot be read, or a number is not finite.
    """
    shape = self.shape
    whole = [slice(0, length) for length in shape]
    given = [part.indices(length)[:2] for part, length in zip(index, shape, strict=False)]
    if any(start >= stop for start, stop in given):  # which safetensors does not cut
      return np.zeros(
        tuple(max(stop - start, 0) for start, stop in given) + shape[len(given) :], np.float32
      )
    asked = [slice(*part) for part in given] + whole[len(given) :]
    asked = asked[::-1] if self.transposed else asked
    if asked:
      asked[-1] = slice(asked[-1].start + self.first, asked[-1].stop + self.first)
    try:
      with safetensors.safe_open(self.file, framework='np') as file:
        part = file.get_slice(self.name)[tuple(asked)] if asked else file.get_tensor(self.name)
    except (safetensors.SafetensorError, OSError) as error:
      raise Damaged(f'{self.file} is damaged or not a safetensors file: {error}') from error
    part = np.asarray(part, np.float32)
    if not np.isfinite(part).all():
      raise Damaged(f'{self.file} holds NaN or infinite numbers in {self.name}')
    return np.ascontiguousarray(part.T if self.transposed else part)


@dataclasses.dataclass(frozen=True)
class Layers:
  """Leaves of equal layers as one leaf [layers, ...]; see `models/layer_stack.py`."""

  layers: tuple[Any, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the leaf."""
    return (len(self.layers), *self.layers[0].shape)

  @property
  def dtype(self) -> np.dtype:
    """The dtype in which parts are returned."""
    return self.layers[0].dtype

  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part, as `Stored.read`."""
    first, *rest = index or (slice(None),)
    return np.stack([layer.read(tuple(rest)) for layer in self.layers[first]])


def is_stored(leaf: Any) -> bool:
  """Returns True for a leaf that is read when it is indexed."""
  return isinstance(leaf, Stored | Layers)


def whole(leaf: Any) -> Any:
  """Returns a leaf as an array."""
  return leaf.read() if is_stored(leaf) else leaf


def columns(array: Any, start: int, stop: int) -> Any:
  """Returns the columns from `start` to `stop` of an array or of a stored tensor."""
  return array.columns(start, stop) if is_stored(array) else array[..., start:stop]


def as_leaf(array: Any) -> Any:
  """Returns an array as a leaf, float32; a stored tensor stays in its file."""
  return array if is_stored(array) else np.array(array, np.float32, order='C')

"""The project's sparse file: safetensors with the positions and values of kept weights.

Each leaf NAME takes the form that needs the fewest bytes:

* dense: the tensor NAME itself;
* mask: NAME.mask, one bit a weight, eight to a byte, the first weight in the highest bit, and
  NAME.values, the kept weights in order;
* gaps: NAME.gaps, one byte an entry, its distance from the entry before less one, and NAME.values.
  An entry whose value is zero is a filler.

NAME.scale multiplies int8 values, one number for each column of the last axis. The metadata hold
'prunejax': {NAME: [form, shape]}. `read_sparse` reads the file with numpy alone.
"""

import json
import math
from collections.abc import Mapping
from os import PathLike

import ml_dtypes
import numpy as np
import safetensors.numpy

from prunejax import files
from prunejax.compress import read_sparse, relative_index

VALUES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'int8': np.int8}
FLOATS = ('float16', 'bfloat16', 'float32', 'float64')
INTEGERS = ('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'bool')
MOST = read_sparse.MOST


def write(path: PathLike | str, tree: Mapping[str, np.ndarray], dtype: str = 'float32'):
  """Writes a tree as one file.

  Args:
    path: of the file, local or in an object store.
    tree: {path of a leaf: array}. Zeros are what was pruned.
    dtype: of stored values, 'float32', 'bfloat16' or 'int8'.

  Raises:
    ValueError: see `encode`. OSError: the file cannot be written.
  """
  files.write(path, encode(tree, dtype))


def read(path: PathLike | str, most: int = MOST) -> dict[str, np.ndarray]:
  """Reads a file that `write` wrote.

  Args:
    path: of the file, local or in an object store.
    most: largest number of bytes that the file, or all arrays together, may take.

  Returns:
    {path of a leaf: array}; float32 for floats, integers as they are.

  Raises:
    ValueError: the file is damaged or too large.
  """
  try:
    return read_sparse.decode(files.read(path, most), most)
  except ValueError as error:
    raise ValueError(f'{str(path)!r}: {error}') from None


def encode(tree: Mapping[str, np.ndarray], dtype: str = 'float32') -> bytes:
  """Encodes a tree as the bytes of a file.

  Args:
    tree: {path of a leaf: array}. Zeros are what was pruned.
    dtype: of stored values. 'int8' holds leaves of two axes or more, scaled by column; other
      leaves stay float32.

  Returns:
    The bytes.

  Raises:
    ValueError: an unknown dtype; a value that is not finite; two parts of the same name.
  """
  if dtype not in VALUES:
    raise ValueError(f'sparse_file: dtype={dtype!r}; accepted: {", ".join(VALUES)}')
  tensors, forms = {}, {}
  for name, leaf in tree.items():
    leaf = np.ascontiguousarray(leaf) if np.ndim(leaf) else np.asarray(leaf)
    parts = {'': leaf}
    if leaf.dtype.name in FLOATS:
      if not np.isfinite(leaf.astype(np.float32)).all():
        raise ValueError(f'sparse_file: {name!r} holds values that are not finite in float32')
      parts = _smallest(leaf.astype(np.float32), dtype)
    elif leaf.dtype.name not in INTEGERS:
      raise ValueError(
        f'sparse_file: {name!r} is {leaf.dtype}; accepted: floats up to 64 bits and integers'
      )
    form = next((form for form in ('mask', 'gaps') if form in parts), 'dense')
    forms[name] = [form, list(leaf.shape)]
    for part, array in parts.items():
      tensor = f'{name}.{part}' if part else name
      if tensor in tensors or part and tensor in tree:
        raise ValueError(
          f'sparse_file: a part of {name!r} and another leaf are both named {tensor!r}'
        )
      tensors[tensor] = array
  return safetensors.numpy.save(
    tensors, metadata={'prunejax': json.dumps(forms, separators=(',', ':'))}
  )


def _smallest(leaf, dtype):
  """{part: array} of the form that takes the fewest bytes."""
  scale = {}
  if dtype == 'int8' and leaf.ndim >= 2 and leaf.size:
    columns = np.abs(leaf).reshape(-1, leaf.shape[-1]).max(0).astype(np.float32) / 127
    scale = {'scale': columns}
    dense = np.rint(leaf / np.where(columns > 0, columns, 1)).astype(np.int8)
  else:
    dense = leaf.astype(VALUES['float32' if dtype == 'int8' else dtype])
  flat = dense.ravel()
  positions = np.flatnonzero(flat != 0)
  forms = [{'': dense}]
  if math.prod(leaf.shape):
    gaps, is_filler = relative_index.encode(positions, 8)
    values = np.zeros(gaps.size, dense.dtype)
    values[~is_filler] = flat[positions]
    forms += [
      {'mask': np.packbits(flat != 0), 'values': flat[positions]},
      {'gaps': gaps.astype(np.uint8), 'values': values},
    ]
  best = min(forms, key=lambda parts: sum(array.nbytes for array in parts.values()))
  return best | scale

"""The project's own sparse file: safetensors holding, leaf by leaf, where the kept weights are and their values.

NAME.values are those of the kept weights in order. Where they are: NAME.mask, one bit a weight, eight to a byte, first
weight in the highest bit; or NAME.gaps, a byte a stored entry, one less than its distance from the entry before (an
entry whose value is zero is a filler); whichever is smaller. A leaf that is smaller dense is NAME itself. NAME.scale
multiplies int8 values, one for each column of the last axis. The metadata says 'prunejax': {NAME: [form, shape]}.
`read_sparse` reads it with numpy alone.
"""

import json
import math

import ml_dtypes
import numpy as np
import safetensors.numpy

from prunejax import files
from prunejax.compress import index, read_sparse

VALUES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'int8': np.int8}
MOST = read_sparse.MOST


def write(path, tree, dtype='float32'):
  """Writes {path: array}; zeros are what was pruned. dtype: of the values, 'float32', 'bfloat16' or 'int8'."""
  files.write(path, encode(tree, dtype))


def read(path, most=MOST) -> dict:
  """{path: float32 array} (integers as they are). Raises ValueError, one line, for a damaged file or one too large."""
  try:
    return read_sparse.decode(files.read(path, most), most)
  except ValueError as error:
    raise ValueError(f'{str(path)!r}: {error}') from None


def encode(tree, dtype='float32') -> bytes:
  """{path: array} as bytes. int8: leaves of two axes or more, scaled by column; those of one stay float32."""
  if dtype not in VALUES:
    raise ValueError(f'sparse_file: dtype={dtype!r}; accepted: {", ".join(VALUES)}')
  tensors, forms = {}, {}
  for name, leaf in tree.items():
    leaf = np.ascontiguousarray(leaf) if np.ndim(leaf) else np.asarray(leaf)
    made = {'': leaf}
    if leaf.dtype.name in ('float16', 'bfloat16', 'float32', 'float64'):
      if not np.isfinite(leaf.astype(np.float32)).all():
        raise ValueError(f'sparse_file: {name!r} holds values that are not finite in float32')
      made = _smallest(leaf.astype(np.float32), dtype)
    elif leaf.dtype.name not in (
      'int8',
      'int16',
      'int32',
      'int64',
      'uint8',
      'uint16',
      'uint32',
      'bool',
    ):
      raise ValueError(
        f'sparse_file: {name!r} is {leaf.dtype}; accepted: floats up to 64 bits and integers'
      )
    form = next((form for form in ('mask', 'gaps') if form in made), 'dense')
    forms[name] = [form, list(leaf.shape)]
    for part, array in made.items():
      whole = f'{name}.{part}' if part else name
      if whole in tensors or part and whole in tree:
        raise ValueError(
          f'sparse_file: a part of {name!r} and another leaf are both named {whole!r}'
        )
      tensors[whole] = array
  return safetensors.numpy.save(
    tensors, metadata={'prunejax': json.dumps(forms, separators=(',', ':'))}
  )


def _smallest(leaf, dtype):
  """The parts {name: array} of the form that takes the fewest bytes."""
  scale = {}
  if dtype == 'int8' and leaf.ndim >= 2 and leaf.size:
    columns = np.abs(leaf).reshape(-1, leaf.shape[-1]).max(0).astype(np.float32) / 127
    scale = {'scale': columns}
    whole = np.rint(leaf / np.where(columns > 0, columns, 1)).astype(np.int8)
  else:
    whole = leaf.astype(VALUES['float32' if dtype == 'int8' else dtype])
  flat = whole.ravel()
  positions = np.flatnonzero(flat != 0)
  forms = [{'': whole}]
  if math.prod(leaf.shape):
    gaps, filler = index.encode(positions, 8)
    values = np.zeros(gaps.size, whole.dtype)
    values[~filler] = flat[positions]
    forms += [
      {'mask': np.packbits(flat != 0), 'values': flat[positions]},
      {'gaps': gaps.astype(np.uint8), 'values': values},
    ]
  best = min(forms, key=lambda parts: sum(array.nbytes for array in parts.values()))
  return best | scale

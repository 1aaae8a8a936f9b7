"""Reads a sparse file of prunejax with numpy alone: copy this file, and call `load(path)`."""

import json
import math
import pathlib

import numpy as np

MOST = 2**33  # bytes of all arrays together
TYPES = {
  'F32': '<f4',
  'BF16': '<u2',
  'I8': 'i1',
  'U8': 'u1',
  'I16': '<i2',
  'U16': '<u2',
  'I32': '<i4',
  'U32': '<u4',
  'I64': '<i8',
  'BOOL': '?',
}
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def load(path, most=MOST) -> dict:
  """Reads a file.

  Args:
    path: of the file.
    most: largest number of bytes that all arrays together may take.

  Returns:
    {name: array}; float32 for what was floating.

  Raises:
    ValueError: the file is damaged, or its arrays take more than `most` bytes.
  """
  return decode(pathlib.Path(path).read_bytes(), most)


def decode(data, most=MOST) -> dict:
  """Reads the bytes of a file; otherwise as `load`."""
  try:
    size = int.from_bytes(data[:8], 'little')
    if size > min(len(data) - 8, 2**26):
      raise ValueError(f'a head of {size} bytes in a file of {len(data)}')
    head, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    forms = json.loads(head['__metadata__']['prunejax'])
    if sum(4 * math.prod(shape) for _, shape in forms.values()) > most:
      raise ValueError(f'arrays of more than {most} bytes in all')
    return {name: _leaf(name, form, shape, head, body) for name, (form, shape) in forms.items()}
  except DAMAGE as error:
    raise ValueError(f'not a sparse file of prunejax, or a damaged one: {error!r}') from None


def _tensor(head, body, name):
  entry = head[name]
  start, end = entry['data_offsets']
  if not 0 <= start <= end <= len(body):
    raise ValueError(f'{name} lies outside the file')
  array = np.frombuffer(body[start:end], TYPES[entry['dtype']]).reshape(entry['shape'])
  return (array.astype('<u4') << 16).view('<f4') if entry['dtype'] == 'BF16' else array


def _leaf(name, form, shape, head, body):
  if form == 'dense':
    leaf = _tensor(head, body, name).reshape(shape)
  else:
    values, count = _tensor(head, body, f'{name}.values'), math.prod(shape)
    if form == 'mask':
      bits = _tensor(head, body, f'{name}.mask')
      if len(bits) != -(-count // 8):
        raise ValueError(f'{name}.mask has {len(bits)} bytes for {count} weights')
      positions = np.flatnonzero(np.unpackbits(bits, count=count))
    else:
      positions = np.cumsum(_tensor(head, body, f'{name}.gaps').astype(np.int64) + 1) - 1
    if positions.shape != values.shape:
      raise ValueError(f'{name} has {len(positions)} positions for {len(values)} values')
    leaf = np.zeros(count, values.dtype)
    leaf[positions] = values
    leaf = leaf.reshape(shape)
  if f'{name}.scale' in head:
    leaf = leaf * _tensor(head, body, f'{name}.scale').reshape(shape[-1:])
  return leaf

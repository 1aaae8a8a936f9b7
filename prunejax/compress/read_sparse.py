"""Reads a sparse file of prunejax with numpy alone: copy this file out of the project, and call `load(path)`."""

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


def load(path, most=MOST) -> dict:
  """{name: array, float32 for what was floating}. Raises ValueError for a damaged file, or more than `most` bytes."""
  return decode(pathlib.Path(path).read_bytes(), most)


def decode(data, most=MOST) -> dict:
  """The same from a file's bytes."""
  try:
    size = int.from_bytes(data[:8], 'little')
    if size > min(len(data) - 8, 2**26):
      raise ValueError(f'a head of {size} bytes in a file of {len(data)}')
    head = json.loads(data[8 : 8 + size])
    forms = json.loads(head['__metadata__']['prunejax'])
    if sum(4 * math.prod(shape) for _, shape in forms.values()) > most:
      raise ValueError(f'arrays of more than {most} bytes in all')
    return {
      name: _leaf(name, form, shape, head, data[8 + size :])
      for name, (form, shape) in forms.items()
    }
  except (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
  ) as error:
    raise ValueError(f'no sparse file of prunejax, or a damaged one: {error!r}') from None


def _tensor(head, body, name):
  about = head[name]
  start, end = about['data_offsets']
  if not 0 <= start <= end <= len(body):
    raise ValueError(f'{name} lies outside the file')
  array = np.frombuffer(body[start:end], TYPES[about['dtype']]).reshape(about['shape'])
  return (array.astype('<u4') << 16).view('<f4') if about['dtype'] == 'BF16' else array


def _leaf(name, form, shape, head, body):
  if form == 'dense':
    out = _tensor(head, body, name).reshape(shape)
  else:
    values, count = _tensor(head, body, f'{name}.values'), math.prod(shape)
    out = np.zeros(count, values.dtype)
    if form == 'mask':
      bits = _tensor(head, body, f'{name}.mask')
      if len(bits) != -(-count // 8):
        raise ValueError(f'{name}.mask has {len(bits)} bytes for {count} weights')
      places = np.flatnonzero(np.unpackbits(bits, count=count))
    else:
      places = np.cumsum(_tensor(head, body, f'{name}.gaps').astype(np.int64) + 1) - 1
    if places.shape != values.shape:
      raise ValueError(f'{name} has {len(places)} places for {len(values)} values')
    out[places] = values
    out = out.reshape(shape)
  scale = (
    _tensor(head, body, f'{name}.scale').reshape(shape[-1:]) if f'{name}.scale' in head else None
  )
  return out if scale is None else out * scale

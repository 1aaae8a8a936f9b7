"""Reads a sparse file of prunejax with numpy alone: copy this file, and call `load(path)`."""

import json
import math
import pathlib
import zlib

import numpy as np

MOST = 2**33  # bytes of all arrays together
MOST_HEAD = 2**25
TYPES = dict(F32='<f4', BF16='<u2', I8='i1', U8='u1', I16='<i2', U16='<u2', I32='<i4', U32='<u4')
TYPES |= {'I64': '<i8', 'BOOL': '?'}
PARTS = {'dense': [''], 'mask': ['.values', '.mask'], 'gaps': ['.values', '.gaps']}
PARTS |= {f'scaled {form}': [*parts, '.scale'] for form, parts in PARTS.items()}
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def load(path, most=MOST) -> dict:
  """Reads a file.

  Args:
    path: of the file.
    most: largest number of bytes that the file, or all arrays together, may take.

  Returns:
    {name: array}; float32 for what was floating.

  Raises:
    ValueError: the file is damaged or too large, or it is no regular file.
  """
  path = pathlib.Path(path)
  if not path.is_file() or path.stat().st_size > most:
    raise ValueError(f'{str(path)!r} is no regular file of at most {most} bytes')
  return decode(path.read_bytes(), most)


def decode(data, most=MOST) -> dict:
  """Reads the bytes of a file; otherwise as `load`."""
  try:
    head, leaves, body = parse(data)
    if (total := sum(_bytes(head, name, *row) for name, row in leaves.items())) > most:
      raise ValueError(f'arrays of {total} bytes, more than {most}')
    return {name: _array(head, body, name, *row) for name, row in leaves.items()}
  except MemoryError:
    raise ValueError('a sparse file whose arrays do not fit into memory') from None
  except DAMAGE as error:
    raise ValueError(f'not a sparse file of prunejax, or a damaged one: {error!r:.300}') from None


def parse(data) -> tuple:
  """Returns {tensor: entry}, {name: [form, shape, checksum or None]}, and the tensors' bytes."""
  size, end = int.from_bytes(data[:8], 'little'), 0
  _check(8 + size <= len(data) and size <= MOST_HEAD, f'a head of {size} bytes')
  head, body = _json(data[8 : 8 + size]), memoryview(data)[8 + size :]
  leaves = _json(head.pop('__metadata__')['prunejax'])
  if type(leaves.get('version')) is int:
    _check(leaves['version'] == 2, f'version {leaves["version"]}, expected 1 or 2')
    leaves = leaves['leaves']
    _check(all(type(crc) is int for _, _, crc in leaves.values()), 'a checksum is no number')
  else:  # version 1 has no checksums, and does not say which leaves are scaled
    scaled = {f'{name}.scale' for name in leaves} & head.keys() - leaves.keys()
    form = lambda name, plain: f'scaled {plain}' if f'{name}.scale' in scaled else plain
    leaves = {name: [form(name, plain), shape, None] for name, (plain, shape) in leaves.items()}
  for entry in sorted(head.values(), key=lambda entry: entry['data_offsets']):
    start, end = end, end + _count(entry['shape']) * np.dtype(TYPES[entry['dtype']]).itemsize
    _check(entry['data_offsets'] == [start, end], f'offsets {entry["data_offsets"]}')
  parts = [name + part for name, (form, _, _) in leaves.items() for part in PARTS[form]]
  _check(end == len(body) and sorted(parts) == sorted(head), 'bytes or tensors of no leaf')
  return head, leaves, body


def checksum(head, body, name, form, shape) -> int:
  """Returns the CRC-32 of a leaf: of its name, form and shape, its entries, and its bytes."""
  entries = [head[name + part] for part in PARTS[form]]
  crc = zlib.crc32(json.dumps([name, form, shape, entries], sort_keys=True).encode())
  for entry in entries:
    crc = zlib.crc32(body[slice(*entry['data_offsets'])], crc)
  return crc


def _array(head, body, name, form, shape, crc):
  _check(crc is None or crc == checksum(head, body, name, form, shape), f'the checksum of {name}')
  values, *others = (_tensor(body, **head[name + part]) for part in PARTS[form])
  count, kinds = _count(shape), [head[name + part]['dtype'] for part in PARTS[form]]
  if 'dense' not in form:
    _check(kinds[0] in ('F32', 'BF16', 'I8') and kinds[1] == 'U8', f'{name} of types {kinds}')
    if 'mask' in form:
      bits = np.unpackbits(others[0])
      _check(len(others[0]) == -(-count // 8) and not bits[count:].any(), f'the mask of {name}')
      positions = np.flatnonzero(bits)
    else:
      positions = np.cumsum(others[0].astype(np.int64) + 1) - 1
    _check(positions.shape == values.shape and (positions < count).all(), f'{name}, positions')
    flat = np.zeros(count, values.dtype)
    flat[positions] = values
    values = flat
  if 'scaled' in form:
    _check((kinds[0], kinds[-1]) == ('I8', 'F32'), f'{name} of types {kinds}')
    return values.reshape(shape) * others[-1].reshape(shape[-1:])
  return np.require(values.reshape(shape), requirements='W')  # as the other forms are


def _tensor(body, dtype, shape, data_offsets):
  array = np.frombuffer(body[slice(*data_offsets)], TYPES[dtype])
  array = (array.astype('<u4') << 16).view('<f4') if dtype == 'BF16' else array
  _check(array.dtype.kind != 'f' or np.isfinite(array).all(), 'a number that is not finite')
  _check(dtype != 'BOOL' or array.view('u1').max(initial=0) < 2, 'a byte that is no boolean')
  return array


def _bytes(head, name, form, shape, _):
  kind = head[name + PARTS[form][0]]['dtype']
  wide = kind == 'BF16' or 'scaled' in form  # becomes float32
  return _count(shape) * (4 if wide else np.dtype(TYPES[kind]).itemsize)


def _count(shape):
  valid = type(shape) is list and len(shape) <= 32
  _check(valid and all(type(n) is int and 0 <= n < 2**48 for n in shape), f'the shape {shape!r}')
  return math.prod(shape)


def _json(text):
  def once(pairs):
    _check(len(dict(pairs)) == len(pairs), 'a name that stands twice')
    return dict(pairs)

  return json.loads(text, object_pairs_hook=once)


def _check(valid, what):
  if not valid:
    raise ValueError(what)

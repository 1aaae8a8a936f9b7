"""The Deep Compression file (Han et al., 2016): shared values at relative indices, Huffman coded.

A file holds a magic number, the crc32 of everything after it, the length of the head, the head, and
the bytes of the leaves one after the other. The head is JSON: [name, dtype, shape, ...] of every
leaf. Leaves of one axis (biases) are stored as they are.
"""

import json
import math
import re
import struct
import warnings
import zlib
from collections.abc import Mapping
from os import PathLike

import ml_dtypes
import numpy as np

from prunejax import files
from prunejax.compress import huffman, kmeans, relative_index

MAGIC = b'PRUNEDC1'
FIXED = struct.Struct('<8sIQ')
MOST = 2**33  # bytes of all arrays of a file together
HEAD = 2**24  # bytes of a head
BITS = range(1, 13)  # of a code and of an index; huffman.SYMBOLS allows no more
DTYPES = {
  d.name: d
  for d in map(
    np.dtype,
    (
      np.float32,
      ml_dtypes.bfloat16,
      np.float16,
      np.float64,
      np.int8,
      np.int16,
      np.int32,
      np.int64,
      np.uint8,
      np.uint16,
      np.uint32,
      np.bool_,
    ),
  )
}
FLOATS = ('float32', 'bfloat16', 'float16', 'float64')


def write(path: PathLike | str, tree: Mapping[str, np.ndarray], **options):
  """Writes a tree as one file.

  Args:
    path: of the file, local or in an object store.
    tree: {path of a leaf: array}. Zeros are what was pruned.
    **options: of `encode`.

  Raises:
    ValueError: see `encode`. OSError: the file cannot be written.
  """
  files.write(path, encode(tree, **options))


def read(path: PathLike | str, most: int = MOST) -> dict[str, np.ndarray]:
  """Reads a file that `write` wrote.

  Args:
    path: of the file, local or in an object store.
    most: largest number of bytes that the file, or all arrays together, may take.

  Returns:
    {path of a leaf: array}.

  Raises:
    ValueError: the file is damaged or too large.
  """
  try:
    return decode(files.read(path, most), most)
  except ValueError as error:
    raise ValueError(f'{str(path)!r}: {error}') from None


def encode(
  tree: Mapping[str, np.ndarray],
  *,
  bits: int | Mapping[str, int] = 5,
  index_bits: int | Mapping[str, int] = 5,
  entropy: bool = True,
  init: str = 'linear',
) -> bytes:
  """Encodes a tree as the bytes of a Deep Compression file.

  A floating leaf of two axes or more with at most 2^bits - 1 values besides zero is stored without
  loss; so is one after its centroids were trained. Otherwise k-means shares its values.

  Args:
    tree: {path of a leaf: array}. Zeros are what was pruned.
    bits: of a code, 1 to 12, or {regex on the whole path: bits}. Code 0 is the filler's.
    index_bits: of a relative index, likewise.
    entropy: False stores codes and indices at fixed widths, without the Huffman code.
    init: where the centroids start, see `kmeans.fit`.

  Returns:
    The bytes.

  Warns:
    UserWarning: how many weights that are not 0 share the value 0.

  Raises:
    ValueError: bits out of range; a dtype that the file does not know; a value that is not finite.
  """
  head, body = [], []
  for name, leaf in tree.items():
    leaf = np.asarray(leaf)
    if leaf.dtype.name not in DTYPES:
      raise ValueError(f'deep: {name!r} is {leaf.dtype}; accepted: {", ".join(DTYPES)}')
    entry, parts = [name, leaf.dtype.name, list(leaf.shape)], [leaf.tobytes()]
    if leaf.ndim >= 2 and leaf.dtype.name in FLOATS:
      widths = [
        _bits(setting, name, word) for setting, word in ((bits, 'bits'), (index_bits, 'index_bits'))
      ]
      fields, parts = _shared(leaf.ravel(), *widths, entropy, init, name)
      entry += fields
    head.append(entry)
    body += parts
  text = json.dumps(head, separators=(',', ':')).encode()
  rest = struct.pack('<Q', len(text)) + text + b''.join(body)
  return MAGIC + struct.pack('<I', zlib.crc32(rest)) + rest


def decode(data: bytes, most: int = MOST) -> dict[str, np.ndarray]:
  """Decodes what `encode` returned.

  Args:
    data: the bytes of a file.
    most: largest number of bytes that all arrays together may take.

  Returns:
    {path of a leaf: array}.

  Raises:
    ValueError: the bytes are damaged, or the arrays too large.
  """
  tree, total = {}, 0
  head, body = _open(data)
  for entry in head:
    name, dtype, shape = entry[:3]
    total += math.prod(shape) * dtype.itemsize
    if total > most:
      raise ValueError(
        f'deep: {name!r} brings the arrays to {total} bytes; accepted: {most} in all'
      )
  for entry, parts in _parts(head, body):
    name, dtype, shape = entry[:3]
    try:
      flat = _opened(entry, parts) if len(entry) > 3 else np.frombuffer(parts[0], dtype).copy()
    except ValueError as error:
      raise ValueError(f'deep: {name!r} is damaged: {error}') from None
    tree[name] = flat.reshape(shape)
  return tree


def describe(data: bytes) -> list[dict]:
  """Lists what each leaf takes in the bytes of a file.

  Args:
    data: the bytes of a file.

  Returns:
    One dict a leaf: name, weights, bytes. Shared leaves also have entries (kept weights and
    fillers), shared (values of the codebook), bits (of a code at fixed width), index_bits, and
    value_bits and gap_bits (bits of an entry in the file, without the code tables).

  Raises:
    ValueError: the bytes are damaged.
  """
  rows = []
  for entry, parts in _parts(*_open(data)):
    row = {'name': entry[0], 'weights': math.prod(entry[2]), 'bytes': sum(map(len, parts))}
    if len(entry) > 3:
      bits, index_bits, entries, shared = entry[3:7]
      codes, gaps = parts[-2:]
      row |= {'entries': entries, 'shared': shared, 'bits': bits, 'index_bits': index_bits}
      row |= {
        'value_bits': 8 * len(codes) / max(entries, 1),
        'gap_bits': 8 * len(gaps) / max(entries, 1),
      }
    rows.append(row)
  return rows


def _shared(flat, bits, index_bits, entropy, init, name):
  """(fields of the head, parts of the body) of a leaf whose values are shared."""
  positions = np.flatnonzero(flat != 0)
  values = flat[positions]
  book = np.unique(values) if values.size else values
  if book.size > 2**bits - 1 or not np.isfinite(values.astype(np.float64)).all():
    try:
      book = kmeans.fit(values, 2**bits - 1, init)[0].astype(flat.dtype)
    except ValueError as error:
      raise ValueError(f'deep: {name!r}: {error}') from None
  gaps, is_filler = relative_index.encode(positions, index_bits)
  codes = np.zeros(gaps.size, np.uint16)
  codes[~is_filler] = kmeans.nearest(values, book) + np.uint16(1) if values.size else 0
  if lost := int(np.count_nonzero(book[codes[~is_filler] - np.uint16(1)] == 0)):
    warnings.warn(
      f'deep: {lost:,} weights of {name!r} that are not 0 share the value 0: use more bits',
      stacklevel=4,
    )
  streams, tables = [], []
  for symbols, size, width in ((codes, book.size + 1, bits), (gaps, 2**index_bits, index_bits)):
    if entropy:
      lengths = huffman.lengths(np.bincount(symbols, minlength=size))
      tables.append(relative_index.pack(lengths, 4))
      streams.append(huffman.encode(symbols, lengths))
    else:
      streams.append(relative_index.pack(symbols, width))
  entry = [bits, index_bits, int(gaps.size), int(book.size), *map(len, streams), int(entropy)]
  return entry, [book.tobytes(), *tables, *streams]


def _opened(entry, parts):
  """The flat array of a leaf whose values are shared."""
  _, dtype, shape, bits, index_bits, entries, shared, *_, entropy = entry
  symbols = []
  for i, (size, width) in enumerate(((shared + 1, bits), (2**index_bits, index_bits))):
    if entropy:
      lengths = relative_index.unpack(parts[1 + i], size, 4)
      symbols.append(huffman.decode(parts[3 + i], lengths, entries))
    else:
      symbols.append(relative_index.unpack(parts[1 + i], entries, width))
  codes, gaps = symbols
  if codes.max(initial=0) > shared:
    raise ValueError(f'code {codes.max()} of {shared} shared values')
  flat = np.zeros(math.prod(shape), dtype)
  book = np.concatenate([np.zeros(1, dtype), np.frombuffer(parts[0], dtype)])
  flat[relative_index.decode(gaps, flat.size)] = book[codes]
  return flat


def _open(data):
  """(checked head, body) of a file's bytes."""
  if len(data) < FIXED.size or data[:8] != MAGIC:
    raise ValueError(
      f'deep: not a Deep Compression file: it starts with {bytes(data[:8])!r}, expected {MAGIC!r}'
    )
  _, crc, size = FIXED.unpack_from(data)
  if zlib.crc32(memoryview(data)[12:]) != crc:
    raise ValueError('deep: the file is damaged or cut short: its checksum is wrong')
  if size > min(HEAD, len(data) - FIXED.size):
    raise ValueError(f'deep: a head of {size} bytes in a file of {len(data)}; accepted: {HEAD}')
  try:
    head = json.loads(data[FIXED.size : FIXED.size + size])
    head = [[entry[0], DTYPES[entry[1]], *entry[2:]] for entry in head]
  except (ValueError, RecursionError, TypeError, KeyError, IndexError) as error:
    raise ValueError(f'deep: the head cannot be read: {error!r}') from None
  seen = set()
  for entry in head:
    if not _sound(entry) or entry[0] in seen:
      raise ValueError(f'deep: the head holds an entry that is no leaf: {str(entry)[:80]}')
    seen.add(entry[0])
  return head, memoryview(data)[FIXED.size + size :]


def _sound(entry):
  """Whether `encode` can have written this entry of a head."""
  name, _, shape, *rest = entry if len(entry) in (3, 10) else (None,) * 3
  whole = lambda values: all(type(v) is int and 0 <= v < 2**48 for v in values)
  if not (
    isinstance(name, str)
    and isinstance(shape, list)
    and len(shape) <= 32
    and whole(shape)
    and whole(rest)
  ):
    return False
  if not rest:
    return True
  bits, index_bits, entries, shared, *_, entropy = rest
  small = bits in BITS and index_bits in BITS and shared < 2**bits and entropy in (0, 1)
  return small and entries <= math.prod(shape) and entry[1].name in FLOATS


def _parts(head, body):
  """Yields (entry, parts of the body) of each leaf: codebook, tables, codes, gaps; or the leaf."""
  at = 0
  for entry in head:
    sizes = [math.prod(entry[2]) * entry[1].itemsize]
    if len(entry) > 3:
      _, index_bits, _, shared, codes, gaps, entropy = entry[3:]
      tables = [(shared + 2) // 2, (2**index_bits + 1) // 2] if entropy else []
      sizes = [shared * entry[1].itemsize, *tables, codes, gaps]
    if at + sum(sizes) > len(body):
      raise ValueError(f'deep: {entry[0]!r} ends after byte {at + sum(sizes)} of {len(body)}')
    ends = np.cumsum([at, *sizes]).tolist()
    yield entry, [body[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    at = ends[-1]
  if at != len(body):
    raise ValueError(f'deep: {len(body) - at} bytes after the last leaf')


def _bits(setting, name, word):
  if isinstance(setting, dict):
    setting = next((value for regex, value in setting.items() if re.fullmatch(regex, name)), None)
  if setting not in BITS:
    raise ValueError(f'deep: {word}={setting!r} for {name!r}; accepted: {BITS[0]} to {BITS[-1]}')
  return int(setting)

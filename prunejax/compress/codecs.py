"""Bytes of a pruned model by every codec, beside bounds that no codec can go below."""

import lzma
import math
import re
import zlib
from collections.abc import Mapping

import numpy as np

from prunejax.compress import deep_compression, relative_index, sparse_file


def table(
  tree: Mapping[str, np.ndarray],
  *,
  leave_out: str = r'(?!)',
  bits: int = 5,
  index_bits: int = 5,
) -> list[dict]:
  """Measures every codec on one model.

  The two rows named 'bound' are no files: the entropy of the mask, with 32 bits a value or the
  entropy of the shared codes.

  Args:
    tree: {path of a leaf: array}. Zeros are what was pruned.
    leave_out: regex on the whole path; leaves that match are not counted.
    bits: of a code of Deep Compression.
    index_bits: of its relative index.

  Returns:
    One dict a codec: codec, bytes, bits_a_weight, rate (bytes of dense float32 over bytes of the
    codec), lossless.

  Raises:
    ValueError: `leave_out` leaves no weight.
  """
  tree = {
    name: np.asarray(leaf, np.float32)
    for name, leaf in tree.items()
    if not re.fullmatch(leave_out, name)
  }
  weights = sum(leaf.size for leaf in tree.values())
  if not weights:
    raise ValueError(f'codecs: leave_out={leave_out!r} leaves no weight')
  dense = b''.join(leaf.tobytes() for leaf in tree.values())
  coded = deep_compression.encode(tree, bits=bits, index_bits=index_bits)
  shared = deep_compression.decode(coded)
  fixed = deep_compression.encode(shared, bits=bits, index_bits=index_bits, entropy=False)
  sizes = [
    ('dense float32', len(dense), True),
    ('dense bfloat16', len(dense) // 2, False),
    ('CSR, float32', sum(map(_csr, tree.values())), True),
    (
      f'relative index of {index_bits} bits, float32',
      sum(_relative(leaf, index_bits) for leaf in tree.values()),
      True,
    ),
    (
      'bit mask, float32',
      sum(-(-leaf.size // 8) + 4 * np.count_nonzero(leaf) for leaf in tree.values()),
      True,
    ),
    # Version 1, whose sizes the ledgers hold; a checksum takes about 12 bytes a leaf.
    ('sparse file, float32', len(sparse_file.encode(tree, version=1)), True),
    ('sparse file, bfloat16', len(sparse_file.encode(tree, 'bfloat16', version=1)), False),
    ('sparse file, int8', len(sparse_file.encode(tree, 'int8', version=1)), False),
    ('zlib of dense float32', len(zlib.compress(dense, 6)), True),
    ('lzma of dense float32', len(lzma.compress(dense, preset=1)), True),
    ('bound: mask and float32 values', bound(tree) / 8, True),
    (f'shared, {bits} bits, fixed width', len(fixed), False),
    (f'Deep Compression, {bits} bits', len(coded), False),
    (
      'zlib of the shared weights',
      len(zlib.compress(b''.join(leaf.tobytes() for leaf in shared.values()), 6)),
      False,
    ),
    ('bound: mask and shared codes', bound(shared, shared=True) / 8, False),
  ]
  return [
    {
      'codec': codec,
      'bytes': math.ceil(size),
      'bits_a_weight': 8 * size / weights,
      'rate': len(dense) / size,
      'lossless': lossless,
    }
    for codec, size, lossless in sizes
  ]


def bound(tree: Mapping[str, np.ndarray], shared: bool = False) -> float:
  """Adds up the bits that a leaf needs at least: n H(kept fraction) for its mask, and its values.

  Args:
    tree: {path of a leaf: array}.
    shared: False counts 32 bits a kept weight. True counts, for leaves of two axes or more, the
      entropy of the values and 32 bits for each distinct one.

  Returns:
    Bits of all leaves.
  """
  return sum(_bound(leaf, shared and leaf.ndim >= 2) for leaf in tree.values())


def entropy(counts: np.ndarray) -> float:
  """Sums count log2(total / count).

  Args:
    counts: int [symbols], how often each symbol occurs.

  Returns:
    Bits of all symbols together.
  """
  counts = np.asarray(counts, np.float64)
  counts = counts[counts > 0]
  return float((counts * np.log2(counts.sum() / counts)).sum()) if counts.size else 0.0


def _bound(leaf, shared):
  values = leaf[leaf != 0]
  mask = entropy([values.size, leaf.size - values.size])
  if not shared:
    return mask + 32 * values.size
  _, counts = np.unique(values, return_counts=True)
  return mask + entropy(counts) + 32 * counts.size


def _csr(leaf):
  """Bytes with row pointers of 32 bits and columns of 16 or 32; a leaf of one axis is dense."""
  if leaf.ndim < 2:
    return leaf.nbytes
  rows, columns = math.prod(leaf.shape[:-1]), leaf.shape[-1]
  return 4 * (rows + 1) + (4 + (2 if columns <= 2**16 else 4)) * np.count_nonzero(leaf)


def _relative(leaf, bits):
  """Bytes with relative indices and float32 values; a leaf of one axis is dense."""
  if leaf.ndim < 2:
    return leaf.nbytes
  gaps, _ = relative_index.encode(np.flatnonzero(leaf), bits)
  return len(relative_index.pack(gaps, bits)) + 4 * gaps.size

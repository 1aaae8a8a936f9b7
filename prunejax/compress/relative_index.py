"""Positions of kept weights as relative indices of a few bits (Han et al., 2016, section 2)."""

import numpy as np

BITS = range(1, 17)  # of one stored step


def encode(positions: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
  """Turns positions into steps, with filler entries where a step does not fit into `bits`.

  A gap of 0 .. 2^bits - 1 stands for a step of 1 .. 2^bits. A longer step is preceded by fillers
  of 2^bits each: they stand at positions whose weight is zero.

  Args:
    positions: int [kept], ascending, in the flat array. The first step starts before position 0.
    bits: of a stored gap, 1 to 16.

  Returns:
    gaps, uint16 [entries], and is_filler, bool [entries].

  Raises:
    ValueError: bits out of range.
  """
  if bits not in BITS:
    raise ValueError(f'index: bits={bits!r}; accepted: {BITS[0]} to {BITS[-1]}')
  steps = np.diff(np.asarray(positions, np.int64), prepend=-1) - 1
  fillers = steps >> bits
  ends = np.cumsum(fillers + 1) - 1
  count = int(ends[-1]) + 1 if ends.size else 0
  gaps = np.full(count, 2**bits - 1, np.uint16)
  gaps[ends] = steps & (2**bits - 1)
  is_filler = np.ones(count, bool)
  is_filler[ends] = False
  return gaps, is_filler


def decode(gaps: np.ndarray, size: int) -> np.ndarray:
  """Turns gaps back into flat positions, fillers included.

  Args:
    gaps: uint16 [entries], as `encode` returns them.
    size: number of weights of the array.

  Returns:
    int64 [entries], ascending.

  Raises:
    ValueError: a position lies beyond the array.
  """
  positions = np.cumsum(np.asarray(gaps, np.int64) + 1) - 1
  if positions.size and positions[-1] >= size:
    raise ValueError(f'index: an entry at {positions[-1]} of an array of {size} weights')
  return positions


def pack(values: np.ndarray, bits: int) -> bytes:
  """Packs unsigned integers into `bits` bits each, most significant bit first.

  Args:
    values: unsigned integers below 2^bits.
    bits: of one value, at most 16.

  Returns:
    The bytes. Zeros fill the last one.
  """
  values = np.asarray(values, np.uint32)
  flags = np.zeros(values.size * bits, np.uint8)
  for bit in range(bits):
    flags[bit::bits] = (values >> (bits - 1 - bit)) & 1
  return np.packbits(flags).tobytes()


def unpack(data: bytes, count: int, bits: int) -> np.ndarray:
  """Reads what `pack` wrote.

  Args:
    data: the bytes.
    count: number of values.
    bits: of one value.

  Returns:
    uint16 [count].

  Raises:
    ValueError: `data` has another length.
  """
  if len(data) != -(-count * bits // 8):
    raise ValueError(f'index: {len(data)} bytes cannot hold {count} numbers of {bits} bits')
  flags = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits)
  values = np.zeros(count, np.uint16)
  for bit in range(bits):
    values |= flags[bit::bits].astype(np.uint16) << (bits - 1 - bit)
  return values

"""Where the kept weights are: relative indices of b bits with filler zeros (Han et al., 2016, section 2); packing."""

import numpy as np

BITS = range(1, 17)  # of one stored difference


def encode(positions, bits):
  """(gaps, filler): the steps from each kept position to the next, gap 0 .. 2^bits - 1 standing for 1 .. 2^bits.

  positions: ascending, of a flat array; the first step starts before position 0. Where a step is longer than 2^bits,
  fillers of 2^bits each come before it, `filler` True for them: they stand at positions whose weight is zero.
  """
  if bits not in BITS:
    raise ValueError(f'index: bits={bits!r}; accepted: {BITS[0]} to {BITS[-1]}')
  steps = np.diff(np.asarray(positions, np.int64), prepend=-1) - 1
  fillers = steps >> bits
  ends = np.cumsum(fillers + 1) - 1
  count = int(ends[-1]) + 1 if ends.size else 0
  gaps = np.full(count, 2**bits - 1, np.uint16)
  gaps[ends] = steps & (2**bits - 1)
  filler = np.ones(count, bool)
  filler[ends] = False
  return gaps, filler


def decode(gaps, size):
  """Flat positions of all entries, fillers too. Raises ValueError where one lies beyond an array of `size`."""
  positions = np.cumsum(np.asarray(gaps, np.int64) + 1) - 1
  if positions.size and positions[-1] >= size:
    raise ValueError(f'index: an entry at {positions[-1]} of an array of {size} weights')
  return positions


def pack(values, bits) -> bytes:
  """Unsigned integers as `bits` bits each, most significant first, the last byte filled with zeros."""
  values = np.asarray(values, np.uint32)
  out = np.zeros(values.size * bits, np.uint8)
  for place in range(bits):
    out[place::bits] = (values >> (bits - 1 - place)) & 1
  return np.packbits(out).tobytes()


def unpack(data, count, bits):
  """uint16 [count] that `pack` wrote. Raises ValueError where `data` has another length."""
  if len(data) != -(-count * bits // 8):
    raise ValueError(f'index: {len(data)} bytes hold no {count} numbers of {bits} bits')
  flags = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits)
  out = np.zeros(count, np.uint16)
  for place in range(bits):
    out |= flags[place::bits].astype(np.uint16) << (bits - 1 - place)
  return out

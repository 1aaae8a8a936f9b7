"""Canonical Huffman codes of small alphabets: only the code lengths are stored; a table decodes.

Decoding looks up, for every bit of a stretch at once, which code would begin there; the walk from code to code is then
one addition a symbol.
"""

import heapq

import numpy as np

SYMBOLS = 2**12  # in an alphabet
LONGEST = 15  # bits of a code; a length is four bits of a file
STRETCH = 2**18  # bytes decoded at a time: what bounds the memory beside the answer


def lengths(counts):
  """uint8: bits of each symbol's code, 0 for one that does not occur, 1 for one that is alone.

  Where a code would be longer than LONGEST, the counts are flattened until none is.
  """
  counts = np.asarray(counts, np.int64)
  if counts.ndim != 1 or counts.size > SYMBOLS:
    raise ValueError(
      f'huffman: counts of shape {counts.shape}; accepted: at most {SYMBOLS} symbols'
    )
  while True:
    out = _lengths(counts)
    if out.max(initial=0) <= LONGEST:
      return out
    counts = np.where(counts > 0, counts // 2 + 1, 0)


def codes(lengths):
  """uint32: the canonical code of each symbol: shorter first, then by symbol.

  Raises ValueError for lengths that are no complete prefix code (one symbol alone has the code 0).
  """
  lengths = np.asarray(lengths, np.int64)
  if (
    lengths.ndim != 1 or lengths.size > SYMBOLS or (lengths < 0).any() or (lengths > LONGEST).any()
  ):
    raise ValueError(f'huffman: accepted: at most {SYMBOLS} code lengths of 0 to {LONGEST} bits')
  used = np.flatnonzero(lengths)
  order = used[np.argsort(lengths[used], kind='stable')]
  shares = 2 ** (LONGEST - lengths[order])
  alone = used.size == 1 and lengths[used[0]] == 1
  if used.size and shares.sum() != 2**LONGEST and not alone:
    raise ValueError(
      f'huffman: code lengths fill {shares.sum()} of {2**LONGEST} parts: no complete prefix code'
    )
  out = np.zeros(lengths.size, np.uint32)
  out[order] = (np.cumsum(shares) - shares) >> (LONGEST - lengths[order])
  return out


def encode(symbols, lengths) -> bytes:
  """The symbols (uint, below len(lengths)) as bits, the last byte filled with zeros."""
  symbols = np.asarray(symbols)
  lengths = np.asarray(lengths, np.int64)
  if not symbols.size:
    return b''
  code, size = codes(lengths)[symbols], lengths[symbols]
  if (size == 0).any():
    raise ValueError(f'huffman: symbol {symbols[size == 0][0]} has no code')
  ends = np.cumsum(size)
  bits = np.zeros(int(ends[-1]), np.uint8)
  for place in range(int(size.max())):  # from the last bit of each code to its first
    has = size > place
    bits[ends[has] - 1 - place] = (code[has] >> place) & 1
  return np.packbits(bits).tobytes()


def decode(data, lengths, count):
  """uint16 [count] symbols. Raises ValueError for lengths that are no code, or data that end early or late."""
  if count > 8 * len(data):
    raise ValueError(f'huffman: {count} symbols cannot lie in {len(data)} bytes')
  steps, symbols = _table(lengths)
  out = np.empty(count, np.uint16)
  done, at = 0, 0  # symbols, bits
  while done < count:
    begin = at // 8
    windows = _windows(data[begin : begin + STRETCH + 3], min(STRETCH, len(data) - begin))
    jumps, places, here, end = (
      steps[windows].tobytes(),
      [],
      at - 8 * begin,
      8 * min(STRETCH, len(data) - begin),
    )
    take = places.append
    while here < end and len(places) < count - done:
      take(here)
      jump = jumps[here]
      if not jump:
        raise ValueError('huffman: bits that are no code')
      here += jump
    out[done : done + len(places)] = symbols[windows[places]]
    done, at = done + len(places), 8 * begin + here
    if at > 8 * len(data) or here >= end and done < count and begin + end // 8 >= len(data):
      raise ValueError(f'huffman: {len(data)} bytes end before {count} symbols')
  if -(-at // 8) != len(data):
    raise ValueError(f'huffman: {len(data)} bytes, but {count} symbols end after {-(-at // 8)}')
  return out


def _lengths(counts):
  out = np.zeros(counts.size, np.uint8)
  used = np.flatnonzero(counts)
  if used.size == 1:
    out[used] = 1
  heap = [(int(counts[s]), int(s), [int(s)]) for s in used]
  heapq.heapify(heap)
  while len(heap) > 1:
    (a, first, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
    both = left + right
    out[both] += 1
    heapq.heappush(heap, (a + b, first, both))
  return out


def _table(lengths):
  """(bits, symbol) of the code with which each LONGEST-bit number begins; 0 bits where none does."""
  code, size = codes(lengths).astype(np.int64), np.asarray(lengths, np.int64)
  steps, symbols = np.zeros(2**LONGEST, np.uint8), np.zeros(2**LONGEST, np.uint16)
  for s in np.flatnonzero(size):
    first = code[s] << (LONGEST - size[s])
    part = slice(first, first + (1 << (LONGEST - size[s])))
    steps[part], symbols[part] = size[s], s
  return steps, symbols


def _windows(data, count):
  """uint16 [8 count]: the LONGEST bits from every bit of the first `count` bytes on; beyond the end, zeros."""
  padded = np.zeros(count + 3, np.uint32)
  padded[: min(len(data), count + 3)] = np.frombuffer(data, np.uint8)[: count + 3]
  three = padded[:-3] << 16 | padded[1:-2] << 8 | padded[2:-1]
  shifts = 24 - LONGEST - np.arange(8, dtype=np.uint32)
  return (three[:, None] >> shifts & (2**LONGEST - 1)).astype(np.uint16).ravel()

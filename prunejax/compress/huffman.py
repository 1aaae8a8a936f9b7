"""Canonical Huffman codes of small alphabets: a file stores the code lengths alone.

Decoding looks up, for every bit of a stretch at once, which code would begin at that bit. The walk
from code to code is then one addition a symbol.
"""

import heapq

import numpy as np

SYMBOLS = 2**12  # in an alphabet
LONGEST = 15  # bits of a code; a file stores a length in four bits
STRETCH = 2**18  # bytes decoded at a time; bounds the memory beside the answer


def lengths(counts: np.ndarray) -> np.ndarray:
  """Chooses the code length of each symbol.

  Where a code would be longer than LONGEST, the counts are flattened until none is.

  Args:
    counts: int [symbols], how often each symbol occurs.

  Returns:
    uint8 [symbols], in bits: 0 for a symbol that does not occur, 1 for one that occurs alone.

  Raises:
    ValueError: counts of more than one axis, or of too many symbols.
  """
  counts = np.asarray(counts, np.int64)
  if counts.ndim != 1 or counts.size > SYMBOLS:
    raise ValueError(
      f'huffman: counts of shape {counts.shape}; accepted: at most {SYMBOLS} symbols'
    )
  while True:
    bits = _lengths(counts)
    if bits.max(initial=0) <= LONGEST:
      return bits
    counts = np.where(counts > 0, counts // 2 + 1, 0)


def codes(lengths: np.ndarray) -> np.ndarray:
  """Assigns the canonical codes: shorter ones first, then by symbol.

  Args:
    lengths: int [symbols], in bits.

  Returns:
    uint32 [symbols].

  Raises:
    ValueError: the lengths are no complete prefix code. (One symbol alone has the code 0.)
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
  assigned = np.zeros(lengths.size, np.uint32)
  assigned[order] = (np.cumsum(shares) - shares) >> (LONGEST - lengths[order])
  return assigned


def encode(symbols: np.ndarray, lengths: np.ndarray) -> bytes:
  """Writes symbols as bits.

  Args:
    symbols: unsigned integers [count], below len(lengths).
    lengths: code length of each symbol, in bits.

  Returns:
    The bytes. Zeros fill the last one.

  Raises:
    ValueError: a symbol has no code; the lengths are no complete prefix code.
  """
  symbols = np.asarray(symbols)
  lengths = np.asarray(lengths, np.int64)
  if not symbols.size:
    return b''
  code, size = codes(lengths)[symbols], lengths[symbols]
  if (size == 0).any():
    raise ValueError(f'huffman: symbol {symbols[size == 0][0]} has no code')
  ends = np.cumsum(size)
  flags = np.zeros(int(ends[-1]), np.uint8)
  for bit in range(int(size.max())):  # from the last bit of each code to its first
    long_enough = size > bit
    flags[ends[long_enough] - 1 - bit] = (code[long_enough] >> bit) & 1
  return np.packbits(flags).tobytes()


def decode(data: bytes, lengths: np.ndarray, count: int) -> np.ndarray:
  """Reads what `encode` wrote.

  Args:
    data: the bytes.
    lengths: code length of each symbol, in bits.
    count: number of symbols.

  Returns:
    uint16 [count].

  Raises:
    ValueError: the lengths are no complete prefix code, or the data end too early or too late.
  """
  if count > 8 * len(data):
    raise ValueError(f'huffman: {len(data)} bytes cannot hold {count} symbols')
  steps, symbols = _table(lengths)
  decoded = np.empty(count, np.uint16)
  done, at = 0, 0  # symbols, bits
  while done < count:
    begin = at // 8
    windows = _windows(data[begin : begin + STRETCH + 3], min(STRETCH, len(data) - begin))
    jumps = steps[windows].tobytes()
    end = 8 * min(STRETCH, len(data) - begin)
    here, starts = at - 8 * begin, []
    append = starts.append
    while here < end and len(starts) < count - done:
      append(here)
      jump = jumps[here]
      if not jump:
        raise ValueError('huffman: bits that are no code')
      here += jump
    decoded[done : done + len(starts)] = symbols[windows[starts]]
    done, at = done + len(starts), 8 * begin + here
    if at > 8 * len(data) or here >= end and done < count and begin + end // 8 >= len(data):
      raise ValueError(f'huffman: {len(data)} bytes end before {count} symbols')
  if -(-at // 8) != len(data):
    raise ValueError(f'huffman: {len(data)} bytes, but {count} symbols end after {-(-at // 8)}')
  return decoded


def _lengths(counts):
  """Code lengths without a limit, by merging the two rarest subtrees."""
  bits = np.zeros(counts.size, np.uint8)
  used = np.flatnonzero(counts)
  if used.size == 1:
    bits[used] = 1
  heap = [(int(counts[s]), int(s), [int(s)]) for s in used]
  heapq.heapify(heap)
  while len(heap) > 1:
    (a, first, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
    both = left + right
    bits[both] += 1
    heapq.heappush(heap, (a + b, first, both))
  return bits


def _table(lengths):
  """(bits, symbol) of the code that begins each LONGEST-bit number; 0 bits where none does."""
  code, size = codes(lengths).astype(np.int64), np.asarray(lengths, np.int64)
  steps, symbols = np.zeros(2**LONGEST, np.uint8), np.zeros(2**LONGEST, np.uint16)
  for s in np.flatnonzero(size):
    first = code[s] << (LONGEST - size[s])
    numbers = slice(first, first + (1 << (LONGEST - size[s])))
    steps[numbers], symbols[numbers] = size[s], s
  return steps, symbols


def _windows(data, count):
  """LONGEST bits, as uint16, from every bit of the first `count` bytes, zeros past the end."""
  padded = np.zeros(count + 3, np.uint32)
  padded[: min(len(data), count + 3)] = np.frombuffer(data, np.uint8)[: count + 3]
  three = padded[:-3] << 16 | padded[1:-2] << 8 | padded[2:-1]
  shifts = 24 - LONGEST - np.arange(8, dtype=np.uint32)
  return (three[:, None] >> shifts & (2**LONGEST - 1)).astype(np.uint16).ravel()

"""Masks against masks: how far they differ, how much they share, whether they nest.

A mask tree is a flat dict {path: bool array}, True = kept. Every count is an exact Python integer; "chance" is a mask
drawn without replacement with the same number kept in each matrix, the hypergeometric distribution.
"""

import math
from typing import NamedTuple

import numpy as np


class Common(NamedTuple):
  """Weights that two masks both keep, against chance.

  observed, either: kept by both, kept by any of them (integers).
  expected, sd: of `observed` between two masks that know nothing of each other.
  z: (observed - expected) / sd, nan where chance leaves no choice (a mask that keeps all or nothing).
  ratio: observed / expected, nan where nothing is expected.
  agreement: (observed - expected) / (most - expected), most being what masks of these sizes can share at all: 1 for
    nested masks, 0 for chance, nan where chance leaves no choice.
  jaccard: observed / either, 1 where neither keeps anything.
  """

  observed: int
  either: int
  expected: float
  sd: float
  z: float
  ratio: float
  agreement: float
  jaccard: float


def from_zeros(leaves):
  """{path: bool array} from {path: weights}: what is exactly 0.0 was pruned."""
  return {path: np.asarray(leaf) != 0 for path, leaf in leaves.items()}


def magnitude(leaves, sparsity):
  """The one-shot magnitude masks of weights, {path: bool array}, equal to those that `prune_transform` draws.

  In each matrix n - floor(n * sparsity + 1/2) of the n weights stay; of equal |w| the lower flat position stays.
  Raises ValueError for a sparsity outside [0, 1].
  """
  if not 0 <= sparsity <= 1:
    raise ValueError(f'sparsity={sparsity!r}: expected a number from 0 to 1')
  return {
    path: _largest(np.abs(np.asarray(leaf)), kept(np.size(leaf), sparsity))
    for path, leaf in leaves.items()
  }


def kept(size, sparsity):
  """How many of `size` weights stay: exact integers, the sparsity read to seven decimals as the core reads it."""
  parts = round(float(sparsity) * 10**7)
  return size - (2 * size * parts + 10**7) // (2 * 10**7)


def _largest(score, count):
  flat, mask = score.reshape(-1), np.zeros(score.size, bool)
  if count:
    edge = np.partition(flat, flat.size - count)[flat.size - count]
    mask = flat > edge
    mask[np.flatnonzero(flat == edge)[: count - int(mask.sum())]] = True
  return mask.reshape(score.shape)


def differing(a, b):
  """{path: (entries that differ, entries)} of two mask trees; raises ValueError when they are not alike."""
  return {path: (int(np.count_nonzero(x != y)), x.size) for path, x, y in _pairs(a, b)}


def difference(a, b):
  """Fraction of all mask entries that differ (Figure 3 of Gordon et al. 2020); {path: ...} of it is `differing`."""
  return share(differing(a, b).values())


def share(counts):
  """sum(part) / sum(whole) over pairs of integers, nan of nothing."""
  counts = list(counts)
  whole = sum(n for _, n in counts)
  return sum(part for part, _ in counts) / whole if whole else math.nan


def common(a, b):
  """`Common` of two mask trees in all: sums of the matrices' counts, expectations and variances."""
  return _common(_tallies(a, b).values())


def by_matrix(a, b):
  """{path: Common} of two mask trees, matrix by matrix."""
  return {path: _common([tally]) for path, tally in _tallies(a, b).items()}


def chance(size, first, second):
  """(mean, variance) of the number kept in common by random masks that keep `first` and `second` of `size`.

  Hypergeometric: mean K n / N, variance n (K/N) (1 - K/N) (N - n) / (N - 1).
  """
  mean = first * second / size if size else 0.0
  if size < 2:
    return mean, 0.0
  # As one quotient of integers: (N - K) (N - n) loses no digit where a mask keeps nearly all.
  return mean, first * second * (size - first) * (size - second) / (size * size * (size - 1))


def nesting(sparser, denser):
  """(nested, expected): of the weights that `sparser` keeps, the share that `denser` keeps too, and that of chance.

  1.0 is nested: pruning further only takes away. (nan, nan) where `sparser` keeps nothing.
  """
  tallies = _tallies(sparser, denser).values()
  whole = sum(first for _, first, _, _ in tallies)
  if not whole:
    return math.nan, math.nan
  both = sum(both for both, _, _, _ in tallies)
  return both / whole, sum(
    chance(size, first, second)[0] for _, first, second, size in tallies
  ) / whole


def _tallies(a, b):
  count = lambda x: int(np.count_nonzero(x))
  return {path: (count(x & y), count(x), count(y), x.size) for path, x, y in _pairs(a, b)}


def _common(tallies):
  tallies = list(tallies)
  observed = sum(both for both, _, _, _ in tallies)
  either = sum(first + second - both for both, first, second, _ in tallies)
  moments = [chance(size, first, second) for _, first, second, size in tallies]
  expected, sd = (
    sum(mean for mean, _ in moments),
    math.sqrt(sum(variance for _, variance in moments)),
  )
  most = sum(min(first, second) for _, first, second, _ in tallies)
  return Common(
    observed,
    either,
    expected,
    sd,
    (observed - expected) / sd if sd else math.nan,
    observed / expected if expected else math.nan,
    (observed - expected) / (most - expected) if sd else math.nan,
    observed / either if either else 1.0,
  )


def _pairs(a, b):
  if a.keys() != b.keys():
    only = sorted(a.keys() ^ b.keys())
    raise ValueError(
      f'masks of other matrices cannot be compared: {", ".join(only[:6])} in one of the two only'
    )
  for path in a:
    x, y = np.asarray(a[path]), np.asarray(b[path])
    if x.shape != y.shape or x.dtype != bool or y.dtype != bool:
      got = f'{x.dtype} {x.shape} and {y.dtype} {y.shape}'
      raise ValueError(f'{path}: expected two bool arrays of one shape, got {got}')
    yield path, x, y

"""Weight sharing: one-dimensional k-means over weights (Han et al., 2016, section 3)."""

import math

import numpy as np

INITS = ('linear', 'inside', 'forgy', 'density')
MOST = 2**16  # centroids; a larger codebook shares nothing


def fit(
  values: np.ndarray, k: int, init: str = 'linear', seed: int = 0, steps: int = 300
) -> tuple[np.ndarray, np.ndarray]:
  """Clusters values by Lloyd's algorithm on the sorted values.

  It stops when no value changes its cluster. An empty cluster keeps its centroid. A value half-way
  between two centroids belongs to the lower one.

  Args:
    values: any shape, read flat.
    k: number of clusters.
    init: where centroids start (section 3.2). 'linear': evenly from the least to the greatest
      value. 'inside': the same without these two (Cheong & Daniel, 2019). 'forgy': k of the
      values, drawn by `seed`. 'density': at k evenly spaced quantiles.
    seed: of 'forgy'.
    steps: most iterations.

  Returns:
    centroids, float32 [k], ascending; and codes, uint8 or uint16 [len(values)], the index of the
    nearest centroid of each value.

  Raises:
    ValueError: an unknown `init`, a `k` out of range, or a value that is not finite.
  """
  values = np.asarray(values).astype(np.float64).ravel()
  if not isinstance(k, int | np.integer) or not 1 <= k <= MOST:
    raise ValueError(f'kmeans: k={k!r}; accepted: a whole number of clusters, 1 to {MOST}')
  if init not in INITS:
    raise ValueError(f'kmeans: init={init!r}; accepted: {", ".join(INITS)}')
  if not np.isfinite(values).all():
    raise ValueError(
      f'kmeans: {int((~np.isfinite(values)).sum())} of {values.size} values are not finite'
    )
  if not values.size:
    return np.zeros(k, np.float32), np.zeros(0, _code_type(k))
  ranked = np.sort(values)
  sums = np.concatenate([[0.0], np.cumsum(ranked)])
  centres, edges = _start(ranked, k, init, seed), None
  for _ in range(steps):
    middles = (centres[1:] + centres[:-1]) / 2
    before = edges
    edges = np.concatenate([[0], np.searchsorted(ranked, middles, 'right'), [ranked.size]])
    if before is not None and np.array_equal(before, edges):
      break
    counts = np.diff(edges)
    means = np.diff(sums[edges]) / np.maximum(counts, 1)
    centres = np.sort(np.where(counts > 0, means, centres))
  centroids = centres.astype(np.float32)
  return centroids, nearest(values, centroids)


def nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
  """Finds the nearest centroid of each value; half-way, the lower one.

  Args:
    values: float, any shape.
    centroids: float [k], ascending.

  Returns:
    Indices of centroids, uint8 or uint16, of the shape of `values`.
  """
  centres = np.asarray(centroids, np.float64)
  middles = (centres[1:] + centres[:-1]) / 2
  codes = np.searchsorted(middles, np.asarray(values).astype(np.float64), 'left')
  return codes.astype(_code_type(len(centres)))


def cost(values: np.ndarray, centroids: np.ndarray, codes: np.ndarray) -> float:
  """Sums the squared distances of values to their centroids (equation 2).

  Args:
    values: float [n].
    centroids: float [k].
    codes: int [n], the index of each value's centroid.

  Returns:
    The within-cluster sum of squares.
  """
  shared = np.asarray(centroids, np.float64)[codes]
  return float(np.sum((np.asarray(values, np.float64) - shared) ** 2))


def rate(n: int, k: int, b: int = 32) -> float:
  """The compression rate of sharing: n b / (n log2 k + k b) (equation 1).

  Args:
    n: number of weights.
    k: number of shared values.
    b: bits of a weight.

  Returns:
    Bits before over bits after.
  """
  return n * b / (n * math.log2(k) + k * b)


def _start(ranked, k, init, seed):
  if init == 'linear':
    return np.linspace(ranked[0], ranked[-1], k) if k > 1 else np.array([ranked.mean()])
  if init == 'inside':
    return np.linspace(ranked[0], ranked[-1], k + 2)[1:-1]
  if init == 'forgy':
    return np.sort(np.random.default_rng(seed).choice(ranked, k, replace=ranked.size < k))
  return ranked[((np.arange(k) + 0.5) / k * ranked.size).astype(np.int64)]


def _code_type(k):
  return np.uint8 if k <= 2**8 else np.uint16

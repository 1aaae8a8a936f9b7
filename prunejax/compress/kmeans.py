"""Weight sharing: 1-D k-means over the weights of a layer (Han et al., 2016, section 3), by Lloyd on sorted values."""

import math

import numpy as np

INITS = ('linear', 'inside', 'forgy', 'density')
MOST = 2**16  # centroids; a codebook of more shares nothing


def fit(values, k, init='linear', seed=0, steps=300):
  """(centroids float32 [k], ascending; codes [len(values)], the number of the nearest centroid of each value).

  values: any shape, read flat.
  init: where centroids start (section 3.2): 'linear', evenly from the least to the greatest value; 'inside', the same
    without these two (Cheong & Daniel, 2019); 'forgy', k of the values drawn by `seed`; 'density', at k evenly spaced
    heights of the distribution function.

  Lloyd's steps until no value changes its cluster, at most `steps`; a cluster that is empty stays where it is. Values
  half-way belong to the lower centroid. Raises ValueError for a wrong k or init, or a value that is not finite.
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
    return np.zeros(k, np.float32), np.zeros(0, _width(k))
  ranked = np.sort(values)
  sums = np.concatenate([[0.0], np.cumsum(ranked)])
  centres, edges = _start(ranked, k, init, seed), None
  for _ in range(steps):
    middles = (centres[1:] + centres[:-1]) / 2
    before, edges = (
      edges,
      np.concatenate([[0], np.searchsorted(ranked, middles, 'right'), [ranked.size]]),
    )
    if before is not None and np.array_equal(before, edges):
      break
    counts = np.diff(edges)
    means = np.diff(sums[edges]) / np.maximum(counts, 1)
    centres = np.sort(np.where(counts > 0, means, centres))
  centroids = centres.astype(np.float32)
  return centroids, nearest(values, centroids)


def nearest(values, centroids):
  """The number of the nearest of ascending centroids for each value; half-way, the lower."""
  centres = np.asarray(centroids, np.float64)
  codes = np.searchsorted(
    (centres[1:] + centres[:-1]) / 2, np.asarray(values).astype(np.float64), 'left'
  )
  return codes.astype(_width(len(centres)))


def cost(values, centroids, codes) -> float:
  """Within-cluster sum of squares (equation 2)."""
  return float(
    np.sum((np.asarray(values, np.float64) - np.asarray(centroids, np.float64)[codes]) ** 2)
  )


def rate(n, k, b=32) -> float:
  """n weights of b bits against n codes and a codebook of k: n b / (n log2 k + k b) (equation 1)."""
  return n * b / (n * math.log2(k) + k * b)


def _start(ranked, k, init, seed):
  if init == 'linear':
    return np.linspace(ranked[0], ranked[-1], k) if k > 1 else np.array([ranked.mean()])
  if init == 'inside':
    return np.linspace(ranked[0], ranked[-1], k + 2)[1:-1]
  if init == 'forgy':
    return np.sort(np.random.default_rng(seed).choice(ranked, k, replace=ranked.size < k))
  return ranked[((np.arange(k) + 0.5) / k * ranked.size).astype(np.int64)]


def _width(k):
  return np.uint8 if k <= 2**8 else np.uint16

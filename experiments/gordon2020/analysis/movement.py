"""How far weights move in magnitude order while a model is fine-tuned (Gordon et al. 2020, section 5).

The movement of a weight is |rank after - rank before| / size of its matrix, ranks by |w| within the matrix. Weights
are a flat dict {path: array}; nothing is known here of the model.
"""

import math

import numpy as np


def ranks(weights):
  """int64, shaped like `weights`: 0 for the smallest |w| of the matrix, ties in the order of their positions."""
  flat = np.abs(np.asarray(weights)).reshape(-1)
  rank = np.empty(flat.size, np.int64)
  rank[np.argsort(flat, kind='stable')] = np.arange(flat.size)
  return rank.reshape(np.shape(weights))


def movement(before, after):
  """float64, shaped like the two matrices: |rank shift| / size, in [0, 1). Raises ValueError for unlike shapes."""
  if np.shape(before) != np.shape(after):
    raise ValueError(
      f'a matrix of shape {np.shape(before)} has become one of {np.shape(after)}: nothing to measure'
    )
  return _moved(ranks(before), ranks(after))


def measure(before, after, bins=100):
  """Movement of every matrix and of all (Table 2, Figures 4 and 6).

  Args:
    before, after: {path: weights}, of the same paths.
    bins: of starting magnitude, equal in number of weights, the smallest first.

  Returns:
    dict with 'mean' and 'std' over all weights pooled, 'weights' their number, 'matrices' {path: (mean, std)} and
    'by_magnitude', `bins` pooled means by the rank that a weight of its matrix had before (nan in an empty bin).
  """
  if before.keys() != after.keys():
    raise ValueError(
      f'matrices before and after differ: {", ".join(sorted(before.keys() ^ after.keys())[:6])}'
    )
  matrices, moments = {}, np.zeros(3)
  sums, counts = np.zeros(bins), np.zeros(bins, np.int64)
  for path in before:
    if np.shape(before[path]) != np.shape(after[path]):
      raise ValueError(
        f'{path}: shape {np.shape(before[path])} before, {np.shape(after[path])} after'
      )
    start = ranks(before[path])
    moved = _moved(start, ranks(after[path]))
    matrices[path] = float(moved.mean()), float(moved.std())
    moments += moved.size, moved.sum(), np.square(moved).sum()
    which = (start * bins // start.size).reshape(-1)
    sums += np.bincount(which, moved.reshape(-1), bins)
    counts += np.bincount(which, minlength=bins)
  n, total, squares = moments
  mean = total / n if n else math.nan
  return {
    'mean': float(mean),
    'std': math.sqrt(max(squares / n - mean * mean, 0.0)) if n else math.nan,
    'weights': int(n),
    'matrices': matrices,
    'by_magnitude': np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0),
  }


def spread(leaves):
  """{path: (mean, standard deviation)} of the weights of each matrix (Table 3), in float64."""
  arrays = {path: np.asarray(leaf, np.float64) for path, leaf in leaves.items()}
  return {path: (float(array.mean()), float(array.std())) for path, array in arrays.items()}


def _moved(start, end):
  return np.abs(end - start) / start.size

"""How much of each attention head is pruned, against chance (section 5)."""

import math
from typing import NamedTuple

import numpy as np

# The axis along which each matrix splits into heads.
PARTS = ('query', 'key', 'value', 'output')


class Heads(NamedTuple):
  """Shares of the weights of heads that are pruned.

  share: float64 [layers, heads].
  expected: share pruned of the matrices that hold the heads, the mean of a head under random masks.
  sd: standard deviation of the share of one head under random masks with as many kept in each
    matrix.
  """

  share: np.ndarray
  expected: float
  sd: float


def pruned(layers, heads):
  """Measures attention masks.

  Args:
    layers: a sequence of {'query', 'key', 'value', 'output': bool [hidden, hidden]} masks, True =
      kept. Kernels are [in, out]: a head is a block of columns of the first three, of rows of the
      last.
    heads: number of heads of each layer.

  Returns:
    A `Heads`.

  Raises:
    ValueError: a part is missing, or a width does not split into heads.
  """
  share, variance, removed, weights = [], [], 0, 0
  for i, parts in enumerate(layers):
    counts, size, spread = np.zeros(heads, np.int64), 0, 0.0
    for part in PARTS:
      if part not in parts:
        raise ValueError(f'layer {i}: no {part!r}; a head lies in {", ".join(PARTS)}')
      gone = ~np.asarray(parts[part])
      gone = gone.T if part == 'output' else gone
      if gone.shape[1] % heads:
        raise ValueError(
          f'layer {i}: the width {gone.shape[1]} of {part!r} does not split into {heads} heads'
        )
      each = gone.size // heads
      counts += gone.reshape(gone.shape[0], heads, -1).sum((0, 2), dtype=np.int64)
      size, spread = size + each, spread + _variance(gone.size, int(gone.sum()), each)
      removed, weights = removed + int(gone.sum()), weights + gone.size
    share.append(counts / size)
    variance.append(spread / size**2)
  if not share:
    raise ValueError('no attention layer: nothing to measure')
  return Heads(np.array(share), removed / weights, math.sqrt(sum(variance) / len(variance)))


def _variance(size, marked, drawn):
  # Variance of the number of marked ones among `drawn` of `size`: hypergeometric.
  if size < 2:
    return 0.0
  return drawn * marked * (size - marked) * (size - drawn) / (size * size * (size - 1))

"""How much of each attention head is pruned (Gordon et al. 2020, section 5), against what chance would give."""

import math
from typing import NamedTuple

import numpy as np

# A head's columns of the first three and its rows of the last, in the order of its matrices.
PARTS = ('query', 'key', 'value', 'output')


class Heads(NamedTuple):
  """Shares of the heads' weights that are pruned.

  share: float64 [layers, heads].
  expected: share pruned of the matrices that the heads lie in, what every head would have at random on average.
  sd: standard deviation of one head's share under random masks with as many kept in each matrix.
  """

  share: np.ndarray
  expected: float
  sd: float


def pruned(layers, heads):
  """`Heads` of attention masks.

  Args:
    layers: a sequence of {'query', 'key', 'value', 'output': bool [hidden, hidden]} masks, True = kept; kernels are
      [in, out], so a head is a block of columns of the first three and a block of rows of the last.
    heads: number of heads of each layer.

  Raises:
    ValueError: a part missing, or a width that does not split into heads.
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
  # Of the number of marked ones among `drawn` of `size`: hypergeometric.
  if size < 2:
    return 0.0
  return drawn * marked * (size - marked) * (size - drawn) / (size * size * (size - 1))

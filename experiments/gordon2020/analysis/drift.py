"""Feature drift as a rule to stop pruning, which the authors of Gordon et al. 2020 suggest (section 6) and do not try.

Prune step by step and watch the cosine similarity of the hidden states to those of the dense model; stop before it
falls below a threshold. Against it stands what costs labels: the score on the tasks, minus the dense one's.
"""

import math
from typing import NamedTuple

import numpy as np


class Stop(NamedTuple):
  """Where a threshold on drift would have stopped.

  threshold: lowest cosine allowed.
  sparsity: the last one before the cosine first falls below it (0.0: at once).
  cost: mean score there minus the dense one's, nan where no score is known.
  """

  threshold: float
  sparsity: float
  cost: float


def stop(cosines, differences, threshold):
  """`Stop` of one curve. cosines, differences: {sparsity: number}; dense, at 0, is alike and costs nothing."""
  last = 0.0
  for s in sorted(cosines):
    if not cosines[s] >= threshold:
      break
    last = s
  return Stop(threshold, last, 0.0 if last == 0 else differences.get(last, math.nan))


def free_until(differences, tolerance=0.01):
  """The end of the free regime: the last sparsity before the mean score first lies `tolerance` or more below dense.

  The last one measured where it never does; 0.0 where the first one already does, nan of nothing.
  """
  if not differences:
    return math.nan
  last = 0.0
  for s in sorted(differences):
    if not differences[s] > -tolerance:
      break
    last = s
  return last


def window(cosines, free):
  """(low, high): thresholds in (low, high] stop at exactly the sparsity `free`; nan where that was not measured.

  A wide window that is the same for every task would be a rule that can be used.
  """
  levels = sorted(cosines)
  if free and free not in cosines:
    return math.nan, math.nan
  so_far = np.minimum.accumulate(
    [1.0, *(cosines[s] for s in levels)]
  )  # a threshold stops at the first fall below it
  at = levels.index(free) + 1 if free else 0
  return (float(so_far[at + 1]) if at + 1 < len(so_far) else -1.0), float(so_far[at])

"""Feature drift as a rule to stop pruning, which the paper suggests (section 6) and does not try.

The rule: prune step by step and stop before the cosine similarity of the hidden states to those of
the dense model falls below a threshold. The rule needs no labels; the score on the tasks, which
needs them, judges it.
"""

import math
from typing import NamedTuple

import numpy as np


class Stop(NamedTuple):
  """Where a threshold on drift would have stopped.

  threshold: lowest cosine allowed.
  sparsity: the last one before the cosine first falls below the threshold; 0.0 where the first
    does.
  cost: mean score at that sparsity minus the dense one, nan where no score is known.
  """

  threshold: float
  sparsity: float
  cost: float


def stop(cosines, differences, threshold):
  """The `Stop` of one curve.

  cosines, differences: {sparsity: number}; the dense model at 0 has cosine 1 and difference 0.
  """
  last = 0.0
  for s in sorted(cosines):
    if not cosines[s] >= threshold:
      break
    last = s
  return Stop(threshold, last, 0.0 if last == 0 else differences.get(last, math.nan))


def free_until(differences, tolerance=0.01):
  """The last sparsity before the mean score first lies `tolerance` or more below dense.

  The last one measured where the score never does, 0.0 where it does at the first, nan of nothing.
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
  """(low, high): the thresholds in (low, high] stop at exactly the sparsity `free`.

  nan where that sparsity was not measured. A wide window that all tasks share makes a usable rule.
  """
  levels = sorted(cosines)
  if free and free not in cosines:
    return math.nan, math.nan
  so_far = np.minimum.accumulate(
    [1.0, *(cosines[s] for s in levels)]
  )  # a threshold stops at the first fall below the threshold
  at = levels.index(free) + 1 if free else 0
  return (float(so_far[at + 1]) if at + 1 < len(so_far) else -1.0), float(so_far[at])

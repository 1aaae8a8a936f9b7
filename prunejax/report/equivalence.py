"""Two one-sided tests of whether an arm scores as well as the dense model (Schuirmann 1987).

A difference that is not significant is no proof of equality; it may be noise. An arm is *as dense*
only when the difference is significantly above -margin and significantly below +margin. Tasks of
one seed share a checkpoint and are not independent, so both the pairs (task, seed) and the means of
the seeds are tested, and the larger p counts.
"""

import math
from typing import NamedTuple

import numpy as np

from prunejax.report import statistics

AS_DENSE, WORSE, BETTER, CANNOT_TELL = 'as dense', 'worse', 'better', 'cannot tell'


class Test(NamedTuple):
  """The result of `test`.

  mean: of the differences. low, high: its interval at 1 - 2 alpha.
  p_same: p of equivalence. p_different: p of a difference.
  word: AS_DENSE, WORSE, BETTER or CANNOT_TELL.
  n: number of pairs.
  """

  mean: float
  low: float
  high: float
  p_same: float
  p_different: float
  word: str
  n: int


def test(diffs, margin: float, *, alpha: float = 0.05) -> Test:
  """Tests {(task, seed): difference} against a margin.

  The interval is that of two one-sided tests, over pairs and over the means of the seeds, and
  reaches as far as either; it lies within +-margin exactly when p_same < alpha. AS_DENSE goes
  before WORSE and BETTER, since a difference may be real and too small to matter.

  Args:
    diffs: {(task, seed): number}.
    margin: the largest difference that does not matter.
    alpha: level of each one-sided test.

  Returns:
    A `Test`, with nan and CANNOT_TELL below two seeds.

  Raises:
    ValueError: a margin that is not above 0.
  """
  if not margin > 0:
    raise ValueError(f'an equivalence margin must be above 0, got {margin!r}')
  seeds = sorted({seed for _, seed in diffs})
  means = [statistics.mean([d for pair, d in diffs.items() if pair[1] == seed]) for seed in seeds]
  mean, n = statistics.mean(diffs.values()), len(diffs)
  if len(seeds) < 2:
    return Test(mean, math.nan, math.nan, math.nan, math.nan, CANNOT_TELL, n)
  both = [np.asarray(list(values), float) for values in (diffs.values(), means)]
  same = max(max(_tail(values, -margin), _tail(-values, -margin)) for values in both)
  different = max(min(1.0, 2 * min(_tail(values, 0.0), _tail(-values, 0.0))) for values in both)
  reach = [_reach(values, 1 - 2 * alpha) for values in both]
  low = min(float(values.mean()) - r for values, r in zip(both, reach, strict=True))
  high = max(float(values.mean()) + r for values, r in zip(both, reach, strict=True))
  side = np.sign(mean) if different < alpha else 0
  word = AS_DENSE if same < alpha else {-1: WORSE, 1: BETTER}.get(int(side), CANNOT_TELL)
  return Test(mean, low, high, same, different, word, n)


def _tail(values, threshold):
  """One-sided p of the hypothesis that the mean is at most the threshold."""
  above, spread = (
    float(values.mean()) - threshold,
    float(values.std(ddof=1)) / math.sqrt(values.size),
  )
  if not spread > 1e-12 * max(1.0, abs(above)):
    return 0.0 if above > 0 else 1.0 if above < 0 else 0.5
  from scipy import stats  # imported here, since wrong input is refused without it

  return float(stats.t.sf(above / spread, values.size - 1))


def _reach(values, level):
  spread = values.std(ddof=1) / math.sqrt(values.size)
  return statistics.student_quantile(level, values.size - 1) * float(spread)

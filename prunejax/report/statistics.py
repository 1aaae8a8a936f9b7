"""Means with intervals, straight lines, and pairs of numbers."""

import math
from typing import NamedTuple

import numpy as np

# A note for tables and figures whose intervals are the bootstrap's alone.
FEW = (
  'of two or three seeds such an interval covers the truth in some 50 and 75 % of cases; '
  'verdicts, p and differences '
  "rest on the wider of it and Student's"
)


class Estimate(NamedTuple):
  """A mean and its interval; low and high are nan when fewer than two values stand behind it."""

  mean: float
  low: float
  high: float
  n: int


class Fit(NamedTuple):
  """A least-squares line y = slope x + intercept, its correlation r, and the slope's interval."""

  slope: float
  intercept: float
  r: float
  low: float
  high: float
  n: int


def mean(values) -> float:
  """The mean of the finite values; nan where there is none."""
  values = _finite(values)
  return float(values.mean()) if values.size else math.nan


def bootstrap(values, *, level: float = 0.95, samples: int = 2000, seed: int = 0) -> Estimate:
  """Percentile bootstrap of the mean.

  Args:
    values: numbers; those that are not finite are left out.
    level: of the interval.
    samples: number of resamples.
    seed: of the resamples, which depend on nothing else.

  Returns:
    An `Estimate`; one value has no interval.
  """
  values = _finite(values)
  if values.size < 2:
    return Estimate(mean(values), math.nan, math.nan, int(values.size))
  picks = np.random.default_rng(seed).integers(0, values.size, (samples, values.size))
  tails = [(1 - level) / 2, (1 + level) / 2]
  low, high = np.quantile(values[picks].mean(1), tails)
  return Estimate(mean(values), float(low), float(high), int(values.size))


def cautious(values, *, level: float = 0.95, seed: int = 0) -> Estimate:
  """The mean with the wider, on each side, of the bootstrap and Student's interval.

  Verdicts rest on this interval. The bootstrap of two values misses the truth every second time;
  Student's interval allows for few values. Arguments and result are those of `bootstrap`.
  """
  values = _finite(values)
  estimate = bootstrap(values, level=level, seed=seed)
  if values.size < 2:
    return estimate
  reach = student_quantile(level, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size)
  return estimate._replace(
    low=min(estimate.low, estimate.mean - float(reach)),
    high=max(estimate.high, estimate.mean + float(reach)),
  )


def proportion(count: int, n: int, *, level: float = 0.95) -> Estimate:
  """The share `count` of `n` and its exact interval (Clopper & Pearson 1934)."""
  if not n:
    return Estimate(math.nan, math.nan, math.nan, 0)
  from scipy import stats

  interval = stats.binomtest(count, n).proportion_ci(level, method='exact')
  return Estimate(count / n, float(interval.low), float(interval.high), n)


def student_quantile(level: float, df: float) -> float:
  """The t with P(|T| < t) = level for Student's distribution with `df` degrees of freedom."""
  if df < 1 or not 0 < level < 1:
    raise ValueError(f'Student quantile needs df >= 1 and 0 < level < 1, got {df} and {level}')
  from scipy import stats  # imported here, since wrong input is refused without it

  return float(stats.t.ppf((1 + level) / 2, df))


def fit(x, y, *, level: float = 0.95) -> Fit:
  """Fits a least-squares line to the finite points.

  Args:
    x: sequence of numbers.
    y: as many numbers.
    level: of Student's interval of the slope.

  Returns:
    A `Fit`. The interval is nan below three points, all but `n` where the points have one x.

  Raises:
    ValueError: x and y differ in length.
  """
  x, y = np.asarray(x, float), np.asarray(y, float)
  if x.shape != y.shape:
    raise ValueError(f'a line needs as many x as y, got shapes {x.shape} and {y.shape}')
  both = np.isfinite(x) & np.isfinite(y)
  x, y = x[both], y[both]
  n = int(x.size)
  # Several x so close that their squares vanish are one x. The mean of equal x may be rounded.
  if n < 2 or not np.ptp(x) or not float(np.sum((x - x.mean()) ** 2)) > 0:
    return Fit(*[math.nan] * 5, n)
  from scipy import stats

  line = stats.linregress(x, y)
  r = float(line.rvalue) if np.ptp(y) else math.nan
  reach = student_quantile(level, n - 2) * float(line.stderr) if n > 2 else math.nan
  slope = float(line.slope)
  return Fit(slope, float(line.intercept), r, slope - reach, slope + reach, n)


def intraclass(tables) -> float:
  """The intraclass correlation ICC(3, 1) of the rows of tables, pooled over the tables.

  (rows - rest) / (rows + (k - 1) rest), of the mean squares of a two-way analysis of variance
  without interaction, k being the number of columns (Shrout & Fleiss, 1979). What columns differ in
  on average does not count. 0 or below where numbers of a row are no more alike than others.

  Args:
    tables: float [rows, columns] each, with as many columns; a table of one row is left out.

  Returns:
    nan where no table has two rows and two columns.
  """
  whole = [np.asarray(table, float) for table in tables]
  whole = [table for table in whole if table.ndim == 2 and min(table.shape) > 1]
  if not whole:
    return math.nan
  columns = whole[0].shape[1]
  rows = sum(columns * float(((t.mean(1) - t.mean()) ** 2).sum()) for t in whole)
  rest = sum(
    float(((t - t.mean(1, keepdims=True) - t.mean(0) + t.mean()) ** 2).sum()) for t in whole
  )
  rows /= sum(len(t) - 1 for t in whole)
  rest /= sum((len(t) - 1) * (columns - 1) for t in whole)
  total = rows + (columns - 1) * rest
  return (rows - rest) / total if total else math.nan


def paired(ours: dict, theirs: dict) -> dict:
  """{key: ours - theirs} over the keys, (task, seed) or seed, that both have."""
  return {key: ours[key] - theirs[key] for key in ours if key in theirs}


def _finite(values):
  values = np.asarray([math.nan if v is None else v for v in values], float)
  return values[np.isfinite(values)]

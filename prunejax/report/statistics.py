"""From ledger rows to numbers with intervals: selection, pairing, bootstrap, straight lines."""

import collections
import math
from typing import NamedTuple

import numpy as np

METRICS = ('accuracy', 'matthews', 'pearson', 'spearman', 'f1')
# Said under every table and figure whose intervals are the bootstrap's alone.
FEW = (
  'of two or three seeds such an interval covers the truth in some 50 and 75 % of cases; verdicts, p and differences '
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


def mean(values):
  """The mean of the finite values; nan when there is none."""
  values = _finite(values)
  return float(values.mean()) if values.size else math.nan


def bootstrap(values, *, level=0.95, samples=2000, seed=0):
  """Percentile bootstrap of the mean, deterministic in seed; one value has no interval."""
  values = _finite(values)
  if values.size < 2:
    return Estimate(mean(values), math.nan, math.nan, int(values.size))
  picks = np.random.default_rng(seed).integers(0, values.size, (samples, values.size))
  tails = [(1 - level) / 2, (1 + level) / 2]
  low, high = np.quantile(values[picks].mean(1), tails)
  return Estimate(mean(values), float(low), float(high), int(values.size))


def cautious(values, *, level=0.95, seed=0):
  """The wider, on each side, of the bootstrap and Student's interval: what verdicts rest on.

  Resampling two values gives an interval that misses the truth every second time; Student's
  knows how few they are.
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


def student_quantile(level, df):
  """t with P(|T| < t) = level for an integer df: bisection on the finite sums for that area."""
  if df < 1 or not 0 < level < 1:
    raise ValueError(f'Student quantile needs df >= 1 and 0 < level < 1, got {df} and {level}')
  low, high = 0.0, 1.0
  while student_area(high, df) < level:
    high *= 2
  for _ in range(100):
    middle = (low + high) / 2
    low, high = (middle, high) if student_area(middle, df) < level else (low, middle)
  return (low + high) / 2


def student_area(t, df):
  """P(|T| < t) of Student's distribution with an integer df, t >= 0."""
  angle = math.atan2(t, math.sqrt(df))
  term = math.cos(angle) if df % 2 else 1.0
  total = 0.0
  for k in range(2 + df % 2, df + 1, 2):
    total += term
    term *= math.cos(angle) ** 2 * (k - 1) / k
  total *= math.sin(angle)
  return 2 / math.pi * (angle + total) if df % 2 else total


def fit(x, y, *, level=0.95):
  """Least-squares line with r and Student's interval of the slope (nan below three points)."""
  x, y = np.asarray(x, float), np.asarray(y, float)
  if x.shape != y.shape:
    raise ValueError(f'a line needs as many x as y, got shapes {x.shape} and {y.shape}')
  both = np.isfinite(x) & np.isfinite(y)
  x, y = x[both], y[both]
  n = int(x.size)
  if n < 2:
    return Fit(*[math.nan] * 5, n)
  dx, dy = x - x.mean(), y - y.mean()
  width = float(dx @ dx)
  if not width > 0:  # one x, or several so close that their squares are nothing
    return Fit(*[math.nan] * 5, n)
  slope = float(dx @ dy) / width
  spread = math.sqrt(width) * math.sqrt(float(dy @ dy))
  r = float(dx @ dy) / spread if spread else math.nan
  reach = math.nan
  if n > 2:
    rest = float(np.sum((dy - slope * dx) ** 2))
    reach = student_quantile(level, n - 2) * math.sqrt(rest / (n - 2) / width)
  return Fit(slope, float(y.mean() - slope * x.mean()), r, slope - reach, slope + reach, n)


def metric_of(row):
  """The name of the number a fine-tuned row is judged by: accuracy where the task has it."""
  for name in METRICS:
    if row['metrics'].get(name) is not None:
      return name
  raise ValueError(f'cell {row["cell"]} ({row.get("task")}) has none of {", ".join(METRICS)}')


def score(row):
  """The dev score of a fine-tuned row, a fraction."""
  return float(row['metrics'][metric_of(row)])


def select(rows):
  """Fine-tuned rows, the best learning rate of each (task, arm, sparsity, seed) by dev score.

  That is the paper's selection (section 3.1); it picks and reports on the same dev set.
  """
  best = {}
  for row in rows:
    if row['stage'] == 'finetune':
      key = (row['task'], row['arm'], level_of(row), row['seed'])
      if key not in best or score(row) > score(best[key]):
        best[key] = row
  return list(best.values())


def rates_of(rows):
  """{task: {(arm, sparsity): the set of its learning rates}} of the fine-tuned rows."""
  have = {}
  for row in rows:
    if row['stage'] == 'finetune':
      place = have.setdefault(row['task'], {}).setdefault((row['arm'], level_of(row)), set())
      place.add(row['learning_rate'])
  return have


def comparable(rows):
  """The rows without fine-tuning at rates that not every arm and sparsity of the task has: the best of four is no
  match for the best of one. Where a task has no rate in common, its rows stay as they are.
  """
  sets = {task: list(places.values()) for task, places in rates_of(rows).items()}
  common = {task: set.intersection(*found) or set.union(*found) for task, found in sets.items()}
  return [
    row for row in rows if row['stage'] != 'finetune' or row['learning_rate'] in common[row['task']]
  ]


def level_of(row):
  """The sparsity a row asked for, rounded so that 0.1 * 3 and 0.3 are one point."""
  return round(float(row['sparsity']), 6)


def points(rows, value=score):
  """{(arm, sparsity): {(task, seed): value}} over the selected fine-tuned rows."""
  table = {}
  for row in select(rows):
    number = value(row)
    if number is not None:
      table.setdefault((row['arm'], level_of(row)), {})[row['task'], row['seed']] = number
  return table


def train_loss(row):
  """The loss of a fine-tuned row over its whole training set, or None."""
  return row['metrics'].get('train_loss')


def pretrain(rows, metric='loss'):
  """{(arm, sparsity): {('pretrain', seed): held-out metric}}; keys pair up as those of points."""
  table = {}
  for row in rows:
    if row['stage'] == 'pretrain' and row['metrics'].get(metric) is not None:
      place = table.setdefault((row['arm'], level_of(row)), {})
      place['pretrain', row['seed']] = float(row['metrics'][metric])
  return table


def tasks_of(table):
  """The tasks of a table of points, sorted."""
  return sorted({task for place in table.values() for task, _ in place})


def averaged(table):
  """The tasks that an average is over, sorted: those that have at least half as many numbers as the fullest one.

  A grid that grows begins a task with one cell, and one cell must not leave every other place without an average.
  """
  count = collections.Counter(task for place in table.values() for task, _ in place)
  return sorted(task for task, n in count.items() if 2 * n >= max(count.values()))


def averages(table):
  """{(arm, sparsity): {seed: mean over the tasks `averaged`}}; a seed that lacks one of them has no average."""
  tasks = averaged(table)
  result = {}
  for key, place in table.items():
    seeds = sorted({seed for _, seed in place})
    whole = [seed for seed in seeds if all((task, seed) in place for task in tasks)]
    if whole:
      result[key] = {seed: mean([place[task, seed] for task in tasks]) for seed in whole}
  return result


def zero(table, arm):
  """The place of an arm's own 0, nothing pruned and all else as in the arm; the dense one where there is none."""
  return table.get((arm, 0.0)) or table.get(('dense', 0.0), {})


def paired(ours, theirs):
  """{key: ours - theirs} over the keys, (task, seed) or seed, that both sides have."""
  return {key: ours[key] - theirs[key] for key in ours if key in theirs}


def one_grid(rows):
  """The rows, after a look that they are one experiment's one preset; else ValueError."""
  grids = {(row.get('experiment'), row.get('preset')) for row in rows}
  if len(grids) > 1:
    raise ValueError(
      f'rows of several grids cannot share a table, got {sorted(map(str, grids))}; '
      'give the rows of one experiment and preset'
    )
  return rows


def _finite(values):
  values = np.asarray([math.nan if v is None else v for v in values], float)
  return values[np.isfinite(values)]

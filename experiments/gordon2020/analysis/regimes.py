"""The ends of the paper's three regimes, estimated from the curves with an interval, not read off by eye.

An end is the sparsity at which a curve has risen by a margin that is said: the curves of all seeds are averaged, made
non-decreasing by isotonic regression (noise on a plateau is no rise that falls back), joined by straight lines, and the
first crossing is read off. For the interval the seeds are drawn again: a draw is the mean curve plus normal weights on
the seeds' deviations from it, divided by the root of a chi-square, so that at each sparsity by itself it has Student's
distribution. Plain resampling of two or three seeds would promise far too much; all sparsities of a seed move together.
"""

import math
from typing import NamedTuple

import numpy as np

from experiments.gordon2020.analysis import scoring
from prunejax.report import statistics, tables

SCORE, LOSS, FIT = (
  0.01,
  0.1,
  0.05,
)  # margins: fraction of score, nats of pre-train loss, nats of train loss


class Crossing(NamedTuple):
  """A sparsity and its interval. inf: not within the sparsities measured; nan ends: fewer than two seeds."""

  at: float
  low: float
  high: float
  n: int


class Curve(NamedTuple):
  """What rises with sparsity: levels [k] with 0.0 first, values [seeds, k] that are 0 there."""

  levels: np.ndarray
  values: np.ndarray


def isotonic(values):
  """The non-decreasing least-squares fit along the last axis: max over i <= k of min over j >= k of mean(i..j)."""
  values = np.asarray(values, float)
  k = values.shape[-1]
  total = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, -1)], -1)
  i, j = np.arange(k)[:, None], np.arange(k)[None, :]
  means = np.where(
    j >= i, (total[..., None, 1:] - total[..., :-1, None]) / np.maximum(j - i + 1, 1), np.inf
  )
  low = np.minimum.accumulate(means[..., ::-1], -1)[..., ::-1]  # [..., i, k]: min over j >= k
  return np.max(np.where(i <= j, low, -np.inf), -2)


def first_at(levels, curves, margin):
  """The first x at which each non-decreasing curve [..., k] over levels [k] reaches the margin; inf where none does."""
  levels, curves = np.asarray(levels, float), np.asarray(curves, float)
  reached = curves >= margin
  k = np.argmax(reached, -1)
  before = np.maximum(k - 1, 0)
  take = lambda index: np.take_along_axis(curves, index[..., None], -1)[..., 0]
  below, above = take(before), take(k)
  share = (margin - below) / np.where(above > below, above - below, 1.0)
  x = np.where(k == 0, levels[0], levels[before] + share * (levels[k] - levels[before]))
  return np.where(reached.any(-1), x, np.inf)


def crossing(curve, margin, *, level=0.95, samples=2000, seed=0):
  """Where a Curve has risen by the margin. Raises ValueError for a margin that is not above 0."""
  if not margin > 0:
    raise ValueError(f'a margin must be above 0, got {margin!r}')
  n = len(curve.values)
  if not n or len(curve.levels) < 2:
    return Crossing(math.nan, math.nan, math.nan, n)
  mean = curve.values.mean(0)
  at = float(first_at(curve.levels, isotonic(mean), margin))
  if n < 2:
    return Crossing(at, math.nan, math.nan, n)
  rng = np.random.default_rng(seed)
  spread = rng.normal(size=(samples, n)) @ (curve.values - mean) / math.sqrt(n * (n - 1))
  draws = mean + spread / np.sqrt(rng.chisquare(n - 1, (samples, 1)) / (n - 1))
  ends = np.quantile(
    first_at(curve.levels, isotonic(draws), margin),
    [(1 - level) / 2, (1 + level) / 2],
    method='inverted_cdf',
  )
  return Crossing(at, min(float(ends[0]), at), max(float(ends[1]), at), n)


def curve(rise):
  """A Curve from {sparsity: {seed: rise}}: seeds that have every sparsity, else the sparsities that every seed has."""
  seeds = sorted({seed for place in rise.values() for seed in place})
  whole = [seed for seed in seeds if all(seed in place for place in rise.values())]
  levels = sorted(s for s, place in rise.items() if whole or all(seed in place for seed in seeds))
  values = [[0.0, *(rise[s][seed] for s in levels)] for seed in whole or seeds]
  return Curve(np.array([0.0, *levels]), np.array(values).reshape(len(values), len(levels) + 1))


def rising(line):
  """A Curve up to the highest point of its mean: where both arms stand at chance their difference falls back."""
  if not len(line.values):
    return line
  end = int(np.argmax(line.values.mean(0))) + 1
  return Curve(line.levels[:end], line.values[:, :end]) if end > 1 else line


def curves(rows):
  """{name of an end: (Curve, margin)} from ledger rows; see `table` for what the names mean."""
  scores = scoring.averages(scoring.points(rows))
  train = scoring.averages(scoring.points(rows, scoring.train_loss))
  losses = {
    key: {seed: v for (_, seed), v in place.items()}
    for key, place in scoring.pretrain(rows).items()
  }

  def rise(table, arm, sign, other='dense'):
    found = {}
    for name, s in table:
      if name == arm and s > 0:
        diffs = statistics.paired(
          table[arm, s], table.get((other, 0.0 if other == 'dense' else s), {})
        )
        if diffs:
          found[s] = {seed: sign * d for seed, d in diffs.items()}
    return curve(found)

  return {
    'free, score': (rise(scores, 'pruned', -1), SCORE),
    'free, loss': (rise(losses, 'pruned', 1), LOSS),
    'fit, score': (rising(rise(scores, 'deleted', 1, 'pruned')), SCORE),
    'fit, train loss': (rise(train, 'pruned', 1), FIT),
  }


def paper_curves(paper):
  """The same from a paper's table, {arm: {sparsity: {'loss', 'tasks': {task: (points, train loss)}}}}.

  One run a cell: its tasks take the place of the seeds, and the loss, of which there is one, has no interval.
  """
  levels = sorted(paper['pruned'])
  tasks = list(paper['pruned'][0.0]['tasks'])
  own = lambda arm, k: np.array([[paper[arm][s]['tasks'][t][k] for s in levels] for t in tasks])
  rise = lambda values: values - values[:, :1]
  loss = np.array([[paper['pruned'][s]['loss'] for s in levels]])
  made = lambda values: Curve(np.array(levels), values)
  score = rise(own('pruned', 0)) / 100
  return {
    'free, score': (made(-score), SCORE),
    'free, loss': (made(rise(loss)), LOSS),
    'fit, score': (rising(made(rise(own('deleted', 0)) / 100 - score)), SCORE),
    'fit, train loss': (made(rise(own('pruned', 1))), FIT),
  }


WORDS = {
  'free, score': ('"free" ends: pruned scores below dense by', 100, 'point(s)'),
  'free, loss': ('"free" ends: pre-train loss of pruned above dense by', 1, 'nats'),
  'fit, score': ('"cannot fit" begins: pruned scores below deleted by', 100, 'point(s)'),
  'fit, train loss': ('"cannot fit" begins: train loss of pruned above dense by', 1, 'nats'),
}


def table(rows, paper=None, said=None, *, level=0.95):
  """Each end, ours and the paper's by the same estimator; said: {name of an end: what the paper reads by eye}."""
  ours, theirs = curves(rows), paper_curves(paper) if paper else {}
  # A curve may be cut where it falls back: what it has not reached by then it reaches nowhere.
  top, theirs_top = (
    max((line.levels[-1] for line, _ in side.values()), default=0.0) for side in (ours, theirs)
  )
  lines = []
  for name, (line, margin) in ours.items():
    if not len(line.values) or len(line.levels) < 2:
      continue
    words, scale, unit = WORDS[name]
    here = crossing(line, margin, level=level)
    there = crossing(*theirs[name], level=level) if name in theirs else Crossing(*[math.nan] * 3, 0)
    lines.append(
      (
        f'{words} {scale * margin:g} {unit}',
        _at(here, top),
        _span(here, top),
        str(here.n),
        _at(there, theirs_top),
        _span(there, theirs_top),
        f'{here.at - there.at:+.2f}' if math.isfinite(here.at - there.at) else '-',
        str((said or {}).get(name, '-')),
      )
    )
  note = (
    f"Sparsities; {level:.0%} intervals from seeds drawn again, the paper's from its tasks (it has one run a cell). "
    'First crossing of the mean curve after isotonic regression, between sparsities along straight lines.'
  )
  head = (
    'end',
    'ours',
    'interval',
    'seeds',
    'paper, same way',
    'its interval',
    'ours - paper',
    'paper, by eye',
  )
  return tables.Table('Where the three regimes end', head, tuple(lines), note)


def _at(found, top):
  if math.isnan(found.at):
    return '-'
  return f'{found.at:.2f}' if math.isfinite(found.at) else f'> {top:g}'


def _span(found, top):
  if math.isnan(found.low):
    return '-'
  end = lambda x: f'{x:.2f}' if math.isfinite(x) else f'> {top:g}'
  return f'[{end(found.low)}, {end(found.high)}]'

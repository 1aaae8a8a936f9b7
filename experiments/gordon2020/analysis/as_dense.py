"""Which arms score as well as the dense model."""

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import equivalence, ledger, statistics, tables

MARGIN = 0.01  # of score, a fraction; the paper's own 0 % rows differ by 0.005


def table(rows, *, margin=MARGIN, alpha=0.05):
  """Every arm and sparsity against the dense model of the same task and seed, all tasks together."""
  points = scoring.points(arms.standard(ledger.one_grid(rows)))
  dense = points.get(('dense', 0.0), {})
  lines = []
  for arm, s in sorted(points, key=arms.order):
    if arm in ('dense', 'fresh') or not (diffs := statistics.paired(points[arm, s], dense)):
      continue
    t = equivalence.test(diffs, margin, alpha=alpha)
    seeds = len({seed for _, seed in diffs})
    lines.append(
      (
        arms.name(arm),
        f'{s:g}',
        f'{t.n} / {seeds}',
        f'{100 * t.mean:+.1f}',
        tables.span(t.low, t.high, 100, '+.1f'),
        tables.p_value(t.p_same),
        tables.p_value(t.p_different),
        t.word,
      )
    )
  note = (
    f'Points of 100, arm minus dense, paired by task and seed. Margin ±{100 * margin:g} points; the interval is the '
    f'{1 - 2 * alpha:.0%} one of two one-sided tests at {alpha:g}, within the margin where the word is "{equivalence.AS_DENSE}". '
    'Each line is a test by itself: of many, some are wrong by luck.'
  )
  head = (
    'arm',
    'sparsity',
    'pairs / seeds',
    'difference',
    'interval',
    'p, as dense',
    'p, different',
    'in words',
  )
  return tables.Table('Which models are as good as dense', head, tuple(lines), note)

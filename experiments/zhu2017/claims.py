"""Judge the claims of Zhu & Gupta 2017 on the ledger."""

import math

from prunejax.report import statistics, verdicts

NOT_RUN = 'no seed has both yet'
SAME = 0.02  # A difference in log perplexity below this counts as none.


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim; logarithms of perplexity are compared within a seed."""
  losses = losses_of(rows)
  gap = lambda a, b: [
    losses[a][seed] - losses[b][seed]
    for seed in sorted(set(losses.get(a, ())) & set(losses.get(b, ())))
  ]

  def lower(name, claim, one, other):
    """Claim that `one` has the lower perplexity."""
    diffs = gap(one, other)
    lower = [verdicts.Comparison('log perplexity', diffs, above=False)]
    evidence = (
      f'{_describe(one, losses)} against {_describe(other, losses)}: log difference '
      f'{verdicts.shown(diffs, "+.3f")}'
    )
    return verdicts.Verdict(
      name,
      claim,
      verdicts.all_hold(lower),
      evidence if diffs else NOT_RUN,
      ('perplexity',),
      verdicts.decided_by(lower),
    )

  return [
    lower(
      'large_sparse_beats_small_dense',
      'At equal non-zeros a large model pruned by 90 % beats a small dense one',
      ('large', 0.9),
      ('small', 0.0),
    ),
    lower(
      'large_sparse_beats_medium_dense',
      'Large at 90 % (a third of the non-zeros) beats medium dense, 80.24 against 83.37',
      ('large', 0.9),
      ('medium', 0.0),
    ),
    lower(
      'medium_sparse_beats_small_dense',
      'Medium at 80 % beats small dense, 83.87 against 115.30',
      ('medium', 0.8),
      ('small', 0.0),
    ),
    lower(
      'pruning_helps_at_80',
      'Large at 80 % is better than large dense, 77.52 against 78.45',
      ('large', 0.8),
      ('large', 0.0),
    ),
    lower(
      '95_is_clearly_worse',
      'Large at 90 % is clearly better than large at 95 %, 80.24 against 87.83',
      ('large', 0.9),
      ('large', 0.95),
    ),
    _curve_bends(losses),
    _interval(rows),
  ]


def losses_of(rows: list[dict], interval: int | None = None) -> dict:
  """Group the losses: {(size, sparsity): {seed: log perplexity}}.

  Args:
    rows: of the ledger.
    interval: steps between mask updates of the cells to take; None for the smallest.
  """
  interval = min(row['interval'] for row in rows) if interval is None else interval
  losses = {}
  for row in rows:
    if row['interval'] == interval:
      key = row['size'], row['sparsity']
      losses.setdefault(key, {})[row['seed']] = row['metrics']['loss']
  return losses


def _curve_bends(losses):
  """From 90 to 95 % costs more than from 80 to 90 %, within a seed that has all three."""
  eighty, ninety, last = (losses.get(('large', sparsity), {}) for sparsity in (0.8, 0.9, 0.95))
  late, early = statistics.paired(last, ninety), statistics.paired(ninety, eighty)
  diffs = list(statistics.paired(late, early).values())
  what = 'log perplexity, 90 to 95 % minus 80 to 90 %'
  steeper = [verdicts.Comparison(what, diffs)]
  evidence = (
    f'90 to 95 %: {verdicts.shown(late.values(), "+.3f")}; '
    f'80 to 90 %: {verdicts.shown(early.values(), "+.3f")}'
  )
  return verdicts.Verdict(
    'the_curve_bends',
    'From 90 to 95 % perplexity rises more than from 80 to 90 % (+7.59 against +2.72)',
    verdicts.all_hold(steeper),
    evidence if diffs else NOT_RUN,
    ('perplexity',),
    verdicts.decided_by(steeper),
  )


def _interval(rows):
  """Updating the masks ten times as seldom changes the loss by less than `SAME`."""
  intervals = sorted({row['interval'] for row in rows})
  often, seldom = losses_of(rows, intervals[0]), losses_of(rows, intervals[-1])
  shared = [key for key in seldom if key in often] if len(intervals) > 1 else []
  diffs = [
    seldom[key][seed] - often[key][seed]
    for key in shared
    for seed in seldom[key]
    if seed in often[key]
  ]
  estimate = statistics.cautious(diffs)
  known = math.isfinite(estimate.low)
  inside = known and -SAME < estimate.low and estimate.high < SAME
  outside = known and (estimate.low > SAME or estimate.high < -SAME)
  evidence = (
    f'log perplexity with every {intervals[-1]} steps minus every {intervals[0]}: '
    f'{verdicts.shown(diffs, "+.4f")}'
  )
  return verdicts.Verdict(
    'interval_makes_no_difference',
    'How often masks move, 100 or 1,000 steps, makes no difference (here 1 and 10 % of the ramp, '
    f'within {SAME})',
    verdicts.word(inside, outside),
    evidence if diffs else NOT_RUN,
    number=verdicts.decided_by(
      verdicts.Comparison('log perplexity', diffs, end, above, '+.4f')
      for end, above in ((-SAME, True), (SAME, False))
    ),
  )


def _describe(arm, losses):
  """'large at 0.9 197.1': an arm and its mean perplexity."""
  size, sparsity = arm
  mean = statistics.mean([math.exp(loss) for loss in losses.get(arm, {}).values()])
  return f'{size} {f"at {sparsity:g}" if sparsity else "dense"} {mean:.1f}'

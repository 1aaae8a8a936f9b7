"""Table 1 both ways: the best of several learning rates, and one rate for every arm.

The paper reports the best of four rates, picked and reported on the same dev set. Such a best gains
from luck, most where scores vary most. So the mean over seeds at one rate stands beside it: the
rate that is best on average for the dense model.
"""

import math

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import ledger, statistics, tables


def fixed(rows):
  """{task: learning rate} that is best for dense on average over seeds and tasks.

  One rate for all tasks where they share one, else the best of each task; {} without dense rows.
  """
  scores = {}
  for row in rows:
    if row['stage'] == 'finetune' and row['arm'] == 'dense':
      scores.setdefault(row['task'], {}).setdefault(row['learning_rate'], {})[row['seed']] = (
        scoring.score(row)
      )
  if not scores:
    return {}
  means = {}
  for task, by_rate in scores.items():
    seeds = set().union(*by_rate.values())
    whole = {
      rate: v for rate, v in by_rate.items() if set(v) == seeds
    } or by_rate  # one lucky seed must not make a rate win
    means[task] = {rate: statistics.mean(v.values()) for rate, v in whole.items()}
  common = set.intersection(*(set(by_rate) for by_rate in means.values()))
  if common:
    best = max(
      sorted(common),
      key=lambda rate: statistics.mean([by_rate[rate] for by_rate in means.values()]),
    )
    return dict.fromkeys(means, best)
  return {task: max(sorted(by_rate), key=by_rate.get) for task, by_rate in means.items()}


def at(rows, rates):
  """The rows of fine-tuning at the rate of their task, and all rows of other stages."""
  return [
    row
    for row in rows
    if row['stage'] != 'finetune' or row['learning_rate'] == rates.get(row['task'])
  ]


def several(rows):
  """Whether a (task, arm, sparsity, seed) has more than one learning rate."""
  seen = {}
  for row in rows:
    if row['stage'] == 'finetune':
      key = row['task'], *scoring.place_of(row)
      if seen.setdefault(key, row['learning_rate']) != row['learning_rate']:
        return True
  return False


def table(rows, *, level=0.95, seed=0):
  """Scores with the best of the rates and at one rate, and how picking changes a difference.

  The change is (d_best - d_one) / d_one for differences d to dense: +0.3 says that a difference is
  30 % larger where each arm takes its best rate. Part of that is luck, part is a rate that suits
  the arm. '-' stands where d_one is under half a point. Seeds of a place that lack a rate of their
  task are left out, since the best of one is no match for the best of four.
  """
  rows = _whole(arms.standard(ledger.one_grid(rows)))
  rates = fixed(rows)
  best, one = scoring.points(rows), scoring.points(at(rows, rates))
  tasks = scoring.tasks_of(best)
  average = scoring.averages(best), scoring.averages(one)
  estimate = lambda values: statistics.cautious(values, level=level, seed=seed)
  lines = []
  for key in sorted(best, key=arms.order):
    cells = []
    for task in tasks:
      pair = [
        estimate([v for (name, _), v in table.get(key, {}).items() if name == task])
        for table in (best, one)
      ]
      cells.append(' | '.join(map(tables.points, pair)))
    means = [estimate(table.get(key, {}).values()) for table in average]
    gain = statistics.paired(average[0].get(key, {}), average[1].get(key, {}))
    d_best, d_one = (
      statistics.mean(statistics.paired(table.get(key, {}), table.get(('dense', 0.0), {})).values())
      for table in average
    )
    share = (d_best - d_one) / d_one if abs(d_one) >= 0.005 else math.nan  # nan stays nan
    lines.append(
      (
        arms.name(key[0]),
        f'{key[1]:g}',
        *cells,
        *map(tables.points, means),
        tables.points(estimate(gain.values()), '+'),
        *(_points(d) if key[1] else '-' for d in (d_best, d_one)),
        f'{share:+.0%}' if math.isfinite(share) and key[1] else '-',
      )
    )
  head = (
    'arm',
    'sparsity',
    *[f'{task}, best | one rate' for task in tasks],
    'AVG, best of rates',
    'AVG, one rate',
    'gain by picking',
    'to dense, best',
    'to dense, one rate',
    'change by picking',
  )
  names = sorted({f'{rate:g}' if rate is not None else '-' for rate in rates.values()})
  many = (
    ', '.join(f'{task} {rate:g}' for task, rate in sorted(rates.items()))
    if len(names) > 1
    else ''.join(names)
  )
  note = (
    f"Points of 100, mean ± half of the {level:.0%} interval over seeds, the wider of Student's "
    f'and the bootstrap. '
    'Best: the largest dev score over the rates of each task, arm, sparsity and seed, as the '
    'paper reports. One rate: '
    f'the best for dense on average ({many}), for every arm.'
  )
  return tables.Table(
    'Table 1 both ways: the best of the learning rates, and one rate', head, tuple(lines), note
  )


def _whole(rows):
  """The rows without fine-tuning in places that lack a learning rate of their task."""
  have = scoring.rates_of(rows)
  full = {task: set.union(*places.values()) for task, places in have.items()}
  here = lambda row: have[row['task']][scoring.place_of(row)]
  return [row for row in rows if row['stage'] != 'finetune' or here(row) == full[row['task']]]


def _points(value):
  return f'{100 * value:+.1f}' if math.isfinite(value) else '-'

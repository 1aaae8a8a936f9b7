"""Table 1 both ways: the best of several learning rates as the paper reports it, and one rate for everybody.

The best of k rates, picked and reported on the same dev set, gains from luck, and gains most where scores vary most. So
the mean over seeds at one rate stands beside it: the rate that is best on average for the dense model, for every arm.
"""

import math

from experiments.gordon2020.analysis import arms, scoring
from prunejax.report import ledger, statistics, tables


def fixed(rows):
  """{task: learning rate}: the one that is best for dense on average over seeds and tasks.

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
  for task, place in scores.items():
    seeds = set().union(*place.values())
    whole = {
      rate: v for rate, v in place.items() if set(v) == seeds
    } or place  # no rate wins by its one lucky seed
    means[task] = {rate: statistics.mean(v.values()) for rate, v in whole.items()}
  common = set.intersection(*(set(place) for place in means.values()))
  if common:
    best = max(
      sorted(common), key=lambda rate: statistics.mean([place[rate] for place in means.values()])
    )
    return dict.fromkeys(means, best)
  return {task: max(sorted(place), key=place.get) for task, place in means.items()}


def at(rows, rates):
  """The rows of fine-tuning at the rate of their task, and all rows of other stages."""
  return [
    row
    for row in rows
    if row['stage'] != 'finetune' or row['learning_rate'] == rates.get(row['task'])
  ]


def several(rows):
  """Is there any (task, arm, sparsity, seed) with more than one learning rate?"""
  seen = {}
  for row in rows:
    if row['stage'] == 'finetune':
      place = row['task'], row['arm'], scoring.level_of(row), row['seed']
      if seen.setdefault(place, row['learning_rate']) != row['learning_rate']:
        return True
  return False


def table(rows, *, level=0.95, seed=0):
  """Scores of each task and on average, best of rates | at one rate, and how much a difference changes by it.

  That change is (d_best - d_one) / d_one, for differences d to dense: +0.3 means that the difference is 30 % larger
  when each arm takes its best rate, -0.3 that it is as much smaller. It is luck and a rate that suits the arm together;
  the one rate is the one that suits dense. '-' where d_one is under half a point and a share says nothing. Places that
  lack one of the rates of their task are left out: the best of one is no match for the best of four.
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
  told = sorted({f'{rate:g}' if rate is not None else '-' for rate in rates.values()})
  many = (
    ', '.join(f'{task} {rate:g}' for task, rate in sorted(rates.items()))
    if len(told) > 1
    else ''.join(told)
  )
  note = (
    f"Points of 100, mean ± half of the {level:.0%} interval over seeds, the wider of Student's and the bootstrap. "
    'Best: the largest dev score over the rates of each task, arm, sparsity and seed, as the paper reports. One rate: '
    f'the best for dense on average ({many}), for every arm.'
  )
  return tables.Table(
    'Table 1 both ways: the best of the learning rates, and one rate', head, tuple(lines), note
  )


def _whole(rows):
  """The rows without fine-tuning in places, (task, arm, sparsity), that lack one of the learning rates of the task."""
  have = scoring.rates_of(rows)
  full = {task: set.union(*places.values()) for task, places in have.items()}
  here = lambda row: have[row['task']][row['arm'], scoring.level_of(row)]
  return [row for row in rows if row['stage'] != 'finetune' or here(row) == full[row['task']]]


def _points(value):
  return f'{100 * value:+.1f}' if math.isfinite(value) else '-'

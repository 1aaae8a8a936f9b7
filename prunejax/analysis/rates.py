"""Table 1 both ways: the best of several learning rates as the paper reports it, and one rate for everybody.

The best of k rates, picked and reported on the same dev set, gains from luck, and gains most where scores vary most. So
the mean over seeds at one rate stands beside it: the rate that is best on average for the dense model, for every arm.
"""

import math

from prunejax.analysis import arms, statistics, tables


def fixed(rows):
  """{task: learning rate}: the one that is best for dense on average over seeds and tasks.

  One rate for all tasks where they share one, else the best of each task; {} without dense rows.
  """
  scores = {}
  for row in rows:
    if row['stage'] == 'finetune' and row['arm'] == 'dense':
      scores.setdefault(row['task'], {}).setdefault(row['learning_rate'], []).append(statistics.score(row))
  if not scores:
    return {}
  means = {task: {rate: statistics.mean(v) for rate, v in place.items()} for task, place in scores.items()}
  common = set.intersection(*(set(place) for place in means.values()))
  if common:
    best = max(sorted(common), key=lambda rate: statistics.mean([place[rate] for place in means.values()]))
    return dict.fromkeys(means, best)
  return {task: max(sorted(place), key=place.get) for task, place in means.items()}


def at(rows, rates):
  """The rows of fine-tuning at the rate of their task, and all rows of other stages."""
  return [row for row in rows if row['stage'] != 'finetune' or row['learning_rate'] == rates.get(row['task'])]


def several(rows):
  """Is there any (task, arm, sparsity, seed) with more than one learning rate?"""
  seen = {}
  for row in rows:
    if row['stage'] == 'finetune':
      place = row['task'], row['arm'], statistics.level_of(row), row['seed']
      if seen.setdefault(place, row['learning_rate']) != row['learning_rate']:
        return True
  return False


def table(rows, *, level=0.95, seed=0):
  """Scores of each task and on average, best of rates | at one rate, and how much of a difference is selection.

  That share is (d_best - d_one) / d_one, for differences d to dense: +0.3 means that picking rates makes the difference
  look 30 % larger, -0.3 that it hides 30 % of it. '-' where d_one is under half a point and a share says nothing.
  """
  rows = arms.standard(statistics.one_grid(rows))
  rates = fixed(rows)
  best, one = statistics.points(rows), statistics.points(at(rows, rates))
  tasks = statistics.tasks_of(best)
  average = statistics.averages(best), statistics.averages(one)
  estimate = lambda values: statistics.bootstrap(values, level=level, seed=seed)
  lines = []
  for key in sorted(best, key=arms.order):
    cells = []
    for task in tasks:
      pair = [estimate([v for (name, _), v in table.get(key, {}).items() if name == task]) for table in (best, one)]
      cells.append(' | '.join(map(tables.points, pair)))
    means = [estimate(table.get(key, {}).values()) for table in average]
    gain = statistics.paired(average[0].get(key, {}), average[1].get(key, {}))
    d_best, d_one = (
      statistics.mean(statistics.paired(table.get(key, {}), table.get(('dense', 0.0), {})).values())
      for table in average
    )
    share = (d_best - d_one) / d_one if abs(d_one) >= 0.005 else math.nan  # nan stays nan
    lines.append((
      arms.name(key[0]), f'{key[1]:g}', *cells, *map(tables.points, means), tables.points(estimate(gain.values()), '+'),
      *(_points(d) if key[1] else '-' for d in (d_best, d_one)),
      f'{share:+.0%}' if math.isfinite(share) and key[1] else '-',
    ))  # fmt: skip
  head = ('arm', 'sparsity', *[f'{task}, best | one rate' for task in tasks], 'AVG, best of rates', 'AVG, one rate',
          'gain by picking', 'to dense, best', 'to dense, one rate', 'share that is selection')
  told = sorted({f'{rate:g}' if rate is not None else '-' for rate in rates.values()})
  many = ', '.join(f'{task} {rate:g}' for task, rate in sorted(rates.items())) if len(told) > 1 else ''.join(told)
  note = (
    f'Points of 100, mean ± half of the {level:.0%} bootstrap interval over seeds. Best: the largest dev score over '
    'the rates of each task, arm, sparsity and seed, as the paper reports. One rate: the best for dense on average '
    f'({many}), for every arm.'
  )
  return tables.Table('Table 1 both ways: the best of the learning rates, and one rate', head, tuple(lines), note)


def _points(value):
  return f'{100 * value:+.1f}' if math.isfinite(value) else '-'

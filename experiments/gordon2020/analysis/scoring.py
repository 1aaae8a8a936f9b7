"""From ledger rows to tables of scores and losses: selected learning rates, means over tasks."""

import collections

from prunejax.report import statistics

METRICS = ('accuracy', 'matthews', 'pearson', 'spearman', 'f1')
CORRELATIONS = ('matthews', 'pearson', 'spearman')  # a constant answer has a correlation of 0


def metric_of(row):
  """The name of the metric that judges a fine-tuned row: accuracy where the task has it."""
  for name in METRICS:
    if row['metrics'].get(name) is not None:
      return name
  raise ValueError(f'cell {row["cell"]} ({row.get("task")}) has none of {", ".join(METRICS)}')


def score(row):
  """The dev score of a fine-tuned row, a fraction."""
  return float(row['metrics'][metric_of(row)])


def select(rows):
  """The fine-tuned rows at the best learning rate of each (task, arm, sparsity, seed).

  The best by dev score, as in the paper (section 3.1), which picks and reports on the same set.
  """
  best = {}
  for row in rows:
    if row['stage'] == 'finetune':
      key = row['task'], *place_of(row)
      if key not in best or score(row) > score(best[key]):
        best[key] = row
  return list(best.values())


def rates_of(rows):
  """{task: {(arm, sparsity, seed): set of learning rates}} of the fine-tuned rows."""
  have = {}
  for row in rows:
    if row['stage'] == 'finetune':
      have.setdefault(row['task'], {}).setdefault(place_of(row), set()).add(row['learning_rate'])
  return have


def comparable(rows):
  """The rows without fine-tuning at rates that some arm, sparsity or seed of the task lacks.

  The best of four is no match for the best of one, and each seed has a best of its own. Where a
  task has no rate in common, its rows stay.
  """
  common = common_rates(rows)
  return [
    row for row in rows if row['stage'] != 'finetune' or row['learning_rate'] in common[row['task']]
  ]


def common_rates(rows):
  """{task: the learning rates that every place has, or all where no rate is in common}."""
  sets = {task: list(places.values()) for task, places in rates_of(rows).items()}
  return {task: set.intersection(*rates) or set.union(*rates) for task, rates in sets.items()}


def place_of(row):
  """(arm, sparsity, seed) of a row: among these rows the best learning rate is selected."""
  return row['arm'], level_of(row), row['seed']


def level_of(row):
  """The sparsity that a row asked for, rounded so that 0.1 * 3 and 0.3 are one."""
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
  """{(arm, sparsity): {('pretrain', seed): held-out metric}}, paired like `points`."""
  table = {}
  for row in rows:
    if row['stage'] == 'pretrain' and row['metrics'].get(metric) is not None:
      numbers = table.setdefault((row['arm'], level_of(row)), {})
      numbers['pretrain', row['seed']] = float(row['metrics'][metric])
  return table


def tasks_of(table):
  """The tasks of a table of points, sorted."""
  return sorted({task for numbers in table.values() for task, _ in numbers})


def averaged(table):
  """The tasks that an average is over, sorted: those with half the numbers of the fullest task.

  One cell of a new task must not leave every other place without an average.
  """
  count = collections.Counter(task for numbers in table.values() for task, _ in numbers)
  return sorted(task for task, n in count.items() if 2 * n >= max(count.values()))


def averages(table):
  """{(arm, sparsity): {seed: mean over the tasks `averaged`}}, of seeds that have all of them."""
  tasks = averaged(table)
  result = {}
  for key, numbers in table.items():
    seeds = sorted({seed for _, seed in numbers})
    whole = [seed for seed in seeds if all((task, seed) in numbers for task in tasks)]
    if whole:
      result[key] = {
        seed: statistics.mean([numbers[task, seed] for task in tasks]) for seed in whole
      }
  return result


def chance(rows, majority):
  """The mean score of constant answers over exactly the tasks of `averages`.

  Args:
    rows: ledger rows.
    majority: {task: accuracy of its constant answer}.

  Returns:
    A fraction; None where it is not known for one of the tasks, or there are none.
  """
  metrics = {row['task']: metric_of(row) for row in rows if row['stage'] == 'finetune'}
  levels = []
  for task in averaged(points(rows)):
    if metrics[task] in CORRELATIONS:
      levels.append(0.0)
    elif metrics[task] == 'accuracy' and task in majority:
      levels.append(majority[task])
    else:
      return None  # a mean over the other tasks is no level of this curve
  return statistics.mean(levels) if levels else None


def zero(table, arm):
  """The place of an arm's own unpruned baseline; the dense one where it has none."""
  return table.get((arm, 0.0)) or table.get(('dense', 0.0), {})

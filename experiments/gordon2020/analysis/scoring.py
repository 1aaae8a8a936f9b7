"""From ledger rows to tables of scores and losses: selection of learning rates, points, averages over tasks."""

import collections

from prunejax.report import statistics

METRICS = ('accuracy', 'matthews', 'pearson', 'spearman', 'f1')


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
      result[key] = {seed: statistics.mean([place[task, seed] for task in tasks]) for seed in whole}
  return result


def zero(table, arm):
  """The place of an arm's own 0, nothing pruned and all else as in the arm; the dense one where there is none."""
  return table.get((arm, 0.0)) or table.get(('dense', 0.0), {})

"""Rows of stage 'probe', in measurements on models beside the scores of a grid: which ones, and their means.

A probe's row has 'probe' (what was measured), the labels of a cell, and in 'metrics' numbers and lists, many of them
over the sparsities in metrics['sparsity'].
"""

import numpy as np

from prunejax.report import statistics

LABELS = ('arm', 'sparsity', 'task', 'learning_rate', 'seed', 'epochs', 'against')


def of(rows, name, **labels):
  """The rows of one measurement with these labels; of two with the same labels the later one, which knows more."""
  newest = {}
  for row in rows:
    if (
      row['stage'] == 'probe'
      and row['probe'] == name
      and all(row.get(k) == v for k, v in labels.items())
    ):
      newest[tuple(str(row.get(k)) for k in LABELS)] = row
  return list(newest.values())


def over(rows, value, key=lambda row: row['arm']):
  """{(key, sparsity): {(task, against, rate, seed): number}} from lists over sparsities.

  value: the name of a list in metrics, or a function (metrics, index) -> number; None is left out, and so is a row that
    has no such list, as one of an earlier version.
  """
  read = value if callable(value) else lambda metrics, i: metrics[value][i]
  table = {}
  for row in rows:
    if not callable(value) and value not in row['metrics']:
      continue
    for i, s in enumerate(row['metrics']['sparsity']):
      number = read(row['metrics'], i)
      if number is not None:
        which = (row.get('task', ''), row.get('against', ''), row.get('learning_rate'), row['seed'])
        table.setdefault((key(row), round(float(s), 6)), {})[which] = float(number)
  return table


def by_seed(place):
  """{seed: mean}: the numbers of one seed stand on the same checkpoint and count once."""
  seeds = {}
  for which, number in place.items():
    seeds.setdefault(which[-1], []).append(number)
  return {seed: statistics.mean(numbers) for seed, numbers in seeds.items()}


def curves(table):
  """{key: {sparsity: Estimate over seeds}}, from a table of `over`."""
  found = {}
  for (key, s), place in sorted(table.items(), key=lambda item: (str(item[0][0]), item[0][1])):
    found.setdefault(key, {})[s] = statistics.bootstrap(by_seed(place).values())
  return found


def mean_lists(lists):
  """The mean of lists of one length, None read as no value: float64, nan where none has one."""
  table = np.array([[np.nan if v is None else v for v in one] for one in lists], float)
  known = np.isfinite(table)
  return np.divide(
    np.where(known, table, 0).sum(0),
    known.sum(0),
    out=np.full(table.shape[1], np.nan),
    where=known.any(0),
  )


def first_of(rows, order):
  """The rows of the first arm of `order` that there are rows of: two starts of one thing do not mix."""
  have = {row['arm'] for row in rows}
  arm = next((arm for arm in order if arm in have), None)
  return [row for row in rows if row['arm'] == arm]


def of_epochs(rows):
  """The rows of so many epochs of fine-tuning; a run of the grid itself that is as long counts too."""
  return [row for row in rows if row.get('epochs') is not None]


def tasks(rows):
  """The tasks of some rows, sorted."""
  return sorted({row['task'] for row in rows if row.get('task')})

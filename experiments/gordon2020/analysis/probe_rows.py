"""Rows of stage 'probe', which are measurements on models: choosing them, and their means.

A probe row has 'probe', the name of the measurement, the labels of a cell, and 'metrics' of numbers
and lists. Many lists run over the sparsities in metrics['sparsity'].
"""

import numpy as np

from prunejax.report import statistics

LABELS = ('arm', 'sparsity', 'task', 'learning_rate', 'seed', 'epochs', 'against')


def of(rows, name, **labels):
  """The rows of one measurement with these labels; the later of two with the same labels."""
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

  Args:
    rows: probe rows; a row of an earlier version, without the list, is left out.
    value: the name of a list in metrics, or (metrics, index) -> number; None is left out.
    key: row -> key.
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


def by_seed(numbers):
  """{seed: mean}; the numbers of one seed rest on the same checkpoint and count once."""
  seeds = {}
  for which, number in numbers.items():
    seeds.setdefault(which[-1], []).append(number)
  return {seed: statistics.mean(of_seed) for seed, of_seed in seeds.items()}


def curves(table):
  """{key: {sparsity: Estimate over seeds}}, from a table of `over`."""
  lines = {}
  for (key, s), numbers in sorted(table.items(), key=lambda item: (str(item[0][0]), item[0][1])):
    lines.setdefault(key, {})[s] = statistics.bootstrap(by_seed(numbers).values())
  return lines


def mean_lists(lists):
  """The mean of lists of one length, float64; None is no value, nan where none has one."""
  table = np.array([[np.nan if v is None else v for v in one] for one in lists], float)
  known = np.isfinite(table)
  return np.divide(
    np.where(known, table, 0).sum(0),
    known.sum(0),
    out=np.full(table.shape[1], np.nan),
    where=known.any(0),
  )


def first_of(rows, order):
  """The rows of the first arm of `order` that has rows, so that two starts do not mix."""
  have = {row['arm'] for row in rows}
  arm = next((arm for arm in order if arm in have), None)
  return [row for row in rows if row['arm'] == arm]


def of_epochs(rows):
  """The rows of fine-tuning for a number of epochs, runs of the grid as long among them."""
  return [row for row in rows if row.get('epochs') is not None]


def tasks(rows):
  """The tasks of some rows, sorted."""
  return sorted({row['task'] for row in rows if row.get('task')})

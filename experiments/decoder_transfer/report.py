"""Tables and figures: score and losses against sparsity, zeros held and zeros free."""

import numpy as np

from experiments.decoder_transfer.claims import scores
from prunejax.report import drawing, verdicts
from prunejax.report import tables as tabular

NAMES = {'dense': 'dense', 'held': 'zeros held', 'free': 'zeros free'}
COLOURS = {'held': '#0072b2', 'free': '#e69f00'}
CAPTIONS = {
  'score': (
    'Score on held-out examples against sparsity, mean and range over seeds. The free model has'
    ' all its weights back, but starts from zeros where pruning removed some.'
  ),
  'loss': 'Loss on the labels that were trained on, in nats, mean and range over seeds.',
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the arms: one line for an arm and a sparsity."""
  return [
    tabular.records(
      f'{task}: mean [95 % interval] over seeds',
      [_line(rows, task, *arm) for arm in _arms(rows) if scores(rows, task, *arm)],
    )
    for task in _tasks(rows)
  ]


def _line(rows, task, arm, sparsity):
  values = lambda metric: list(scores(rows, task, arm, sparsity, metric).values())
  return {
    'arm': NAMES[arm],
    'sparsity': f'{sparsity:g}',
    'seeds': len(values('score')),
    'score': verdicts.shown(values('score')),
    'train loss': verdicts.shown(values('train_loss')),
    'held-out loss': verdicts.shown(values('dev_loss')),
    'sparsity after': f'{np.mean(values("got")):.4f}',
  }


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'score': PNG, 'loss': PNG}, a panel for each task."""
  return {
    name: _curves(rows, metric, label)
    for name, metric, label in (
      ('score', 'score', 'score, held out'),
      ('loss', 'train_loss', 'train loss, nats'),
    )
  }


def _curves(rows, metric, label):
  tasks = _tasks(rows)
  with drawing.canvas(4.6 * max(len(tasks), 1), 4.4, max(len(tasks), 1)) as (figure, axes):
    axes = np.atleast_1d(axes)
    for axis, task in zip(axes, tasks, strict=True):
      for arm, colour in COLOURS.items():
        found = {
          sparsity: list(scores(rows, task, name, sparsity, metric).values())
          for name, sparsity in _arms(rows)
          if name in (arm, 'dense')
        }
        found = {x: values for x, values in sorted(found.items()) if values}
        if found:
          means, reach = drawing.ranges(list(found.values()))
          axis.errorbar(
            list(found), means, yerr=reach, color=colour, marker='o', capsize=3, label=NAMES[arm]
          )
      axis.set_title(task)
      axis.set_xlabel('sparsity (fraction of weights removed)')
    axes[0].set_ylabel(label)
    drawing.below(figure, *axes)
    return drawing.png(figure)


def _tasks(rows):
  return sorted({row['task'] for row in rows})


def _arms(rows):
  order = list(NAMES)
  return sorted(
    {(row['arm'], row['sparsity']) for row in rows}, key=lambda x: (x[1], order.index(x[0]))
  )

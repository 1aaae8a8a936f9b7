"""The paper's figures of scores and losses from ledger rows, each as the bytes of a PNG."""

import math

import numpy as np

from experiments.gordon2020.analysis import arm_curves, arms, scoring
from prunejax.report import drawing, ledger, statistics

CAPTIONS = {
  'figure1': 'Figure 1: average dev score and train loss against sparsity, with 95 % bootstrap '
  'intervals over seeds.',
  'figure2a': 'Figure 2a: held-out pre-train loss against dev score after information deletion, '
  'one least-squares line a task.',
  'pretrain_loss': 'Held-out pre-train loss against sparsity, by magnitude and at random.',
}


def figure1(rows, *, chance=None):
  """Average dev score and average train loss against sparsity, one curve an arm (Figure 1).

  Bars are 95 % bootstrap intervals over seeds of the mean over tasks. chance: the mean score of
  constant answers to the same tasks, see `scoring.chance`, drawn as a thin line.
  """
  rows = arms.standard(ledger.one_grid(rows))
  points = scoring.points(rows)
  scores = arm_curves.scaled(scoring.averages(points), 100)
  losses = scoring.averages(scoring.points(rows, scoring.train_loss))
  tasks = scoring.averaged(points)
  with drawing.canvas(11, 4.6, 2) as (figure, (left, right)):
    arm_curves.draw(left, scores, arms.CURVES)
    arm_curves.draw(right, losses, arms.CURVES)
    if chance is not None:
      left.axhline(100 * chance, color='#aaaaaa', linewidth=1)
      left.text(
        0.01,
        100 * chance,
        'chance',
        ha='left',
        va='bottom',
        color='#888888',
        fontsize=9,
        transform=left.get_yaxis_transform(),
      )
    left.set(title='Transfer to the tasks', ylabel='average dev score (points)')
    right.set(title='Fit to their training sets', ylabel='average train loss')
    drawing.below(figure, left, right)
    return drawing.png(figure, f'mean over {", ".join(tasks)}' if tasks else '')


def figure2a(rows):
  """Held-out pre-train loss against information-deletion score, one line a task (Figure 2a).

  A dot is one seed at one sparsity, 0 included; a line is fitted to the dots.
  """
  rows = arms.standard(ledger.one_grid(rows))
  scores, losses = scoring.points(rows), scoring.pretrain(rows)
  with drawing.canvas(7.2, 5, 1) as (figure, (axes,)):
    for index, task in enumerate(scoring.tasks_of(scores)):
      colour, marker = arms.SERIES[index % len(arms.SERIES)], 'os^XDvP'[index % 7]
      by_sparsity = {s: numbers for (arm, s), numbers in scores.items() if arm == 'deleted' and s}
      by_sparsity[0.0] = scoring.zero(scores, 'deleted')
      dots = [
        (loss['pretrain', seed], 100 * value)
        for s, numbers in sorted(by_sparsity.items())
        for loss in [losses.get(('pruned', s), {}) if s else scoring.zero(losses, 'pruned')]
        for (name, seed), value in numbers.items()
        if name == task and ('pretrain', seed) in loss
      ]
      if not dots:
        continue
      x, y = np.array(sorted(dots)).T
      line = statistics.fit(x, y)
      label = task
      if math.isfinite(line.slope):
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, line.slope * ends + line.intercept, color=colour, linewidth=1.6)
        label = f'{task}: {line.slope:+.1f} points a nat, r {line.r:+.2f}'
      axes.plot(
        x,
        y,
        marker,
        color=colour,
        markeredgecolor='white',
        markeredgewidth=0.7,
        alpha=0.9,
        label=label,
      )
    axes.set(
      xlabel='held-out pre-train loss (nats)',
      ylabel='dev score after information deletion (points)',
      title='Information deletion against pre-training loss',
    )
    drawing.below(figure, axes, columns=1)
    return drawing.png(figure)


def pretrain_loss(rows, metric='loss'):
  """Held-out pre-train loss against sparsity, by magnitude and at random (column of Table 1)."""
  losses = scoring.pretrain(ledger.one_grid(rows), metric)
  by_seed = {key: {seed: v for (_, seed), v in numbers.items()} for key, numbers in losses.items()}
  with drawing.canvas(6.4, 4.6, 1) as (figure, (axes,)):
    arm_curves.draw(axes, by_seed, ('pruned', 'random'))
    axes.set(title='Pre-training', ylabel=f'held-out {_words(metric)}')
    drawing.below(figure, axes)
    return drawing.png(figure)


def standard(rows, *, chance=None):
  """{'figure1': png, 'figure2a': png, 'pretrain_loss': png}."""
  return {
    'figure1': figure1(rows, chance=chance),
    'figure2a': figure2a(rows),
    'pretrain_loss': pretrain_loss(rows),
  }


def _words(metric):
  return 'pre-train loss (nats)' if metric == 'loss' else metric.replace('_', ' ')

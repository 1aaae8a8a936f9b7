"""Figures of weights that move, and of the word embeddings, from probe rows: 4, 6 and 8 of Gordon et al. 2020."""

import numpy as np

from experiments.gordon2020.analysis import arms, probe_rows
from experiments.gordon2020.analysis.mask_figures import estimates, over_epochs, short, style
from prunejax.report import drawing

CAPTIONS = {
  'figure4': 'Figure 4: movement in magnitude order during fine-tuning, over epochs and by kind of matrix; dotted and '
  "in grey, the paper's numbers.",
  'figure6': 'Figure 6: movement in magnitude order by starting magnitude, the smallest weights on the left.',
  'figure8': 'Figure 8: mean magnitude of the word embeddings by token and dimension; share pruned of tokens that '
  'start a word and of inner pieces (##); share pruned of the dimensions.',
}


def figure4(rows, paper=None, matrices=None):
  """Movement over epochs, one line a task (left); by kind of matrix, a dot a layer (right).

  paper: {task: {epochs: mean movement in %}}, drawn dotted. matrices: {kind: (lowest, highest) in %} over the paper's
    layers, drawn in grey.
  """
  found = probe_rows.of(rows, 'movement')
  epochs = probe_rows.of_epochs(found)
  places = {}
  for row in epochs:
    places.setdefault((row['task'], row['epochs']), {})[row['seed']] = 100 * row['metrics']['mean']
  plain = fastest(probe_rows.first_of(found, ('dense', 'before')))
  tasks, named = probe_rows.tasks(found), rates_of(plain)
  with drawing.canvas(11, 4.8, 2) as (figure, (left, right)):
    for name, line in (paper or {}).items():
      left.plot(
        list(line), list(line.values()), color='#999999', linestyle=':', linewidth=1.3, zorder=1
      )
      left.annotate(
        f'{name}, paper',
        (max(line), line[max(line)]),
        (-2, 3),
        textcoords='offset points',
        ha='right',
        color='#888888',
        fontsize=8,
      )
    over_epochs(left, places, probe_rows.tasks(epochs))
    kinds = sorted({kind for row in plain for kind in row['metrics']['kinds']})
    for k, task in enumerate(tasks):
      mine = [row['metrics']['kinds'] for row in plain if row['task'] == task]
      if not mine:  # measured over epochs alone
        continue
      for place, kind in enumerate(kinds):
        layers = 100 * probe_rows.mean_lists([row[kind] for row in mine if kind in row])
        at = place + 0.12 * (k - (len(tasks) - 1) / 2)
        look, label = style(k), None if place else named[task]
        right.plot([at] * len(layers), layers, 'o', markersize=3.5, alpha=0.6, color=look['color'])
        right.plot(
          [at], [layers.mean()], **look, linestyle='', markeredgecolor='white', label=label
        )
    for place, kind in enumerate(kinds):
      if kind in (matrices or {}):
        right.fill_between(
          [place - 0.4, place + 0.4],
          *matrices[kind],
          color='#bbbbbb',
          alpha=0.5,
          linewidth=2,
          edgecolor='#999999',
          zorder=1,
          label='lowest to highest layer, paper (MNLI)',
        )
    names = [kind.replace('attention/', 'att. ') for kind in kinds]
    right.set_xticks(range(len(kinds)), names, rotation=30, ha='right')
    if not epochs:
      left.text(
        0.5, 0.06, 'no epochs measured here', transform=left.transAxes, ha='center', color='#888888'
      )
    left.set(title='Over epochs', ylabel='movement in magnitude order (%)')
    left.set_ylim(bottom=0)
    right.set(title='By matrix', ylabel='movement in magnitude order (%)')
    right.set_ylim(bottom=0)
    drawing.below(figure, left, right)
    return drawing.png(figure, 'small dots: layers' if plain else '')


def figure6(rows):
  """Mean movement by starting magnitude percentile, one line a task, at its highest learning rate."""
  found = fastest(probe_rows.first_of(probe_rows.of(rows, 'movement'), ('dense', 'before')))
  named = rates_of(found)
  with drawing.canvas(7.2, 4.8, 1) as (figure, (axes,)):
    for k, task in enumerate(probe_rows.tasks(found)):
      curves = 100 * np.array(
        [
          probe_rows.mean_lists([row['metrics']['by_magnitude']])
          for row in found
          if row['task'] == task
        ]
      )
      x = (np.arange(curves.shape[1]) + 0.5) * 100 / curves.shape[1]
      axes.plot(x, curves.mean(0), color=style(k)['color'], label=named[task])
      axes.fill_between(
        x, curves.min(0), curves.max(0), color=style(k)['color'], alpha=0.2, linewidth=0
      )
    axes.set(
      xlabel='percentile of |w| before fine-tuning',
      ylabel='movement in magnitude order (%)',
      title='Movement by starting magnitude',
    )
    axes.set_ylim(bottom=0)
    drawing.below(figure, axes)
    return drawing.png(figure, 'bands: lowest and highest seed' if found else '')


def figure8(rows):
  """Magnitudes of the word embeddings (left), share pruned by kind of token (middle) and by dimension (right)."""
  maps = [
    np.array(row['metrics']['map']) * row['metrics']['unit'] / 1000
    for row in probe_rows.of(rows, 'embeddings')
  ]
  words = probe_rows.of(rows, 'words', arm='pruned')
  with drawing.canvas(13, 4.6, 3) as (figure, (left, middle, right)):
    if maps:
      image = left.imshow(
        np.mean(maps, 0), aspect='auto', cmap='viridis', extent=(0, 100, 100, 0), vmin=0
      )
      figure.colorbar(image, ax=left, label='mean |w|', shrink=0.8)
    left.grid(False)
    left.set(
      title='Magnitude',
      xlabel='dimension (% of the width)',
      ylabel='token id (% of the vocabulary)',
    )
    for k, kind in enumerate(('word starts', 'inner pieces')):
      of_kind = [row for row in words if kind in row['metrics']['kinds']]
      table = probe_rows.over(
        of_kind, lambda m, i, kind=kind: m['kinds'][kind][i] - m['sparsity'][i], lambda row: ''
      )
      for curve in probe_rows.curves(table).values():
        estimates(middle, {kind: curve}, [style(k)])
    middle.set(
      title='Kind of token',
      xlabel='sparsity (fraction of weights removed)',
      ylabel='share pruned less sparsity',
    )
    middle.axhline(0, color='#aaaaaa', linewidth=1)
    bands = [
      probe_rows.curves(probe_rows.over(words, lambda m, i, q=q: m['dimensions'][i][q])).get(
        'pruned', {}
      )
      for q in range(5)
    ]
    if levels := sorted(bands[0]):
      low, q1, median, q3, high = ([band[s].mean for s in levels] for band in bands)
      colour = arms.colour('pruned')
      right.fill_between(
        levels, low, high, color=colour, alpha=0.15, linewidth=0, label='all dimensions'
      )
      right.fill_between(
        levels, q1, q3, color=colour, alpha=0.35, linewidth=0, label='the middle half'
      )
      right.plot(levels, median, color=colour, marker='o', label='median dimension')
    right.set(
      title='Dimension',
      xlabel='sparsity (fraction of weights removed)',
      ylabel='share of a dimension pruned',
    )
    drawing.below(figure, middle, right, columns=5)
    return drawing.png(figure)


def fastest(rows):
  """The rows of the highest learning rate of each task."""
  most = {}
  for row in rows:
    most[row['task']] = max(row['learning_rate'], most.get(row['task'], 0))
  return [row for row in rows if row['learning_rate'] == most[row['task']]]


def rates_of(rows):
  """{task: what a legend calls it}: with its learning rate where tasks have unlike ones."""
  rates = {row['task']: row['learning_rate'] for row in rows}
  unlike = len(set(rates.values())) > 1
  return {
    task: short(task) + (f', rate {rate:g}' if unlike else '') for task, rate in rates.items()
  }

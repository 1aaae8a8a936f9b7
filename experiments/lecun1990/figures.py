"""The paper's figures: loss against what is deleted; predicted beside measured; with retraining."""

import numpy as np

from experiments.lecun1990.claims import NAMES, by
from prunejax.report import drawing

COLOURS = {'obd': '#c0392b', 'magnitude': '#2471a3', 'random': '#7f8c8d'}


def figures(rows):
  return {'deleted': deleted(rows), 'predicted': predicted(rows), 'retrained': retrained(rows)}


def line(axes, found, grid, name, colour, label, style='-'):
  """The mean over seeds with each seed as a thin line; nothing for a method that has not been run yet."""
  if not found:
    return
  x = found[0][grid]
  y = np.array([m[name] for m in found])
  axes.plot(x, y.T, color=colour, linewidth=0.6, alpha=0.4, linestyle=style)
  axes.plot(x, y.mean(axis=0), color=colour, label=label, linestyle=style)


def finish(figure, axes, titles):
  for panel, title in zip(axes, titles, strict=True):
    panel.set_yscale('log')
    panel.set_xlabel('sparsity (fraction of weights deleted)')
    panel.set_title(title)
  axes[0].set_ylabel('half the squared error')
  drawing.below(figure, axes[0], columns=4)
  return drawing.png(figure)


def deleted(rows):
  with drawing.canvas(11, 4.4, 2) as (figure, axes):
    for part, panel in zip(('train', 'test'), axes, strict=True):
      for method, colour in COLOURS.items():
        line(
          panel,
          list(by(rows, method).values()),
          'curve',
          f'plain_{part}_loss',
          colour,
          NAMES[method],
        )
    return finish(figure, axes, ('train, not retrained', 'test, not retrained'))


def predicted(rows):
  with drawing.canvas(7, 4.4, 1) as (figure, axes):
    found = list(by(rows, 'obd').values())
    line(axes[0], found, 'curve', 'plain_train_loss', COLOURS['obd'], 'measured')
    line(axes[0], found, 'curve', 'predicted_train_loss', '#222222', 'predicted', '--')
    return finish(figure, axes, ('train, by saliency',))


def retrained(rows):
  with drawing.canvas(11, 4.4, 2) as (figure, axes):
    for part, panel in zip(('train', 'test'), axes, strict=True):
      for method, colour in COLOURS.items():
        found = list(by(rows, method).values())
        if all(len(m['cuts']) == 1 for m in found):
          continue
        line(panel, found, 'cuts', f'retrained_{part}_loss', colour, NAMES[method] + ', retrained')
      line(
        panel,
        list(by(rows, 'obd').values()),
        'curve',
        f'plain_{part}_loss',
        COLOURS['obd'],
        'by saliency, not retrained',
        ':',
      )
    return finish(figure, axes, ('train', 'test'))

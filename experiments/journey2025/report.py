"""The tables and figures of the report, from the ledger."""

import numpy as np

from experiments.journey2025.claims import COUNTS, dense_line, expected, pruned, windows
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

DENSE = '#555555'
COLOURS = ('#d1495b', '#1b6ca8', '#2a9d8f', '#b7950b', '#7b6888')
MARKS = ('o', 's', '^', 'D')
CAPTIONS = {
  'loss': (
    'Held-out loss against the number of weights. The line joins dense models of several widths. '
    'The same pruned models stand at their average number over the training (left) and at their '
    'final number (right). A mark is the mean of the seeds; a window is in per cent of the steps.'
  ),
  'windows': (
    'Held-out loss of models pruned in several windows, in per cent of the run, with as much '
    'compute: a sparser run has more steps. Dots are seeds.'
  ),
}


def _mean_loss(rows):
  return statistics.mean([row['metrics']['loss'] for row in rows])


def _arms(rows):
  """{(sparsity, window): rows} of the pruned models at equal steps."""
  arms = {}
  for row in pruned(rows):
    arms.setdefault((row['sparsity'], row['window']), []).append(row)
  return dict(sorted(arms.items()))


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate dense and pruned models at equal steps, and the windows at equal compute."""
  seeds = {row['seed'] for row in rows if row['arm'] == 'dense'}
  lines = []
  for width in sorted({r['width'] for r in rows if r['arm'] == 'dense'}, reverse=True):
    cells = [r for r in rows if r['arm'] == 'dense' and r['width'] == width]
    size = f'{cells[0]["parameters"]:,}'
    loss = shown([row['metrics']['loss'] for row in cells])
    lines.append(
      {'model': f'dense, width {width}', 'seeds': len(cells), 'average': size}
      | {'final': size, 'loss': loss, 'minus dense, by average': '-', 'by final': '-'}
    )
  for (sparsity, window), cells in _arms(rows).items():
    gap = {
      count: shown(
        [
          r['metrics']['loss'] - expected(rows, r['seed'], r[count])
          for r in cells
          if r['seed'] in seeds
        ],
        '+.3f',
      )
      for count in COUNTS
    }
    lines.append(
      {
        'model': f'pruned to {sparsity:g}, {window} %',
        'seeds': len(cells),
        'average': f'{cells[0]["average"]:,}',
        'final': f'{cells[0]["final"]:,}',
        'loss': shown([row['metrics']['loss'] for row in cells]),
        'minus dense, by average': gap['average'],
        'by final': gap['final'],
      }
    )
  note = (
    'Held-out loss of the next token, nats. Minus dense: the loss less that of a dense model with '
    'as many weights, between the widths that were trained.'
  )
  shown_ = [tabular.records('Loss and the number of weights', lines, note)]
  late = pruned(rows, 'compute')
  if late:
    steps = {row['window']: row.get('steps') for row in [*pruned(rows), *late]}
    lines = [
      {
        'pruned in, % of the run': window,
        'seeds': len(losses),
        'steps': steps[window],
        'loss': shown(list(losses.values())),
      }
      for window, losses in _by_window(rows)
    ]
    note = f'Pruned to {late[0]["sparsity"]:g}; weights times steps are equal.'
    shown_.append(tabular.records('Windows at equal compute', lines, note))
  return shown_


def _by_window(rows):
  return sorted(windows(rows).items(), key=lambda item: [int(p) for p in item[0].split('-')])


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'loss': PNG}, and 'windows' where the ledger has them."""
  pngs = {'loss': _loss(rows)}
  if pruned(rows, 'compute'):
    pngs['windows'] = _windows(rows)
  return pngs


def _loss(rows):
  seeds = sorted({row['seed'] for row in rows if row['arm'] == 'dense'})
  names = sorted({window for _, window in _arms(rows)})
  levels = sorted({sparsity for sparsity, _ in _arms(rows)})
  with drawing.canvas(11, 4.6, 2) as (figure, panels):
    for axes, count in zip(panels, ('average', 'final'), strict=True):
      if seeds:
        sizes = np.exp(dense_line(rows, seeds[0])[0])
        by_size = {}
        for row in rows:
          if row['arm'] == 'dense':
            by_size.setdefault(row['parameters'], []).append(row)
        axes.plot(
          sizes, [_mean_loss(by_size[round(n)]) for n in sizes], 'o-', color=DENSE, label='dense'
        )
      for (sparsity, window), cells in _arms(rows).items():
        losses = [row['metrics']['loss'] for row in cells]
        middle, reach = drawing.ranges([losses])
        axes.errorbar(
          [cells[0][count]],
          middle,
          yerr=reach,
          capsize=2,
          linestyle='',
          marker=MARKS[levels.index(sparsity) % len(MARKS)],
          color=COLOURS[names.index(window) % len(COLOURS)],
          label=f'{sparsity:g}, {window} %',
        )
      axes.set_xscale('log')
      axes.set_xlabel(f'{COUNTS[count]} number of weights')
      axes.set_title(f'by the {COUNTS[count]} number')
    panels[0].set_ylabel('held-out loss, nats')
    drawing.below(figure, panels[0], columns=4)
    return drawing.png(figure)


def _windows(rows):
  with drawing.canvas(6.5, 4, 1) as (figure, (axes,)):
    for x, (_, losses) in enumerate(_by_window(rows)):
      values = list(losses.values())
      axes.plot([x - 0.25, x + 0.25], [statistics.mean(values)] * 2, color='#d1495b')
      axes.scatter([x] * len(values), values, s=16, color='#222222', zorder=3)
    names = [f'{window} %' for window, _ in _by_window(rows)]
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel='pruned in this part of the run', ylabel='held-out loss, nats')
    axes.set_title('Equal compute')
    return drawing.png(figure)

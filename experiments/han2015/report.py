"""The tables and figures of the report, from the ledger."""

import numpy as np

from experiments.han2015.claims import NAMES, select, strengths
from experiments.han2016 import paper
from prunejax.models import lenet
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

PENALTIES = {'l2': 'L2', 'l1': 'L1'}
COLOURS = {'l2': '#1b6ca8', 'l1': '#d1495b'}
ARMS = {  # arm: (label, colour)
  'l1 then l2': ('L1, retrained with L2', '#b7950b'),
  'iterative': ('L2, iterative', '#2a9d8f'),
  'by chance': ('L2, by chance', '#7b6888'),
  'iterative, longer': ('L2, iterative, five times longer', '#145a4c'),
  'one shot, longer': ('L2, one shot, five times longer', '#0d3a5c'),
}
LAYER_COLOURS = ('#d1495b', '#b7950b', '#1b6ca8', '#2a9d8f')
CAPTIONS = {
  'curves': (
    'LeNet-300-100: test accuracy against the weights kept. Left: cut, not retrained. Right: '
    'retrained for as many steps in all; iterative cuts in five rounds. Of several strengths of a '
    'penalty the strongest is drawn. Bars span the seeds; the dotted line is dense (L2).'
  ),
  'dropout': (
    'Retraining of a network that was trained with dropout 0.5: with the same dropout, with the '
    'adjusted one (equation 2), and with none. Bars span the seeds.'
  ),
  'layers': (
    'Held-out loss with one layer pruned alone, without retraining (figure 6 of the paper). Bars '
    'span the seeds; the dotted line is dense.'
  ),
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the retrained arms, the cuts, the thresholds, dropout and the scanned thresholds."""
  every = [_retrained(rows), _cuts(rows), _thresholds(rows), _dropout(rows), _scanned(rows)]
  return [table for table in every if table.rows]


def _column(cells, name, i):
  return shown([m[name][i] for m in cells], '.2f', 100)


def _arms(rows):
  """(words of an arm, its cells), for the arms with `levels`."""
  for penalty, label in PENALTIES.items():
    for strength in strengths(rows, 'one shot', penalty):
      cells = select(rows, 'one shot', penalty=penalty, strength=strength)
      yield f'{label} {strength:g}, one shot', list(cells.values())
  for arm, (label, _) in ARMS.items():
    for penalty in PENALTIES:
      for strength in strengths(rows, arm, penalty):
        cells = select(rows, arm, penalty=penalty, strength=strength)
        label_ = label.replace(',', f' {strength:g},', 1)
        yield label_, list(cells.values())


def _retrained(rows):
  lines = [
    {
      'arm': label,
      'seeds': len(cells),
      'dense, %': shown([m['dense'] for m in cells], '.2f', 100),
      **{
        f'{level:g} kept, %': _column(cells, 'retrained', i)
        for i, level in enumerate(cells[0]['levels'])
      },
    }
    for label, cells in _arms(rows)
  ]
  return tabular.records('Pruned and retrained', lines, 'Test accuracy of LeNet-300-100.')


def _cuts(rows):
  lines = []
  for penalty, label in PENALTIES.items():
    for strength in strengths(rows, 'one shot', penalty):
      cells = list(select(rows, 'one shot', penalty=penalty, strength=strength).values())
      lines.append(
        {
          'penalty': f'{label} {strength:g}',
          **{
            f'{kept:g} kept, %': _column(cells, 'cut', i) for i, kept in enumerate(cells[0]['cuts'])
          },
        }
      )
  return tabular.records('Cut, not retrained', lines, 'Test accuracy of LeNet-300-100.')


def _thresholds(rows):
  cells = list(select(rows, 'threshold').values())
  lines = []
  for i, quality in enumerate(cells[0]['qualities'] if cells else ()):
    line = {'quality': f'{quality:g}'}
    for name, words in (('cut', 'cut'), ('once', 'retrained'), ('again', 'cut again each round')):
      if name != 'once':
        kept = shown([m[f'{name}_kept'][i] for m in cells])
        line[f'kept, {words}' if name == 'again' else 'kept'] = kept
      line[f'{words}, %'] = _column(cells, name, i)
    lines.append(line)
  note = 'A layer keeps |w| > quality x the deviation of its weights.'
  return tabular.records('Thresholds in deviations', lines, note)


def _dropout(rows):
  cells = list(select(rows, 'dropout').values())
  lines = [
    {
      'kept': f'{level:g}',
      'adjusted dropout, fc1 and fc2': ' and '.join(
        f'{statistics.mean([m["rates"][i][j] for m in cells]):.2f}' for j in (0, 1)
      ),
      **{f'{name}, %': _column(cells, name, i) for name in ('same', 'adjusted', 'none')},
    }
    for i, level in enumerate(cells[0]['levels'] if cells else ())
  ]
  return tabular.records('Dropout in retraining', lines, 'Trained with a dropout of 0.5.')


def _scanned(rows):
  cells = [m for m in select(rows, 'scan').values() if 'tolerances' in m]
  layers = list(lenet.LAYERS['lenet-300-100'])
  lines = []
  for i, tolerance in enumerate(cells[0]['tolerances'] if cells else ()):
    mean = lambda values: statistics.mean(values)
    line = {'rise accepted': f'{tolerance:g}'}
    line |= {
      f'{layer}: quality': f'{mean([m["qualities"][i][j] for m in cells]):.2f}'
      for j, layer in enumerate(layers)
    }
    line |= {
      f'{layer}: kept': f'{mean([m["layers kept"][i][j] for m in cells]):.3f}'
      for j, layer in enumerate(layers)
    }
    line['kept in all'] = shown([m['scanned kept'][i] for m in cells])
    line |= {f'{n}, %': _column(cells, n, i) for n in ('scanned', 'one quality', 'one sparsity')}
    lines.append(line)
  kept = ', '.join(f'{k} {v:g}' for k, v in paper.KEPT['lenet-300-100'].items())
  note = (
    'Each layer has the highest quality whose cut alone raises the held-out loss by no more. All '
    f'three are retrained with as many weights. The paper keeps {kept}.'
  )
  return tabular.records('Thresholds from the scan', lines, note)


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw a PNG of 'curves', and of 'dropout' and 'layers' where the ledger has such cells."""
  pngs = {'curves': _curves(rows)}
  if select(rows, 'dropout'):
    pngs['dropout'] = _dropout_curves(rows)
  if any(select(rows, 'scan', net) for net in NAMES):
    pngs['layers'] = _layers(rows)
  return pngs


def _line(axes, cells, grid, name, label, colour, shift=0.0, scale=100, **style):
  """Draw the mean over cells, with bars that span them; nothing where there are none."""
  cells = list(cells)
  if not cells:
    return
  columns = np.transpose([m[name] for m in cells]) * scale
  middle, reach = drawing.ranges(columns.tolist())
  x = np.array(cells[0][grid]) * (1 + shift)
  axes.errorbar(
    x,
    middle,
    yerr=reach,
    marker='o',
    markeredgecolor='white',
    capsize=2,
    elinewidth=1,
    color=colour,
    label=label,
    **style,
  )


def _curves(rows):
  with drawing.canvas(11, 4.6, 2) as (figure, panels):
    for penalty, label in PENALTIES.items():
      values = strengths(rows, 'one shot', penalty)
      cells = select(rows, 'one shot', penalty=penalty, strength=values[-1]) if values else {}
      _line(panels[0], cells.values(), 'cuts', 'cut', f'{label}, one shot', COLOURS[penalty])
      _line(
        panels[1], cells.values(), 'levels', 'retrained', f'{label}, one shot', COLOURS[penalty]
      )
      if penalty == 'l2' and cells:
        for axes in panels:
          dense = 100 * statistics.mean([m['dense'] for m in cells.values()])
          axes.axhline(dense, color='#555555', ls=':', lw=1.2)
    for arm, (label, colour) in ARMS.items():
      penalty = 'l1' if arm == 'l1 then l2' else 'l2'
      values = strengths(rows, arm, penalty)
      cells = select(rows, arm, strength=values[-1]).values() if values else ()
      _line(panels[1], cells, 'levels', 'retrained', label, colour)
    for axes, title in zip(panels, ('cut, not retrained', 'pruned and retrained'), strict=True):
      axes.set_xscale('log')
      ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
      axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
      axes.minorticks_off()
      axes.invert_xaxis()
      axes.set_xlabel('fraction of the weights kept')
      axes.set_title(title)
    panels[0].set_ylabel('test accuracy, %')
    drawing.below(figure, *panels[::-1], columns=5)
    return drawing.png(figure)


def _dropout_curves(rows):
  kinds = {
    'same': ('as in training', '#d1495b'),
    'adjusted': ('adjusted', '#2a9d8f'),
    'none': ('none', '#7b6888'),
  }
  with drawing.canvas(6.5, 4.2, 1) as (figure, (axes,)):
    for i, (name, (label, colour)) in enumerate(kinds.items()):
      cells = select(rows, 'dropout').values()
      _line(axes, cells, 'levels', name, label, colour, 0.02 * (i - 1))
    axes.set_xscale('log')
    levels = next(iter(select(rows, 'dropout').values()))['levels']
    axes.set_xticks(levels, [f'{level:g}' for level in levels])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set(xlabel='fraction of the weights kept', ylabel='test accuracy, %')
    axes.set_title('Dropout in retraining')
    drawing.below(figure, axes)
    return drawing.png(figure)


def _layers(rows):
  nets = [net for net in NAMES if select(rows, 'scan', net)]
  with drawing.canvas(5.5 * len(nets), 4.4, len(nets)) as (figure, panels):
    for axes, net in zip(panels, nets, strict=True):
      cells = list(select(rows, 'scan', net).values())
      for layer, colour in zip(lenet.LAYERS[net], LAYER_COLOURS, strict=False):
        _line(axes, cells, 'removed', f'alone {layer}', layer, colour, scale=1)
      dense = statistics.mean([m['dense_loss'] for m in cells])
      axes.axhline(dense, color='#555555', ls=':', lw=1.2)
      axes.set_yscale('log')
      axes.set_xlabel('fraction of this layer removed')
      axes.set_title(NAMES[net])
      axes.legend()
    panels[0].set_ylabel('held-out loss, nats')
    return drawing.png(figure)

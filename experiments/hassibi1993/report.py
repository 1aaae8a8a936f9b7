"""The tables and figures of the report, from the ledger."""

import numpy as np

from experiments.hassibi1993 import paper
from experiments.hassibi1993.claims import PROBLEMS, by_network, values
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

COLOURS = {'obs': '#c0392b', 'obd': '#2471a3', 'magnitude': '#7d8b33'}
NAMES = {'obs': 'OBS', 'obd': 'OBD', 'magnitude': 'magnitude'}
CAPTIONS = {
  problem: (
    f'{problem}: error on the training set and accuracy on all points against the weights removed; '
    'thin lines are seeds.'
  )
  for problem in PROBLEMS
} | {
  'xor': (
    'XOR: the error after one weight was removed and the others were retrained; below 0.02 XOR is '
    'solved.'
  )
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the paper's table beside ours, and the first weight removed from XOR."""
  lines = []
  for problem in PROBLEMS:
    published = paper.TABLE[problem]
    lines.append(
      {
        'problem': problem,
        'method': 'OBS, the paper',
        'seeds': '',
        'train': f'{published["train"]:.3f}',
        'test': f'{published["test"]:.3f}',
        'weights': published['weights'],
        'left': str(published['left']),
      }
    )
    for method in dict.fromkeys(row['method'] for row in rows if row['problem'] == problem):
      lines.append(_line(rows, problem, method))
  sources = dict.fromkeys(row['source'] for row in rows if row['problem'] != 'xor')
  left = tabular.records(
    'Weights left where accuracy on the training set is still that of the dense net',
    lines,
    f'Training sets: {", ".join(sources)}' if sources else '',
  )
  return [left, _xor_table(rows)] if any(row['problem'] == 'xor' for row in rows) else [left]


def _line(rows, problem, method):
  """One method on one MONK's problem."""
  get = lambda name: values(rows, problem, method, name)
  left, weights = get('left'), get('weights')[0]
  return {
    'problem': problem,
    'method': method,
    'seeds': str(len(left)),
    'train': shown(get('train_left')),
    'test': shown(get('test_left')),
    'weights': weights,
    'left': shown(left, '.1f'),
    'fewest': min(left),
    'most': max(left),
    'removed': f'{1 - statistics.mean(left) / weights:.0%}',
    'dense train': shown(get('train_dense')),
    'dense test': shown(get('test_dense')),
  }


def _xor_table(rows):
  lines = []
  for method in ('obs', 'obd', 'magnitude'):
    get = lambda name, method=method: values(rows, 'xor', method, name)
    if not get('right'):
      continue
    lines.append(
      {
        'method': method,
        'nets': len(get('right')),
        'right weight': sum(get('right')),
        'the best weight': sum(get('best')),
        'all four answers right, not retrained': sum(a == 1 for a in get('accuracy_after')),
        'weights that are right': shown(get('spare'), '.1f'),
        'error after': shown(get('error_after'), '.4f'),
      }
    )
  return tabular.records(
    'XOR: the first of nine weights to go',
    lines,
    'Right: XOR is solved once the weight is removed and the others are retrained.',
  )


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw a PNG for each MONK's problem and for XOR, where the ledger has it."""
  problems = [p for p in PROBLEMS if any(row['problem'] == p for row in rows)]
  pngs = {problem: _removal_curves(rows, problem) for problem in problems}
  return pngs | ({'xor': _xor(rows)} if any(row['problem'] == 'xor' for row in rows) else {})


def _removal_curves(rows, problem):
  """Left: training error. Right: accuracy on all 432 points. Thin lines: seeds; thick: means."""
  with drawing.canvas(11, 4.4, 2) as (figure, panels):
    for method in dict.fromkeys(row['method'] for row in rows if row['problem'] == problem):
      criterion, retrained = method.split(',')[0], 'retrained' in method
      style = {'color': COLOURS[criterion], 'linestyle': '--' if retrained else '-'}
      for axes, name in ((panels[0], 'error_curve'), (panels[1], 'test_curve')):
        curves = np.array(values(rows, problem, method, name))
        removed = np.arange(curves.shape[1])
        if not retrained:
          axes.plot(removed, curves.T, linewidth=0.5, alpha=0.35, **style)
        label = NAMES[criterion] + (', retrained' if retrained else '')
        axes.plot(removed, curves.mean(axis=0), linewidth=2, label=label, **style)
    published = paper.TABLE[problem]
    for axes in panels:
      axes.axvline(
        published['weights'] - published['left'],
        color='#999999',
        linewidth=1,
        linestyle=':',
        label=f'OBS in the paper: {published["left"]} of {published["weights"]} left',
      )
      axes.set_xlabel('weights removed')
    panels[0].set_ylabel('half the mean squared error, train')
    panels[1].set_ylabel('accuracy, all 432 points')
    panels[0].set_title(problem)
    drawing.below(figure, panels[0], columns=4)
    return drawing.png(figure)


def _xor(rows):
  """The error after the first removal and retraining, for each network and method."""
  with drawing.canvas(8, 4, 1) as (figure, (axes,)):
    # A stopped run may lack a network for one method and have it for another.
    cells = {}
    for method in NAMES:
      cells |= by_network(rows, 'xor', method) | cells
    x = {network: i for i, network in enumerate(cells)}
    for network, metrics in cells.items():
      axes.plot(
        [x[network]] * len(metrics['without_each']),
        metrics['without_each'],
        '_',
        color='#bbbbbb',
        markersize=14,
        label='each of the nine weights',
      )
    for shift, method in zip((-0.15, 0, 0.15), NAMES, strict=True):
      cells = by_network(rows, 'xor', method)
      axes.plot(
        [x[network] + shift for network in cells],
        [metrics['error_of_which'] for metrics in cells.values()],
        'o',
        color=COLOURS[method],
        label=f'chosen by {NAMES[method]}',
      )
    axes.set_yscale('log')
    axes.set_xlabel('trained net, by weight decay and seed')
    axes.set_ylabel('error without the weight, retrained')
    axes.set_title('XOR')
    drawing.below(figure, axes, columns=4)
    return drawing.png(figure)

"""The tables and figures of the report, from the ledger."""

import numpy as np

from experiments.lecun1990.claims import AGAIN, JUDGED, ORDERS, by_seed, value_at
from prunejax.report import drawing, statistics, verdicts
from prunejax.report import tables as tabular

COLOURS = {'obd': '#c0392b', AGAIN: '#8d6a9f', 'magnitude': '#2471a3', 'random': '#7f8c8d'}
CAPTIONS = {
  'deleted': (
    'Loss on the training set against the fraction of weights deleted, without retraining: by '
    'saliency, by saliency computed again on the way, by magnitude and at random (the paper: '
    'figure 1a).'
  ),
  'predicted': (
    'Weights deleted by saliency: the loss that the quadratic model predicts, and the loss '
    'measured (figure 1b).'
  ),
  'retrained': (
    'With retraining after each cut: loss on train and test by saliency and by magnitude '
    '(figure 2).'
  ),
  'fourfold': (
    'The fourfold reduction: cut, retrained and scored again, until a tenth of the parameters is '
    'left. Thin lines are seeds; dotted lines mark a quarter and an eighth.'
  ),
}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate loss and accuracy by method, and what the quadratic prediction leaves out."""
  lines = []
  for method in dict.fromkeys(row['method'] for row in rows):
    cells = list(by_seed(rows, method).values())
    for sparsity in (0.0, 0.3, 0.5, 0.6, 0.8):
      if any(sparsity not in m['curve'] for m in cells):
        continue

      def show(name, grid, cells=cells, sparsity=sparsity):
        if any(sparsity not in m[grid] or not m[name] for m in cells):
          return '-'
        return verdicts.shown([value_at(m, name, sparsity, grid) for m in cells])

      lines.append(
        {
          'deleted': ORDERS[method],
          'sparsity': f'{sparsity:g}',
          'seeds': len(cells),
          'train loss': show('plain_train_loss', 'curve'),
          'predicted': show('predicted_train_loss', 'curve'),
          'test accuracy': show('plain_test_accuracy', 'curve'),
          'train loss, retrained': show('retrained_train_loss', 'cuts'),
          'test loss, retrained': show('retrained_test_loss', 'cuts'),
          'test accuracy, retrained': show('retrained_test_accuracy', 'cuts'),
        }
      )
  note = (
    f'{rows[0]["digits"]}; {rows[0]["metrics"]["weights"]} weights, biases counted; loss: half the '
    'squared error'
  )
  deleted = tabular.records('Weights deleted', lines, note)
  shown = [deleted, _prediction(rows)] if by_seed(rows, 'obd') else [deleted]
  return [*shown, _prediction_again(rows)] if by_seed(rows, AGAIN) else shown


def _prediction(rows, sparsity=JUDGED):
  """The rise of the loss: predicted, of single deletions, and of all at once."""
  lines, again = [], by_seed(rows, AGAIN)
  for seed, metrics in by_seed(rows, 'obd').items():
    predicted, measured = metrics['predicted_train_loss'], metrics['plain_train_loss']
    at = lambda name, metrics=metrics: value_at(metrics, name, sparsity)
    rise = at('plain_train_loss') - measured[0]
    lines.append(
      {
        'seed': seed,
        'dense loss': f'{measured[0]:.4f}',
        'saturated': f'{metrics["saturated"]:.1%}',
        'rise predicted': f'{at("predicted_train_loss") - predicted[0]:.4f}',
        **({'with cross terms': f'{again[seed]["cross"]:.4f}'} if seed in again else {}),
        'one at a time': f'{metrics["alone"]:.4f}',
        'together': f'{rise:.4f}',
        **(_unit(again[seed], rise) if seed in again else {}),
      }
    )
  note = (
    f'Train loss with the {sparsity:.0%} of lowest saliency deleted: each weight by itself, the '
    'rises summed, or all at once. Saturated: share of tanh outputs beyond 0.99.'
  )
  if again:
    note += ' The costliest unit: of these weights only those into one unit are deleted.'
  return tabular.records('What the prediction leaves out', lines, note)


def _prediction_again(rows):
  """The loss over the sum of the predictions, where saliencies are computed again on the way."""
  cells, lines = list(by_seed(rows, AGAIN).values()), []
  for sparsity in (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.8):
    if any(sparsity not in m['curve'] for m in cells):
      continue
    measured, predicted = (
      [value_at(m, name, sparsity) for m in cells]
      for name in ('plain_train_loss', 'predicted_train_loss')
    )
    ratios = [loss / sum_of for loss, sum_of in zip(measured, predicted, strict=True)]
    means = statistics.mean(measured), statistics.mean(predicted)
    lines.append(
      {
        'sparsity': f'{sparsity:g}',
        'seeds': len(cells),
        'predicted': f'{means[1]:.4f}',
        'train loss': f'{means[0]:.4f}',
        'loss over predicted': f'{means[0] / means[1]:.2f}',
        'least of a seed': f'{min(ratios):.2f}',
        'most of a seed': f'{max(ratios):.2f}',
      }
    )
  return tabular.records(
    'Saliencies computed again: the loss and the sum of the predictions',
    lines,
    'Predicted and loss are means over the seeds, and the ratio is that of the means.',
  )


def _unit(metrics, rise):
  return {
    'the costliest unit alone': f'{metrics["unit_rise"]:.4f}',
    'of the rise': f'{metrics["unit_rise"] / rise:.0%}' if rise > 0 else '-',
    'inputs it loses': f'{metrics["unit_lost"]} of {metrics["unit_inputs"]}',
  }


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'deleted', 'predicted', 'retrained'}: PNG each."""
  return {'deleted': _deleted(rows), 'predicted': _predicted(rows), 'retrained': _retrained(rows)}


def _line(axes, cells, grid, name, colour, label, style='-'):
  """Draw the mean over seeds, and each seed as a thin line; nothing where there are no cells."""
  cells = list(cells)
  if not cells:
    return
  x = cells[0][grid]
  y = np.array([metrics[name] for metrics in cells])
  axes.plot(x, y.T, color=colour, linewidth=0.6, alpha=0.4, linestyle=style)
  axes.plot(x, y.mean(axis=0), color=colour, label=label, linestyle=style)


def _finish(figure, panels, titles):
  for axes, title in zip(panels, titles, strict=True):
    axes.set_yscale('log')
    axes.set_xlabel('sparsity (fraction of weights deleted)')
    axes.set_title(title)
  panels[0].set_ylabel('half the squared error')
  drawing.below(figure, panels[0], columns=4)
  return drawing.png(figure)


def _deleted(rows):
  with drawing.canvas(11, 4.4, 2) as (figure, panels):
    for part, axes in zip(('train', 'test'), panels, strict=True):
      for method, colour in COLOURS.items():
        cells = by_seed(rows, method).values()
        _line(axes, cells, 'curve', f'plain_{part}_loss', colour, ORDERS[method])
    return _finish(figure, panels, ('train, not retrained', 'test, not retrained'))


def _predicted(rows):
  with drawing.canvas(7, 4.4, 1) as (figure, panels):
    cells = by_seed(rows, 'obd').values()
    _line(panels[0], cells, 'curve', 'plain_train_loss', COLOURS['obd'], 'measured')
    _line(panels[0], cells, 'curve', 'predicted_train_loss', '#222222', 'predicted', '--')
    return _finish(figure, panels, ('train, by saliency',))


def _retrained(rows):
  with drawing.canvas(11, 4.4, 2) as (figure, panels):
    for part, axes in zip(('train', 'test'), panels, strict=True):
      for method, colour in COLOURS.items():
        cells = by_seed(rows, method).values()
        if all(len(metrics['cuts']) == 1 for metrics in cells):
          continue
        label = ORDERS[method] + ', retrained'
        _line(axes, cells, 'cuts', f'retrained_{part}_loss', colour, label)
      cells, label = by_seed(rows, 'obd').values(), 'by saliency, not retrained'
      _line(axes, cells, 'curve', f'plain_{part}_loss', COLOURS['obd'], label, ':')
    return _finish(figure, panels, ('train', 'test'))

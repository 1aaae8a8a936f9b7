"""The table and the figure of the fourfold reduction."""

import numpy as np

from experiments.lecun1990.fourfold_claims import EIGHTH, QUARTER, by_seed
from prunejax.report import drawing
from prunejax.report import tables as tabular
from prunejax.report.verdicts import shown

METHODS = {'obd': ('by saliency', '#c0392b'), 'magnitude': ('by magnitude', '#2471a3')}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate losses and accuracies by method and fraction left."""
  lines = []
  for method, (label, _) in METHODS.items():
    cells = list(by_seed(rows, method).values())
    for i, kept in enumerate(cells[0]['kept'] if cells else ()):
      column = lambda name, i=i, cells=cells: [m[name][i] for m in cells]
      lines.append(
        {
          'deleted': label if kept < 1 else 'nothing',
          'left': f'{kept:g}',
          'parameters': f'{round(kept * cells[0]["weights"]):,}',
          'seeds': len(cells),
          'train loss': shown(column('train_loss')),
          'test loss': shown(column('test_loss')),
          'test accuracy, %': shown(column('test_accuracy'), '.2f', 100),
        }
      )
  lines = [line for n, line in enumerate(lines) if line['deleted'] != 'nothing' or not n]
  note = f'{rows[0]["digits"]}; half the squared error, retrained after each cut.'
  return [tabular.records('The fourfold reduction', lines, note)]


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'fourfold': PNG}: losses, and the test accuracy, against what is left."""
  panels = (('train_loss', 'train loss'), ('test_loss', 'test loss'))
  with drawing.canvas(12, 4.2, 3) as (figure, axes):
    for panel, (name, title) in zip(
      axes, (*panels, ('test_accuracy', 'test accuracy')), strict=True
    ):
      for method, (label, colour) in METHODS.items():
        cells = list(by_seed(rows, method).values())
        if cells:
          curves = np.array([m[name] for m in cells])
          panel.plot(cells[0]['kept'], curves.T, color=colour, linewidth=0.6, alpha=0.4)
          panel.plot(cells[0]['kept'], curves.mean(0), color=colour, label=label)
      for kept in (QUARTER, EIGHTH):
        panel.axvline(kept, color='#888888', ls=':', lw=1)
      panel.set_xscale('log')
      ticks = [1, 0.5, QUARTER, EIGHTH]
      panel.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
      panel.minorticks_off()
      panel.invert_xaxis()
      panel.set_xlabel('fraction of the parameters left')
      panel.set_title(title)
      if name != 'test_accuracy':
        panel.set_yscale('log')
    drawing.below(figure, axes[0])
    return {'fourfold': drawing.png(figure)}

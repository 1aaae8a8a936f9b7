"""The table and the figure of the report, from the ledger."""

import numpy as np

from experiments.oneshot2023.claims import NAMES, losses
from prunejax.report import drawing
from prunejax.report import tables as tabular

COLOURS = {
  'magnitude': '#777777',
  'wanda': '#e69f00',
  'sparsegpt': '#0072b2',
  'fisher 1': '#cc79a7',
  'fisher 4': '#882255',
}
CAPTIONS = {'loss': 'Held-out loss just after pruning, mean and range over seeds. Dashed: dense.'}


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the losses, one line a method."""
  targets = sorted(
    {(row['pattern'], row['sparsity']) for row in rows},
    key=lambda target: (target[0] == '2:4', target[1]),
  )
  dense = _mean_and_range(_dense(rows)) if len(set(_dense(rows))) > 1 else f'{_dense(rows)[0]:.3f}'
  lines = [{'method': 'dense', **{f'{p} {s}': dense for p, s in targets}}]
  for method, name in NAMES.items():
    by_target = {f'{p} {s}': list(losses(rows, method, p, s).values()) for p, s in targets}
    if any(by_target.values()):
      cells = {k: _mean_and_range(values) if values else '' for k, values in by_target.items()}
      lines.append({'method': name, **cells})
  return [tabular.records('Held-out loss just after pruning: mean (range) over seeds', lines)]


def _dense(rows):
  """The loss of each seed's network before it is pruned; all seeds may have the same network."""
  return list({row['seed']: row['metrics']['dense_loss'] for row in rows}.values())


def _mean_and_range(values):
  return f'{np.mean(values):.3f} ({np.ptp(values):.3f})'


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'loss': PNG}: loss against sparsity, and the losses of 2:4."""
  dense = np.mean(_dense(rows))
  sparsities = sorted({row['sparsity'] for row in rows})
  with drawing.canvas(9, 4.6, 2) as (figure, (curve, bars)):
    curve.axhline(dense, color='#333333', linestyle='--', linewidth=1.2, label='dense')
    for x, method in enumerate(NAMES):
      by_sparsity = {s: list(losses(rows, method, 'unstructured', s).values()) for s in sparsities}
      by_sparsity = {s: values for s, values in by_sparsity.items() if values}
      if by_sparsity:
        means, reach = drawing.ranges(list(by_sparsity.values()))
        style = {'color': COLOURS[method], 'marker': 'o', 'capsize': 3, 'label': NAMES[method]}
        curve.errorbar(list(by_sparsity), means, yerr=reach, **style)
      if values := list(losses(rows, method, '2:4', 0.5).values()):
        bars.bar(x, np.mean(values), color=COLOURS[method], width=0.7)
        bars.text(x, np.mean(values), f'{np.mean(values):.2f}', ha='center', va='bottom')
    bars.axhline(dense, color='#333333', linestyle='--', linewidth=1.2)
    bars.set_xticks([])
    curve.set_title('single weights')
    bars.set_title('2:4')
    curve.set_xlabel('sparsity (fraction of weights removed)')
    curve.set_ylabel('held-out loss (MLM + NSP), no recovery')
    drawing.below(figure, curve, bars)
    return {'loss': drawing.png(figure)}

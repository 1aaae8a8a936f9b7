"""Tables and the figure of the runs on SmolLM2, and the differences that its claims read.

The unit of replication is the draw of the calibration segments. All differences are of the
logarithm of the perplexity, between runs of one draw on the first windows that both have read;
magnitude needs no calibration, so its one run is compared with every draw.
"""

import math

import numpy as np

from experiments.oneshot2023.smollm2 import TARGETS
from prunejax.report import drawing, statistics
from prunejax.report import tables as tabular

NAMES = {
  'magnitude': 'magnitude',
  'wanda': 'Wanda',
  'sparsegpt': 'SparseGPT',
  'magnitude + reconstruction': 'magnitude, blocks reconstructed',
  'wanda + reconstruction': 'Wanda, blocks reconstructed',
  'sparsegpt + reconstruction': 'SparseGPT, blocks reconstructed',
}
COLOURS = {'magnitude': '#777777', 'wanda': '#e69f00', 'sparsegpt': '#0072b2'}
PRUNED_ONLY = ('magnitude', 'wanda', 'sparsegpt')
CAPTIONS = {
  'perplexity': (
    'Perplexity on the first windows of the WikiText-2 test text, as many as every run has read,'
    ' mean and range over draws of the calibration segments. Dashed: dense.'
  )
}


def losses(rows: list[dict], method: str, target: str, segments: int | None = None) -> dict:
  """Pick the mean losses of a method in nats, {seed: loss}, of the main number of segments.

  Args:
    rows: of the ledger.
    method: a name of `NAMES`.
    target: a name of `smollm2.TARGETS`.
    segments: another number of segments; None for the one of the methods beside it.
  """
  found = _runs(rows, method, target, segments)
  return {seed: row['metrics']['loss'] for seed, row in found.items()}


def loss_on(row: dict, windows: int) -> float:
  """The mean loss of a run on its first windows, in nats."""
  metrics = row['metrics']
  if windows >= len(metrics['losses']):
    return metrics['loss']  # the losses of windows are rounded
  return float(np.mean(metrics['losses'][:windows]))


def _runs(rows, method, target, segments=None) -> dict:
  """{seed: row} of a method; the arguments are those of `losses`."""
  wanted = segments if segments is not None else 0 if method == 'magnitude' else _main(rows)
  return {
    row['seed']: row
    for row in rows
    if (row['method'], row['target'], row['segments']) == (method, target, wanted)
  }


def _main(rows) -> int:
  """The number of segments with which Wanda was calibrated."""
  return next((row['segments'] for row in rows if row['method'] == 'wanda'), 0)


def gaps(rows: list[dict], worse: tuple, better: tuple) -> dict[int, float]:
  """The differences of the losses of two arms, on the windows that both have read.

  Args:
    rows: of the ledger.
    worse, better: (method, target, segments).

  Returns:
    {seed: loss of the worse - loss of the better}.
  """
  high, low = _runs(rows, *worse), _runs(rows, *better)
  if worse[0] == 'magnitude' and len(high) == 1:
    high = dict.fromkeys(low, *high.values())
  both = [seed for seed in low if seed in high]
  windows = {s: min(len(r[s]['metrics']['losses']) for r in (high, low)) for s in both}
  high, low = ({s: loss_on(r[s], windows[s]) for s in both} for r in (high, low))
  return statistics.paired(high, low)


def tables(rows: list[dict]) -> list[tabular.Table]:
  """Tabulate the perplexities: one line a method; the calibration sweep; and the costs."""
  dense = next((row for row in rows if row['method'] == 'dense'), None)
  lines = []
  if dense:
    lines.append({'method': f'dense ({_windows(dense)})', **{t: _dense(rows, t) for t in TARGETS}})
  for method, name in NAMES.items():
    cells = {t: _shown(losses(rows, method, t)) for t in TARGETS}
    if any(cells.values()):
      lines.append({'method': name, **cells})
  read = {
    target: ', '.join(sorted({_windows(row) for row in rows if row['target'] == target}))
    for target in TARGETS
  }
  lines.append({'method': 'windows read', **read})
  title = 'Perplexity on WikiText-2 of SmolLM2-135M: mean [range] over draws of the calibration'
  note = (
    'Dense is measured on the windows that the methods of a column read. Without a range: one draw,'
    ' or a method that needs none.'
  )
  made = [tabular.records(title, lines, note)]
  sweep = sorted({row['segments'] for row in rows if row['method'] == 'sparsegpt'})
  if len(sweep) > 1:
    cells = [
      {'segments': n, 'SparseGPT, 50 %': _shown(losses(rows, 'sparsegpt', '50 %', n))}
      for n in sweep
    ]
    made.append(tabular.records('Perplexity against the number of calibration segments', cells))
  costs = []
  for method in ('dense', *NAMES):
    mine = [row['metrics'] for row in rows if row['method'] == method]
    if mine:
      costs.append(
        {
          'method': NAMES.get(method, method),
          'runs': len(mine),
          'seconds of pruning': f'{np.mean([m["prune_seconds"] for m in mine]):.0f}',
          'seconds of evaluation': f'{np.mean([m["evaluate_seconds"] for m in mine]):.0f}',
        }
      )
  return [*made, tabular.records('What a run took, mean', costs)]


def _windows(row):
  count = len(row['metrics']['losses'])
  windows = 'window' if count == 1 else 'windows'
  return f'{count} {windows} of 2,048' + (' (all)' if row['windows'] < 0 else '')


def _dense(rows, target):
  """The dense perplexity on the windows that the methods of a target read."""
  dense = next(row for row in rows if row['method'] == 'dense')['metrics']['losses']
  counts = {len(row['metrics']['losses']) for row in rows if row['target'] == target}
  if len(counts) != 1 or (count := counts.pop()) > len(dense):
    return ''
  return f'{math.exp(np.mean(dense[:count])):.2f}'


def _shown(by_seed):
  values = [math.exp(min(x, 700)) for x in by_seed.values()]
  if not values:
    return ''
  form = '.2f' if max(values) < 1000 else ',.0f'
  if len(values) == 1:
    return f'{values[0]:{form}}'
  return f'{np.mean(values):{form}} [{min(values):{form}}, {max(values):{form}}]'


def figures(rows: list[dict]) -> dict[str, bytes]:
  """Draw {'perplexity': PNG}: against sparsity, and by pattern at 50 %."""
  dense = next((row for row in rows if row['method'] == 'dense'), None)
  read = min(len(row['metrics']['losses']) for row in rows)
  value = lambda row: math.exp(min(loss_on(row, read), 700))
  free = [t for t, (structure, _) in TARGETS.items() if structure == 'unstructured']
  patterns = [t for t, (_, sparsity) in TARGETS.items() if sparsity == 0.5]
  with drawing.canvas(9, 4.6, 2) as (figure, (curve, bars)):
    for shift, method in enumerate(PRUNED_ONLY):
      found = {t: list(map(value, _runs(rows, method, t).values())) for t in TARGETS}
      style = {'color': COLOURS[method], 'marker': 'o', 'capsize': 3}
      there = [t for t in free if found[t]]
      if there:
        means, reach = drawing.ranges([found[t] for t in there])
        x = [TARGETS[t][1] for t in there]
        curve.errorbar(x, means, yerr=reach, label=NAMES[method], **style)
      there = [t for t in patterns if found[t]]
      if there:
        means, reach = drawing.ranges([found[t] for t in there])
        x = [patterns.index(t) + 0.25 * (shift - 1) for t in there]
        bars.errorbar(x, means, yerr=reach, linestyle='', **style)
    if dense:
      for axis in (curve, bars):
        axis.axhline(value(dense), color='#333333', linestyle='--', linewidth=1.2)
    for axis in (curve, bars):
      axis.set_yscale('log')
    bars.set_xticks(range(len(patterns)), patterns)
    curve.set_xlabel('sparsity (fraction of weights removed)')
    curve.set_ylabel('perplexity, no training after')
    curve.set_title('single weights')
    bars.set_title('patterns at 50 %')
    drawing.below(figure, curve, bars)
    return {'perplexity': drawing.png(figure)}

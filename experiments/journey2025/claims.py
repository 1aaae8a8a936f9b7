"""Judge the findings of The Journey Matters (2025) on the ledger."""

import math

import numpy as np

from prunejax.report import statistics
from prunejax.report.verdicts import Comparison, Verdict, all_hold, decided_by, shown

SAME = 0.05  # Nats between a pruned model and the line of the dense ones that count as none.
NEAR = 0.02  # Nats that count as near the best window.
COUNTS = {'average': 'average', 'final': 'final', 'parameters': 'first'}
PAPERS = '25-75'  # Of the compute, in per cent.


def dense_line(rows: list[dict], seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Sort the dense models of a seed: (log parameters, losses)."""
  found = sorted(
    (row['parameters'], row['metrics']['loss'])
    for row in rows
    if row['arm'] == 'dense' and row['seed'] == seed
  )
  sizes, losses = np.transpose(found)
  return np.log(sizes), losses


def expected(rows: list[dict], seed: int, size: float) -> float:
  """Read the loss of a dense model of some size off the line between its neighbours.

  Args:
    rows: of the ledger.
    seed: whose dense models make the line.
    size: number of weights; beyond the smallest and largest model their own loss is read.
  """
  sizes, losses = dense_line(rows, seed)
  return float(np.interp(math.log(size), sizes, losses))


def pruned(rows: list[dict], compare: str = 'steps') -> list[dict]:
  """Pick the pruned models of a comparison: 'steps' or 'compute'."""
  return [row for row in rows if row['arm'] == 'pruned' and row['compare'] == compare]


def distances(rows: list[dict], count: str) -> dict:
  """Compute how far the pruned models are from the dense line, {seed: mean of |nats|}.

  Args:
    rows: of the ledger.
    count: the number of weights that stands for a pruned model, a key of COUNTS.
  """
  by_seed = {}
  seeds = {row['seed'] for row in rows if row['arm'] == 'dense'}
  for row in pruned(rows):
    if row['seed'] in seeds:
      gap = row['metrics']['loss'] - expected(rows, row['seed'], row[count])
      by_seed.setdefault(row['seed'], []).append(abs(gap))
  return {seed: statistics.mean(gaps) for seed, gaps in by_seed.items()}


def windows(rows: list[dict]) -> dict:
  """Collect the losses at equal compute, {window: {seed: loss}}."""
  late = pruned(rows, 'compute')
  found = {}
  for row in late:
    found.setdefault(row['window'], {})[row['seed']] = row['metrics']['loss']
  sparsity = late[0]['sparsity'] if late else None
  for row in pruned(rows):
    if row['window'] == PAPERS and row['sparsity'] == sparsity:
      found.setdefault(PAPERS, {})[row['seed']] = row['metrics']['loss']
  return found


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim, within a seed."""
  return [_average_over_final(rows), _one_law(rows), _window(rows)]


def _average_over_final(rows):
  far = {count: distances(rows, count) for count in COUNTS}
  nearer = {
    count: [far[count][s] - far['average'][s] for s in sorted(far['average'])]
    for count in ('final', 'parameters')
  }
  closer = [
    Comparison(f'nats nearer than with the {COUNTS[count]} number', values)
    for count, values in nearer.items()
  ]
  evidence = '; '.join(
    f'{COUNTS[count]} {shown(list(values.values()))}' for count, values in far.items()
  )
  return Verdict(
    'average_explains_the_loss',
    'The loss follows the average number of weights over the training, not the final or the first',
    all_hold(closer),
    f'mean distance of pruned models from the line of dense models, nats, by the number of '
    f'weights: {evidence}'
    if far['average']
    else 'cells are missing',
    ('loss',),
    decided_by(closer),
  )


def _one_law(rows):
  far = list(distances(rows, 'average').values())
  close = [Comparison('nats from the line of dense models', far, SAME, above=False)]
  return Verdict(
    'one_law',
    'One law holds for dense and pruned models: by the average number of weights, pruned models '
    f'lie within {SAME:g} nats of dense ones',
    all_hold(close),
    f'mean distance {shown(far)} nats' if far else 'cells are missing',
    ('loss',),
    decided_by(close),
  )


def _window(rows):
  found = windows(rows)
  ours = found.get(PAPERS, {})
  behind = {
    window: [ours[s] - losses[s] for s in sorted(ours.keys() & losses.keys())]
    for window, losses in found.items()
    if window != PAPERS
  }
  near = [
    Comparison(f'nats behind {window} %', values, NEAR, above=False)
    for window, values in behind.items()
  ]
  evidence = '; '.join(f'minus {window} %: {shown(v, "+.3f")}' for window, v in behind.items())
  return Verdict(
    'pruning_from_25_to_75',
    'Pruning between 25 % and 75 % of the compute is near the best '
    f'(within {NEAR:g} nats of every other window, with as much compute)',
    all_hold(near),
    f'loss of 25-75 %, nats, {evidence}' if any(behind.values()) else 'cells are missing',
    ('windows',),
    decided_by(near),
  )

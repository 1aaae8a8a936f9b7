"""Judge the fourfold reduction of LeCun, Denker & Solla 1990 on its rows."""

import math

from prunejax.report import statistics
from prunejax.report.verdicts import Comparison, Verdict, all_hold, decided_by, shown

QUARTER, EIGHTH = 0.25, 0.125
POINTS = 0.5  # Points of test accuracy that count as none.
TIMES = {'train': 10.0, 'test': 1.5}  # What the paper's reduction cost: errors rose by so much.


def by_seed(rows: list[dict], method: str = 'obd') -> dict:
  """Pick the cells of a method, {seed: metrics}."""
  return {row['seed']: row['metrics'] for row in rows if row['method'] == method}


def change(metrics: dict, name: str, kept: float) -> float:
  """Subtract the dense value of a curve from the value where `kept` is left."""
  return metrics[name][metrics['kept'].index(kept)] - metrics[name][0]


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim of the fourfold reduction."""
  return [_error(rows, QUARTER, 'fourfold'), _losses(rows), _error(rows, EIGHTH, 'eightfold')]


def _error(rows, kept, name):
  """The test accuracy is not below dense, but for `POINTS`."""
  changes = [100 * change(m, 'test_accuracy', kept) for m in by_seed(rows).values()]
  same = [Comparison(f'points of test accuracy, {kept:g} left', changes, -POINTS, form='+.2f')]
  words = {
    'fourfold': 'a quarter of the parameters is left and the test error is no higher',
    'eightfold': 'saliency deletes half of that again and the test error is still no higher',
  }[name]
  return Verdict(
    f'{name}_at_the_same_error',
    f'{words} (within {POINTS:g} points)',
    all_hold(same),
    f'test accuracy minus dense: {shown(changes, "+.2f")} points',
    ('fourfold',),
    decided_by(same),
  )


def _losses(rows):
  """At a quarter the losses rise by no more than the paper's."""
  ratio = lambda m, part: math.log(
    m[f'{part}_loss'][m['kept'].index(QUARTER)] / m[f'{part}_loss'][0]
  )
  rises = {part: [ratio(m, part) for m in by_seed(rows).values()] for part in TIMES}
  within = [
    Comparison(
      f'times the dense {part} loss',
      logs,
      math.log(TIMES[part]),
      above=False,
      form='.2f',
      unit_of=math.exp,
    )
    for part, logs in rises.items()
  ]
  evidence = '; '.join(
    f'{part} {math.exp(statistics.mean(logs)):.2f} times' for part, logs in rises.items()
  )
  return Verdict(
    'fourfold_losses',
    f'at a quarter the train loss is at most {TIMES["train"]:g} and the test loss at most '
    f"{TIMES['test']:g} times dense, as in the paper's own reduction",
    all_hold(within),
    f'losses over dense: {evidence}',
    ('fourfold',),
    decided_by(within),
  )

"""Judge the findings of LeCun, Denker & Solla 1990 on the ledger."""

import math

from experiments.lecun1990.fourfold_claims import claims as fourfold_claims
from prunejax.report import statistics, verdicts

FACTOR = 1.5  # A predicted loss counts as right within this factor.
SAME = 1.1  # A loss counts as nearly unchanged up to this factor.
JUDGED = 0.3  # The paper's quadratic prediction holds up to here.
AGAIN = 'obd again'  # Saliencies are computed again after each small share of deletions.
ORDERS = {
  'obd': 'by saliency',
  AGAIN: 'by saliency, computed again',
  'magnitude': 'by magnitude',
  'random': 'at random',
}


def by_seed(rows: list[dict], method: str) -> dict:
  """Pick the cells of a method: {seed: metrics}."""
  return {row['seed']: row['metrics'] for row in rows if row['method'] == method}


def value_at(metrics: dict, name: str, sparsity: float, grid: str = 'curve') -> float:
  """Read a curve at a sparsity of its grid ('curve' or 'cuts')."""
  return metrics[name][metrics[grid].index(sparsity)]


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim; a ledger of the fourfold reduction has claims of its own."""
  if any(row.get('part') == 'fourfold' for row in rows):
    return fourfold_claims(rows)
  return [
    _saliency_beats(rows, 'magnitude'),
    _saliency_again_beats_magnitude(rows),
    _saliency_beats(rows, 'random'),
    _quadratic_prediction(rows),
    _sixty_per_cent(rows),
  ]


def _log_ratios(rows, top, bottom, sparsity):
  """log of one method's train loss over another's, seed by seed, without retraining."""
  a, b = by_seed(rows, top), by_seed(rows, bottom)
  loss = lambda metrics: value_at(metrics, 'plain_train_loss', sparsity)
  return [math.log(loss(a[seed]) / loss(b[seed])) for seed in sorted(a.keys() & b.keys())]


def _saliency_beats(rows, other):
  ratios = {s: _log_ratios(rows, other, 'obd', s) for s in (0.3, 0.6)}
  times = '; '.join(
    f'{s:g} deleted: {math.exp(statistics.mean(logs)):.2f} times (log {verdicts.shown(logs)})'
    for s, logs in ratios.items()
  )
  higher = [
    verdicts.Comparison(
      f'times the train loss with {s:g} deleted', logs, form='.2f', unit_of=math.exp
    )
    for s, logs in ratios.items()
  ]
  return verdicts.Verdict(
    f'saliency_beats_{other}',
    f'deleting by saliency raises the loss less than {ORDERS[other]}, none retrained',
    verdicts.all_hold(higher),
    f'train loss {ORDERS[other]} over by saliency, {times}',
    ('deleted',),
    verdicts.decided_by(higher),
  )


def _saliency_again_beats_magnitude(rows):
  """With saliencies computed again the train loss is lower at 0.3 and at 0.6, within a seed."""
  ratios = {s: _log_ratios(rows, 'magnitude', AGAIN, s) for s in (0.3, 0.6)}
  times = '; '.join(
    f'{s:g} deleted: {math.exp(statistics.mean(logs)):.2f} times (log {verdicts.shown(logs)})'
    for s, logs in ratios.items()
  )
  higher = [
    verdicts.Comparison(
      f'times the train loss with {s:g} deleted', logs, form='.2f', unit_of=math.exp
    )
    for s, logs in ratios.items()
  ]
  return verdicts.Verdict(
    'saliency_again_beats_magnitude',
    'deleting by saliency that is computed again after every 2.5 % raises the loss less than by '
    'magnitude, none retrained',
    verdicts.all_hold(higher),
    f'train loss by magnitude over {ORDERS[AGAIN]}, {times}' if by_seed(rows, AGAIN) else 'not run',
    ('deleted',),
    verdicts.decided_by(higher),
  )


def _quadratic_prediction(rows):
  """The predicted loss is within `FACTOR` of the measured one at 30 % deleted."""
  cells = by_seed(rows, 'obd').values()
  ratios = {
    s: [
      math.log(value_at(m, 'plain_train_loss', s) / value_at(m, 'predicted_train_loss', s))
      for m in cells
    ]
    for s in (0.3, 0.6)
  }
  close = [
    verdicts.Comparison(
      'times off with 0.3 deleted',
      [abs(ratio) for ratio in ratios[0.3]],
      math.log(FACTOR),
      above=False,
      form='.2f',
      unit_of=math.exp,
    )
  ]
  evidence = '; '.join(
    f'{s:g} deleted: {math.exp(statistics.mean(logs)):.2f}' for s, logs in ratios.items()
  )
  return verdicts.Verdict(
    'quadratic_prediction',
    f'the quadratic prediction holds (within a factor {FACTOR:g}) to about 30 % deleted',
    verdicts.all_hold(close),
    f'measured over predicted train loss, {evidence}; {len(cells)} seeds',
    ('predicted',),
    verdicts.decided_by(close),
  )


def _sixty_per_cent(rows):
  """At 60 %, retrained, the losses on train and test are nearly unchanged."""
  cells = by_seed(rows, 'obd').values()
  retrained = lambda m, name, s: value_at(m, f'retrained_{name}', s, 'cuts')
  rises = {
    part: [
      math.log(retrained(m, f'{part}_loss', 0.6) / retrained(m, f'{part}_loss', 0.0)) for m in cells
    ]
    for part in ('train', 'test')
  }
  accuracy_change = [
    retrained(m, 'test_accuracy', 0.6) - retrained(m, 'test_accuracy', 0.0) for m in cells
  ]
  same = [
    verdicts.Comparison(
      f'times the dense {part} loss',
      logs,
      math.log(SAME),
      above=False,
      form='.2f',
      unit_of=math.exp,
    )
    for part, logs in rises.items()
  ]
  evidence = '; '.join(
    f'{part} loss {math.exp(statistics.mean(logs)):.2f} times' for part, logs in rises.items()
  )
  return verdicts.Verdict(
    'sixty_per_cent_for_nothing',
    f'with retraining 60 % go and losses on train and test stay within {SAME - 1:.0%}',
    verdicts.all_hold(same),
    f'at 0.6 retrained over dense: {evidence}; test accuracy '
    f'{verdicts.shown(accuracy_change, "+.4f")}',
    ('retrained',),
    verdicts.decided_by(same),
  )

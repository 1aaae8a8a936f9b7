"""The paper's three findings over ledger rows."""

import math

from prunejax.report import statistics, tables, verdicts

FACTOR = 1.5  # a predicted loss is right within this factor
SAME = 1.1  # a loss is nearly unchanged up to this factor
JUDGED = 0.3  # deleted: up to here the paper's quadratic prediction holds
POINT = 0.01  # of accuracy


def by(rows, method):
  """Metrics by seed."""
  return {r['seed']: r['metrics'] for r in rows if r['method'] == method}


def at(metrics, name, sparsity, grid='curve'):
  """A curve's value at a sparsity that it was measured at."""
  return metrics[name][metrics[grid].index(sparsity)]


def ratio(rows, top, bottom, sparsity):
  """log of train loss of one method over another's, by seed, none retrained."""
  a, b = by(rows, top), by(rows, bottom)
  value = lambda m: at(m, 'plain_train_loss', sparsity)
  return [math.log(value(a[s]) / value(b[s])) for s in sorted(a.keys() & b.keys())]


def claims(rows):
  return [beats(rows, 'magnitude'), beats(rows, 'random'), quadratic(rows), for_nothing(rows)]


def beats(rows, other):
  worse = {s: ratio(rows, other, 'obd', s) for s in (0.3, 0.6)}
  times = '; '.join(
    f'{s:g} deleted: {math.exp(statistics.mean(v)):.2f} times (log {verdicts.shown(v)})'
    for s, v in worse.items()
  )
  return verdicts.Verdict(
    f'saliency_beats_{other}',
    f'deleting by saliency raises the loss less than {NAMES[other]}, none retrained',
    verdicts.all_of(map(verdicts.side, worse.values())),
    f'train loss {NAMES[other]} over by saliency, {times}',
    ('deleted',),
  )


def quadratic(rows):
  """The predicted loss is within FACTOR of the measured one at 30 % deleted, and no longer at 60 %."""
  found = by(rows, 'obd').values()
  off = {
    s: [math.log(at(m, 'plain_train_loss', s) / at(m, 'predicted_train_loss', s)) for m in found]
    for s in (0.3, 0.6)
  }
  close = verdicts.side([math.log(FACTOR) - abs(v) for v in off[0.3]])
  said = '; '.join(f'{s:g} deleted: {math.exp(statistics.mean(v)):.2f}' for s, v in off.items())
  return verdicts.Verdict(
    'quadratic_prediction',
    f'the quadratic prediction holds (within a factor {FACTOR:g}) to about 30 % deleted',
    verdicts.all_of([close]),
    f'measured over predicted train loss, {said}; {len(found)} seeds',
    ('predicted',),
  )


def for_nothing(rows):
  """At 60 %, retrained, losses on train and test are nearly what they were."""
  found = by(rows, 'obd').values()
  rise = {
    part: [
      math.log(
        at(m, f'retrained_{part}_loss', 0.6, 'cuts') / at(m, f'retrained_{part}_loss', 0.0, 'cuts')
      )
      for m in found
    ]
    for part in ('train', 'test')
  }
  fall = [
    at(m, 'retrained_test_accuracy', 0.6, 'cuts') - at(m, 'retrained_test_accuracy', 0.0, 'cuts')
    for m in found
  ]
  sides = [verdicts.side([math.log(SAME) - v for v in values]) for values in rise.values()]
  said = '; '.join(
    f'{part} loss {math.exp(statistics.mean(v)):.2f} times' for part, v in rise.items()
  )
  return verdicts.Verdict(
    'sixty_per_cent_for_nothing',
    f'with retraining 60 % go and losses on train and test stay within {SAME - 1:.0%}',
    verdicts.all_of(sides),
    f'at 0.6 retrained over dense: {said}; test accuracy {verdicts.shown(fall, "+.4f")}',
    ('retrained',),
  )


NAMES = {'obd': 'by saliency', 'magnitude': 'by magnitude', 'random': 'at random'}


def shown(rows):
  """Loss and accuracy by method at some sparsities."""
  lines = []
  for method in dict.fromkeys(r['method'] for r in rows):
    found = list(by(rows, method).values())
    for sparsity in (0.0, 0.3, 0.5, 0.6, 0.8):
      if any(sparsity not in m['curve'] for m in found):
        continue

      def of(name, grid, found=found, sparsity=sparsity):
        if any(sparsity not in m[grid] or not m[name] for m in found):
          return '-'
        return verdicts.shown([at(m, name, sparsity, grid) for m in found])

      lines.append(
        {
          'deleted': NAMES[method],
          'sparsity': f'{sparsity:g}',
          'seeds': len(found),
          'train loss': of('plain_train_loss', 'curve'),
          'predicted': of('predicted_train_loss', 'curve'),
          'test accuracy': of('plain_test_accuracy', 'curve'),
          'train loss, retrained': of('retrained_train_loss', 'cuts'),
          'test loss, retrained': of('retrained_test_loss', 'cuts'),
          'test accuracy, retrained': of('retrained_test_accuracy', 'cuts'),
        }
      )
  note = f'{rows[0]["digits"]}; {rows[0]["metrics"]["weights"]} weights, biases counted; loss: half the squared error'
  return [
    tables.records('Weights deleted', lines, note),
    *([prediction(rows)] if by(rows, 'obd') else []),
  ]


def prediction(rows, sparsity=JUDGED):
  """What the quadratic prediction leaves out: the weights together, or each of them."""
  lines = []
  for seed, m in by(rows, 'obd').items():
    dense = m['plain_train_loss'][0]
    lines.append(
      {
        'seed': seed,
        'dense loss': f'{dense:.4f}',
        'saturated': f'{m["saturated"]:.1%}',
        'rise predicted': f'{at(m, "predicted_train_loss", sparsity) - m["predicted_train_loss"][0]:.4f}',
        'one at a time': f'{m["alone"]:.4f}',
        'together': f'{at(m, "plain_train_loss", sparsity) - dense:.4f}',
      }
    )
  note = (
    f'Train loss, the {sparsity:.0%} of lowest saliency deleted: each by itself, the rises summed, or all at '
    'once. Saturated: share of tanh outputs beyond 0.99.'
  )
  return tables.records('What the prediction leaves out', lines, note)

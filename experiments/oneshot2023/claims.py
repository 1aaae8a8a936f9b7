"""Judge the claims of the three papers on the ledger."""

import functools
import math

from experiments.oneshot2023.smollm2_report import gaps
from prunejax.report import statistics, verdicts

NAMES = {
  'magnitude': 'magnitude',
  'wanda': 'Wanda',
  'sparsegpt': 'SparseGPT',
  'fisher 1': 'block Fisher, 1 computation',
  'fisher 4': 'block Fisher, 4 computations',
}
HALF = (('unstructured', 0.5), ('2:4', 0.5))
HIGH = (('unstructured', 0.6), ('unstructured', 0.7), ('unstructured', 0.8))
# Of the claims on SmolLM2, logarithms of factors of the perplexity.
COLLAPSE = math.log(2)  # magnitude has more than twice Wanda's perplexity
NEAR = math.log(1.1)  # Wanda and SparseGPT differ by less than 10 %
LITTLE = math.log(1.05)  # four times the calibration lowers the perplexity by less than 5 %


def losses(rows: list[dict], method: str, pattern: str, sparsity: float) -> dict:
  """Pick the held-out losses of a method: {seed: loss}."""
  return {
    row['seed']: row['metrics']['loss']
    for row in rows
    if (row['method'], row['pattern'], row['sparsity']) == (method, pattern, sparsity)
  }


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim on the small BERT, or on SmolLM2 where the rows are of that model."""
  if 'model' in rows[0]:
    return of_smollm2(rows)
  return [
    _lower(
      rows,
      'wanda-half',
      'Wanda is better than magnitude at 50 % and 2:4',
      'wanda',
      'magnitude',
      HALF,
    ),
    _lower(
      rows,
      'sparsegpt-half',
      'SparseGPT is better than Wanda at 50 % and 2:4',
      'sparsegpt',
      'wanda',
      HALF,
    ),
    _lower(
      rows,
      'sparsegpt-high',
      'SparseGPT is better than Wanda at 60 to 80 %',
      'sparsegpt',
      'wanda',
      HIGH,
    ),
    _lower(
      rows,
      'fisher',
      'block Fisher is better than magnitude at 70 and 80 %',
      'fisher 1',
      'magnitude',
      HIGH[1:],
    ),
    _lower(
      rows,
      'recompute',
      'four computations are better than one at 70 and 80 %',
      'fisher 4',
      'fisher 1',
      HIGH[1:],
    ),
  ]


def of_smollm2(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge the claims on SmolLM2. A seed is a draw of the calibration segments."""
  numbers = sorted({row['segments'] for row in rows if row['method'] == 'sparsegpt'})
  fewer = max((n for n in numbers if 4 * n in numbers), default=0)
  arm = lambda method, target='50 %', segments=None: (method, target, segments)
  between = functools.partial(gaps, rows)
  apart = between(arm('wanda'), arm('sparsegpt'))
  gain = {
    m: between(arm(m), arm(f'{m} + reconstruction')) for m in ('magnitude', 'wanda', 'sparsegpt')
  }
  return [
    _factors(
      'collapse',
      "magnitude collapses at 50 %: its perplexity is more than twice Wanda's",
      {'magnitude over Wanda': between(arm('magnitude'), arm('wanda'))},
      COLLAPSE,
    ),
    _factors(
      'near',
      'Wanda is near SparseGPT at 50 %: their perplexities differ by less than 10 %',
      {'the larger over the smaller': {seed: abs(gap) for seed, gap in apart.items()}},
      NEAR,
      above=False,
    ),
    _factors(
      'ahead',
      'SparseGPT is ahead of Wanda at 60 and 70 %',
      {
        f'Wanda over SparseGPT at {t}': between(arm('wanda', t), arm('sparsegpt', t))
        for t in ('60 %', '70 %')
      },
    ),
    _factors(
      'patterns',
      '2:4 is worse than 4:8, and 4:8 worse than free choice, at 50 %',
      {
        f'{a} over {b}, {m}': between(arm(m, a), arm(m, b))
        for m in ('wanda', 'sparsegpt')
        for a, b in (('2:4', '4:8'), ('4:8', '50 %'))
      },
    ),
    _factors(
      'calibration',
      'four times the calibration segments lower the perplexity by less than 5 %',
      {
        f'{fewer} over {4 * fewer} segments': between(
          arm('sparsegpt', '50 %', fewer), arm('sparsegpt', '50 %', 4 * fewer)
        )
      },
      LITTLE,
      above=False,
    ),
    _factors(
      'reconstruction',
      'reconstruction of blocks helps magnitude most, at 50 %',
      {
        f'gain of magnitude over that of {m}': statistics.paired(gain['magnitude'], gain[m])
        for m in ('wanda', 'sparsegpt')
      },
    ),
  ]


def _factors(name, claim, differences, threshold=0.0, above=True):
  """Every mean of logarithms lies on one side of a threshold; numbers are shown as factors.

  differences: {what: {seed: logarithm}}.
  """
  values = {what: list(by_seed.values()) for what, by_seed in differences.items()}
  compared = [
    verdicts.Comparison(f'times, {what}', of_seeds, threshold, above, '.3f', math.exp)
    for what, of_seeds in values.items()
  ]
  measured = [f'{what}: {verdicts.shown(found)}' for what, found in values.items() if found]
  evidence = 'logarithms of factors of the perplexity: ' + '; '.join(measured)
  return verdicts.Verdict(
    name,
    claim,
    verdicts.all_hold(compared),
    evidence if measured else 'no rows',
    ('perplexity',),
    verdicts.decided_by(compared),
  )


def _lower(rows, name, claim, better, worse, targets):
  """`better` has a lower loss than `worse` at each (pattern, sparsity) of `targets`.

  Where all seeds are draws of calibration text for one network, the one run of magnitude is
  compared with every seed, and a verdict is about that network. In the preset `nets` a seed is a
  network, and only runs of one network are compared.
  """
  one_network = len({row.get('settings', {}).get('net') for row in rows}) == 1
  higher, evidence = [], []
  for pattern, sparsity in targets:
    low, high = (losses(rows, method, pattern, sparsity) for method in (better, worse))
    if worse == 'magnitude' and one_network and len(high) == 1:
      high = dict.fromkeys(low, *high.values())
    more = list(statistics.paired(high, low).values())
    higher.append(verdicts.Comparison(f'nats, {pattern} at {sparsity:g}', more))
    if more:
      evidence.append(f'{pattern} {sparsity}: {NAMES[worse]} is higher by {verdicts.shown(more)}')
  return verdicts.Verdict(
    name,
    claim,
    verdicts.all_hold(higher),
    '; '.join(evidence) or 'no rows',
    ('loss',),
    verdicts.decided_by(higher),
  )

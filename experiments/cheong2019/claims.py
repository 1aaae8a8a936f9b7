"""Judge the claims of Cheong & Daniel 2019 on the ledger."""

import numpy as np

from experiments.cheong2019 import paper
from prunejax.report import statistics
from prunejax.report.verdicts import Comparison, Verdict, all_hold, decided_by, shown

DENSE = ('dense', 0.0, 32, False)
FOUR_BITS = ('k-means', 0.0, 4, True)
BINARISED = ('binarised', 0.0, 1, True)
ENOUGH = 0.97  # Fraction of the dense BLEU that counts as keeping the quality.


def by_cell(rows: list[dict], metric: str = 'bleu') -> dict:
  """Group a metric: {(method, sparsity, bits, trained): {seed: number}}."""
  out = {}
  for row in rows:
    key = row['method'], row['sparsity'], row['bits'], row['trained']
    out.setdefault(key, {})[row['seed']] = row['metrics'][metric]
  return out


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim; each comparison is within a seed."""
  bleu, rate = by_cell(rows), by_cell(rows, 'compression')
  dense = bleu.get(DENSE, {})
  four_bits = bleu.get(FOUR_BITS, {})
  shares = lambda key: {
    s: v / dense[s] for s, v in sorted(bleu.get(key, {}).items()) if dense.get(s)
  }
  share = lambda key: list(shares(key).values())
  mean = lambda values: float(np.mean(list(values))) if values else float('nan')
  show = lambda values, form='+.2f': shown(values, form) if values else 'not measured'
  four_bits_rate = mean(rate.get(FOUR_BITS, {}).values())
  # "Equal bytes": 4-bit k-means must beat every pruned model that is no smaller than it is.
  lead = {}
  for key in sorted(key for key in bleu if key[0] == 'pruned'):
    pruned_rate = mean(rate[key].values())
    if pruned_rate <= four_bits_rate:
      lead[f'{key[1]:g} ({pruned_rate:.2f}x)'] = [
        four_bits[seed] - bleu[key][seed] for seed in sorted(bleu[key]) if seed in four_bits
      ]
  quality = [Comparison('of the dense BLEU', share(FOUR_BITS), ENOUGH, form='.3f')]
  leads = [Comparison(f'BLEU against pruned to {k}', v, form='+.2f') for k, v in lead.items()]
  untrained = share(('k-means', 0.0, 4, False))
  binarised = share(BINARISED)
  cost = list(statistics.paired(shares(FOUR_BITS), shares(BINARISED)).values())
  costs = [Comparison('of the dense BLEU, 4 bits minus two centroids', cost)]
  return [
    Verdict(
      '4-bit k-means',
      f'4-bit k-means keeps {paper.QUALITY:.2%} of the BLEU at {paper.COMPRESSION}x; here '
      f'at least {ENOUGH}',
      all_hold(quality),
      f'share of dense BLEU {show(share(FOUR_BITS), ".3f")} at {four_bits_rate:.2f}x counted bits, '
      f'embeddings not counted; before the centroids are trained {show(untrained, ".3f")}',
      ('compression',),
      decided_by(quality),
    ),
    Verdict(
      'pruning is worse',
      'Pruning is worse than quantisation at equal bytes; here: 4-bit k-means has the higher '
      'BLEU against every pruned model that is no smaller',
      all_hold(leads),
      'BLEU of 4-bit k-means minus BLEU of pruned to '
      + '; '.join(f'{k} {show(v)}' for k, v in lead.items()),
      ('compression',),
      decided_by(leads),
    ),
    Verdict(
      'binarised',
      'Two centroids a matrix cost quality that 4 bits do not (we could read no number of the '
      'paper)',
      all_hold(costs),
      f'share of dense BLEU {show(binarised, ".3f")}',
      ('compression',),
      decided_by(costs),
    ),
  ]

"""Judge the claims of See, Luong & Manning 2016 on the ledger."""

import numpy as np

from experiments.see2016.training import CLASSES
from prunejax.report import statistics
from prunejax.report.verdicts import Comparison, Verdict, all_hold, decided_by, shown

# The paper names no number for these two; the bands are ours, in fractions of the dense BLEU.
VERY_LITTLE_LOSS = 0.05
MATCHES = 0.02
LEAF_UNIFORM = 'leaf-uniform'  # The same sparsity for each leaf; no scheme of the paper.
MIDDLE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # Sparsities over which the schemes are compared.


def by_cell(rows: list[dict]) -> dict:
  """Group the BLEU: {(method, scheme, sparsity): {seed: BLEU}}."""
  out = {}
  for row in rows:
    key = *as_run(row), row['sparsity']
    out.setdefault(key, {})[row['seed']] = row['metrics']['bleu']
  return out


def as_run(row: dict) -> tuple[str, str]:
  """Name the method and the scheme that a row really had.

  In ledgers of 0.1, whose settings have no `reach`, the network 'from scratch' started from the
  weights of the dense model, so it was a ticket, and 'class-uniform' had a threshold for each leaf.
  """
  old = 'settings' in row and 'reach' not in row['settings']['base']
  method = {'from scratch': 'ticket'}.get(row['method'], row['method']) if old else row['method']
  scheme = {'class-uniform': LEAF_UNIFORM}.get(row['scheme'], row['scheme'])
  return method, scheme if old else row['scheme']


def claims(rows: list[dict]) -> list[Verdict]:
  """Judge every claim; each comparison is within a seed."""
  bleu = by_cell(rows)
  get = lambda *key: bleu.get(key, {})
  dense = get('dense', '', 0.0)

  def gain(first, second, margin=0.0):
    """BLEU of `first` minus `second`, seed by seed, plus `margin` of the dense BLEU."""
    return [
      first[s] - second[s] + margin * dense[s] for s in sorted(first) if s in second and s in dense
    ]

  def compare(what, values):
    return Comparison(what, values, form='+.2f')

  blind_lead = {
    other: [
      np.mean([get('one shot', 'class-blind', x)[s] - get('one shot', other, x)[s] for x in MIDDLE])
      for s in sorted(dense)
      if all(s in get('one shot', name, x) for x in MIDDLE for name in ('class-blind', other))
    ]
    for other in ('class-uniform', 'class-distribution')
  }
  forty = get('one shot', 'class-blind', 0.4)
  retrained = get('retrained', 'class-blind', 0.8)
  scratch = get('from scratch', 'class-blind', 0.8)
  ticket = get('ticket', 'class-blind', 0.8)
  dense_longer = get('retrained', '', 0.0)
  loss = {name: statistics.paired(dense, get('class alone', name, 0.9)) for name in CLASSES}
  embeddings = [loss[f'{end} embedding'] for end in ('source', 'target')]
  beyond_embeddings = {
    name: [
      lost - np.mean([by_seed[s] for by_seed in embeddings])
      for s, lost in sorted(loss[name].items())
      if all(s in by_seed for by_seed in embeddings)
    ]
    for name in ('target layer', 'attention', 'softmax')
  }
  show = lambda values: shown(values, '+.2f') if values else 'not measured'
  blind = [compare(f'BLEU against {k}', v) for k, v in blind_lead.items()]
  free = [compare(f'BLEU within {VERY_LITTLE_LOSS:.0%}', gain(forty, dense, VERY_LITTLE_LOSS))]
  matches = [compare(f'BLEU within {MATCHES:.0%}', gain(retrained, dense, MATCHES))]
  higher = [compare(f'BLEU, {k} over embeddings', v) for k, v in beyond_embeddings.items()]
  worse = [compare('BLEU at 0.8', gain(retrained, scratch))]
  rates = get('halved', 'class-blind', 0.8)
  return (
    _halved(get, gain, compare, show)
    if rates
    else [
      Verdict(
        'class-blind',
        'One threshold for all classes is the best of the three schemes (section 3.2)',
        all_hold(blind),
        'BLEU of class-blind minus that of another scheme, mean of sparsities 0.3 to 0.8: '
        + '; '.join(f'{k} {show(v)}' for k, v in blind_lead.items()),
        ('schemes',),
        decided_by(blind),
      ),
      Verdict(
        '40 % for nothing',
        '40 % of the weights go with very little loss and no retraining (abstract); '
        f'here: class-blind, at most {VERY_LITTLE_LOSS:.0%} of the dense BLEU',
        all_hold(free),
        f'BLEU minus dense {show(gain(forty, dense))}',
        ('schemes',),
        decided_by(free),
      ),
      Verdict(
        '80 % with retraining',
        'With retraining a model pruned by 80 % matches or beats the dense one (abstract); '
        f'here within {MATCHES:.0%}',
        all_hold(matches),
        f'BLEU minus dense {show(gain(retrained, dense))}; minus dense trained as many steps '
        f'longer {show(gain(retrained, dense_longer))} '
        f'({len(gain(retrained, dense_longer))} seeds)',
        ('schemes',),
        decided_by(matches),
      ),
      Verdict(
        'classes',
        'Higher layers, attention and softmax matter most, embeddings are the most redundant',
        all_hold(higher),
        'BLEU lost with one class pruned to 0.9, minus the mean loss of the two embeddings: '
        + '; '.join(f'{k} {show(v)}' for k, v in beyond_embeddings.items()),
        ('classes',),
        decided_by(higher),
      ),
      Verdict(
        'from scratch',
        'A sparse model trained from new weights is worse than pruning and retraining',
        all_hold(worse),
        'BLEU of pruned and retrained at 0.8, minus the same sparse network from new weights '
        f'{show(gain(retrained, scratch))}; minus the ticket, which has the first weights of the '
        f'dense model, {show(gain(retrained, ticket))}',
        ('schemes',),
        decided_by(worse),
      ),
    ]
  )


def _halved(get, gain, compare, show):
  """The claims of a ledger that retrains at several rates."""
  dense, dense_longer = get('dense', '', 0.0), get('retrained', '', 0.0)
  halved = get('halved', 'class-blind', 0.8)
  full_rate = get('full rate', 'class-blind', 0.8)
  cut = get('one shot', 'class-blind', 0.8)
  lost, left = statistics.paired(dense, cut), statistics.paired(dense, halved)
  most = [lost[s] / 2 - left[s] for s in sorted(lost) if s in left]
  matches = [compare(f'BLEU within {MATCHES:.0%}', gain(halved, dense, MATCHES))]
  recovers = [compare('BLEU beyond half of what the cut took', most)]
  smaller = [compare('BLEU over the rate of training', gain(halved, full_rate))]
  return [
    Verdict(
      '80 % retrained, halved',
      'Retrained at half of the rate, halved again and again, a model pruned by 80 % matches or '
      f'beats the dense one; here within {MATCHES:.0%}',
      all_hold(matches),
      f'BLEU minus dense {show([-v for v in left.values()])}; minus dense trained as many steps '
      f'longer {show(gain(halved, dense_longer))}',
      ('schemes',),
      decided_by(matches),
    ),
    Verdict(
      'most recovered',
      'Retrained so, the model gains back most of the BLEU that the cut took (not a number of the '
      'paper)',
      all_hold(recovers),
      f'BLEU lost by the cut {show(lost.values())}, after retraining {show(left.values())}',
      ('schemes',),
      decided_by(recovers),
    ),
    Verdict(
      'smaller rate',
      'Retraining needs a smaller rate: half of the rate, halved again and again, beats the rate '
      'of training',
      all_hold(smaller),
      f'BLEU, halved minus the rate of training: {show(gain(halved, full_rate))}; minus a third of '
      f'the rate, falling linearly: {show(gain(halved, get("retrained", "class-blind", 0.8)))}',
      ('schemes',),
      decided_by(smaller),
    ),
  ]

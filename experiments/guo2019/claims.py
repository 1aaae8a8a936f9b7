"""Judge the claims of Guo et al. 2019 on the ledger.

Only the abstract could be read; the other claims are second hand.
"""

from prunejax.report import statistics, verdicts

METHODS = {
  'rpp': 'reweighted proximal pruning',
  'nip': 'gradual magnitude, no penalty (NIP)',
  'l1': 'L1 in the loss',
  'dense': 'dense',
}
SMALL = 0.02  # A drop of accuracy below this counts as none.
NEGLIGIBLE = 0.05  # A rise of the pre-training loss below this, in nats, counts as none.
DENSE = ('dense', 0.0)


def by_method(rows: list[dict], stage: str, metric: str, task: str = '') -> dict:
  """Group a metric: {(method, sparsity): {seed: value}}."""
  out = {}
  for row in rows:
    if row['stage'] == stage and row['task'] == task and metric in row['metrics']:
      out.setdefault((row['arm'], row['sparsity']), {})[row['seed']] = row['metrics'][metric]
  return out


def pretraining_loss(rows: list[dict]) -> dict:
  """Sum the held-out losses of masked words and next sentence.

  Returns:
    {(method, sparsity): {seed: nats}}.
  """
  mlm, nsp = (by_method(rows, 'pretrain', metric) for metric in ('mlm_loss', 'nsp_loss'))
  return {
    key: {seed: value + nsp[key][seed] for seed, value in by_seed.items()}
    for key, by_seed in mlm.items()
  }


def best_strengths(rows: list[dict]) -> list[dict]:
  """Keep one strength of each method and sparsity: the one with the lowest mean loss."""
  losses = {}
  for row in rows:
    if row['stage'] == 'pretrain':
      key, metrics = (row['arm'], row['sparsity']), row['metrics']
      losses.setdefault(key, {}).setdefault(row['strength'], []).append(
        metrics['mlm_loss'] + metrics['nsp_loss']
      )
  mean_loss = lambda strength_and_losses: statistics.mean(strength_and_losses[1])
  best = {key: min(by_strength.items(), key=mean_loss)[0] for key, by_strength in losses.items()}
  return [row for row in rows if row['strength'] == best.get((row['arm'], row['sparsity']))]


def differences(values: dict, first: tuple, second: tuple) -> list[float]:
  """Subtract the second (method, sparsity) from the first, seed by seed."""
  a, b = values.get(first, {}), values.get(second, {})
  return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim; of several strengths of a penalty the best is judged."""
  rows = best_strengths(rows)
  losses = pretraining_loss(rows)
  nsp_accuracy = by_method(rows, 'pretrain', 'nsp_accuracy')
  tasks = sorted({row['task'] for row in rows if row['task']})
  scores = {task: by_method(rows, 'finetune', 'accuracy', task) for task in tasks}
  sparsities = sorted({sparsity for method, sparsity in losses if method != 'dense'})
  high = [sparsity for sparsity in sparsities if sparsity >= 0.8]
  checks = [
    _accuracy_kept(scores, sparsities),
    _negligible_loss(losses),
    _next_sentence(nsp_accuracy),
    _lower_loss(
      losses, 'nip', high, 'At high prune ratios RPP loses less of the pre-training than NIP'
    ),
    _lower_loss(
      losses,
      'l1',
      high,
      'A penalty in the loss hurts, the proximal step does not: RPP against L1 in the loss, '
      'pre-training loss at high prune ratios',
    ),
    _higher_score(scores, high),
  ]
  beside = {method for method, _ in losses}
  return [v for v in checks if v.name != 'loss beside l1' or 'l1' in beside]


def _accuracy_kept(scores, sparsities):
  sparsity = 0.8 if 0.8 in sparsities else max(sparsities, default=0.0)
  drops = {task: differences(values, ('rpp', sparsity), DENSE) for task, values in scores.items()}
  evidence = '; '.join(f'{task} {verdicts.shown(diffs, "+.3f")}' for task, diffs in drops.items())
  kept = [
    verdicts.Comparison(f'of accuracy on {task} at {sparsity:g}', diffs, -SMALL)
    for task, diffs in drops.items()
  ]
  return verdicts.Verdict(
    'accuracy kept',
    f'Fine-tuned, RPP keeps the accuracy at a prune ratio of {sparsity:g} (a drop below {SMALL})',
    verdicts.all_hold(kept),
    f'accuracy minus dense at {sparsity:g}: {evidence}',
    ('scores',),
    verdicts.decided_by(kept),
  )


def _negligible_loss(losses):
  rise = differences(losses, ('rpp', 0.6), DENSE)
  small = [verdicts.Comparison('nats at 0.6', rise, NEGLIGIBLE, above=False)]
  return verdicts.Verdict(
    'negligible at 0.59',
    'RPP removes 59.3 % of the weights with a negligible rise of the pre-training loss (second '
    f'hand); here 0.6, negligible being {NEGLIGIBLE} nats',
    verdicts.all_hold(small),
    f'rise at 0.6: {verdicts.shown(rise)} nats' if rise else 'no runs at 0.6',
    ('loss',),
    verdicts.decided_by(small),
  )


def _next_sentence(nsp_accuracy):
  dense = list(nsp_accuracy.get(DENSE, {}).values())
  pruned = list(nsp_accuracy.get(('rpp', 0.9), {}).values())
  able = verdicts.Comparison('of NSP accuracy, dense', dense, 0.95, form='.3f')
  kept = verdicts.Comparison('of NSP accuracy, RPP at 0.9', pruned, 0.95, form='.3f')
  if verdicts.supports(able) <= 0:
    # Our dense model cannot do what is claimed of a pruned one.
    word, number = verdicts.UNDECIDED, verdicts.decided_by([able])
  else:
    word, number = verdicts.all_hold([kept]), verdicts.decided_by([kept])
  return verdicts.Verdict(
    'next sentence',
    'Pruned by 90 %, NSP accuracy stays above 95 % (second hand); undecided where the dense model '
    'is not above 95 % itself',
    word,
    f'dense {verdicts.shown(dense)}, RPP at 0.9 {verdicts.shown(pruned)}'
    if pruned
    else 'no runs at 0.9',
    (),
    number,
  )


def _lower_loss(losses, other, sparsities, claim):
  """RPP has a lower pre-training loss than another method."""
  rises = {s: differences(losses, (other, s), ('rpp', s)) for s in sparsities}
  evidence = ', '.join(f'at {s:g} {verdicts.shown(diffs, "+.3f")}' for s, diffs in rises.items())
  higher = [verdicts.Comparison(f'nats at {s:g}', diffs) for s, diffs in rises.items()]
  return verdicts.Verdict(
    f'loss beside {other}',
    claim,
    verdicts.all_hold(higher),
    f'{METHODS[other]} minus RPP, nats: {evidence or "-"}',
    ('loss',),
    verdicts.decided_by(higher),
  )


def _higher_score(scores, sparsities):
  """RPP fine-tunes to a higher accuracy than NIP."""
  gains, evidence = [], []
  for task, values in scores.items():
    for s in sparsities:
      gain = differences(values, ('rpp', s), ('nip', s))
      gains.append(verdicts.Comparison(f'of accuracy on {task} at {s:g}', gain))
      evidence.append(f'{task} at {s:g} {verdicts.shown(gain, "+.3f")}')
  return verdicts.Verdict(
    'score beside nip',
    'At high prune ratios RPP fine-tunes to a higher score than NIP',
    verdicts.all_hold(gains),
    'RPP minus NIP, accuracy: ' + '; '.join(evidence),
    ('scores',),
    verdicts.decided_by(gains),
  )

"""Judge the claims of the three papers on the ledger."""

from prunejax.report import verdicts

NAMES = {
  'magnitude': 'magnitude',
  'wanda': 'Wanda',
  'sparsegpt': 'SparseGPT',
  'fisher 1': 'block Fisher, 1 computation',
  'fisher 4': 'block Fisher, 4 computations',
}
HALF = (('unstructured', 0.5), ('2:4', 0.5))
HIGH = (('unstructured', 0.6), ('unstructured', 0.7), ('unstructured', 0.8))


def losses(rows: list[dict], method: str, pattern: str, sparsity: float) -> dict:
  """Pick the held-out losses of a method: {seed: loss}."""
  return {
    row['seed']: row['metrics']['loss']
    for row in rows
    if (row['method'], row['pattern'], row['sparsity']) == (method, pattern, sparsity)
  }


def claims(rows: list[dict]) -> list[verdicts.Verdict]:
  """Judge every claim."""
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


def _lower(rows, name, claim, better, worse, targets):
  """`better` has a lower loss than `worse` at each (pattern, sparsity) of `targets`.

  Where magnitude has one run, it is compared with every seed: a seed is a draw of calibration text
  for one network, and a verdict is about that network. In the preset `nets` a seed is a network.
  """
  higher, evidence = [], []
  for pattern, sparsity in targets:
    low, high = (losses(rows, method, pattern, sparsity) for method in (better, worse))
    if worse == 'magnitude' and len(high) == 1:
      high = dict.fromkeys(low, next(iter(high.values())))
    gaps = [high[seed] - low[seed] for seed in low if seed in high]
    higher.append(verdicts.Comparison(f'nats, {pattern} at {sparsity:g}', gaps))
    if gaps:
      evidence.append(f'{pattern} {sparsity}: {NAMES[worse]} is higher by {verdicts.shown(gaps)}')
  return verdicts.Verdict(
    name,
    claim,
    verdicts.all_hold(higher),
    '; '.join(evidence) or 'no rows',
    ('loss',),
    verdicts.decided_by(higher),
  )

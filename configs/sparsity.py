"""Loss against sparsity: pre-training of the packaged model, pruned by magnitude and at random.

  python -m prunejax sweep --config=configs/sparsity.py --workdir=runs/sparsity

Nine cells of 400 steps, one ledger row each in runs/sparsity/ledger.jsonl. The same command resumes
a sweep that was stopped.
"""

from configs import pretrain

RAMP = 200  # half of the steps: what remains has the other half to recover


def get_config(arg=''):
  if arg:
    raise ValueError(f'configs/sparsity.py:{arg}: expected no argument')
  c = pretrain.get_config('nano')
  c.prune.weights.schedule = f'cubic(0.0, end={RAMP})'
  return c


def sweep():
  yield {}
  for criterion in ('magnitude()', 'random()'):
    for sparsity in (0.3, 0.5, 0.7, 0.9):
      recipe = {'criterion': criterion, 'schedule': f'cubic({sparsity}, end={RAMP})'}
      yield {f'prune.weights.{key}': value for key, value in recipe.items()}

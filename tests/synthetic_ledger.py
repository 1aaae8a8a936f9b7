"""Made-up ledgers with known effects, for the tests of the analysis and of the claims."""

import numpy as np

from prunejax.analysis import ledger

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TASKS = ('pydoc/library', 'pydoc/match', 'pydoc/order')
LOSS = {0.0: 4.0, 0.1: 4.0, 0.2: 4.02, 0.3: 4.05, 0.4: 4.1, 0.5: 4.25, 0.6: 4.4, 0.7: 4.7,
        0.8: 5.1, 0.9: 5.8}
RANDOM = {0.1: 4.2, 0.2: 4.4, 0.3: 4.7, 0.4: 5.0, 0.5: 5.3, 0.6: 5.5, 0.7: 5.8, 0.8: 6.0, 0.9: 6.2}


def row(stage, arm, sparsity, seed, metrics, *, task=None, learning_rate=1e-3, parent=None):
  """One ledger row as a run writes it; a task only in fine-tuned rows."""
  config = {'stage': stage, 'arm': arm, 'sparsity': sparsity, 'seed': seed, 'task': task,
            'learning_rate': learning_rate}
  place = {} if task is None else {'task': task}
  return {'cell': ledger.cell_hash(config), 'experiment': 'gordon2020', 'preset': 'quick',
          'stage': stage, 'arm': arm, 'sparsity': sparsity, **place,
          'learning_rate': learning_rate, 'seed': seed, 'config': config, 'metrics': metrics,
          'mask_hash': 'ab' * 32, 'bytes': 1000, 'seconds': 2.5, 'device': 'cpu x1',
          'versions': {'jax': '0.10.2'}, 'time': '2026-11-20T12:00:00', 'parent': parent}


def paper_like(arm, sparsity):
  """The paper's shape: {'loss', 'score'} of an arm at a sparsity, with a floor at 0.5."""
  loss = RANDOM[sparsity] if arm == 'random' else LOSS[sparsity]
  linear = 0.85 - 0.12 * (loss - 4.0)
  held = linear - 0.3 * max(0.0, sparsity - 0.6)  # a mask that is held costs more than its zeros
  score = {'dense': linear, 'fresh': 0.5, 'deleted': linear, 'random': held, 'pruned': held,
           'after': held - 0.01 - 0.05 * max(0.0, sparsity - 0.5)}[arm]
  fit = {'fit': 1.2 - 0.85} if arm == 'deleted' else {}  # trained until it fits as well as dense
  return {'loss': loss, 'score': max(score, 0.5), **fit}


def make(effect=paper_like, *, seeds=3, sparsities=SPARSITIES, tasks=TASKS, noise=0.002, seed=0,
         arms=('pruned', 'deleted', 'after', 'random')):
  """Ledger rows of a whole grid whose numbers are effect(arm, sparsity) plus Gaussian noise."""
  rng = np.random.default_rng(seed)
  jitter = lambda: noise * float(rng.normal())
  rows = []
  grid = [('dense', 0.0), ('fresh', 0.0), *[(arm, s) for arm in arms for s in sparsities]]
  for number in range(seeds):
    for arm, s in grid:
      truth = effect(arm, s)
      if arm in ('dense', 'pruned', 'random'):
        loss = truth['loss'] + jitter()
        rows.append(row('pretrain', arm, s, number, {'loss': loss, 'mlm_loss': loss - 0.3,
                                                     'nsp_loss': 0.3, 'sparsity': s}))
      for task in tasks:
        score = truth['score'] + jitter()
        rows.append(row('finetune', arm, s, number, {
            'accuracy': score, 'train_loss': truth.get('fit', 1.2 - score) + jitter(), 'dev_loss': 1.3 - score,
            'sparsity': 0.0 if arm == 'deleted' else s}, task=task))
  return rows

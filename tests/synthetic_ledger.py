"""Made-up ledgers with known effects, for the tests of the analysis and of the claims."""

import numpy as np

from prunejax.report import ledger

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TASKS = ('pydoc/library', 'pydoc/match', 'pydoc/order')
LOSS = {
  0.0: 4.0,
  0.1: 4.0,
  0.2: 4.02,
  0.3: 4.05,
  0.4: 4.1,
  0.5: 4.25,
  0.6: 4.4,
  0.7: 4.7,
  0.8: 5.1,
  0.9: 5.8,
}
RANDOM = {0.1: 4.2, 0.2: 4.4, 0.3: 4.7, 0.4: 5.0, 0.5: 5.3, 0.6: 5.5, 0.7: 5.8, 0.8: 6.0, 0.9: 6.2}


def row(stage, arm, sparsity, seed, metrics, *, task=None, learning_rate=1e-3, parent=None):
  """One ledger row as a run writes it; a task only in fine-tuned rows."""
  config = {
    'stage': stage,
    'arm': arm,
    'sparsity': sparsity,
    'seed': seed,
    'task': task,
    'learning_rate': learning_rate,
  }
  place = {} if task is None else {'task': task}
  return {
    'cell': ledger.cell_hash(config),
    'experiment': 'gordon2020',
    'preset': 'quick',
    'stage': stage,
    'arm': arm,
    'sparsity': sparsity,
    **place,
    'learning_rate': learning_rate,
    'seed': seed,
    'config': config,
    'metrics': metrics,
    'mask_hash': 'ab' * 32,
    'bytes': 1000,
    'seconds': 2.5,
    'device': 'cpu x1',
    'versions': {'jax': '0.10.2'},
    'time': '2026-11-20T12:00:00',
    'parent': parent,
  }


def paper_like(arm, sparsity):
  """The paper's shape: {'loss', 'score'} of an arm at a sparsity, with a floor at 0.5."""
  loss = RANDOM[sparsity] if arm == 'random' else LOSS[sparsity]
  linear = 0.85 - 0.12 * (loss - 4.0)
  held = linear - 0.3 * max(0.0, sparsity - 0.6)  # a mask that is held costs more than its zeros
  score = {
    'dense': linear,
    'fresh': 0.5,
    'deleted': linear,
    'random': held,
    'pruned': held,
    'after': held - 0.01 - 0.05 * max(0.0, sparsity - 0.5),
  }[arm]
  fit = {'fit': 1.2 - 0.85} if arm == 'deleted' else {}  # trained until it fits as well as dense
  return {'loss': loss, 'score': max(score, 0.5), **fit}


def probe(name, seed, metrics, *, arm='dense', task='', learning_rate=None, **labels):
  """One row of a measurement on models, with the lists that the claims and figures read."""
  made = row('probe', arm, 0.0, seed, metrics, task=task, learning_rate=learning_rate)
  made['cell'] = ledger.cell_hash({'probe': name, 'cell': made['cell'], **labels})
  return {**made, 'probe': name, **labels}


def probes(
  *,
  seeds=3,
  tasks=TASKS,
  sparsities=SPARSITIES,
  noise=0.0005,
  seed=0,
  different=0.04,
  moved=0.03,
  larger=-0.01,
  spread=0.03,
  drift=0.5,
):
  """Probe rows with planted numbers: mask differences, movement, heads, features."""
  rng = np.random.default_rng(seed)
  some = lambda value: float(value + noise * rng.normal())
  rows, levels = [], list(sparsities)
  for number in range(seeds):
    of_arm = {'arm': 'pruned'}
    rows.append(
      probe(
        'heads',
        number,
        {
          'sparsity': levels,
          'deviation': [some(spread) for _ in levels],
          'sd': [0.001] * len(levels),
          'expected': levels,
          'mean': levels,
          'lowest': [s - 0.1 for s in levels],
          'highest': [s + 0.05 for s in levels],
          'at': levels[0],
          'heads': [[0.1, 0.2]],
        },
        **of_arm,
      )
    )
    rows.append(
      probe(
        'features',
        number,
        {
          'sparsity': levels,
          'deviation': [[0.1, 0.1] for _ in levels],
          'tokens': 100,
          'cosine': [[some(1 - drift * (LOSS[s] - 4) / 2)] * 2 for s in levels],
        },
        **of_arm,
      )
    )
    for task in tasks:
      shared = {'task': task, 'learning_rate': 1e-3}
      rows.append(
        probe(
          'difference',
          number,
          {
            'sparsity': levels,
            'pruned': [some(different * s) for s in levels],
            'kinds': {},
            'start': [some(different * s / 2) for s in levels],
            'chance': [2 * s * (1 - s) for s in levels],
          },
          **shared,
        )
      )
      rows.append(
        probe(
          'movement',
          number,
          {
            'mean': some(moved),
            'std': 0.03,
            'weights': 1000,
            'kinds': {},
            'kinds_std': {},
            'by_magnitude': [moved] * 75 + [some(moved + larger) for _ in range(25)],
          },
          **shared,
        )
      )
  return rows


def make(
  effect=paper_like,
  *,
  seeds=3,
  sparsities=SPARSITIES,
  tasks=TASKS,
  noise=0.002,
  seed=0,
  arms=('pruned', 'deleted', 'after', 'random'),
):
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
        rows.append(
          row(
            'pretrain',
            arm,
            s,
            number,
            {'loss': loss, 'mlm_loss': loss - 0.3, 'nsp_loss': 0.3, 'sparsity': s},
          )
        )
      for task in tasks:
        score = truth['score'] + jitter()
        rows.append(
          row(
            'finetune',
            arm,
            s,
            number,
            {
              'accuracy': score,
              'train_loss': truth.get('fit', 1.2 - score) + jitter(),
              'dev_loss': 1.3 - score,
              'sparsity': 0.0 if arm == 'deleted' else s,
            },
            task=task,
          )
        )
  return rows

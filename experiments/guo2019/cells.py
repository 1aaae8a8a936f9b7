"""The grid of Guo et al. 2019 at the size of the packaged model: who prunes how, and the presets."""

from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from configs import finetune, pretrain
from prunejax.sweep import grid
from prunejax.train import configs

METHODS = {
  'rpp': 'reweighted proximal pruning',
  'nip': 'gradual magnitude, no penalty (NIP)',
  'l1': 'L1 in the loss',
  'dense': 'dense',
}
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
ONCE = 'every(1, begin={0}, until={0})'


class Preset(NamedTuple):
  """One size of the grid.

  pretrain, tune: configs of a pre-training and of a fine-tuning run. ramp: the step at which every method is at its
  sparsity; the steps after it are recovery under fixed masks. tasks: {task: fine-tuning steps}.
  strengths: {method: {sparsity: strength of its penalty, or several, of which the best is shown}}. every, eps: of the
  reweighting. cost: in words.
  """

  pretrain: config_dict.ConfigDict
  tune: config_dict.ConfigDict
  ramp: int
  tasks: dict
  seeds: tuple
  sparsities: tuple
  strengths: dict
  cost: str
  every: int = 20
  eps: float = 0.01


def plan(preset, overrides):
  """The cells of a preset, each one's parent before it. overrides: {dotted key: value} for every run."""
  first, second = (
    configs.override(c.copy_and_resolve_references(), overrides)
    for c in (preset.pretrain, preset.tune)
  )
  cells = []
  for seed in preset.seeds:
    for method, s, strength, recipe in recipes(preset):
      config = configs.override(first.copy_and_resolve_references(), {**recipe, 'seed': seed})
      labels = {'arm': method, 'sparsity': s, 'strength': strength, 'seed': seed}
      cells.append(grid.Cell({'stage': 'pretrain', 'task': '', **labels}, config))
      parent = grid.key(cells[-1])
      for task, steps in preset.tasks.items():
        held = {
          'data.task': task,
          'steps': steps,
          'seed': seed,
          'hold_zeros': True,
          'init': f'cell:{parent}',
        }
        config = configs.override(second.copy_and_resolve_references(), held)
        cells.append(grid.Cell({'stage': 'finetune', 'task': task, **labels}, config, parent))
  return cells


def recipes(p):
  """(method, sparsity, strength, changes of the config) of each pre-training run of one seed."""
  gradual = lambda s: {
    'prune.weights.schedule': f'cubic({s}, end={p.ramp})',
    'prune.weights.when': f'every(10, until={p.ramp})',
  }
  # A penalised run ends at the asked sparsity exactly: once, the smallest weights, zeros first.
  at_end = lambda s: {
    'prune.weights.schedule': f'one_shot({s}, at={p.ramp})',
    'prune.weights.when': ONCE.format(p.ramp),
  }
  penalty = {
    'rpp': lambda x: f'reweighted({x}, every={p.every}, eps={p.eps}, end={p.ramp})',
    'l1': lambda x: f'l1_penalty({x}, end={p.ramp})',
  }
  yield 'dense', 0.0, 0.0, gradual(0.0)
  for s in p.sparsities:
    yield 'nip', s, 0.0, gradual(s)
    for method, of in penalty.items():
      for strength in np.ravel(p.strengths[method].get(s, ())).tolist():
        yield method, s, strength, {**at_end(s), 'prox.penalty': of(strength)}


def _configs(steps, examples=1000, every=20):
  first, second = pretrain.get_config('nano'), finetune.get_config('nano')
  for config in (first, second):
    config.log.update(every=every, tensorboard=False, who_pays=False)
    config.checkpoint.every = 0
  first.update(steps=steps, batch_size=16)
  first.eval.batches = 8
  second.update(batch_size=16, keep_model=False)
  second.data.examples = examples
  return first, second


# By strength.calibrated for the packaged model and the steps of a preset, see tests/test_guo2019.py.
STRENGTHS = {0.5: 0.27, 0.6: 0.4, 0.7: 0.59, 0.8: 0.9, 0.9: 1.5}
LONG = {0.5: 0.043, 0.8: 0.14, 0.9: 0.23}
LASSO = 3e-4  # a fifth of the root mean square of a clipped gradient of 0.5 M weights, 1.4e-3


def quick():
  """The packaged model, the embedded corpus, two tasks made of it, three seeds."""
  tasks = {'pydoc/order': 60, 'pydoc/words': 60}
  strengths = {'rpp': STRENGTHS, 'l1': dict.fromkeys(SPARSITIES, LASSO)}
  cost = 'six minutes of one CPU core'
  return Preset(*_configs(80), 50, tasks, (0, 1, 2), SPARSITIES, strengths, cost, every=10)


def long():
  """Five times the steps, a task that fine-tuning has time to learn, and three strengths a penalty.

  At 0.8 and 0.9, where the largest of the three had been the best, a fourth three times as large was added.
  """
  times = lambda x, s: tuple(round(x * k, 5) for k in (1 / 9, 1 / 3, 1, 3)[: 4 if s > 0.5 else 3])
  strengths = {
    'rpp': {s: times(x, s) for s, x in LONG.items()},
    'l1': {s: (LASSO / 3, LASSO, 3 * LASSO, 9 * LASSO)[: 4 if s > 0.5 else 3] for s in LONG},
  }
  cost = 'some fifty minutes of a CPU core'
  first, second = _configs(400, examples=2000, every=100)
  tasks = {'pydoc/order': 300}
  return Preset(first, second, 250, tasks, (0, 1, 2), tuple(LONG), strengths, cost, every=25)


def smoke():
  """The way of one sparsity in seconds, without L1. It says nothing of the paper."""
  first, second = _configs(6)
  for config in (first, second):
    config.eval.update(batches=1, batch_size=32)
  second.data.examples = 64
  strengths = {'rpp': {0.5: 3.0}, 'l1': {}}  # a program less to compile
  return Preset(
    first, second, 4, {'pydoc/order': 3}, (0,), (0.5,), strengths, 'half a minute', every=2
  )


PRESETS = {'smoke': smoke(), 'quick': quick(), 'long': long()}

"""Reproduce Reweighted Proximal Pruning for Large-Scale Language Representation.

Guo, Liu, Mungall, Lin & Wang 2019, at the size of the packaged model.

  python -m prunejax reproduce guo2019 --preset=quick
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from configs import finetune, pretrain
from experiments.guo2019 import claims, report, zeros
from prunejax.sweep import grid, study
from prunejax.train import configs

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)


class Preset(NamedTuple):
  """One size of the grid.

  Attributes:
    pretrain, tune: configs of a pre-training and of a fine-tuning run.
    ramp: step at which every method is at its sparsity; masks are fixed afterwards.
    tasks: {task: fine-tuning steps}.
    seeds: one run of every method each.
    sparsities: fractions that are removed.
    strengths: {method: {sparsity: strength of its penalty, or several; the best is shown}}.
    cost: what the preset takes, in words.
    every: steps between reweightings.
    eps: of the reweighting, alpha = 1 / (|w| + eps).
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


def plan(preset: Preset, overrides: dict) -> list[grid.Cell]:
  """List the cells, a parent before its children.

  Args:
    preset: a value of `PRESETS`.
    overrides: {dotted key: value} for every run.

  Raises:
    ValueError: for an unknown key.
  """
  first, second = (
    configs.override(config.copy_and_resolve_references(), overrides)
    for config in (preset.pretrain, preset.tune)
  )
  cells = []
  for seed in preset.seeds:
    for method, sparsity, strength, recipe in recipes(preset):
      config = configs.override(first.copy_and_resolve_references(), {**recipe, 'seed': seed})
      labels = {'arm': method, 'sparsity': sparsity, 'strength': strength, 'seed': seed}
      cells.append(grid.Cell({'stage': 'pretrain', 'task': '', **labels}, config))
      parent = grid.key(cells[-1])
      for task, steps in preset.tasks.items():
        changes = {
          'data.task': task,
          'steps': steps,
          'seed': seed,
          'hold_zeros': True,
          'init': f'cell:{parent}',
        }
        config = configs.override(second.copy_and_resolve_references(), changes)
        cells.append(grid.Cell({'stage': 'finetune', 'task': task, **labels}, config, parent))
  return cells


def recipes(preset: Preset) -> Iterator[tuple]:
  """Yield (method, sparsity, strength, config changes) of each pre-training run of a seed."""
  gradual = lambda sparsity: {
    'prune.weights.schedule': f'cubic({sparsity}, end={preset.ramp})',
    'prune.weights.when': f'every(10, until={preset.ramp})',
  }
  # A penalised run is cut once to its exact sparsity: zeros go first, then the smallest weights.
  one_cut = lambda sparsity: {
    'prune.weights.schedule': f'one_shot({sparsity}, at={preset.ramp})',
    'prune.weights.when': f'every(1, begin={preset.ramp}, until={preset.ramp})',
  }
  penalties = {
    'rpp': lambda strength: (
      f'reweighted({strength}, every={preset.every}, eps={preset.eps}, end={preset.ramp})'
    ),
    'l1': lambda strength: f'l1_penalty({strength}, end={preset.ramp})',
  }
  yield 'dense', 0.0, 0.0, gradual(0.0)
  for sparsity in preset.sparsities:
    yield 'nip', sparsity, 0.0, gradual(sparsity)
    for method, penalty in penalties.items():
      for strength in np.ravel(preset.strengths[method].get(sparsity, ())).tolist():
        changes = {**one_cut(sparsity), 'prox.penalty': penalty(strength)}
        yield method, sparsity, strength, changes


def _configs(steps, examples=1000, every=20):
  """(pre-training config, fine-tuning config) of the packaged model."""
  first, second = pretrain.get_config('nano'), finetune.get_config('nano')
  for config in (first, second):
    config.log.update(every=every, tensorboard=False, who_pays=False)
    config.checkpoint.every = 0
  first.update(steps=steps, batch_size=16)
  first.eval.batches = 8
  second.update(batch_size=16, keep_model=False)
  second.data.examples = examples
  return first, second


# Of `penalty_strength.calibrate` for the packaged model and a preset's steps; a test checks them.
STRENGTHS = {0.5: 0.27, 0.6: 0.4, 0.7: 0.59, 0.8: 0.9, 0.9: 1.5}
STRENGTHS_LONG = {0.5: 0.043, 0.8: 0.14, 0.9: 0.23}
STRENGTHS_LONGER = {0.8: 0.0053}
# A fifth of the root mean square of a clipped gradient of 0.5 M weights, 1.4e-3.
L1_STRENGTH = 3e-4


def quick() -> Preset:
  """Build the preset of the packaged model, two tasks of the embedded corpus, three seeds."""
  tasks = {'pydoc/order': 60, 'pydoc/words': 60}
  strengths = {'rpp': STRENGTHS, 'l1': dict.fromkeys(SPARSITIES, L1_STRENGTH)}
  cost = 'six minutes of one CPU core'
  return Preset(*_configs(80), 50, tasks, (0, 1, 2), SPARSITIES, strengths, cost, every=10)


def long() -> Preset:
  """Build a preset of five times the steps, with a longer fine-tuning and several strengths.

  Each penalty has three strengths. At 0.8 and 0.9 the largest of the three was the best, so a
  fourth, three times as large, was added there.
  """
  count = lambda sparsity: 4 if sparsity > 0.5 else 3
  factors = (1 / 9, 1 / 3, 1, 3)
  strengths = {
    'rpp': {
      sparsity: tuple(round(strength * k, 5) for k in factors[: count(sparsity)])
      for sparsity, strength in STRENGTHS_LONG.items()
    },
    'l1': {
      sparsity: (L1_STRENGTH / 3, L1_STRENGTH, 3 * L1_STRENGTH, 9 * L1_STRENGTH)[: count(sparsity)]
      for sparsity in STRENGTHS_LONG
    },
  }
  cost = 'some fifty minutes of a CPU core'
  first, second = _configs(400, examples=2000, every=100)
  tasks, sparsities = {'pydoc/order': 300}, tuple(STRENGTHS_LONG)
  return Preset(first, second, 250, tasks, (0, 1, 2), sparsities, strengths, cost, every=25)


def longer() -> Preset:
  """Build a preset in which weights can move as far as they are large.

  The learning rates until the cut sum to 0.017 in `quick` and 0.086 in `long`, and a weight is 0.08
  on average. Here they sum to 2.1. Against so many gradients the rule's strength is too small, so
  four of the five strengths are larger. There is one sparsity, and no L1 in the loss.
  """
  factors = (1 / 3, 1, 3, 9, 27)
  strengths = {
    'rpp': {s: tuple(round(v * k, 5) for k in factors) for s, v in STRENGTHS_LONGER.items()},
    'l1': {},
  }
  first, second = _configs(2500, examples=2000, every=50)
  first.optimizer.learning_rate = 2e-3
  tasks, cost = {'pydoc/order': 300}, 'some ninety minutes of a CPU core'
  return Preset(first, second, 1550, tasks, (0, 1, 2), (0.8,), strengths, cost, every=100)


def smoke() -> Preset:
  """Build a preset of one sparsity that runs in seconds. It says nothing about the paper."""
  first, second = _configs(6)
  for config in (first, second):
    config.eval.update(batches=1, batch_size=32)
  second.data.examples = 64
  strengths = {'rpp': {0.5: 3.0}, 'l1': {}}  # Without L1 there is one program less to compile.
  tasks = {'pydoc/order': 3}
  return Preset(first, second, 4, tasks, (0,), (0.5,), strengths, 'half a minute', every=2)


PRESETS = {'smoke': smoke(), 'quick': quick(), 'long': long(), 'longer': longer()}
STUDY = study.Study(
  name='guo2019',
  title='Reweighted proximal pruning',
  source='Guo, Liu, Mungall, Lin & Wang 2019, arXiv 1909.12486',
  presets=PRESETS,
  plan=plan,
  measure=None,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
  after=zeros.add_rows,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)

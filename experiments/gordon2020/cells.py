"""How a cell of the grid is made: a run of pre-training or of fine-tuning, from a cell."""

from prunejax.sweep import grid
from prunejax.train import configs

ONCE = {'prune.weights.when': 'every(1, until=0)'}
QUIET = {'log.who_pays': False}  # for runs in which no criterion prunes
HELD = {'hold_zeros': True, 'prune.weights.schedule': ''}


class Cells:
  """The cells of a plan by hash; a cell that two families share is there once."""

  def __init__(self, preset):
    self.preset, self.found, self._read = preset, {}, {}

  def add(self, config, **labels) -> str:
    """Adds a run, which starts from the cell that its `init` names; returns its hash."""
    start = (
      config.init.removeprefix('cell:').partition('/')[0]
      if config.init.startswith('cell:')
      else None
    )
    cell = grid.Cell(labels, config, start)
    key = grid.key(cell, self._read)
    # One cell may serve two families: dense fine-tuning for as many epochs is the dense arm itself.
    there = self.found.setdefault(key, cell)
    there.labels.update({k: v for k, v in labels.items() if k not in there.labels})
    # The hash leaves these keys out; a model that one family needs is kept.
    for kept in ('keep_model', 'keep_latent'):
      there.config[kept] = there.config[kept] or config[kept]
    return key

  def pretrain(self, arm, s, seed, start='', **recipe) -> str:
    """Adds a run of continued pre-training; returns its hash.

    start: the hash of a cell, '' for where the preset starts.
    """
    config = changed(self.preset.pretrain, seed=seed, **recipe)
    config.init = f'cell:{start}' if start else config.init
    rate = config.optimizer.learning_rate
    return self.add(
      config, stage='pretrain', arm=arm, sparsity=s, task='', seed=seed, learning_rate=rate
    )

  def tune(self, arm, s, seed, task, rate, start, times=1.0, labels=(), **recipe) -> str:
    """Adds a run of fine-tuning; returns its hash.

    start: 'hash' or 'hash/latent' of a cell, None for where the preset starts.
    times: its steps as a multiple of those of the task.
    """
    p = self.preset
    name, _, examples = task.partition('@')
    recipe = {'prune.weights.schedule': 'one_shot(0.0)', 'keep_model': False, **ONCE, **recipe}
    recipe |= {'data.examples': int(examples)} if examples else {}
    steps = recipe.pop('steps', max(round(p.tasks[task] * times), 1))
    config = changed(
      p.tune,
      seed=seed,
      steps=steps,
      **{'data.task': name, 'optimizer.learning_rate': rate},
      **recipe,
    )
    config.init = f'cell:{start}' if start else config.init
    return self.add(
      config,
      stage='finetune',
      arm=arm,
      sparsity=s,
      task=task,
      learning_rate=rate,
      seed=seed,
      **dict(labels),
    )


def gradual(p, s: float) -> dict:
  """The paper's schedule: cubic to s over the ramp, masks moving every 10 steps to the end."""
  return {'prune.weights.schedule': f'cubic({s}, end={p.ramp})', 'prune.weights.when': 'every(10)'}


def drawn(s: float, seed: int) -> dict:
  """A random mask of exactly s in each matrix, drawn once and kept."""
  by_chance = {
    'prune.weights.schedule': f'one_shot({s})',
    'prune.weights.criterion': f'random(seed={seed})',
  }
  return {**by_chance, **ONCE, **QUIET}


def changed(config, **changes):
  return configs.override(config.copy_and_resolve_references(), changes)

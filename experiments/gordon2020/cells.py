"""How a cell of the grid is made: one run of pre-training or of fine-tuning, and what it starts from."""

from prunejax.sweep import grid
from prunejax.train import configs

ONCE = {'prune.weights.when': 'every(1, until=0)'}
QUIET = {'log.who_pays': False}  # nothing pruned, or nothing but chance decides
HELD = {'hold_zeros': True, 'prune.weights.schedule': ''}


class Cells:
  """The cells of a plan by hash; what two families share is there once."""

  def __init__(self, preset):
    self.preset, self.found = preset, {}

  def add(self, config, **labels) -> str:
    """A run whose config says all, also which cell it starts from, or reads size and vocabulary from; its hash."""
    start = (
      config.init.removeprefix('cell:').partition('/')[0]
      if config.init.startswith('cell:')
      else None
    )
    cell = grid.Cell(labels, config, start)
    key = grid.key(cell)
    # One cell may serve two families: as many epochs of dense fine-tuning are the dense arm itself.
    there = self.found.setdefault(key, cell)
    there.labels.update({k: v for k, v in labels.items() if k not in there.labels})
    for kept in (
      'keep_model',
      'keep_latent',
    ):  # which the key does not tell: what one family needs is kept
      there.config[kept] = there.config[kept] or config[kept]
    return key

  def pretrain(self, arm, s, seed, start='', **recipe) -> str:
    """A run of continued pre-training from the cell `start` ('': from where the preset starts); its hash."""
    config = changed(self.preset.pretrain, seed=seed, **recipe)
    config.init = f'cell:{start}' if start else config.init
    rate = config.optimizer.learning_rate
    return self.add(
      config, stage='pretrain', arm=arm, sparsity=s, task='', seed=seed, learning_rate=rate
    )

  def tune(self, arm, s, seed, task, rate, start, times=1.0, labels=(), **recipe) -> str:
    """A run of fine-tuning from the cell `start` (None: from where the preset starts, 'hash/latent'); its hash."""
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


def gradual(p, s):
  """The paper's schedule: cubic to s over the ramp, masks moving every 10 steps, for ever."""
  return {'prune.weights.schedule': f'cubic({s}, end={p.ramp})', 'prune.weights.when': 'every(10)'}


def drawn(s, seed):
  """A random mask of exactly s in each matrix, drawn once and kept."""
  by_chance = {
    'prune.weights.schedule': f'one_shot({s})',
    'prune.weights.criterion': f'random(seed={seed})',
  }
  return {**by_chance, **ONCE, **QUIET}


def changed(config, **changes):
  return configs.override(config.copy_and_resolve_references(), changes)

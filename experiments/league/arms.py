"""List the methods that compete: the rows of configs/methods.py, and products of the core.

A new row of configs/methods.py competes without any change here.
"""

import importlib

BASELINE = 'magnitude'
# The baseline's model, fine-tuned with the dense model as its teacher.
TAUGHT = 'distilled'
# Methods that set their own sparsity, by a penalty and a cut-off; they are run once.
OWN_SPARSITY = ('han', 'soft_movement')
ONLY = {'two_of_four': (0.5,)}  # {method: the only sparsities that it can reach}
FAMILIES = {
  'gradual': (
    'magnitude',
    'global_magnitude',
    'gradual_erk',
    'gradual_class_distribution',
    'staircase',
    'iterative',
  ),
  'chance': ('random', 'static'),
  'one cut': (
    'one_shot',
    'one_shot_per_output',
    'class_blind',
    'class_uniform',
    'class_distribution',
  ),
  'curvature': ('obd', 'block_fisher', 'wanda', 'sparsegpt'),
  'gradient': ('taylor', 'snip', 'movement', 'global_movement', 'soft_movement', 'platon'),
  'dynamic': ('set', 'rigl', 'acdc'),
  'rounds': ('lottery', 'han', 'l1', 'l2'),
  'structured': ('two_of_four', 'blocks', 'heads_and_neurons'),
  'penalty': ('rpp',),
  'not pruning': ('low_rank',),
  'with a teacher': ('distilled',),
}
BY_CLASS = ('class_uniform', 'class_distribution')
CLASSES = (r'.*attention/.*', r'.*ffn/.*')
ATTENTION = r'encoder/layer_\d+/attention/.*/kernel'
FFN = r'encoder/layer_\d+/ffn/.*/kernel'


# Gradual magnitude under the allocation of each method: a duel is within one allocation. Methods
# that are not named here have the baseline's, equal shares.
RIVALS = {
  'global_magnitude': (
    *('taylor', 'class_blind', 'snip', 'acdc', 'global_movement', 'platon', 'lottery'),
    *('l1', 'l2', 'iterative', 'heads_and_neurons'),
  ),
  'gradual_erk': ('set', 'rigl', 'static'),
  'gradual_class_distribution': ('class_distribution',),
}


# No arm is gradual magnitude with the allocation of these.
WITHOUT_RIVAL = ('class_uniform', 'wanda', 'one_shot_per_output', *OWN_SPARSITY)


def rival(name: str) -> str | None:
  """Name the gradual magnitude that has the allocation of a method; None where no arm is that."""
  if name in WITHOUT_RIVAL:
    return None
  return next((rival for rival, names in RIVALS.items() if name in names), BASELINE)


def products(sparsity: float, steps: int, stop: int | None = None) -> dict:
  """List the products of the core that configs/methods.py does not name.

  Args:
    sparsity: fraction of the kernels that is removed.
    steps: of a run.
    stop: see `configs.methods.methods`; where it is given there is a cut by magnitude that each
      output makes for itself, the duel of Wanda.

  Returns:
    {method: {dotted config key: value}}.
  """
  end, interval = steps // 2, max(steps // 40, 1)
  gradual = {
    'criterion': 'magnitude()',
    'schedule': f'cubic({sparsity}, end={end})',
    'when': f'every({interval}, until={end})',
  }
  cut = lambda step: {
    'criterion': 'magnitude()',
    'schedule': f'one_shot({sparsity}, at={step})',
    'when': f'every(1, begin={step}, until={step})',
  }
  rows = {
    'magnitude': gradual,
    'global_magnitude': {**gradual, 'allocation': 'global_threshold()'},
    'gradual_erk': {**gradual, 'allocation': 'erk()'},
    'gradual_class_distribution': {**gradual, 'allocation': 'class_distribution()'},
    'random': {**gradual, 'criterion': 'random()'},
    'taylor': {**gradual, 'criterion': 'taylor()', 'allocation': 'global_threshold()'},
    'one_shot': cut(0),
    'class_blind': {**cut(end), 'allocation': 'global_threshold()'},
    'class_uniform': cut(end),
    'class_distribution': {**cut(end), 'allocation': 'class_distribution()'},
    'two_of_four': {**gradual, 'structure': 'n_m(2, 4)'},
    'blocks': {**gradual, 'structure': 'block(4, 4)'},
  }
  if stop:
    rows['one_shot_per_output'] = {**cut(0), 'allocation': 'per_output()'}
  named = {
    name: {f'prune.weights.{key}': value for key, value in row.items()}
    for name, row in rows.items()
  }
  # Two groups of weights, with units that span leaves. The packaged model's heads are 32 wide.
  groups = {'heads': (ATTENTION, 'heads(32)'), 'neurons': (FFN, 'ffn()')}
  named['heads_and_neurons'] = {'prune.weights.schedule': ''} | {
    f'prune.{group}.{key}': value
    for group, (where, structure) in groups.items()
    for key, value in {
      **gradual,
      'allocation': 'global_threshold()',
      'where': where,
      'structure': structure,
    }.items()
  }
  return named


def table(sparsity: float, steps: int, rate: float, stop: int | None = None) -> dict:
  """List the config changes of every method's pre-training.

  Args:
    sparsity: fraction of the kernels that is removed.
    steps: of a run.
    rate: peak learning rate.
    stop: last step at which any method moves its masks; None for each method's own.

  Returns:
    {method: {dotted config key: value}}.
  """
  try:
    named = importlib.import_module('configs.methods').methods(sparsity, steps, rate, stop)
  except ModuleNotFoundError as error:
    if error.name != 'configs.methods':
      raise
    named = {}
  rows = {
    name: dict(row)
    for name, row in {**products(sparsity, steps, stop), **named}.items()
    if name != 'dense'
  }
  for name, row in rows.items():
    row.pop('prune.weights.where', None)  # All methods prune the same leaves here.
    if name in BY_CLASS:
      # The classes of configs/methods.py without the embeddings, which are not pruned here.
      row['prune.weights.allocation'] = f'{name}({CLASSES})'
  return rows


def tuning(name: str, sparsity: float) -> dict:
  """List the config changes of a method's fine-tuning; most methods only hold their zeros."""
  if name != 'low_rank':
    return {}
  return {
    'hold_zeros': False,
    'low_rank.schedule': f'constant({sparsity})',
    'low_rank.when': 'every(1, until=0)',
  }


def reaches(name: str, sparsity: float, lowest: float) -> bool:
  """Say whether a method is run at a sparsity; `lowest` is the lowest of the league."""
  return sparsity == lowest if name in OWN_SPARSITY else sparsity in ONLY.get(name, (sparsity,))


def family(name: str) -> str:
  """Name the family of a method."""
  return next((kind for kind, names in FAMILIES.items() if name in names), 'other')


def with_seed(recipe: dict, seed: int) -> dict:
  """Give a criterion that draws at random the seed of the cell."""
  key = 'prune.weights.criterion'
  return {**recipe, key: f'random(seed={seed})'} if recipe.get(key) == 'random()' else recipe

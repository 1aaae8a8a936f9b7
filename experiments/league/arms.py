"""The methods that compete: every row of configs/methods.py, and products of the core that table has no name for.

A new row there is in the league by itself.
"""

import importlib

BASELINE = 'magnitude'
TAUGHT = 'distilled'  # the model of the baseline, fine-tuned with the dense model as its teacher
# What sets its own sparsity, by a penalty and a cut-off: once, whatever sparsity the others have.
OWN_SPARSITY = ('han', 'soft_movement')
ONLY = {'two_of_four': (0.5,)}  # what a method can reach, where that is not everything
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
  'one cut': ('one_shot', 'class_blind', 'class_uniform', 'class_distribution'),
  'curvature': ('obd', 'block_fisher', 'wanda', 'sparsegpt'),
  'gradient': ('taylor', 'snip', 'movement', 'global_movement', 'soft_movement', 'platon'),
  'dynamic': ('set', 'rigl', 'acdc'),
  'rounds': ('lottery', 'han', 'l1', 'l2'),
  'structured': ('two_of_four', 'blocks', 'heads_and_neurons'),
  'penalty': ('rpp',),
  'not pruning': ('low_rank',),
  'with a teacher': ('distilled',),
}
CLASSED, CLASSES = ('class_uniform', 'class_distribution'), (r'.*attention/.*', r'.*ffn/.*')
ATTENTION, FFN = r'encoder/layer_\d+/attention/.*/kernel', r'encoder/layer_\d+/ffn/.*/kernel'


def own(sparsity, steps):
  """{name: {dotted config key: value}}: products that configs/methods.py does not name."""
  end, often = steps // 2, max(steps // 40, 1)
  gradual = {
    'criterion': 'magnitude()',
    'schedule': f'cubic({sparsity}, end={end})',
    'when': f'every({often}, until={end})',
  }
  cut = lambda at: {
    'criterion': 'magnitude()',
    'schedule': f'one_shot({sparsity}, at={at})',
    'when': f'every(1, begin={at}, until={at})',
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
  named = {
    name: {f'prune.weights.{key}': value for key, value in row.items()}
    for name, row in rows.items()
  }
  # Two groups of weights, each with units that span leaves; the packaged model's heads are 32 wide.
  whole = {'heads': (ATTENTION, 'heads(32)'), 'neurons': (FFN, 'ffn()')}
  named['heads_and_neurons'] = {'prune.weights.schedule': ''} | {
    f'prune.{group}.{key}': value
    for group, (where, structure) in whole.items()
    for key, value in {
      **gradual,
      'allocation': 'global_threshold()',
      'where': where,
      'structure': structure,
    }.items()
  }
  return named


def table(sparsity, steps, rate):
  """{name: {dotted config key: value}} of pre-training at a sparsity, for runs of `steps` steps at that peak rate."""
  try:
    named = importlib.import_module('configs.methods').methods(sparsity, steps, rate)
  except ModuleNotFoundError as error:
    if error.name != 'configs.methods':
      raise
    named = {}
  rows = {
    name: dict(row) for name, row in {**own(sparsity, steps), **named}.items() if name != 'dense'
  }
  for name, row in rows.items():
    row.pop('prune.weights.where', None)  # all prune the same leaves here
    if (
      name in CLASSED
    ):  # the classes of configs/methods.py, less the embeddings, which are not pruned here
      row['prune.weights.allocation'] = f'{name}({CLASSES})'
  return rows


def tuned(name, sparsity):
  """What a method changes of the fine-tuning run: all others only hold their zeros."""
  if name != 'low_rank':
    return {}
  return {
    'hold_zeros': False,
    'low_rank.schedule': f'constant({sparsity})',
    'low_rank.when': 'every(1, until=0)',
  }


def reaches(name, sparsity, first):
  """Whether a method is asked for a sparsity; `first` is the lowest of the league."""
  return sparsity == first if name in OWN_SPARSITY else sparsity in ONLY.get(name, (sparsity,))


def family(name):
  """The kind of a method, for tables."""
  return next((kind for kind, names in FAMILIES.items() if name in names), 'other')


def seeded(row, seed):
  """The row with the draws of the cell's seed where it draws."""
  key = 'prune.weights.criterion'
  return {**row, key: f'random(seed={seed})'} if row.get(key) == 'random()' else row

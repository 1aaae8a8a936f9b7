"""Compare every method on the same model, data, steps and sparsities, in one table.

  python -m prunejax reproduce league --preset=quick [--sparsities=0.0,0.9] [--seeds=0,1]

When it was stopped, or a method is new, the same command runs what the ledger lacks.
"""

from typing import NamedTuple

from ml_collections import config_dict

from configs import base, finetune, pretrain
from experiments.league import arms, claims, prices, report
from prunejax.sweep import grid, study
from prunejax.train import configs

# Every method prunes these leaves only: six matrices a layer, 393,216 weights in all.
KERNELS = r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
TASKS = ('pydoc/order', 'pydoc/words')


class Preset(NamedTuple):
  """One size of the league.

  Attributes:
    pretrain, tune: configs of a pre-training and of a fine-tuning run.
    sparsities: fractions that are removed, the lowest first.
    seeds: one run of every method each.
    tasks: that are fine-tuned.
    methods: names from `arms.table`; () for all.
    cost: what the preset takes, in words.
    even: whether all methods stop moving masks halfway.
  """

  pretrain: config_dict.ConfigDict
  tune: config_dict.ConfigDict
  sparsities: tuple
  seeds: tuple
  tasks: tuple
  methods: tuple
  cost: str
  even: bool = False


def preset(*, steps: int, tune: int, batch: int, examples: int, **fields) -> Preset:
  """Build a preset of the packaged model on the embedded corpus.

  Args:
    steps, tune: steps of pre-training and of fine-tuning.
    batch: sequences in a batch of pre-training; fine-tuning has half.
    examples: of a task.
    **fields: the other fields of `Preset`.
  """
  first, second = pretrain.get_config('nano'), finetune.get_config('nano')
  for config, count in ((first, steps), (second, tune)):
    config.log.update(every=0, tensorboard=False, who_pays=False)
    config.checkpoint.every = 0
    config.steps = count
    config.prune.weights.where = config.prox.where = config.low_rank.where = KERNELS
  first.batch_size = batch
  first.eval.batches = 8
  second.batch_size = batch // 2
  second.data.examples = examples
  second.update(hold_zeros=True, keep_model=False)
  return Preset(first, second, **fields)


PRESETS = {
  'quick': preset(
    steps=80,
    tune=160,
    batch=32,
    examples=2000,
    sparsities=(0.5, 0.8, 0.9, 0.95),
    seeds=(0, 1),
    tasks=TASKS[:1],
    methods=(),
    cost='about two minutes a method on one CPU core',
  ),
  'even': preset(
    steps=80,
    tune=160,
    batch=32,
    examples=2000,
    sparsities=(0.5, 0.8, 0.9, 0.95),
    seeds=(0, 1, 2),
    tasks=TASKS[:1],
    methods=(),
    cost='as `quick`, but three seeds, and all masks stand still after half of the steps; some '
    'four hours of a CPU core',
    even=True,
  ),
  'full': preset(
    steps=400,
    tune=400,
    batch=32,
    examples=4000,
    sparsities=(0.5, 0.8, 0.9, 0.95),
    seeds=(0, 1, 2),
    tasks=TASKS,
    methods=(),
    cost='some ten minutes a method on one CPU core; not run here',
  ),
  'smoke': preset(
    steps=40,
    tune=4,
    batch=8,
    examples=64,
    sparsities=(0.8,),
    seeds=(0,),
    tasks=TASKS[:1],
    methods=(arms.BASELINE,),
    cost='a minute',
  ),
}


def plan(preset: Preset, overrides: dict) -> list[grid.Cell]:
  """List the cells: dense, then every method at every sparsity and seed; parents come first.

  Args:
    preset: a value of `PRESETS`.
    overrides: {dotted key: value} for every run.

  Raises:
    ValueError: for an unknown key or method.
  """
  steps, rate = preset.pretrain.steps, preset.pretrain.optimizer.learning_rate
  stop = steps // 2 if preset.even else None
  recipes = lambda sparsity: arms.table(sparsity, steps, rate, stop)
  lowest = preset.sparsities[0]
  known_methods = [*recipes(lowest), arms.TAUGHT]
  unknown = [name for name in preset.methods if name not in known_methods]
  if unknown:
    raise ValueError(f'league has no method {unknown[0]!r}; known: {", ".join(known_methods)}')
  # Dense is the baseline that removes nothing, so the two share a program.
  runs = [('dense', 0.0, recipes(0.0)[arms.BASELINE])]
  for name in preset.methods or known_methods:
    sparsities = arms.ONLY.get(name, preset.sparsities)
    runs += [
      (name, s, recipes(s)[_pretrained_as(name)])
      for s in sparsities
      if arms.reaches(name, s, lowest)
    ]
  cells, pretrained, tuned = [], set(), {}
  for name, sparsity, recipe in runs:
    for seed in preset.seeds:
      config = _with_groups(
        preset.pretrain, {**arms.with_seed(recipe, seed), 'seed': seed, **overrides}
      )
      labels = _labels(_pretrained_as(name), sparsity, seed)
      start = grid.Cell({'stage': 'pretrain', **labels, 'task': ''}, config)
      parent = grid.key(start)
      if name != arms.TAUGHT or parent not in pretrained:
        cells.append(start)
      pretrained.add(parent)
      for task in preset.tasks:
        changes = {
          'seed': seed,
          'data.task': task,
          'init': f'cell:{parent}',
          **arms.tuning(name, sparsity),
          **overrides,
        }
        if name == 'dense':
          changes['keep_model'] = True  # The student's teacher.
        if name == arms.TAUGHT:
          changes['distill.teacher'] = f'cell:{tuned["dense", seed, task]}'
        config = configs.override(preset.tune.copy_and_resolve_references(), changes)
        labels = {'stage': 'finetune', **_labels(name, sparsity, seed), 'task': task}
        cells.append(grid.Cell(labels, config, parent))
        tuned[name, seed, task] = grid.key(cells[-1])
  return cells


def _pretrained_as(name):
  """The method whose pre-trained model a method starts from: the student's is the baseline's."""
  return arms.BASELINE if name == arms.TAUGHT else name


def _labels(name, sparsity, seed):
  family = arms.family(name)
  return {'method': name, 'family': family, 'sparsity': sparsity, 'seed': seed, 'arm': name}


def _with_groups(config, changes):
  """The config with the changes, and with the groups of weights that the changes name."""
  config = config.copy_and_resolve_references()
  groups = {key.split('.')[1] for key in changes if key.startswith('prune.')}
  with config.unlocked():
    for group in groups - set(config.prune):
      config.prune[group] = base.prune_group()
  return configs.override(config, changes)


STUDY = study.Study(
  name='league',
  title='The league: every method on the same model, data and steps',
  source='ours; each method after its own paper, see configs/methods.py',
  presets=PRESETS,
  plan=plan,
  measure=None,
  claims=claims.claims,
  tables=report.tables,
  figures=report.figures,
  captions=report.CAPTIONS,
  after=prices.add_rows,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)

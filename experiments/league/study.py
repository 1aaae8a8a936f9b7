"""The league: every method on the same model, data, steps and sparsities; one table.

  python -m prunejax reproduce league --preset=quick [--sparsities=0.0,0.9] [--seeds=0,1]

Stopped, or given a new method, the same command runs what the ledger lacks.
"""

from typing import NamedTuple

from ml_collections import config_dict

from configs import base, finetune, pretrain
from experiments.league import arms, claims, prices
from prunejax.sweep import grid, study
from prunejax.train import configs

# Every method prunes these and nothing else: six matrices a layer, 393,216 weights of the packaged model.
KERNELS = r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
TASKS = ('pydoc/order', 'pydoc/words')


class Preset(NamedTuple):
  """One size of the league: two configs, and what is asked of each method."""

  pretrain: config_dict.ConfigDict
  tune: config_dict.ConfigDict
  sparsities: tuple
  seeds: tuple
  tasks: tuple
  methods: tuple  # names; () for all
  cost: str


def preset(*, steps, tune, batch, examples, **asked):
  """The packaged model on the embedded corpus, at a number of steps."""
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
  return Preset(first, second, **asked)


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


def plan(preset, overrides):
  """Cells in their order, a parent before its children: dense, then every method at every sparsity and seed.

  Raises ValueError for a key that is none of a run's.
  """
  p, cells = preset, []
  table = lambda s: arms.table(s, p.pretrain.steps, p.pretrain.optimizer.learning_rate)
  every = [*table(p.sparsities[0]), arms.TAUGHT]
  unknown = [name for name in p.methods if name not in every]
  if unknown:
    raise ValueError(f'league has no method {unknown[0]!r}; known: {", ".join(every)}')
  # Dense is the baseline that removes nothing: it shares its program.
  runs = [('dense', 0.0, table(0.0)[arms.BASELINE])]
  for name in p.methods or every:
    levels = [
      s for s in arms.ONLY.get(name, p.sparsities) if arms.reaches(name, s, p.sparsities[0])
    ]
    runs += [(name, s, table(s)[arms.BASELINE if name == arms.TAUGHT else name]) for s in levels]
  known = {}
  for name, s, row in runs:
    for seed in p.seeds:
      labels = {
        'method': name,
        'family': arms.family(name),
        'sparsity': s,
        'seed': seed,
        'arm': name,
      }
      first = _pruned(p.pretrain, {**arms.seeded(row, seed), 'seed': seed, **overrides})
      start = grid.Cell({'stage': 'pretrain', **labels, 'task': ''}, first)
      parent = grid.key(start)
      if name != arms.TAUGHT or parent not in known:
        cells.append(
          start._replace(
            labels=start.labels | _named(arms.BASELINE if name == arms.TAUGHT else name)
          )
        )
      known[parent] = start
      for task in p.tasks:
        change = {
          'seed': seed,
          'data.task': task,
          'init': f'cell:{parent}',
          **arms.tuned(name, s),
          **overrides,
        }
        if name == 'dense':
          change['keep_model'] = True  # the student's teacher
        if name == arms.TAUGHT:
          change['distill.teacher'] = f'cell:{known["dense", seed, task]}'
        second = configs.override(p.tune.copy_and_resolve_references(), change)
        cells.append(grid.Cell({'stage': 'finetune', **labels, 'task': task}, second, parent))
        known[name, seed, task] = grid.key(cells[-1])
  return cells


def _named(name):
  return {'method': name, 'family': arms.family(name), 'arm': name}


def _pruned(config, changes):
  """The config with the changes, and with the groups of weights that they name and it lacks."""
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for group in {key.split('.')[1] for key in changes if key.startswith('prune.')} - set(
      config.prune
    ):
      config.prune[group] = base.prune_group()
  return configs.override(config, changes)


STUDY = study.Study(
  name='league',
  title='The league: every method on the same model, data and steps',
  source='ours; each method after its own paper, see configs/methods.py',
  presets=PRESETS,
  plan=plan,
  measure=None,
  claims=claims.check,
  tables=claims.tables,
  figures=claims.figures,
  captions={
    'league': 'Each method against gradual magnitude with the same seed, better to the right: by held-out loss after '
    'pre-training, and by accuracy. Dots are seeds, bars 95 % intervals of the mean that know how few seeds '
    'there are, cut off at the edge.',
    'curves': 'Held-out accuracy and held-out pre-training loss against sparsity.',
  },
  after=prices.rows,
)
reproduce, write_report, redraw, compare = study.verbs(STUDY)

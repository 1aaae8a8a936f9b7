"""The league: every method on the same model, data, steps and sparsities; one table.

  python -m prunejax reproduce league --preset=quick [--sparsities=0.0,0.9] [--seeds=0,1]

Stopped, or given a new method, the same command runs what the ledger lacks.
"""

from typing import NamedTuple

from ml_collections import config_dict

from configs import finetune, pretrain
from experiments.league import arms, claims
from prunejax.train import configs, grid, study

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
    config.prune.weights.where = KERNELS
  first.batch_size = batch
  first.eval.batches = 8
  second.batch_size = batch // 2
  second.data.examples = examples
  second.update(hold_zeros=True, keep_model=False)
  return Preset(first, second, **asked)


PRESETS = {
  'quick': preset(
    steps=80, tune=80, batch=32, examples=1024, sparsities=(0.8, 0.9), seeds=(0, 1), tasks=TASKS, methods=(),
    cost='about a minute a method on one CPU core, half of it compiling',
  ),
  'full': preset(
    steps=400, tune=400, batch=32, examples=4000, sparsities=(0.5, 0.8, 0.9, 0.95), seeds=(0, 1, 2), tasks=TASKS,
    methods=(), cost='some ten minutes a method on one CPU core; not run here',
  ),
  'smoke': preset(
    steps=40, tune=4, batch=8, examples=64, sparsities=(0.8,), seeds=(0,), tasks=TASKS[:1],
    methods=(arms.BASELINE,), cost='a minute',
  ),
}  # fmt: skip


def plan(preset, overrides):
  """Cells in their order, a parent before its children: dense, then every method at every sparsity and seed.

  Raises ValueError for a key that is none of a run's.
  """
  p, cells = preset, []
  steps = p.pretrain.steps
  unknown = [name for name in p.methods if name not in arms.table(p.sparsities[0], steps)]
  if unknown:
    raise ValueError(f'league has no method {unknown[0]!r}; known: {", ".join(arms.table(p.sparsities[0], steps))}')
  # Dense is the baseline that removes nothing: it shares its program.
  runs = [('dense', 0.0, arms.table(0.0, steps)[arms.BASELINE])]
  for name in p.methods or arms.table(p.sparsities[0], steps):
    levels = arms.ONLY.get(name, p.sparsities)
    runs += [(name, s, arms.table(s, steps)[name]) for s in levels if arms.reaches(name, s, p.sparsities[0])]
  for name, s, row in runs:
    for seed in p.seeds:
      labels = {'method': name, 'family': arms.family(name), 'sparsity': s, 'seed': seed, 'arm': name}
      change = {**arms.seeded(row, seed), 'seed': seed, **overrides}
      first = configs.override(p.pretrain.copy_and_resolve_references(), change)
      cells.append(grid.Cell({'stage': 'pretrain', **labels, 'task': ''}, first))
      start = grid.key(cells[-1])
      for task in p.tasks:
        change = {'seed': seed, 'data.task': task, 'init': f'cell:{start}', **overrides}
        second = configs.override(p.tune.copy_and_resolve_references(), change)
        cells.append(grid.Cell({'stage': 'finetune', **labels, 'task': task}, second, start))
  return cells


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
    'league': 'Mean held-out accuracy over the tasks, minus that of gradual magnitude with the same seed, by method; '
              'dots are seeds, bars 95 % intervals of the mean that know how few seeds there are.',
    'curves': 'Held-out accuracy and held-out pre-training loss against sparsity.',
  },
)  # fmt: skip
reproduce, write_report, redraw, compare = study.verbs(STUDY)

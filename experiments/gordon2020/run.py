"""Compressing BERT (Gordon, Duh & Andrews 2020): the cells of its grid, and the report of their ledger."""

from configs import nano
from experiments.gordon2020 import presets, probes
from experiments.gordon2020.report import redraw, write_report
from prunejax.data import tasks
from prunejax.train import configs, cost, distributed, grid, log, specs

__all__ = ['plan', 'redraw', 'reproduce', 'write_report']
PAPER = 'gordon2020'


def reproduce(
  preset, workdir, *, dry_run=False, from_scratch=False, overrides=None, worker=(0, 1), one_by_one=False, say=log.say,
  **part,
):
  """Runs what the ledger lacks, then writes the report.

  Of several workers, (index, count), each runs its share, and the one that ends last writes the report. `part` is a
  part of the preset's grid, see `plan`. Raises ValueError for an unknown preset, part or key.
  """
  overrides = overrides or {}
  whole = plan(preset, overrides, from_scratch, **part)
  cells = grid.share(whole, worker)
  if dry_run:
    title = f'{PAPER} {preset}: {presets.PRESETS[preset]().cost}'
    say(cost.table([(cell.labels, cell.config) for cell in cells], title=title))
    return None
  # Another part of the same grid may join a ledger; what changes the numbers of a cell may not.
  what = {'paper': PAPER, 'preset': preset, 'from_scratch': from_scratch, 'scale': part.get('scale') or 1.0}
  what |= {k: str(v) for k, v in overrides.items() if not k.startswith(('data.root', 'data.cache', 'population.'))}
  folder = grid.claim(workdir or f'runs/{PAPER}-{preset}', what)
  grid.run(cells, folder, experiment=PAPER, preset=preset, one_by_one=one_by_one, say=say)
  left = grid.missing(whole, folder)
  if left and distributed.first():
    say(f'{len(left)} cells are left to other workers; the last one to end writes the report')
  elif distributed.first():
    probes.measure(whole, folder, experiment=PAPER, preset=preset, say=say)
  return write_report(folder, say) if distributed.first() and not left else None


def plan(preset, overrides, from_scratch=False, *, names=None, sparsities=None, seeds=None, scale=None):
  """The cells of a preset in an order in which each one's parent comes first.

  Args:
    preset: a name in presets.PRESETS.
    overrides: {dotted key: value} for every run.
    from_scratch: train the small model first, instead of the packaged one.
    names, sparsities, seeds: tasks, sparsities and seeds instead of the preset's. A task that the preset does not
      have gets the steps of its longest.
    scale: multiplies every number of steps.
  """
  if preset not in presets.PRESETS:
    near = specs.suggest(preset, presets.PRESETS)
    raise ValueError(f'no preset {preset!r}{near}; known: {", ".join(presets.PRESETS)}')
  p = _part(presets.PRESETS[preset](), names, sparsities, seeds, scale)
  for config in (p.pretrain, p.tune):
    configs.override(config, overrides)
  cells = []

  def add(config, parent=None, **labels):
    cells.append(grid.Cell(labels, config, parent))
    return grid.key(cells[-1])

  if from_scratch:
    if p.pretrain.init != 'nano':
      raise ValueError(f'--from-scratch trains the small model; preset {preset!r} starts from {p.pretrain.init!r}')
    teacher = nano.get_config()
    teacher.data.update(corpus=p.pretrain.data.corpus, root=p.pretrain.data.root, cache=p.pretrain.data.cache)
    teacher.steps = _times(teacher.steps, scale)
    born = add(teacher, stage='nano', arm='dense', sparsity=0.0, seed=0)
    p.pretrain.init = p.tune.init = f'cell:{born}'
  for seed in p.seeds:
    _of_seed(p, seed, add)
  return cells


def _part(p, names, sparsities, seeds, scale):
  """The preset with other tasks, sparsities or seeds, and with its numbers of steps scaled."""
  for s in sparsities or ():
    if not 0 < s < 1:
      raise ValueError(f'--sparsities: {s} is not between 0 and 1 (0 is the dense arm, always there)')
  if scale is not None and not scale > 0:
    raise ValueError(f'--scale={scale}: expected a number above 0')
  for name in names or ():
    tasks.get(name)
  chosen = {name: p.tasks.get(name, max(p.tasks.values())) for name in names or p.tasks}
  p.pretrain.steps = _times(p.pretrain.steps, scale)
  return p._replace(
    tasks={name: _times(steps, scale) for name, steps in chosen.items()},
    sparsities=tuple(sparsities or p.sparsities), seeds=tuple(p.seeds if seeds is None else seeds),
    ramp=_times(p.ramp, scale), burn_in=_times(p.burn_in, scale) if p.burn_in else 0,
  )


def _times(steps, scale):
  return max(round(steps * (scale or 1)), 1)


def _of_seed(p, seed, add):
  """The arms of one seed: pre-training first, then every task from what it left."""

  def pretrain(arm, s, start='', **recipe):
    config = _changed(p.pretrain, seed=seed, **recipe)
    config.init = f'cell:{start}' if start else config.init
    labels = {'stage': 'pretrain', 'arm': arm, 'sparsity': s, 'task': '', 'seed': seed}
    return add(config, start or None, **labels, learning_rate=config.optimizer.learning_rate)

  start = pretrain('burned in', 0.0, steps=p.burn_in) if p.burn_in else ''
  gradual = lambda s: {'prune.weights.schedule': f'cubic({s}, end={p.ramp})', 'prune.weights.when': 'every(10)'}
  models = {('dense', 0.0): pretrain('dense', 0.0, **gradual(0.0), **QUIET)}
  for s in p.sparsities:
    models['pruned', s] = pretrain('pruned', s, **gradual(s))
    # A random mask is drawn once and kept; what remains has as many steps to recover.
    drawn = {'prune.weights.schedule': f'one_shot({s})', 'prune.weights.criterion': f'random(seed={seed})'}
    models['random', s] = pretrain('random', s, start, **drawn, **ONCE, **QUIET)
  for task, steps in p.tasks.items():
    for rate in p.rates:
      _of_task(p, seed, task, steps, rate, models, start, add)


ONCE = {'prune.weights.when': 'every(1, until=0)'}
QUIET = {'log.who_pays': False}  # nothing pruned, or nothing but chance decides


def _of_task(p, seed, task, steps, rate, models, start, add):
  shared = {'seed': seed, 'data.task': task, 'optimizer.learning_rate': rate, **ONCE}

  def tune(arm, s, parent, times=1.0, **recipe):
    recipe = {'prune.weights.schedule': 'one_shot(0.0)', 'keep_model': False, **recipe}
    config = _changed(p.tune, **shared, **recipe, steps=max(round(steps * times), 1))
    config.init = f'cell:{parent}' if parent else config.init
    return add(config, parent, stage='finetune', arm=arm, sparsity=s, task=task, learning_rate=rate, seed=seed)

  held = {'hold_zeros': True, 'prune.weights.schedule': ''}
  dense = tune('dense', 0.0, models['dense', 0.0], keep_model=not start)
  tuned = tune('before', 0.0, start, keep_model=True) if start else dense
  if p.fresh:
    tune('fresh', 0.0, None, pretrained=False)
  for s in p.sparsities:
    tune('pruned', s, models['pruned', s], **held)
    tune('deleted', s, models['pruned', s], p.deleted)  # the zeros are free to grow again
    tune('random', s, models['random', s], **held)
    tune('after', s, tuned, p.after, **{'prune.weights.schedule': f'one_shot({s})'})


def _changed(config, **changes):
  return configs.override(config.copy_and_resolve_references(), changes)

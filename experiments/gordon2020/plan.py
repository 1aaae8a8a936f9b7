"""The cells of a preset, in an order in which a cell follows the cell it starts from."""

from configs import nano
from experiments.gordon2020 import families as arm_families
from experiments.gordon2020 import presets
from experiments.gordon2020.cells import HELD, QUIET, Cells, changed, drawn, gradual
from prunejax.data import tasks
from prunejax.train import configs, specs

FAMILIES = {
  'paper': 'the four arms of the paper, with dense and fresh models',
  'controls': 'permuted masks, masks removed, burned-in starts',
  'switches': "what the authors' code did otherwise, one switch at a time",
  'epochs': 'fine-tuning for more and fewer epochs, and pruning after it',
  'corpus': 'small models born of shares of the corpus, then pruned',
}
# Config keys that each cell sets, and what sets them on the command line.
OWN = {
  'seed': '--seeds',
  'data.task': '--tasks',
  'steps': '--scale, or a preset',
  'hold_zeros': 'another preset',
  'prune.weights.schedule': '--sparsities',
  'prune.weights.when': 'another preset',
}


def plan(
  preset,
  overrides,
  from_scratch=False,
  *,
  names=None,
  sparsities=None,
  seeds=None,
  scale=None,
  families=None,
  rates=None,
):
  """Plans the cells of a preset, each after the cell it starts from.

  Args:
    preset: a `presets.Preset`.
    overrides: {dotted key: value} for every run.
    from_scratch: train the small model first, instead of starting from the packaged one.
    names: tasks instead of the preset's; 'pydoc/order@250' has 250 labelled examples. A task that
      the preset lacks gets the steps of its longest task and the preset's `rates`.
    sparsities, seeds, rates: instead of the preset's; rates are learning rates of fine-tuning.
    scale: a factor for every number of steps.
    families: families of arms instead of the preset's, see FAMILIES.

  Returns:
    A list of `grid.Cell`s.

  Raises:
    ValueError: a part that no grid has, or a key that the cells set.
  """
  p = _part(preset, names, sparsities, seeds, scale, families, rates)
  for name, flag in OWN.items():
    if name in overrides:
      raise ValueError(
        f'--config.{name}={overrides[name]}: each cell sets this key itself; use {flag} instead'
      )
  for config in filter(None, (p.pretrain, p.tune, p.teacher)):
    configs.override(config, overrides)
  cells = Cells(p)
  if from_scratch:
    if p.pretrain.init != 'nano':
      start = p.pretrain.init or 'a model of its own'
      raise ValueError(
        f'--from-scratch needs a preset that starts from the small model, not {start!r}'
      )
    teacher = nano.get_config()
    teacher.data.update(
      corpus=p.pretrain.data.corpus, root=p.pretrain.data.root, cache=p.pretrain.data.cache
    )
    teacher.data.update(pydoc=p.pretrain.data.pydoc, identity=p.pretrain.data.identity)
    teacher.steps = _times(teacher.steps, scale)
    born = cells.add(teacher, stage='nano', arm='dense', sparsity=0.0, seed=0)
    p.pretrain.init = p.tune.init = f'cell:{born}'
  elif p.teacher and (p.teacher.init or not p.pretrain.init):
    labels = {
      'task': '',
      'seed': p.teacher.seed,
      'learning_rate': p.teacher.optimizer.learning_rate,
    }
    born = cells.add(p.teacher, stage='born', arm='dense', sparsity=0.0, **labels)
    p.pretrain.init = p.tune.init = f'cell:{born}'
  start = p.pretrain.init
  for seed in p.seeds:
    if p.born_each:
      p.pretrain.init = p.tune.init = start
      p.pretrain.init = p.tune.init = f'cell:{_born(cells, seed)}'
    _of_seed(cells, seed)
  found = list(cells.found.values())
  return sorted(found, key=lambda cell: _turn(p, cell.labels)) if p.by_sparsity else found


def _born(cells, seed):
  """Adds the model that a seed's arms start from; returns its hash."""
  p = cells.preset
  config = changed(p.pretrain, seed=seed, pretrained=False, steps=p.born, **QUIET)
  config.optimizer.learning_rate = p.born_rate
  labels = {'task': '', 'seed': seed, 'learning_rate': p.born_rate}
  return cells.add(config, stage='born', arm='dense', sparsity=0.0, **labels)


def _turn(p, labels):
  """When a cell of a preset with `by_sparsity` runs; a cell follows the one it starts from."""
  order = {s: i for i, s in enumerate((0.0, *p.sparsities))}
  if labels['stage'] in ('nano', 'born'):
    return (-1,)
  return labels['seed'], order.get(labels['sparsity'], len(order))


def _has(p, arm, s):
  """Whether an arm has cells at a sparsity."""
  return s in p.some.get(arm, p.sparsities)


def _of_seed(cells, seed):
  """Adds the arms of one seed: pre-training first, then every task from each model."""
  p = cells.preset
  if set(p.families) - {'corpus'}:
    models = {('dense', 0.0): cells.pretrain('dense', 0.0, seed, **gradual(p, 0.0), **QUIET)}
    if 'paper' in p.families:
      start = cells.pretrain('burned in', 0.0, seed, steps=p.burn_in) if p.burn_in else ''
      if start:  # a 0 of its own, as in the paper's table: trained as long as under a random mask
        models['random', 0.0] = cells.pretrain(
          'random', 0.0, seed, start, **gradual(p, 0.0), **QUIET
        )
      for s in p.sparsities:
        models['pruned', s] = cells.pretrain('pruned', s, seed, **gradual(p, s))
        if _has(p, 'random', s):
          # A model under a random mask has as many steps to recover.
          models['random', s] = cells.pretrain('random', s, seed, start, **drawn(s, seed))
      for task in p.tasks:
        for rate in p.rates_of.get(task, p.rates):
          _of_task(cells, seed, task, rate, models, start)
    for family in ('controls', 'switches', 'epochs'):
      if family in p.families:
        getattr(arm_families, family)(cells, seed, models['dense', 0.0])
  if 'corpus' in p.families:
    arm_families.corpus(cells, seed)


def _of_task(cells, seed, task, rate, models, start):
  p = cells.preset
  tune = lambda arm, s, *rest, **recipe: cells.tune(arm, s, seed, task, rate, *rest, **recipe)
  dense = tune('dense', 0.0, models['dense', 0.0], keep_model=True)
  tuned = dense
  if start or p.before != 1:
    tuned = tune('before', 0.0, start or models['dense', 0.0], p.before, keep_model=True)
  # An arm that trains longer than 'dense' has its own unpruned baseline, trained equally long.
  tune('after', 0.0, tuned, presets.multiple(p.after, 0))
  if presets.multiple(p.deleted, 0) != 1:
    tune('deleted', 0.0, models['dense', 0.0], presets.multiple(p.deleted, 0))
  if start:
    tune('random', 0.0, models['random', 0.0])
  if p.fresh:
    tune('fresh', 0.0, None, pretrained=False)
  for s in p.sparsities:
    tune('pruned', s, models['pruned', s], **HELD)
    tune(
      'deleted', s, models['pruned', s], presets.multiple(p.deleted, s)
    )  # the zeros are free to grow again
    if _has(p, 'random', s):
      tune('random', s, models['random', s], **HELD)
    if _has(p, 'after', s):
      schedule = {'prune.weights.schedule': f'one_shot({s})'}
      tune('after', s, tuned, presets.multiple(p.after, s), **schedule)


def _part(p, names, sparsities, seeds, scale, families, rates):
  """The preset with another part of its grid, and with its numbers of steps scaled."""
  for s in sparsities or ():
    if not 0 < s < 1:
      raise ValueError(
        f'--sparsities={s}: expected numbers between 0 and 1; 0, the dense arm, is always run'
      )
  if scale is not None and not scale > 0:
    raise ValueError(f'--scale={scale}: expected a number above 0')
  for rate in rates or ():
    if not rate > 0:
      raise ValueError(f'--rates={rate}: expected learning rates above 0')
  for family in families or ():
    if family not in FAMILIES:
      raise ValueError(
        f'--arms: no family {family!r}{specs.suggest(family, FAMILIES)}; '
        f'known: {", ".join(FAMILIES)}'
      )
  for name in names or ():
    _, at, examples = name.partition('@')
    tasks.get(name.partition('@')[0])
    if at and not (examples.isdigit() and int(examples)):
      raise ValueError(
        f"--tasks: {name!r}: expected a number of examples after '@', as in 'pydoc/order@250'"
      )
  chosen = {name: p.tasks.get(name, max(p.tasks.values())) for name in names or p.tasks}
  for config in filter(None, (p.pretrain, p.teacher)):
    config.steps = _times(config.steps, scale)
  return p._replace(
    tasks={name: _times(steps, scale) for name, steps in chosen.items()},
    sparsities=tuple(sparsities or p.sparsities),
    extra_sparsities=tuple(sparsities or p.extra_sparsities),
    seeds=tuple(p.seeds if seeds is None else seeds),
    ramp=_times(p.ramp, scale),
    burn_in=_times(p.burn_in, scale) if p.burn_in else 0,
    born=_times(p.born, scale),
    scale=scale or 1,
    families=tuple(families or p.families),
    rates=tuple(rates or p.rates),
    rates_of={} if rates else p.rates_of,
  )


def _times(steps, scale):
  return max(round(steps * (scale or 1)), 1)

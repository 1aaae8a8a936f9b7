"""Links beside those that prune, from config: penalties on the size of weights (`prox`), low rank (`low_rank`).

A penalty's strength, the learning rate that a proximal step is scaled by, and the sparsity that a rank pays for are
data: one program for all.
"""

import re

from prunejax.pruning import schedules
from prunejax.pruning.links import low_rank as low_rank_links
from prunejax.pruning.links import proximal
from prunejax.train import specs

FRACTIONS = ('sparsity', 'initial', 'start', 'final')  # arguments of schedules that are sparsities
BEFORE = ('l1_penalty', 'l2_penalty')  # terms of the gradient: their links stand before Adam


def penalties(config, inject, shape, steps):
  """([links before Adam], [links after the learning rate]), each (name, link).

  inject: (build, numbers) -> link, as `optimizer.inject`. shape: (steps, warmup, sawtooth, ramp) -> share of the peak
  at a step. steps: of that shape. Raises ValueError naming the key.
  """
  if not config.prox.penalty:
    return [], []
  spec, c = _penalty(config), config.optimizer
  strength, fixed = {'strength': float(spec.arguments['strength'])}, _fixed(spec)
  where = config.prox.where
  if spec.name in BEFORE:
    return [
      ('penalty', inject(lambda strength: spec.factory(strength, where=where, **fixed), strength))
    ], []

  def build(strength, peak, length, ramp):
    rate = shape(length, c.warmup, c.sawtooth, ramp)
    return spec.factory(strength, lambda step: peak * rate(step), where=where, **fixed)

  ramp = max(round(steps * c.warmup), 1) if c.warmup else 0
  numbers = {'peak': float(c.learning_rate), 'length': float(steps), 'ramp': float(ramp)}
  return [], [('proximal', inject(build, strength | numbers))]


def compiled_part(config):
  """What of these groups is compiled, as plain data: {name of a group that does something: parts}."""
  out = {}
  if config.prox.penalty:
    spec = _penalty(config)
    out['prox'] = [spec.name, _fixed(spec), config.prox.where]
  if config.low_rank.schedule:
    planned, _ = _planned(config.low_rank)
    out['low_rank'] = [
      planned.name,
      _split(planned)[1],
      config.low_rank.when,
      config.low_rank.where,
    ]
  return out


def low_rank(config, inject):
  """[(name, link)] of `config.low_rank`, the last of the chain. Raises ValueError naming the key."""
  if not config.low_rank.schedule:
    return []
  if any(group.schedule for group in config.prune.values()) or config.hold_zeros:
    raise ValueError(
      'low_rank.schedule: a kernel cannot be held at a rank and at zeros; set prune.*.schedule to ""'
    )
  planned, when = _planned(config.low_rank)
  numbers, fixed = _split(planned)
  build = lambda **numbers: low_rank_links.low_rank(
    planned.factory(**numbers, **fixed), when, where=config.low_rank.where
  )
  return [('low_rank', inject(build, numbers))]


def low_rank_when(config):
  """step -> whether `config.low_rank` cuts ranks there. Raises ValueError naming the key."""
  return _planned(config.low_rank)[1]


def _planned(group):
  """(spec of the schedule, when). Raises ValueError naming the key."""
  try:
    re.compile(group.where)
  except re.error as error:
    raise ValueError(
      f'low_rank.where={group.where!r} is not a regular expression: {error}'
    ) from error
  made = {}
  for name in ('schedule', 'when'):
    spec = made[name] = specs.parse(group[name], schedules, f'low_rank.{name}')
    try:
      made[f'{name}()'] = spec()
    except (ValueError, TypeError) as error:
      raise ValueError(f'low_rank.{name}={group[name]!r}: {error}') from error
  return made['schedule'], made['when()']


def _split(planned):
  numbers = {k: float(v) for k, v in planned.arguments.items() if k in FRACTIONS}
  return numbers, {k: v for k, v in planned.arguments.items() if k not in FRACTIONS}


def _fixed(spec):
  return {k: v for k, v in spec.arguments.items() if k not in ('strength', 'rate', 'where')}


def _penalty(config):
  """The spec of config.prox.penalty. Raises ValueError naming the key."""
  key, text = 'prox.penalty', config.prox.penalty
  spec = specs.parse(text, proximal, key)
  for name, default in (('rate', 1.0), ('where', '.*')):
    if spec.arguments.get(name, default) != default:
      told = 'optimizer.learning_rate' if name == 'rate' else 'prox.where'
      raise ValueError(f'{key}={text!r}: {name} comes from {told}; leave it out')
  if spec.name == 'shrink':
    raise ValueError(
      f'{key}={text!r}: expected soft_threshold, reweighted, l1_penalty or l2_penalty'
    )
  strength = spec.arguments['strength']
  if isinstance(strength, bool) or not isinstance(strength, int | float):
    raise ValueError(f'{key}={text!r}: strength={strength!r} must be a number')
  try:
    spec()
    re.compile(config.prox.where)
  except re.error as error:
    raise ValueError(
      f'prox.where={config.prox.where!r} is not a regular expression: {error}'
    ) from error
  except (ValueError, TypeError) as error:
    raise ValueError(f'{key}={text!r}: {error}') from error
  end = spec.arguments['end']
  if end is not None and (isinstance(end, bool) or not isinstance(end, int)):
    raise ValueError(f'{key}={text!r}: end={end!r} must be a step, or None')
  return spec

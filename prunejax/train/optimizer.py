"""From config to an optax chain: BERT's AdamW, then the pruning links. Numbers that a grid sweeps are data.

The peak learning rate, the number of steps and every sparsity are injected hyperparameters: they live in the optimizer
state, so runs that differ only in them share one compiled program.
"""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.pruning import allocations, criteria, schedules, structures
from prunejax.pruning.links import proximal
from prunejax.pruning.links.fresh_moments import with_fresh_moments
from prunejax.pruning.links.rewind import rewind
from prunejax.pruning.paths import path_name
from prunejax.train import rivals, specs

NO_DECAY = r'(.*/)?(bias|scale)'  # biases and LayerNorm
FRACTIONS = rivals.FRACTIONS


def make(config):
  """The chain of a config: clip, AdamW, learning rate, then one link a pruning group. Raises ValueError by key."""
  check(config)
  c = config.optimizer
  before, after = rivals.penalties(config, inject, rate_shape, horizon(config))
  links = [
    *before,
    ('clip', optax.clip_by_global_norm(c.clip)),
    ('adam', optax.scale_by_adam(c.b1, c.b2, c.eps)),
    ('decay', optax.add_decayed_weights(c.weight_decay, mask=_decays)),
    ('shape', _shape(horizon(config), c.warmup, c.sawtooth)),
    (
      'rate',
      optax.inject_hyperparams(optax.scale, hyperparam_dtype=jnp.float32)(
        step_size=-c.learning_rate
      ),
    ),
    *after,
  ]
  for name, strength, made in (
    ('l2', c.l2, proximal.l2_penalty),
    ('l1', c.l1, proximal.l1_penalty),
  ):
    if strength:
      links.insert(0, (name, made(strength, where=where(config))))
  last = [(f'prune_{name}', link(group, f'prune.{name}')) for name, group in groups(config).items()]
  if config.hold_zeros:
    every = '|'.join(
      f'(?:{group.where})' for group in config.prune.values()
    )  # also those that prune nothing now
    last.append(('hold_zeros', prunejax.hold_zeros(every)))
  last += rivals.low_rank(config, inject)
  dense, pruning = optax.named_chain(*links), optax.named_chain(*last)
  if c.rewind:
    return rewind(dense, pruning, when=_rewinds(config), to=c.rewind_to)
  if c.fresh_moments:
    return with_fresh_moments(dense, pruning)
  return optax.named_chain(*links, *last)


def check(config):
  """Refuses what could only fail later. Raises ValueError naming the key."""
  c = config.optimizer
  for key, value, good in (
    ('optimizer.learning_rate', c.learning_rate, 0 <= c.learning_rate < float('inf')),
    ('optimizer.warmup', c.warmup, 0 <= c.warmup <= 1),
    ('optimizer.eps', c.eps, 0 < c.eps < float('inf')),
    ('optimizer.clip', c.clip, c.clip > 0),
    ('optimizer.sawtooth', c.sawtooth, c.sawtooth >= 0),
    ('optimizer.weight_decay', c.weight_decay, 0 <= c.weight_decay < float('inf')),
    ('optimizer.b1', c.b1, 0 <= c.b1 < 1),
    ('optimizer.b2', c.b2, 0 <= c.b2 < 1),
    ('optimizer.l1', c.l1, 0 <= c.l1 < float('inf')),
    ('optimizer.l2', c.l2, 0 <= c.l2 < float('inf')),
    ('optimizer.rewind_to', c.rewind_to, c.rewind_to >= 0),
    ('steps', config.steps, config.steps > 0),
  ):
    if not good:
      raise ValueError(f'{key}={value!r} cannot be; see its comment in configs/base.py')
  if config.accumulate < 1 or config.batch_size % config.accumulate:
    parts = f'batch_size={config.batch_size} does not divide into as many parts'
    raise ValueError(f'accumulate={config.accumulate}: {parts}')
  for name, group in config.prune.items():
    criterion, planned, *_ = pieces(group, f'prune.{name}')
    if planned and config.view == 'apply' and criterion.dense_gradient:
      raise ValueError(
        f'prune.{name}.criterion={group.criterion!r} needs the gradient of pruned weights, and view=apply gives them'
        ' none: use view=straight_through or, with zero_pruned=True, view=plain'
      )
    end = planned().end if planned else None
    if end is not None and end >= config.steps:
      raise ValueError(
        f'prune.{name}.schedule={group.schedule!r} reaches its target at step {end}, but steps={config.steps}'
        f' end at {config.steps - 1}: let it end earlier, or train longer'
      )
  for key in ('rewind', 'fresh_moments'):
    if c[key] and not (groups(config) or config.hold_zeros):
      raise ValueError(
        f'optimizer.{key}={c[key]!r}: no group of prune has a schedule, so no mask moves'
      )
  if c.rewind and c.fresh_moments:
    raise ValueError(
      'optimizer.fresh_moments=True: with optimizer.rewind all moments go back anyway; leave one out'
    )
  if c.rewind:
    rounds(config)


def rounds(config):
  """The steps after which a run with `optimizer.rewind` goes back. Raises ValueError naming the key."""
  due = np.asarray(jax.vmap(_rewinds(config))(jnp.arange(config.steps)))
  found = [int(t) for t in np.flatnonzero(due) if t > config.optimizer.rewind_to]
  key = f'optimizer.rewind={config.optimizer.rewind!r}'
  if not found:
    raise ValueError(
      f'{key} is due at no step between rewind_to={config.optimizer.rewind_to} and steps={config.steps}'
    )
  if found[-1] + 2 >= config.steps:
    raise ValueError(
      f'{key}: to go back at step {found[-1]} takes two; steps={config.steps} leaves none to train'
    )
  for name, group in groups(config).items():
    when = pieces(group, f'prune.{name}')[2]
    for t in found:
      if when(jnp.int32(t + 1)):
        raise ValueError(
          f'{key} and prune.{name}.when={group.when!r}: masks may not move at step {t + 1}, while weights are on'
          ' their way back; let masks move at the steps of rewind'
        )
  return found


def horizon(config):
  """Steps of the learning rate's way to 0: all, or those of the last round of a run that rewinds."""
  if not config.optimizer.rewind:
    return config.steps
  return config.steps - rounds(config)[-1] - 2 + config.optimizer.rewind_to


def _rewinds(config):
  text = config.optimizer.rewind
  try:
    return specs.parse(text, schedules, 'optimizer.rewind')()
  except (ValueError, TypeError) as error:
    raise ValueError(f'optimizer.rewind={text!r}: {error}') from error


def groups(config):
  """The pruning groups that have a schedule, by name."""
  return {name: group for name, group in config.prune.items() if group.schedule}


def told(config, error):
  """The ValueError of a pruning link as one that names the config's groups."""
  return ValueError(f'{", ".join(f"prune.{name}" for name in groups(config)) or "prune"}: {error}')


def looks_further(config):
  """Whether a criterion of the config needs more of a batch than its gradient."""
  return any(
    pieces(group, f'prune.{name}')[0].needs - {'grad'} for name, group in groups(config).items()
  )


def where(config):
  """One regex of every leaf that the config's groups may prune."""
  return '|'.join(f'(?:{group.where})' for group in (groups(config) or config.prune).values())


def pieces(group, key):
  """(criterion, schedule spec or None, when, allocation, structure) of a group. Raises ValueError naming the key."""
  try:
    re.compile(group.where)
  except re.error as error:
    raise ValueError(f'{key}.where={group.where!r} is not a regular expression: {error}') from error
  planned = specs.parse(group.schedule, schedules, f'{key}.schedule') if group.schedule else None
  built = {'schedule': planned} if planned else {}
  for name, module in (
    ('criterion', criteria),
    ('when', schedules),
    ('allocation', allocations),
    ('structure', structures),
  ):
    built[name] = specs.parse(group[name], module, f'{key}.{name}')
  made = {}
  for name, spec in built.items():
    try:
      made[name] = spec()
    except (ValueError, TypeError) as error:
      raise ValueError(f'{key}.{name}={group[name]!r}: {error}') from error
  return made['criterion'], planned, made['when'], made['allocation'], made['structure']


def link(group, key):
  """One `prune_transform` whose sparsities and seed are injected, so that they are data."""
  _, planned, when, allocate, structured = pieces(group, key)
  scored = specs.parse(group.criterion, criteria, f'{key}.criterion')
  fractions, static = split(planned)
  seed = {k: float(v) for k, v in scored.arguments.items() if k == 'seed'}
  fixed = {k: v for k, v in scored.arguments.items() if k != 'seed'}

  def build(**numbers):
    drawn = {'seed': numbers.pop('seed').astype(jnp.int32)} if seed else {}
    return prunejax.prune_transform(
      scored.factory(**fixed, **drawn),
      planned.factory(**numbers, **static),
      when,
      allocation=allocate,
      structure=structured,
      where=group.where,
      zero_pruned=group.zero_pruned,
    )

  return inject(build, fractions | seed)


def split(planned):
  """({sparsities of a schedule spec}, {its other arguments}): what is data, and what is compiled."""
  numbers = {k: float(v) for k, v in planned.arguments.items() if k in FRACTIONS}
  return numbers, {k: v for k, v in planned.arguments.items() if k not in FRACTIONS}


def compiled_part(group, key):
  """The group as plain data without its sparsities and its seed: equal for groups that share a program."""
  _, planned, *_ = pieces(group, key)
  criterion = specs.parse(group.criterion, criteria, f'{key}.criterion')
  kept = {k: v for k, v in criterion.arguments.items() if k != 'seed'}
  return {
    **group.to_dict(),
    'schedule': [planned.name, split(planned)[1]],
    'criterion': [criterion.name, kept],
  }


def who_pays(group, key, params, step, gradient, observed=dict):
  """Rows of `prunejax.who_pays` for what the schedule asks at `step`; calls `gradient()` and `observed()`, the other
  extra arguments of an update, if the criterion needs more than the weights. Raises ValueError.
  """
  criterion, planned, _, allocate, structured = pieces(group, key)
  asked = float(planned()(step))
  parts = (params, criterion, asked, allocate, structured, group.where)
  if not criterion.needs:
    return prunejax.who_pays(*parts)
  return prunejax.who_pays(*parts, grad=gradient(), **observed())


def inject(build, numbers):
  """`optax.inject_hyperparams` for a factory of keyword numbers."""

  def factory(**given):
    return build(**given)

  # inject_hyperparams finds the numbers by the factory's signature, so it needs one with their names.
  kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
  factory.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in numbers])
  return optax.inject_hyperparams(factory, hyperparam_dtype=jnp.float32)(**numbers)


def _shape(steps, warmup, sawtooth):
  """`rate_shape` as a link. How long a run lasts is a number too: runs of any length share a program."""
  build = lambda steps, ramp: optax.scale_by_schedule(rate_shape(steps, warmup, sawtooth, ramp))
  return inject(build, {'steps': float(steps), 'ramp': float(_ramp(steps, warmup))})


def _ramp(steps, warmup):
  return max(round(steps * warmup), 1) if warmup else 0


def rate_shape(steps, warmup, sawtooth=0, ramp=None):
  """step -> share of the peak: linear warm-up, then linear to 0. `steps` and `ramp` (warm-up steps) may be traced.

  With `sawtooth` the seed code's own accident (Gordon et al. 2020; the trainer is called again for every piece of
  `sawtooth` steps with a longer horizon): inside piece k the rate falls from 1/(k+1) of the peak to 0.
  """
  ramp = _ramp(steps, warmup) if ramp is None else ramp

  def shape(step):
    step = jnp.asarray(step, jnp.float32)
    horizon = (step // sawtooth + 1) * sawtooth if sawtooth else steps
    down = 1 - step / horizon if sawtooth else (steps - step) / jnp.maximum(steps - ramp, 1)
    down = jnp.clip(down, 0, 1)
    return jnp.where(step < ramp, (step + 1) / ramp, down) if warmup else down

  return shape


def learning_rate(config, step):
  """The learning rate of a step, for the log."""
  c, at = config.optimizer, step
  for back in rounds(config) if c.rewind else ():
    at = step - back - 2 + c.rewind_to if step >= back + 2 else at
  return float(rate_shape(horizon(config), c.warmup, c.sawtooth)(at)) * c.learning_rate


def _decays(params):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: not re.fullmatch(NO_DECAY, path_name(path)), params
  )

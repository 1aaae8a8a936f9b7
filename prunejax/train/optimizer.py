"""From a recipe to an optax chain: BERT's AdamW, then the pruning links.

The peak learning rate, the number of steps and every sparsity are injected hyperparameters. They
live in the optimizer state, so runs that differ only in them share one compiled program.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
import optax

import prunejax
from prunejax.pruning import start as masks_at_start
from prunejax.pruning.links import fresh_moments, low_rank, proximal, rewind
from prunejax.pruning.paths import path_name, select
from prunejax.train import layers
from prunejax.train.recipe import FRACTIONS, IN_THE_LOSS, Recipe
from prunejax.train.specs import Spec

MEMBERS = 'members'  # the mesh axis on which every device has runs of its own, see sweep.stacking
NO_DECAY = r'(.*/)?(bias|scale)'  # biases and LayerNorm


def make(recipe: Recipe, pruned: Collection[str] = ()) -> optax.GradientTransformationExtraArgs:
  """Makes the chain of a run.

  In order: penalties that are part of the loss, clip, Adam, weight decay, warm-up and fall of the
  learning rate, its peak, a proximal penalty, and the links that prune.

  Args:
    recipe: a `recipe.Recipe`.
    pruned: names of the pruning groups whose zeros at step 0 are pruned already, see
      `inputs.Source`.

  Returns:
    A named chain. Its update takes the raw gradient as `grad=`, and what else the criteria need.
  """
  c, where = recipe.optimizer, functools.partial(layers.where, recipe.model)
  links = [
    ('clip', optax.clip_by_global_norm(c.clip)),
    ('adam', optax.scale_by_adam(c.b1, c.b2, c.eps)),
    ('decay', optax.add_decayed_weights(c.weight_decay, mask=_decays)),
    ('shape', _shape_link(c)),  # the share of the peak that a step has
    (
      'rate',
      optax.inject_hyperparams(optax.scale, hyperparam_dtype=jnp.float32)(
        step_size=-c.learning_rate
      ),
    ),
  ]
  if recipe.penalty and recipe.penalty.name in IN_THE_LOSS:
    links.insert(0, ('penalty', _penalty_in_the_loss(recipe.penalty, where)))
  elif recipe.penalty:
    links.append(('proximal', _proximal_step(recipe.penalty, c, where)))
  for name, strength, penalty in (
    ('l2', c.l2, proximal.l2_penalty),
    ('l1', c.l1, proximal.l1_penalty),
  ):
    if strength:
      links.insert(0, (name, penalty(strength, where=where(recipe.where))))
  pruning = [
    (f'prune_{group.name}', _named(f'prune.{group.name}', _started(recipe, group, pruned)))
    for group in recipe.prune
  ]
  if recipe.hold_zeros:
    pruning.append(('hold_zeros', prunejax.hold_zeros(where(recipe.hold_zeros))))
  if recipe.low_rank:
    pruning.append(('low_rank', _named('low_rank', _low_rank_link(recipe))))
  if c.rewind:
    dense, last = optax.named_chain(*links), optax.named_chain(*pruning)
    return rewind.rewind(dense, last, when=c.rewind(), to=c.rewind_to)
  if c.fresh_moments:
    return fresh_moments.with_fresh_moments(optax.named_chain(*links), optax.named_chain(*pruning))
  return optax.named_chain(*links, *pruning)


def inject(build: Callable, numbers: dict[str, float]) -> optax.GradientTransformationExtraArgs:
  """Makes a link of keyword numbers that are data of its state, by `optax.inject_hyperparams`.

  Args:
    build: (**numbers) -> an optax transformation.
    numbers: {name: number}.
  """

  def factory(**values):
    return build(**values)

  # inject_hyperparams reads the names of the numbers from the factory's signature.
  kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
  factory.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in numbers])
  return prunejax.inject_hyperparams(factory)(**numbers)


def with_numbers_of(state: dict, fresh: dict) -> dict:
  """Returns a train state with the injected numbers of another: rates, horizons and sparsities.

  Args:
    state: the state of a run that goes on under another config.
    fresh: the first state of that config.
  """
  injected = lambda path: any(getattr(key, 'name', None) == 'hyperparams' for key in path)
  choose = lambda path, old, new: new if injected(path) else old
  return jax.tree_util.tree_map_with_path(choose, state, fresh)


def split(schedule: Spec) -> tuple[dict, dict]:
  """Returns the sparsities of a schedule, which are data, and its other arguments."""
  numbers = {k: float(v) for k, v in schedule.arguments.items() if k in FRACTIONS}
  return numbers, {k: v for k, v in schedule.arguments.items() if k not in FRACTIONS}


def start_of(recipe: Recipe, group, pruned: Collection[str]) -> dict:
  """Returns the arguments of `prune_transform` that say what is pruned already at step 0.

  Args:
    recipe: a `recipe.Recipe`.
    group: one of its groups.
    pruned: see `make`.
  """
  if recipe.hold_zeros:
    return {'masks': 'zeros', 'hold': True}
  return {'masks': 'zeros'} if group.name in pruned else {}


def keeps_program(recipe: Recipe, group) -> bool:
  """Returns True if a pruned start of a group is in its first state alone, not in its program.

  The magnitude of a zero is the lowest score of all, so the first masks are all there is to say. A
  leaf that has lost more than its share gets some weights back, unless zeros are held.
  """
  return group.criterion.name == 'magnitude' and not recipe.hold_zeros


def _started(recipe, group, pruned):
  """The link of a group, which knows what is pruned already at step 0."""
  start = start_of(recipe, group, pruned)
  if not (start and keeps_program(recipe, group)):
    return _prune_link(recipe, group, start)
  link, where = _prune_link(recipe, group, {}), layers.where(recipe.model, group.where)

  def init(params):
    state = link.init(params)
    masks = masks_at_start.from_zeros(select(params, where, origin='init'), 'init')
    inner = state.inner_state._replace(
      prune_mask=masks, prune_sparsity=masks_at_start.sparsity(masks)
    )
    return state._replace(inner_state=inner)

  return optax.GradientTransformationExtraArgs(init, link.update)


def _prune_link(recipe, group, start):
  """One `prune_transform` whose sparsities and seed are injected, so that they are data."""
  fractions, static = split(group.schedule)
  seed = {k: float(v) for k, v in group.criterion.arguments.items() if k == 'seed'}
  fixed = {k: v for k, v in group.criterion.arguments.items() if k != 'seed'}
  when, allocation, structure = group.when(), group.allocation(), group.structure()

  rises = group.schedule().rises  # Injected numbers are not known, but they stay as they are.

  def build(**numbers):
    drawn = {'seed': numbers.pop('seed').astype(jnp.int32)} if seed else {}
    return prunejax.prune_transform(
      group.criterion.factory(**fixed, **drawn),
      dataclasses.replace(group.schedule.factory(**numbers, **static), rises=rises),
      when,
      allocation=allocation,
      structure=structure,
      where=group.where,
      stacked=layers.names(recipe.model),
      layout=group.layout,
      zero_pruned=group.zero_pruned,
      undivided=MEMBERS,
      **start,
    )

  return inject(build, fractions | seed)


def _low_rank_link(recipe):
  group = recipe.low_rank
  fractions, static = split(group.schedule)
  build = lambda **numbers: low_rank.low_rank(
    group.schedule.factory(**numbers, **static),
    group.when(),
    where=group.where,
    layout=group.layout,
    undivided=MEMBERS,
  )
  return layers.one_by_one(recipe.model, inject(build, fractions))


def _penalty_in_the_loss(penalty, where):
  chosen = where(penalty.where)
  build = lambda strength: penalty.factory(strength, where=chosen, **penalty.fixed)
  return inject(build, {'strength': penalty.strength})


def _proximal_step(penalty, c, where):
  """A penalty after the optimizer's step, scaled by the learning rate of the step."""

  def build(strength, peak, length, ramp):
    rate = rate_shape(length, c.warmup, c.sawtooth, ramp)
    return penalty.factory(
      strength, lambda step: peak * rate(step), where=where(penalty.where), **penalty.fixed
    )

  numbers = {'peak': float(c.learning_rate), 'length': float(c.horizon)}
  return inject(
    build, {'strength': penalty.strength, **numbers, 'ramp': float(_ramp(c.horizon, c.warmup))}
  )


def _named(key, link):
  """`link`, whose errors start with the config key of its group."""

  def init(params):
    try:
      return link.init(params)
    except ValueError as error:
      raise ValueError(f'{key}: {error}') from error

  def update(updates, state, params=None, **extra):
    try:
      return link.update(updates, state, params, **extra)
    except ValueError as error:
      raise ValueError(f'{key}: {error}') from error

  return optax.GradientTransformationExtraArgs(init, update)


def _shape_link(c):
  """`rate_shape` as a link. The steps are data: runs of any length share a program."""
  build = lambda steps, ramp: optax.scale_by_schedule(rate_shape(steps, c.warmup, c.sawtooth, ramp))
  return inject(build, {'steps': float(c.horizon), 'ramp': float(_ramp(c.horizon, c.warmup))})


def _ramp(steps, warmup):
  return max(round(steps * warmup), 1) if warmup else 0


def rate_shape(steps, warmup: float, sawtooth: int = 0, ramp=None) -> Callable:
  """Makes a function step -> share of the peak: linear warm-up, then linear to 0.

  `sawtooth` reproduces an accident of the code of Gordon et al. (2020), which calls the trainer
  again, with a longer horizon, for every piece of `sawtooth` steps. In piece k the rate falls from
  1/(k+1) of the peak to 0.

  Args:
    steps: the step at which the rate is 0; may be traced.
    warmup: the share of the steps in which the rate rises.
    sawtooth: steps of one piece; 0 for one decay.
    ramp: steps of the warm-up; may be traced. None for `warmup` of `steps`.
  """
  ramp = _ramp(steps, warmup) if ramp is None else ramp

  def shape(step):
    step = jnp.asarray(step, jnp.float32)
    horizon = (step // sawtooth + 1) * sawtooth if sawtooth else steps
    down = 1 - step / horizon if sawtooth else (steps - step) / jnp.maximum(steps - ramp, 1)
    down = jnp.clip(down, 0, 1)
    return jnp.where(step < ramp, (step + 1) / ramp, down) if warmup else down

  return shape


def learning_rate(recipe: Recipe, step: int) -> float:
  """Returns the learning rate of a step for the log; the links 'shape' and 'rate' apply it."""
  c, shown = recipe.optimizer, step
  for back in c.rounds:
    shown = step - back - 2 + c.rewind_to if step >= back + 2 else shown
  return float(rate_shape(c.horizon, c.warmup, c.sawtooth)(shown)) * c.learning_rate


def _decays(params):
  return jax.tree_util.tree_map_with_path(
    lambda path, _: not re.fullmatch(NO_DECAY, path_name(path)), params
  )

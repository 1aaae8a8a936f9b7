"""WHEN: step -> sparsity, and step -> do masks move now? Both are plain functions of an int32 step,
which may be traced.

A schedule of this file carries the step from which it rests, `end`, and its last sparsity, `final`
(None if only known at run time): `prune_transform` moves masks at `end` whatever `when` says, so
the target is reached even if `end` is no multiple of the interval.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def cubic(sparsity, begin=0, end=None, initial=0.0):
  """s + (initial - s) (1 - (t - begin) / (end - begin))^3 from begin to end, 0 before, s after (Zhu
  & Gupta, 2017, eq. 1).
  """
  return _ramp('cubic', sparsity, begin, end, initial, 3)


def linear(sparsity, begin=0, end=None, initial=0.0):
  """From `initial` at begin to `sparsity` at end in a straight line; 0 before begin."""
  return _ramp('linear', sparsity, begin, end, initial, 1)


def constant(sparsity):
  """The same sparsity at every step."""
  return _schedule(
    lambda step: jnp.broadcast_to(_sparsity(sparsity), jnp.shape(step)), 'constant', sparsity, 0
  )


def one_shot(sparsity, at=0):
  """0 before step `at`, `sparsity` from there on."""
  _check_steps('one_shot', at=at)
  return _schedule(
    lambda step: jnp.where(step >= at, _sparsity(sparsity), 0), 'one_shot', sparsity, at
  )


def staircase(start, final, steps, jumps, begin=0):
  """`start` at step begin, then `jumps` equal jumps, one every `steps` steps, to `final`.

  `staircase(0.5, 0.86, steps=1001, jumps=9)` is Cheong & Daniel's (2019): 50 %, then nine equal
  jumps to 86 %.
  """
  _check_steps('staircase', begin=begin)
  _check_sparsity('staircase start', start)
  _check_sparsity('staircase final', final)
  for name, value in (('steps', steps), ('jumps', jumps)):
    _check_count('staircase', name, value)
  _check_order('staircase', 'start', start, 'final', final)

  def sparsity_at(step):
    taken = jnp.clip((step - begin) // steps, 0, jumps)
    rise = (_sparsity(final) - _sparsity(start)) * (taken.astype(jnp.float32) / jumps)
    level = jnp.where(taken == jumps, _sparsity(final), _sparsity(start) + rise)
    return jnp.where(step >= begin, level, 0)

  return _schedule(sparsity_at, 'staircase final', final, begin + steps * jumps)


def iterative(sparsity, rounds, steps, begin=0):
  """Rounds of pruning: one at step `begin` and one every `steps` steps from there, each removing the same share of what
  is left, the last reaching `sparsity`: 1 - (1 - sparsity)^(r / rounds) after round r (Han et al., 2015; Frankle &
  Carbin, 2019). Masks move with `every(steps, begin)`.
  """
  _check_steps('iterative', begin=begin)
  _check_sparsity('iterative', sparsity)
  for name, value in (('rounds', rounds), ('steps', steps)):
    _check_count('iterative', name, value)

  def sparsity_at(step):
    done = jnp.clip((step - begin) // steps + 1, 0, rounds)
    left = (1 - _sparsity(sparsity)) ** (done.astype(jnp.float32) / rounds)
    return jnp.where(step >= begin, jnp.where(done == rounds, _sparsity(sparsity), 1 - left), 0)

  return _schedule(sparsity_at, 'iterative', sparsity, begin + steps * (rounds - 1))


def cycle(sparsity, steps, begin, end):
  """AC/DC (Peste et al., 2021): dense before `begin`, then phases of `steps` steps in turn sparse and dense, and sparse
  for good from `end` on. Masks move with `every(steps, begin)`; what was pruned comes back at 0.

  ValueError if `end` is not a whole number of phases after `begin`.
  """
  _check_steps('cycle', begin=begin, end=end)
  _check_count('cycle', 'steps', steps)
  if all(_known(value) for value in (steps, begin, end)) and (end < begin or (end - begin) % steps):
    raise ValueError(
      f'cycle: end={end} must be begin={begin} plus a whole number of phases of steps={steps}'
    )

  def sparsity_at(step):
    phase = (step - begin) // steps
    return jnp.where((step >= end) | ((step >= begin) & (phase % 2 == 0)), _sparsity(sparsity), 0)

  return _schedule(sparsity_at, 'cycle', sparsity, end)


def every(n, begin=0, until=None):
  """Masks move at begin, begin + n, begin + 2n, ... and, if given, not after step `until`."""
  _check_steps('every', begin=begin)
  if _known(n) and not (float(n).is_integer() and n >= 1):
    raise ValueError(f'every: n={n!r} must be a whole number of steps of at least 1')
  if until is not None:
    _check_steps('every', until=until)
    if _known(begin) and _known(until) and begin > until:
      raise ValueError(f'every: begin={begin} is after until={until}')

  def due(step):
    now = (step >= begin) & ((step - begin) % n == 0)
    return now if until is None else now & (step <= until)

  due.begin, due.until = begin, until
  return due


def until(last, when=None):
  """`when` (default: every step), but not after step `last`; then masks stay as they are."""
  _check_steps('until', last=last)
  when = every(1) if when is None else when
  begin, inner = getattr(when, 'begin', None), getattr(when, 'until', None)
  if begin is not None and _known(begin) and _known(last) and begin > last:
    raise ValueError(
      f'until: the masks of its `when` move from step {begin} on, which is after last={last}'
    )
  due = lambda step: when(step) & (step <= last)
  due.begin, due.until = begin, last
  if inner is not None:
    due.until = min(last, inner) if _known(last) and _known(inner) else jnp.minimum(last, inner)
  return due


def _forced_step(origin, schedule, when):
  """The schedule's end, if masks may move before it: there they move whatever the interval, so that the target is
  reached. None for one that has no end, or asks for all it ever will by the first step at which `when` lets masks move.
  """
  end, begin, last = (
    getattr(schedule, 'end', None),
    getattr(when, 'begin', None),
    getattr(when, 'until', None),
  )
  static = lambda *values: all(isinstance(value, (int, float, np.number)) for value in values)
  if static(end, last) and last < end:
    raise ValueError(
      f'{origin}: masks or ranks stop moving after step {last}, before the schedule reaches its target at step {end}'
    )
  begin = 0 if begin is None else begin
  return None if end is None or (static(end, begin) and end <= begin) else end


def _ramp(name, sparsity, begin, end, initial, power):
  if end is None:
    raise ValueError(
      f'{name}: end= is missing: the step at which the sparsity is reached, as in {name}(0.9, begin=0, end=10_000)'
    )
  _check_steps(name, begin=begin, end=end)
  if _known(begin) and _known(end) and begin > end:
    raise ValueError(f'{name}: begin={begin} is after end={end}')
  _check_sparsity(name, sparsity)
  _check_sparsity(f'{name} initial', initial)
  _check_order(name, 'initial', initial, 'sparsity', sparsity)

  def sparsity_at(step):
    left = jnp.clip(
      jnp.asarray(end - step, jnp.float32) / jnp.maximum(jnp.asarray(end - begin, jnp.float32), 1),
      0,
      1,
    )
    target = _sparsity(sparsity)
    level = target + (_sparsity(initial) - target) * left**power
    return jnp.where(step >= end, target, jnp.where(step >= begin, level, 0))

  return _schedule(sparsity_at, name, sparsity, end)


def _schedule(sparsity_at, name, final, end):
  _check_sparsity(name, final)
  sparsity_at.end = end
  sparsity_at.final = float(final) if _known(final) else None
  return sparsity_at


def _sparsity(value):
  return jnp.asarray(value, jnp.float32)


def _known(value) -> bool:
  """True for numbers of Python and numpy. A jax array may be traced, so it is data and is never
  compared here.
  """
  return not isinstance(value, jax.Array)


def _check_sparsity(name, value):
  if not _known(value):
    return
  if (
    isinstance(value, (bool, str))
    or not isinstance(value, (int, float, np.number, np.ndarray))
    or np.ndim(value)
  ):
    raise ValueError(
      f'{name}: sparsity={value!r} must be a number, the fraction removed in [0, 1), or a jax array'
    )
  if not (value >= 0 and np.float32(value) < 1):
    raise ValueError(
      f'{name}: sparsity={float(value)} is outside [0, 1); it is the fraction removed, so 90 % is 0.9'
    )


def _check_count(name, key, value):
  if _known(value) and not (float(value).is_integer() and value >= 1):
    raise ValueError(f'{name}: {key}={value!r} must be a whole number of at least 1')


def _check_order(name, low_name, low, high_name, high):
  if _known(low) and _known(high) and isinstance(high, (int, float, np.number)) and low > high:
    raise ValueError(
      f'{name}: {low_name}={low} is above {high_name}={high}; a sparsity that falls would revive weights'
    )


def _check_steps(name, **steps):
  for key, value in steps.items():
    if not _known(value):
      continue
    whole = (
      isinstance(value, (int, float, np.number))
      and not isinstance(value, bool)
      and math.isfinite(value)
    )
    if not whole or not float(value).is_integer() or value < 0:
      raise ValueError(f'{name}: {key}={value!r} must be a step, a whole number of at least 0')

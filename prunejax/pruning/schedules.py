"""WHEN: how sparse is the model at a step, and do masks move at it?

A `Schedule` answers the first question and a `When` the second. Both are called with an int32 step,
counted from 0, which may be traced. Plain functions of the step, optax schedules among them, are
accepted in the place of either.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.precision import refuse_half

Number = float | int | jax.Array
_FAR = 1 << 30  # a step after the end of every run
# The scope, in compiled programs, of what runs only at steps at which masks move.
MASK_STEP = 'mask_step'

# What a spec string may name, as in 'cubic(0.9, end=10000)' and 'every(10)'.
__all__ = [
  'constant',
  'cubic',
  'cycle',
  'every',
  'iterative',
  'linear',
  'one_shot',
  'staircase',
  'until',
]


# A dataclass and not a NamedTuple: `jax.jit(cubic(0.9, end=10))` has to work, and jit takes no
# tuple.
@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
  """Step -> sparsity, the fraction removed.

  Attributes:
    value: the function of the step, to a float32 scalar.
    begin: the first step at which the sparsity may rise.
    end: the step from which the sparsity stays as it is, or None if that is not known. Masks move
      at `end` whatever `when` says, so that the target is reached even if `end` is no multiple of
      the interval. Where `end` is None they move at a step, up to the last of `when`, at which the
      value has just changed to the one that it keeps for good.
    final: the sparsity from `end` on, or None if it is known only at run time.
    rises: True if the sparsity is known never to fall. A link then never asks for less than its
      masks already have, even if they come from another link.
  """

  value: Callable[[Any], Any]
  begin: Any = 0
  end: Any = None
  final: float | None = None
  rises: bool = False

  def __call__(self, step):
    return self.value(step)


@dataclasses.dataclass(frozen=True, eq=False)
class When:
  """Step -> do masks move at this step?

  Attributes:
    due: the function of the step, to a bool scalar.
    begin: the first step at which masks may move.
    last: the last step at which masks may move, or None if there is no last one or it is not known.
  """

  due: Callable[[Any], Any]
  begin: Any = 0
  last: Any = None

  def __call__(self, step):
    return self.due(step)


def cubic(
  sparsity: Number, begin: int = 0, end: int | None = None, initial: Number = 0.0
) -> Schedule:
  """Gradual pruning (Zhu & Gupta, 2017, equation 1).

  s + (initial - s) (1 - (t - begin) / (end - begin))^3 from `begin` to `end`, `initial` before.

  Args:
    sparsity: s, the sparsity from `end` on, in [0, 1).
    begin: the step from which the sparsity rises.
    end: the step at which s is reached.
    initial: the sparsity up to `begin`.

  Raises:
    ValueError: a value is out of range, or `end` is missing.
  """
  return _ramp('cubic', sparsity, begin, end, initial, 3)


def linear(
  sparsity: Number, begin: int = 0, end: int | None = None, initial: Number = 0.0
) -> Schedule:
  """A straight line from `initial` at step `begin` to `sparsity` at step `end`.

  Before `begin` the sparsity is `initial`.

  Arguments and errors are those of `cubic`.
  """
  return _ramp('linear', sparsity, begin, end, initial, 1)


def constant(sparsity: Number) -> Schedule:
  """The same sparsity at every step.

  Raises:
    ValueError: the sparsity is outside [0, 1).
  """
  sparsity_at = lambda step: jnp.broadcast_to(_float32(sparsity), jnp.shape(step))
  return _schedule('constant', sparsity_at, 0, 0, sparsity, True)


def one_shot(sparsity: Number, at: int = 0) -> Schedule:
  """0 before step `at`, `sparsity` from step `at` on.

  Raises:
    ValueError: the sparsity is outside [0, 1), or `at` is no step.
  """
  _check_steps('one_shot', at=at)
  sparsity_at = lambda step: jnp.where(_is_reached(at, step), _float32(sparsity), 0)
  return _schedule('one_shot', sparsity_at, at, at, sparsity, _are_numbers(at))


def staircase(start: Number, final: Number, steps: int, jumps: int, begin: int = 0) -> Schedule:
  """`start` at step `begin`, then `jumps` equal jumps to `final`, one every `steps` steps.

  `staircase(0.5, 0.86, steps=1001, jumps=9)` is the schedule of Cheong & Daniel (2019).

  Raises:
    ValueError: a value is out of range, or `start` is above `final`.
  """
  _check_steps('staircase', begin=begin)
  _check_sparsity('staircase start', start)
  _check_sparsity('staircase final', final)
  for name, value in (('steps', steps), ('jumps', jumps)):
    _check_count('staircase', name, value)
  _check_order('staircase', 'start', start, 'final', final)

  def sparsity_at(step):
    taken = jnp.clip((step - begin) // steps, 0, jumps)
    rise = (_float32(final) - _float32(start)) * (taken.astype(jnp.float32) / jumps)
    level = jnp.where(taken == jumps, _float32(final), _float32(start) + rise)
    return jnp.where(_is_reached(begin, step), level, 0)

  known = _are_numbers(start, steps, jumps, begin)
  return _schedule('staircase final', sparsity_at, begin, begin + steps * jumps, final, known)


def iterative(sparsity: Number, rounds: int, steps: int, begin: int = 0) -> Schedule:
  """Rounds of pruning that each remove the same share of what is left.

  Round r, at step `begin` + (r - 1) `steps`, brings the sparsity to
  1 - (1 - sparsity)^(r / rounds) (Han et al., 2015; Frankle & Carbin, 2019). Masks move with
  `every(steps, begin)`.

  Raises:
    ValueError: a value is out of range.
  """
  _check_steps('iterative', begin=begin)
  _check_sparsity('iterative', sparsity)
  for name, value in (('rounds', rounds), ('steps', steps)):
    _check_count('iterative', name, value)

  def sparsity_at(step):
    done = jnp.clip((step - begin) // steps + 1, 0, rounds)
    left = (1 - _float32(sparsity)) ** (done.astype(jnp.float32) / rounds)
    level = jnp.where(done == rounds, _float32(sparsity), 1 - left)
    return jnp.where(_is_reached(begin, step), level, 0)

  end, known = begin + steps * (rounds - 1), _are_numbers(rounds, steps, begin)
  return _schedule('iterative', sparsity_at, begin, end, sparsity, known)


def cycle(sparsity: Number, steps: int, begin: int, end: int) -> Schedule:
  """Phases of `steps` steps that are sparse and dense in turn (AC/DC; Peste et al., 2021).

  Dense before `begin`, sparse for good from `end` on. Masks move with `every(steps, begin)`.
  Weights that come back start at 0.

  Raises:
    ValueError: a value is out of range, or `end` is no whole number of phases after `begin`.
  """
  _check_steps('cycle', begin=begin, end=end)
  _check_count('cycle', 'steps', steps)
  known = all(_is_known(value) for value in (steps, begin, end))
  if known and (end < begin or (end - begin) % steps):
    raise ValueError(
      f'cycle: end={end} must be begin={begin} plus a whole number of phases of steps={steps}'
    )

  def sparsity_at(step):
    phase = (step - begin) // steps
    sparse = _is_reached(end, step) | (_is_reached(begin, step) & (phase % 2 == 0))
    return jnp.where(sparse, _float32(sparsity), 0)

  return _schedule('cycle', sparsity_at, begin, end, sparsity, False)


def every(n: int, begin: int = 0, until: int | None = None) -> When:
  """Masks move at steps begin, begin + n, begin + 2n, ..., and not after step `until`.

  Raises:
    ValueError: `n` is no positive integer, or the steps are out of order.
  """
  _check_steps('every', begin=begin)
  refuse_half('every', 'n', n)
  if _is_known(n) and not (float(n).is_integer() and n >= 1):
    raise ValueError(f'every: n={n!r} must be a whole number of steps of at least 1')
  if until is not None:
    _check_steps('every', until=until)
    if _is_known(begin) and _is_known(until) and begin > until:
      raise ValueError(f'every: begin={begin} is after until={until}')

  def due(step):
    now = (step >= begin) & ((step - begin) % n == 0)
    return now if until is None else now & (step <= until)

  return When(due, begin, until)


def until(last: int, when: When | Callable | None = None) -> When:
  """`when` (default: every step), but not after step `last`: masks then stay as they are.

  Raises:
    ValueError: `when` first moves masks after step `last`.
  """
  _check_steps('until', last=last)
  when = every(1) if when is None else as_when(when)
  if _is_known(when.begin) and _is_known(last) and when.begin > last:
    raise ValueError(
      f'until: `when` first moves masks at step {when.begin}, which is after last={last}'
    )
  lasts = [last] if when.last is None else [last, when.last]
  known = all(_is_known(value) for value in lasts)
  earliest = min(lasts) if known else functools.reduce(jnp.minimum, lasts)
  return When(lambda step: when(step) & (step <= last), when.begin, earliest)


def as_schedule(schedule: Schedule | Callable) -> Schedule:
  """Returns `schedule` as a `Schedule`; of a plain function only the value is known."""
  whole = _unwrapped(schedule)
  return whole if isinstance(whole, Schedule) else Schedule(schedule)


def as_when(when: When | Callable) -> When:
  """Returns `when` as a `When`; a plain function of the step may move masks at any step."""
  whole = _unwrapped(when)
  return whole if isinstance(whole, When) else When(when)


def moves(origin: str, schedule: Schedule, when: When) -> Callable[[jax.Array], jax.Array]:
  """Returns the function step -> do masks move?: at the steps of `when`, and at the target.

  Args:
    origin: the name of the caller, for the error.
    schedule: the sparsity. Its `end` moves masks too, if that comes after the first step of `when`.
    when: the regular moves. After its `last` no masks move.

  Raises:
    ValueError: `when` stops before the schedule reaches its target.
  """
  end, begin, last = schedule.end, when.begin, when.last
  if end is None:
    within = lambda step: (step > begin) if last is None else (step > begin) & (step <= last)
    return lambda step: when(step) | (within(step) & _arrives(schedule, step))
  if _are_numbers(end, last) and last < end:
    raise ValueError(
      f'{origin}: `when` stops after step {last}, before the schedule reaches its target at step'
      f' {end}'
    )
  if _are_numbers(end, begin) and end <= begin:
    return when
  ends = lambda step: step == end if _is_integer(end) else _steps_until(end, step) == 0
  return lambda step: when(step) | ends(step)


def _arrives(schedule, step):
  """True at a step at which the sparsity has just reached the value that it keeps."""
  steps = [step - 1, step, step + 1, jnp.maximum(step, _FAR)]
  # One loop computes all values. Of copies of a formula a compiler may round each in its own way.
  value = lambda step: jnp.asarray(schedule(step))
  before, now, after, far = lax.map(value, jnp.stack(steps))
  # A curve that flattens out stands still for a few steps wherever float32 cannot follow it. Such
  # a value is not the last one.
  return (now != before) & (now == after) & (now == far)


def _unwrapped(function):
  """What a `functools.partial` without arguments stands for, at any depth."""
  while isinstance(function, functools.partial) and not (function.args or function.keywords):
    function = function.func
  return function


def _ramp(name, sparsity, begin, end, initial, power) -> Schedule:
  if end is None:
    raise ValueError(
      f'{name}: end= is missing: the step at which the sparsity is reached, as in'
      f' {name}(0.9, begin=0, end=10_000)'
    )
  _check_steps(name, begin=begin, end=end)
  if _is_known(begin) and _is_known(end) and begin > end:
    raise ValueError(f'{name}: begin={begin} is after end={end}')
  _check_sparsity(name, sparsity)
  _check_sparsity(f'{name} initial', initial)
  _check_order(name, 'initial', initial, 'sparsity', sparsity)

  def sparsity_at(step):
    length = jnp.maximum(jnp.asarray(end - begin, jnp.float32), 1)
    left = jnp.clip(_steps_until(end, step) / length, 0, 1)
    target = _float32(sparsity)
    level = target + (_float32(initial) - target) * left**power
    started = jnp.where(_is_reached(begin, step), level, _float32(initial))
    return jnp.where(_is_reached(end, step), target, started)

  return _schedule(name, sparsity_at, begin, end, sparsity, _are_numbers(begin, end, initial))


def _schedule(name, value, begin, end, final, rises) -> Schedule:
  _check_sparsity(name, final)
  known = float(final) if _is_known(final) else None
  return Schedule(value, begin, end, known, rises and known is not None)


def _steps_until(end, step):
  """Returns end - step as float32. Integers are subtracted as such: they may be above 2^24."""
  if _is_integer(end):
    return jnp.asarray(end - step, jnp.float32)
  return jnp.asarray(end, jnp.float32) - jnp.asarray(step, jnp.float32)


def _is_integer(value):
  return jnp.issubdtype(jnp.result_type(value), jnp.integer)


def _is_reached(at, step):
  """Returns bool: step >= at, whatever numbers they are."""
  return step >= at if _is_integer(at) else _steps_until(at, step) <= 0


def _float32(value):
  return jnp.asarray(value, jnp.float32)


def _is_known(value) -> bool:
  """True for numbers of Python and numpy; a jax array may be traced and is never compared."""
  return not isinstance(value, jax.Array)


def _are_numbers(*values) -> bool:
  return all(isinstance(value, (int, float, np.number)) for value in values)


def _check_sparsity(name, value):
  refuse_half(name, 'sparsity', value)
  if isinstance(value, jax.Array) and value.shape:
    raise ValueError(f'{name}: sparsity has shape {value.shape}; a single number is needed')
  if not _is_known(value):
    return
  is_number = isinstance(value, (int, float, np.number, np.ndarray)) and not np.ndim(value)
  if isinstance(value, bool) or not is_number:
    raise ValueError(
      f'{name}: sparsity={value!r} must be a number, the fraction removed in [0, 1), or a jax array'
    )
  if not (value >= 0 and np.float32(value) < 1):
    raise ValueError(
      f'{name}: sparsity={float(value)} is outside [0, 1); it is the fraction removed, so 90 % is'
      ' 0.9'
    )


def _check_count(name, key, value):
  refuse_half(name, key, value)
  if _is_known(value) and not (float(value).is_integer() and value >= 1):
    raise ValueError(f'{name}: {key}={value!r} must be a whole number of at least 1')


def _check_order(name, low_name, low, high_name, high):
  if _are_numbers(low, high) and low > high:
    raise ValueError(
      f'{name}: {low_name}={low} is above {high_name}={high}; a sparsity that falls would revive'
      ' weights'
    )


def _check_steps(name, **steps):
  for key, value in steps.items():
    refuse_half(name, key, value)
    if not _is_known(value):
      continue
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and float(value).is_integer() and value >= 0):
      raise ValueError(f'{name}: {key}={value!r} must be a step, a whole number of at least 0')

"""Schedules and step predicates."""

import functools
import os
import pathlib
import subprocess
import sys

import cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.pruning import schedules

STEPS = np.arange(20, dtype=np.int32)


@pytest.mark.parametrize('name', cases.SCHEDULES)
def test_schedule_matches_its_oracle(name):
  made, oracle = cases.SCHEDULES[name].make(), cases.SCHEDULES[name].oracle
  got = jax.jit(jax.vmap(made))(STEPS)
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, [oracle(int(t)) for t in STEPS], atol=1e-6)
  after = [t for t in STEPS if t >= made.end]
  assert np.all(got[np.array(after)] == np.float32(made.final))
  assert name == 'cycle' or np.all(np.diff(got) >= 0)


@pytest.mark.parametrize('name', cases.PREDICATES)
def test_predicate_matches_its_oracle(name):
  made, oracle, *_ = cases.PREDICATES[name]
  assert jax.vmap(made())(STEPS).tolist() == [oracle(int(t)) for t in STEPS]


def test_cheong_and_daniel_in_one_call():
  stairs = prunejax.staircase(0.5, 0.86, steps=1001, jumps=9)
  levels = [float(stairs(jnp.int32(t))) for t in (0, 1000, 1001, 2002, 8 * 1001, 9 * 1001, 10**6)]
  np.testing.assert_allclose(levels, [0.5, 0.5, 0.54, 0.58, 0.82, 0.86, 0.86], atol=1e-6)
  assert stairs.end == 9009


def test_sparsity_and_steps_may_be_data():
  @jax.jit
  def levels(sparsity, end):
    return jax.vmap(prunejax.cubic(sparsity, end=end))(STEPS), prunejax.one_shot(sparsity)(0)

  got, _ = levels(jnp.float32(0.9), jnp.int32(10))
  np.testing.assert_allclose(got, jax.vmap(prunejax.cubic(0.9, end=10))(STEPS), rtol=1e-6)
  assert levels(jnp.float32(0.4), jnp.int32(7))[1] == np.float32(0.4)
  assert levels._cache_size() == 1


BAD = [
  (lambda: prunejax.cubic(1.0, end=10), r'cubic: sparsity=1.0 is outside \[0, 1\)'),
  (lambda: prunejax.cubic(90, end=10), 'so 90 % is 0.9'),
  (lambda: prunejax.cubic(-0.1, end=10), 'outside'),
  (lambda: prunejax.cubic(float('nan'), end=10), 'outside'),
  (lambda: prunejax.cubic('0.9', end=10), "sparsity='0.9' must be a number"),
  (lambda: prunejax.constant(0.99999999999), 'outside'),
  (lambda: prunejax.cubic(0.9), 'cubic: end= is missing'),
  (lambda: prunejax.cubic(0.9, begin=11, end=10), 'begin=11 is after end=10'),
  (lambda: prunejax.linear(0.5, end=10, initial=0.6), 'initial=0.6 is above sparsity=0.5'),
  (lambda: prunejax.linear(0.5, end=10.5), 'end=10.5 must be a step'),
  (lambda: prunejax.linear(0.5, begin=-1, end=10), 'begin=-1 must be a step'),
  (lambda: prunejax.one_shot(0.5, at=-3), 'at=-3 must be a step'),
  (lambda: prunejax.staircase(0.9, 0.5, steps=10, jumps=2), 'start=0.9 is above final=0.5'),
  (lambda: prunejax.staircase(0.5, 0.9, steps=0, jumps=2), 'steps=0 must be a whole number'),
  (
    lambda: schedules.iterative(0.9, rounds=0, steps=5),
    'iterative: rounds=0 must be a whole number',
  ),
  (
    lambda: schedules.cycle(0.9, steps=5, begin=3, end=10),
    'end=10 must be begin=3 plus a whole number',
  ),
  (lambda: schedules.cycle(0.9, steps=5, begin=8, end=3), 'end=3 must be begin=8'),
  (lambda: prunejax.every(0), 'n=0 must be a whole number of steps'),
  (lambda: prunejax.every(5, begin=9, until=3), 'begin=9 is after until=3'),
  (lambda: prunejax.until(-1), 'last=-1 must be a step'),
]


@pytest.mark.parametrize('make, message', BAD, ids=[message for _, message in BAD])
def test_wrong_numbers_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def removed_at(schedule, steps, when=None):
  """The sparsity after each step of a link whose masks move every five steps."""
  when = prunejax.every(5) if when is None else when
  tx = prunejax.prune_transform(prunejax.magnitude(), schedule, when)
  params = {'w': jnp.arange(1.0, 101.0)}
  state, update, sparsities = tx.init(params), jax.jit(tx.update), []
  for _ in range(steps):
    updates, state = update(params, state, params)
    sparsities.append(prunejax.masks.sparsity(state.prune_mask)['total'])
  return sparsities


RAMP = prunejax.linear(0.9, end=12)
WRAPPED = {
  'partial': functools.partial(RAMP),
  'partial of a partial': functools.partial(functools.partial(RAMP)),
  'lambda': lambda step: RAMP(step),
  'join_schedules': optax.join_schedules([RAMP, optax.constant_schedule(0.9)], [20]),
}


@functools.cache
def ramp_alone():
  return removed_at(RAMP, 16)


@pytest.mark.parametrize('name', WRAPPED)
def test_a_wrapped_schedule_reaches_its_target_between_two_moves(name):
  expected = ramp_alone()
  assert expected[11] < 0.9 == expected[12] == expected[15]
  assert removed_at(WRAPPED[name], 16) == expected


def test_an_optax_schedule_is_accepted_and_its_target_is_reached():
  sparsities = removed_at(optax.linear_schedule(0.0, 0.8, 7), 10)
  assert sparsities[:5] == [0.0] * 5 and sparsities[5] == 0.57 and sparsities[7:] == [0.8] * 3


def test_a_wrapped_curve_that_flattens_out_arrives_once():
  schedule = optax.polynomial_schedule(0.0, 0.9, 3, 100_000)
  moves = jax.vmap(schedules.moves('test', schedules.as_schedule(schedule), schedules.every(1000)))
  steps = np.flatnonzero(moves(jnp.arange(100_500)))
  arrived = steps[steps % 1000 != 0]
  # Close to its end the curve stands still for several steps, 918 times.
  assert len(arrived) == 1 and schedule(arrived[0]) == np.float32(0.9) > schedule(arrived[0] - 1)


def test_a_wrapped_schedule_moves_no_masks_after_the_last_step():
  late = lambda step: jnp.where(step >= 8, 0.5, 0.0)
  assert removed_at(late, 12, prunejax.until(6)) == [0.0] * 12
  assert removed_at(late, 12, prunejax.every(7, until=8)) == [0.0] * 8 + [0.5] * 4


def test_a_partial_of_a_predicate_keeps_its_last_step():
  when = functools.partial(prunejax.every(1, until=1))
  with pytest.raises(
    ValueError, match='stops after step 1, before the schedule reaches its target'
  ):
    prunejax.prune_transform(prunejax.magnitude(), RAMP, when)


def test_schedules_may_be_jitted():
  assert jax.jit(RAMP)(12) == np.float32(0.9) and jax.jit(prunejax.every(4, begin=3))(7)


def sparsities_after(tx, params, state, steps):
  """The sparsity after each of some steps that go on from a state."""
  update, after = jax.jit(tx.update), []
  for _ in range(steps):
    updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
    params = optax.apply_updates(params, updates)
    after.append(prunejax.masks.sparsity(prunejax.get_masks(state, params))['total'])
  return after, params, state


def chain_of(schedule, when=None):
  when = prunejax.every(1) if when is None else when
  link = prunejax.prune_transform(prunejax.magnitude(), schedule, when)
  return optax.chain(optax.sgd(1e-3), link)


HUNDRED = {'w': jnp.arange(1.0, 101.0)}


@pytest.mark.parametrize('ramp', [prunejax.cubic, prunejax.linear])
def test_a_ramp_is_at_its_initial_sparsity_before_it_begins(ramp):
  tx = chain_of(ramp(0.9, begin=4, end=8, initial=0.5))
  after, *_ = sparsities_after(tx, HUNDRED, tx.init(HUNDRED), 10)
  assert after[:5] == [0.5] * 5 and np.all(np.diff(after) >= 0) and after[8:] == [0.9, 0.9]


@functools.cache
def half_pruned(steps):
  tx = chain_of(prunejax.constant(0.5))
  _, params, state = sparsities_after(tx, HUNDRED, tx.init(HUNDRED), steps)
  return params, state


RISING = {
  'begin ahead': lambda: prunejax.cubic(0.9, begin=8, end=12),
  'begin ahead, initial': lambda: prunejax.linear(0.9, begin=8, end=12, initial=0.25),
  'in the middle': lambda: prunejax.linear(0.9, end=12),
  'one shot': lambda: prunejax.one_shot(0.9, at=12),
  'staircase': lambda: prunejax.staircase(0.1, 0.9, steps=2, jumps=4, begin=4),
  'iterative': lambda: prunejax.iterative(0.9, rounds=5, steps=2, begin=4),
}


@pytest.mark.parametrize('name', RISING)
def test_masks_never_fall_back_in_a_schedule_that_only_rises(name):
  """A state that is half pruned goes on under another schedule, which asks for less at first."""
  params, state = half_pruned(3)
  after, *_ = sparsities_after(chain_of(RISING[name]()), params, state, 12)
  assert after[0] == 0.5 and np.all(np.diff(after) >= 0) and after[-1] == 0.9


def test_masks_fall_where_the_schedule_falls_or_is_not_known_to_rise():
  params, state = half_pruned(2)
  cycle = schedules.cycle(0.75, steps=2, begin=0, end=8)
  for schedule in (cycle, lambda step: jnp.where(step < 4, 0.0, 0.75)):
    after, *_ = sparsities_after(chain_of(schedule), params, state, 2)
    assert after == [0.0, 0.0]
  assert not any(s.rises for s in (cycle, schedules.as_schedule(lambda step: 0.5)))
  assert not prunejax.constant(jnp.float32(0.5)).rises, 'a number of run time may change'


AS_USERS_COMPILE = """
import jax, jax.numpy as jnp, optax
from prunejax.pruning import schedules

WHEN = schedules.every(5)
for name, schedule in (
  ('linear', optax.linear_schedule(0.0, 0.8, 7)),
  ('late', optax.linear_schedule(0.1, 0.7, 995, 3)),
  ('polynomial', optax.polynomial_schedule(0.0, 0.9, 3, 13)),
  ('joined', optax.join_schedules([optax.linear_schedule(0.0, 0.3, 4),
                                   optax.linear_schedule(0.3, 0.6, 9)], [10])),
):
  move = jax.jit(schedules.moves('test', schedules.as_schedule(schedule), WHEN))
  print(name, [i for i in (*range(40), *range(990, 1010)) if i % 5 and bool(move(jnp.int32(i)))])
"""


def test_the_target_is_reached_in_a_program_that_is_compiled_as_users_compile():
  """The tests compile without most optimizations, which round copies of a formula differently."""
  flags = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  done = subprocess.run(
    [sys.executable, '-c', AS_USERS_COMPILE],
    capture_output=True,
    text=True,
    env={**flags, 'JAX_PLATFORMS': 'cpu'},
    cwd=pathlib.Path(__file__).parents[2],
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.splitlines() == ['linear [7]', 'late [998]', 'polynomial [13]', 'joined [19]']

"""Criteria that move the survivors: when, where, in which dtype, under which wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax

SHIFT = 0.25


def moving(calls=None, change=SHIFT):
  """Magnitude that adds `change` to every weight when masks move.

  `calls` gets a word each time `prepare` runs.
  """
  plain = prunejax.magnitude()

  def prepare(state, params, **_):
    if calls is not None:
      jax.debug.callback(lambda: calls.append('prepared'))
    return jnp.float32(7)

  def score(ready, params, **extra):
    assert jnp.shape(ready) == ()
    return plain.score((), params, **extra)

  def compensate(ready, params, masks, **_):
    assert jnp.shape(ready) == () and jax.tree.structure(masks) == jax.tree.structure(params)
    # Always float32: the link casts it to the dtype of the weights.
    return jax.tree.map(lambda p: jnp.full(p.shape, change, jnp.float32), params)

  return plain._replace(prepare=prepare, score=score, compensate=compensate)


def params_of(seed=0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(rng.permutation(np.prod(shape)).reshape(shape) + 1, jnp.float32)
  return {
    'z': {'kernel': draw(4, 3)},
    'bias': draw(3),
    'a': {'kernel': draw(2, 2, 2).astype(jnp.bfloat16)},
  }


def link(criterion, **kwargs):
  kwargs = {'where': '.*kernel', 'stacked': 'a/.*', **kwargs}
  when = prunejax.every(1, begin=1, until=1)
  return prunejax.prune_transform(criterion, prunejax.one_shot(0.5, at=1), when, **kwargs)


def steps(tx, params, count=3):
  """Params and state after each step with gradients of one."""
  step = jax.jit(
    lambda params, state: tx.update(jax.tree.map(jnp.ones_like, params), state, params)
  )
  state, out = tx.init(params), []
  for _ in range(count):
    updates, state = step(params, state)
    params = optax.apply_updates(params, updates)
    out.append((params, state))
  return out


def expected(params, moves, rate=0.5):
  """Params after `moves` steps: half of each kernel, or of each slice of a stack, is 0 and the rest
  moved once.
  """
  out = {}
  for name, p in (('z', params['z']['kernel']), ('a', params['a']['kernel'])):
    p = np.asarray(p, np.float32)
    parts = p[None] if name == 'z' else p
    kept = np.stack([part > np.median(part) for part in parts]).reshape(p.shape)
    out[name] = {'kernel': np.where(kept, p - rate * moves + SHIFT, 0)}
  return {**out, 'bias': np.asarray(params['bias']) - rate * moves}


def assert_equal(params, wanted):
  jax.tree.map(
    np.testing.assert_array_equal, jax.tree.map(lambda p: np.asarray(p, np.float32), params), wanted
  )


def test_only_survivors_move_at_mask_steps_in_their_own_dtype():
  calls, params = [], params_of()
  tx = optax.chain(optax.sgd(0.5), link(moving(calls)))
  first, second, third = steps(tx, params)
  jax.effects_barrier()
  assert calls == ['prepared'], 'once, and only when masks move'
  np.testing.assert_array_equal(first[0]['z']['kernel'], params['z']['kernel'] - 0.5)
  assert_equal(second[0], expected(params, 2))
  assert_equal(third[0], expected(params, 3))
  assert jax.tree.map(lambda p: p.dtype, third[0]) == jax.tree.map(lambda p: p.dtype, params)
  prunejax.check_pruned(*third)


def test_a_change_that_is_not_finite_is_named():
  _, (params, state), _ = steps(
    optax.chain(optax.sgd(0.5), link(moving(change=jnp.inf))), params_of()
  )
  assert prunejax.nan_scores(state) == {'a/kernel': 2, 'z/kernel': 2}
  assert np.isnan(params['z']['kernel']).all() and np.isfinite(params['bias']).all()


@pytest.mark.parametrize(
  'over', [jax.vmap, lambda f: lambda *args: jax.lax.map(lambda one: f(*one), args)]
)
def test_members_of_a_population_equal_single_runs(over):
  members, calls = [params_of(0), params_of(1)], []
  tx = optax.chain(optax.sgd(0.5), link(moving(calls)))
  stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)

  def train(params):
    state = tx.init(params)
    for _ in range(2):
      updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
      params = optax.apply_updates(params, updates)
    return params

  out = jax.jit(over(train))(stack)
  for i, params in enumerate(members):
    assert_equal(jax.tree.map(lambda leaf, i=i: leaf[i], out), expected(params, 2))


def test_wrappers_of_optax_pass_the_change_on():
  params = params_of()
  tx = optax.apply_if_finite(optax.chain(optax.sgd(0.5), link(moving())), 3)
  assert_equal(steps(tx, params, 2)[-1][0], expected(params, 2))
  every = optax.MultiSteps(optax.chain(optax.sgd(0.5), link(moving())), 2)
  _, (first, _), (still, _), (last, _) = steps(every, params, 4)
  np.testing.assert_array_equal(first['z']['kernel'], params['z']['kernel'] - 0.5)
  np.testing.assert_array_equal(still['z']['kernel'], first['z']['kernel'])
  assert_equal(last, expected(params, 2))


def test_compensation_refuses_latent_weights():
  with pytest.raises(ValueError, match='zero_pruned=False keeps pruned weights alive'):
    link(moving(), zero_pruned=False)

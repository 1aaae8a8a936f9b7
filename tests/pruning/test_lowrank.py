"""Low rank at equal bytes: ranks by counting, truncated decomposition, kernels held at a rank."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

import prunejax
from prunejax.pruning.links import low_rank

SHAPE = (12, 8)


def rank_oracle(shape, sparsity):
  size = shape[0] * shape[1]
  kept = size - math.floor(size * Fraction(str(sparsity)) + Fraction(1, 2))
  return min(min(shape), kept // sum(shape)) if sparsity else min(shape)


def best(matrix, rank):
  left, values, right = np.linalg.svd(np.float64(matrix), full_matrices=False)
  return (left[:, :rank] * values[:rank]) @ right[:rank]


def kernel(seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE), jnp.float32)


def rank_of(matrix):
  return int(np.linalg.matrix_rank(np.float64(matrix), tol=1e-4))


@pytest.mark.parametrize('shape', [(12, 8), (128, 512), (30522, 768)])
def test_the_rank_is_the_largest_that_the_non_zeros_pay_for(shape):
  of = jax.jit(lambda s: low_rank.rank_for(shape, s))
  for s in (0.0, 0.1, 0.5, 0.7, 0.9, 0.99):
    rank = int(of(jnp.float32(s)))
    assert rank == rank_oracle(shape, s)
    if s:
      assert rank * sum(shape) <= round(shape[0] * shape[1] * (1 - s)) < (rank + 1) * sum(shape)


def test_the_link_projects_to_the_nearest_matrix_and_holds_the_rank_between():
  params = {'w': {'kernel': kernel()}, 'b': jnp.ones(3)}
  tx = optax.chain(
    optax.sgd(0.1),
    low_rank.low_rank(prunejax.one_shot(0.5, at=1), prunejax.every(4), where='.*kernel'),
  )
  step = jax.jit(tx.update)
  state, plain = tx.init(params), np.float64(params['w']['kernel'])
  for t in range(7):
    grads = toy.grads_of(params, t)
    free = np.asarray(params['w']['kernel'], np.float64) - 0.1 * np.asarray(
      grads['w']['kernel'], np.float64
    )
    updates, state = step(grads, state, params)
    params = optax.apply_updates(params, updates)
    now = np.asarray(params['w']['kernel'])
    near = best(free, 2)
    if t == 0:
      np.testing.assert_allclose(now, plain - 0.1 * np.float64(grads['w']['kernel']), atol=1e-6)
      assert low_rank.ranks(state) == {}
    else:
      assert rank_of(now) == 2 and low_rank.ranks(state) == {'w/kernel': 2} == {
        'w/kernel': rank_oracle(SHAPE, 0.5)
      }
    if t in (1, 4):  # the schedule's end, and `when`
      np.testing.assert_allclose(now, near, atol=2e-5)
    if t in (2, 3, 5, 6):  # one step of power iteration is nearly optimal
      assert np.linalg.norm(now - free) < 1.03 * np.linalg.norm(near - free)
    np.testing.assert_allclose(params['b'], params['b'])
  left, right = low_rank.factors(now, 2)
  assert (left.size + right.size) == 2 * sum(SHAPE)
  np.testing.assert_allclose(left @ right, now, atol=1e-5)
  assert low_rank.numbers(params, low_rank.ranks(state)) == 2 * sum(SHAPE) + 3


def test_members_of_one_program_have_ranks_of_their_own():
  def run(sparsity, w):
    tx = low_rank.low_rank(prunejax.constant(sparsity), prunejax.every(2))
    params, state = {'kernel': w}, tx.init({'kernel': w})
    for t in range(2):
      updates, state = tx.update(toy.grads_of(params, t), state, params)
      params = optax.apply_updates(params, updates)
    return params['kernel']

  asked = jnp.array([0.0, 0.5, 0.75])
  out = jax.jit(jax.vmap(run))(asked, jnp.stack([kernel()] * 3))
  assert [rank_of(w) for w in out] == [8, 2, 1]
  alone = jax.jit(run)(asked[1], kernel())
  np.testing.assert_allclose(out[1], alone, atol=1e-5)


def test_wrong_use_gets_one_line():
  with pytest.raises(ValueError, match=r"low_rank: 'b' has shape \(3,\); only a kernel"):
    low_rank.low_rank(prunejax.constant(0.5)).init({'b': jnp.ones(3)})
  with pytest.raises(ValueError, match='low_rank: tx.update needs params'):
    tx = low_rank.low_rank(prunejax.constant(0.5))
    tx.update({}, tx.init({'w': kernel()}))

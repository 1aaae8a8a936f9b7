"""A small tree of parameters, and its training with random gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax import masks

SHAPES = {'enc': {'kernel': (6, 4), 'bias': (4,)}, 'head': {'kernel': (4, 3)}}


def make_params(seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  draw = lambda shape: jnp.asarray(rng.normal(size=shape), dtype)
  return jax.tree.map(draw, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def grads_of(params, seed):
  rng = np.random.default_rng(100 + seed)
  return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)


def prune(sparsity=0.5, criterion=None, **kwargs):
  kwargs = {'where': '.*kernel', **kwargs}
  criterion = prunejax.magnitude() if criterion is None else criterion
  return prunejax.prune_transform(criterion, prunejax.cubic(sparsity, end=2), **kwargs)


@functools.lru_cache(maxsize=8)
def step_of(tx, give):
  """A compiled step, which runs of one transformation share."""

  @jax.jit
  def step(params, state, grads):
    updates, state = tx.update(grads, state, params, **({'grad': grads} if give else {}))
    return optax.apply_updates(params, updates), state

  return step


def train(tx, params, steps=4, state=None, first=0, give=False):
  step = step_of(tx, give)
  state = tx.init(params) if state is None else state
  for t in range(first, first + steps):
    params, state = step(params, state, grads_of(params, t))
  return params, state


def assert_pruned(params, state, expected=0.5, where='.*kernel'):
  prunejax.check_pruned(params, state)
  kept = prunejax.get_masks(state, params)
  assert jax.tree.structure(kept) == jax.tree.structure(params)
  assert masks.sparsity(kept, where)['total'] == expected == masks.sparsity(params, where)['total']
  assert not any(np.signbit(p[p == 0]).any() for p in map(np.asarray, jax.tree.leaves(params)))

"""SCORE: how much does each weight matter? Every factory makes a `Criterion`; scores have the shape
of the weights.
"""

import sys
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.layout import like
from prunejax.pruning.types import Criterion, path_name


def magnitude() -> Criterion:
  """|w|: small weights go first (Han et al., 2015; Zhu & Gupta, 2017)."""
  # In float32, which is exact: XLA would round a half-precision |w| and store what it rounded.
  return _stateless(lambda params, **_: jax.tree.map(lambda w: jnp.abs(w.astype(jnp.float32)), params))


def random(seed=0) -> Criterion:
  """A fixed uniform draw in [0, 1) for every weight: from `seed` and the leaf's path alone, so
  masks nest as sparsity rises.
  """

  def score(params, **_):
    key = jax.random.key(seed, impl='threefry2x32')

    def draw(path, w):
      drawn = jax.random.uniform(jax.random.fold_in(key, zlib.crc32(path_name(path).encode())), w.shape)
      return like(drawn, w)

    return jax.tree_util.tree_map_with_path(draw, params)

  return _stateless(score)


def taylor() -> Criterion:
  """|w g|, the first-order change of the loss if w were removed (Molchanov et al., 2017). Needs
  `grad=`.
  """

  def score(params, *, grad, **_):
    product = lambda w, g: jnp.abs(w.astype(jnp.float32) * g.astype(jnp.float32))
    return jax.tree.map(product, params, _required(grad, 'taylor'))

  return _stateless(score)


class MovementState(NamedTuple):
  movement_sum: Any
  movement_tx: Any


def movement(tx: optax.GradientTransformation | None = None) -> Criterion:
  """S <- S - w g summed over steps, float32 (Sanh et al., 2020, eq. 4). Needs `grad=`.

  w g is the gradient of the loss with respect to the score; `tx`, if given, turns it into the
  score's own step (the paper trains scores with Adam: `movement(optax.adam(1e-2))`).
  """
  step_of = optax.with_extra_args_support(optax.scale(-1.0) if tx is None else tx)

  def init(params):
    zeros = optax.tree.zeros_like(params, dtype=jnp.float32)
    return MovementState(zeros, step_of.init(zeros))

  def update(state, params, *, grad, **_):
    slope = jax.tree.map(
      lambda w, g: w.astype(jnp.float32) * g.astype(jnp.float32),
      params,
      _required(grad, 'movement'),
    )
    step, inner = step_of.update(slope, state.movement_tx, state.movement_sum)
    return MovementState(jax.tree.map(jnp.add, state.movement_sum, step), inner)

  return Criterion(init, update, lambda state, params, **_: state.movement_sum)


def _stateless(score) -> Criterion:
  return Criterion(
    lambda params: (),
    lambda state, params, **_: state,
    lambda state, params, **extra: score(params, **extra),
  )


def _required(grad, name):
  if grad is None:
    raise ValueError(
      f'{name}() needs the raw gradient: call tx.update(grads, opt_state, params, grad=grads)'
      ' (and wrap plain links with optax.with_extra_args_support)'
    )
  if _under_multi_steps():
    raise ValueError(
      f'{name}() under optax.MultiSteps would see the gradient of the last micro-batch only; '
      'wrap the chain inside it with '
      'prunejax.gradient_from_updates(...), or accumulate gradients before tx.update'
    )
  return grad


def _under_multi_steps() -> bool:
  """True if the innermost of our own wrapper and `optax.MultiSteps` on the (trace-time) stack is
  the latter.

  Nothing in the arguments tells an accumulated gradient from a partial one; the call stack while
  tracing does.
  """
  frame = sys._getframe(1)
  while frame is not None:
    name = frame.f_code.co_qualname
    if name.startswith('gradient_from_updates.'):
      return False
    if name.startswith('MultiSteps.update') and frame.f_globals.get('__name__', '').startswith('optax'):
      return True
    frame = frame.f_back
  return False

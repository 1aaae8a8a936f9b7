"""SCORE: how much does each weight matter? Every factory makes a `Criterion`; scores have the shape
of the weights.
"""

import sys
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.placement import like
from prunejax.pruning.types import Criterion, path_name


def magnitude() -> Criterion:
  """|w|: small weights go first (Han et al., 2015; Zhu & Gupta, 2017)."""
  # In float32, which is exact: XLA would round a half-precision |w| and store what it rounded.
  return _stateless(
    lambda params, **_: jax.tree.map(lambda w: jnp.abs(w.astype(jnp.float32)), params)
  )


def random(seed=0) -> Criterion:
  """A fixed uniform draw in [0, 1) for every weight: from `seed` and the leaf's path alone, so
  masks nest as sparsity rises.
  """

  def score(params, **_):
    key = jax.random.key(seed, impl='threefry2x32')

    def draw(path, w):
      drawn = jax.random.uniform(
        jax.random.fold_in(key, zlib.crc32(path_name(path).encode())), w.shape
      )
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


def movement(tx: optax.GradientTransformation | None = None, learning_rate=None) -> Criterion:
  """S <- S - w g summed over steps, float32 (Sanh et al., 2020, eq. 4). Needs `grad=`.

  w g is the gradient of the loss with respect to the score; `tx`, if given, turns it into the
  score's own step (the paper trains scores with Adam: `movement(optax.adam(1e-2))`, which is
  `movement(learning_rate=1e-2)`). Under a view that cuts gradients off, pruned scores stand still.
  """
  step_of = _step('movement', tx, learning_rate)
  return _trained(
    'movement',
    step_of,
    lambda scores, product: product,
    lambda state, params, **_: state.movement_sum,
  )


def soft_movement(
  penalty, learning_rate=1e-2, tx: optax.GradientTransformation | None = None
) -> Criterion:
  """sigmoid(S), in (0, 1), S being trained from 0 on loss + penalty * sum of sigmoid(S), float32 (soft movement,
  Sanh et al., 2020, sec. 4). Needs `grad=`.

  Its allocation is `above(cut)`, so that the penalty sets the sparsity; its view `masks.straight_through`, with
  `zero_pruned=False`. S takes the steps of Adam at `learning_rate`, or those of `tx`. ValueError for a penalty below 0.
  """
  if isinstance(penalty, (int, float)) and not 0 <= penalty < float('inf'):
    raise ValueError(f'soft_movement: penalty={penalty!r}; a number of at least 0 is needed')
  slope = lambda scores, product: (
    product + penalty * jax.nn.sigmoid(scores) * jax.nn.sigmoid(-scores)
  )
  score = lambda state, params, **_: jax.tree.map(jax.nn.sigmoid, state.movement_sum)
  return _trained(
    'soft_movement', _step('soft_movement', tx, None if tx else learning_rate), slope, score
  )


def _step(name, tx, learning_rate):
  if tx is not None and learning_rate is not None:
    raise ValueError(
      f'{name}: learning_rate={learning_rate!r} is for Adam; with tx= the step is its own'
    )
  if tx is None:
    tx = optax.scale(-1.0) if learning_rate is None else optax.adam(learning_rate)
  return optax.with_extra_args_support(tx)


def _trained(name, step_of, slope, score) -> Criterion:
  """Scores that `step_of` trains: `slope(S, w g)` is the gradient by the score."""

  def init(params):
    zeros = optax.tree.zeros_like(params, dtype=jnp.float32)
    return MovementState(zeros, step_of.init(zeros))

  def update(state, params, *, grad, **_):
    by_score = jax.tree.map(
      lambda s, w, g: slope(s, w.astype(jnp.float32) * g.astype(jnp.float32)),
      state.movement_sum,
      params,
      _required(grad, name),
    )
    step, inner = step_of.update(by_score, state.movement_tx, state.movement_sum)
    return MovementState(jax.tree.map(jnp.add, state.movement_sum, step), inner)

  return Criterion(init, update, score)


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
    if name.startswith('MultiSteps.update') and frame.f_globals.get('__name__', '').startswith(
      'optax'
    ):
      return True
    frame = frame.f_back
  return False

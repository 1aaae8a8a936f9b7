"""Scores made of weights and gradients: first-order importance, once or smoothed over steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.criteria.weights import stateless, total
from prunejax.pruning.types import Criterion

GRAD = frozenset({'grad'})


def taylor() -> Criterion:
  """|w g|, the first-order change of the loss if w were removed (Molchanov et al., 2017).

  Needs `grad=`. Scores are float32.
  """
  return stateless(lambda params, *, grad, **_: _importance(params, grad), needs=GRAD)


def snip() -> Criterion:
  """Connection sensitivity, |w g| / sum of |w g| over all pruned leaves.

  SNIP (Lee et al., 2019, eq. 6). Needs `grad=`. The paper prunes once before training, on one
  batch, with one threshold for all
  leaves: `one_shot(s, at=0)` and `global_threshold()`.
  """

  def score(params, *, grad, **_):
    importance = _importance(params, grad)
    whole = sum(total(leaf) for leaf in jax.tree.leaves(importance))
    return jax.tree.map(lambda leaf: leaf / jnp.where(whole > 0, whole, 1), importance)

  return stateless(score, needs=GRAD)


class MovementState(NamedTuple):
  """S, float32 shaped like params, and the state of the transformation that trains it."""

  movement_sum: Any
  movement_tx: Any


def movement(
  tx: optax.GradientTransformation | None = None, learning_rate: float | None = None
) -> Criterion:
  """S <- S - w g, summed over steps (movement pruning; Sanh et al., 2020, eq. 4).

  w g is the gradient of the loss with respect to S. Needs `grad=`. Scores are float32. Under a view
  that cuts off gradients the scores of pruned weights stand still.

  Args:
    tx: turns w g into the step of S, instead of plain descent.
    learning_rate: of Adam as `tx`. The paper trains scores with `learning_rate=1e-2`.

  Raises:
    ValueError: both `tx` and `learning_rate` are given.
  """
  step_of = _score_step('movement', tx, learning_rate)
  by_score = lambda scores, product: product
  return _trained(step_of, by_score, lambda state, params, **_: state.movement_sum)


def soft_movement(
  penalty: float, learning_rate: float = 1e-2, tx: optax.GradientTransformation | None = None
) -> Criterion:
  """sigmoid(S), with S trained on loss + penalty * sum of sigmoid(S) (Sanh et al., 2020, sec. 4).

  S starts at 0. Needs `grad=`. Scores are float32 in (0, 1). The allocation is `above(cut)`, so the
  penalty sets the sparsity. The view is `masks.straight_through` with `zero_pruned=False`.

  Args:
    penalty: the weight of the penalty, at least 0.
    learning_rate: of Adam, which trains S.
    tx: trains S instead of Adam.

  Raises:
    ValueError: `penalty` is negative or not finite.
  """
  if isinstance(penalty, (int, float)) and not 0 <= penalty < float('inf'):
    raise ValueError(f'soft_movement: penalty={penalty!r}; a number of at least 0 is needed')

  def by_score(scores, product):
    return product + penalty * jax.nn.sigmoid(scores) * jax.nn.sigmoid(-scores)

  def score(state, params, **_):
    return jax.tree.map(jax.nn.sigmoid, state.movement_sum)

  step_of = _score_step('soft_movement', tx, None if tx else learning_rate)
  return _trained(step_of, by_score, score)


class PlatonState(NamedTuple):
  """Mean importance M and mean uncertainty U, float32 shaped like params."""

  platon_mean: Any
  platon_spread: Any


def platon(b1: float = 0.85, b2: float = 0.95) -> Criterion:
  """Mean importance times its uncertainty (PLATON; Zhang et al., 2022).

  With I = |w g|, M <- b1 M + (1 - b1) I and U <- b2 U + (1 - b2) |I - M|, the score is M U,
  float32. Needs `grad=` at every step. The paper uses `cubic`, `every(10)` and
  `global_threshold()`.

  Raises:
    ValueError: a decay is outside [0, 1).
  """
  for name, value in (('b1', b1), ('b2', b2)):
    if not 0 <= value < 1:
      raise ValueError(f'platon: {name}={value!r} is not in [0, 1)')

  def init(params):
    zeros = lambda: optax.tree.zeros_like(params, dtype=jnp.float32)
    return PlatonState(zeros(), zeros())

  def update(state, params, *, grad, **_):
    importance = _importance(params, grad)
    mean = jax.tree.map(lambda m, i: b1 * m + (1 - b1) * i, state.platon_mean, importance)
    spread = lambda u, i, m: b2 * u + (1 - b2) * jnp.abs(i - m)
    return PlatonState(mean, jax.tree.map(spread, state.platon_spread, importance, mean))

  def score(state, params, **_):
    return jax.tree.map(jnp.multiply, state.platon_mean, state.platon_spread)

  return Criterion(init, update, score, needs=GRAD)


def _importance(params, grad):
  product = lambda w, g: jnp.abs(w.astype(jnp.float32) * g.astype(jnp.float32))
  return jax.tree.map(product, params, grad)


def _score_step(name, tx, learning_rate):
  """The transformation that trains scores."""
  if tx is not None and learning_rate is not None:
    raise ValueError(
      f'{name}: learning_rate={learning_rate!r} is for Adam; tx= has a learning rate of its own'
    )
  if tx is not None and not (hasattr(tx, 'init') and hasattr(tx, 'update')):
    raise ValueError(
      f'{name}: tx={tx!r} is no optax transformation; a number is given as learning_rate=...'
    )
  if tx is None:
    tx = optax.scale(-1.0) if learning_rate is None else optax.adam(learning_rate)
  return optax.with_extra_args_support(tx)


def _trained(step_of, by_score, score) -> Criterion:
  """Scores that `step_of` trains; `by_score(S, w g)` is the gradient with respect to S."""

  def init(params):
    zeros = optax.tree.zeros_like(params, dtype=jnp.float32)
    return MovementState(zeros, step_of.init(zeros))

  def update(state, params, *, grad, **_):
    slope = lambda s, w, g: by_score(s, w.astype(jnp.float32) * g.astype(jnp.float32))
    slopes = jax.tree.map(slope, state.movement_sum, params, grad)
    step, inner = step_of.update(slopes, state.movement_tx, state.movement_sum)
    return MovementState(jax.tree.map(jnp.add, state.movement_sum, step), inner)

  return Criterion(init, update, score, needs=GRAD)

"""Penalties on the size of weights: proximal steps after the optimizer, or terms of the gradient.

A proximal step gives exact zeros. Reweighted proximal pruning (Guo et al., 2019) keeps the penalty
out of the gradient and so out of Adam's moments: the optimizer makes its step, u = w + update, and
then each weight moves towards zero by a threshold of its own.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.allocations.shares import NUMBER
from prunejax.pruning.dtypes import wider
from prunejax.pruning.paths import is_hole, select
from prunejax.pruning.precision import refuse_half


class ProximalState(NamedTuple):
  """The state of a proximal link.

  Attributes:
    prox_count: steps taken, int32.
    prox_alpha: the factor of each weight, float32 shaped like params, `MaskedNode` where nothing is
      shrunk; () for a link whose weights all have the factor 1.
  """

  prox_count: Any
  prox_alpha: Any = ()


class PenaltyState(NamedTuple):
  """Steps taken (int32)."""

  penalty_count: Any


def shrink(u, threshold):
  """Computes sign(u) max(|u| - threshold, 0), the proximal operator of threshold |.|.

  Elementwise (ISTA; Daubechies et al., 2004).
  """
  return jnp.where(jnp.abs(u) <= threshold, jnp.zeros_like(u), u - jnp.sign(u) * threshold)


def soft_threshold(
  strength, rate=1.0, *, end=None, where='.*'
) -> optax.GradientTransformationExtraArgs:
  """Makes a link after the optimizer: w <- shrink(w + update, strength x rate), the step of ISTA.

  Weights that reach zero do so exactly, by an update -w.

  Args:
    strength: at least 0; may be traced. The penalty of the optimum is strength x |w|_1 if `rate` is
      the learning rate of the optimizer.
    rate: a number, or a function of the step (from 0).
    end: the step from which updates pass as they are, or None.
    where: as in `prune_transform`.

  Raises:
    ValueError: a value is out of range.
  """
  return _proximal('soft_threshold', strength, rate, None, 0.0, end, where)


def reweighted(
  strength, rate=1.0, *, every=100, eps=1e-3, end=None, where='.*'
) -> optax.GradientTransformationExtraArgs:
  """Makes `soft_threshold` with a factor for each weight: reweighted proximal pruning.

  Guo et al. (2019). w_i <- shrink(u_i, strength x rate x alpha_i). alpha_i is 1 at first, and 1 /
  (|w_i| + eps) of the weight at steps `every`, 2 x `every`, ... (Candes et al., 2008): small
  weights are driven to zero, large ones stay nearly as they are.

  Args:
    strength: see `soft_threshold`.
    rate: see `soft_threshold`.
    every: steps between two new factors, at least 1.
    eps: above 0.
    end: see `soft_threshold`.
    where: as in `prune_transform`.

  Raises:
    ValueError: a value is out of range.
  """
  if isinstance(every, int) and every < 1:
    raise ValueError(f'reweighted: every={every} must be at least 1 step')
  if isinstance(eps, NUMBER) and not eps > 0:
    raise ValueError(
      f'reweighted: eps={eps} must be above 0: a weight at zero would get an infinite threshold'
    )
  return _proximal('reweighted', strength, rate, every, eps, end, where)


def l1_penalty(strength, *, end=None, where='.*') -> optax.GradientTransformationExtraArgs:
  """Makes a link BEFORE the optimizer that adds strength x sign(w) to the gradient.

  That is the gradient of strength x |w|_1 in the loss. No weight becomes exactly zero, and Adam
  divides the term by the size of the gradient.

  Args:
    strength: at least 0; may be traced.
    end: the step from which gradients pass as they are, or None.
    where: as in `prune_transform`.

  Raises:
    ValueError: a value is out of range.
  """
  return _penalty('l1_penalty', jnp.sign, strength, end, where)


def l2_penalty(strength, *, end=None, where='.*') -> optax.GradientTransformationExtraArgs:
  """Makes `l1_penalty` for strength / 2 x |w|_2^2: strength x w is added to the gradient."""
  return _penalty('l2_penalty', lambda w: w, strength, end, where)


def _proximal(name, strength, rate, every, eps, end, where):
  _check(name, strength, end)
  if isinstance(rate, NUMBER) and not rate >= 0:
    raise ValueError(f'{name}: rate={rate} must not be negative')

  def init(params):
    chosen = select(params, where, origin=name)
    alpha = (
      () if every is None else jax.tree.map(lambda p: jnp.ones_like(p, dtype=jnp.float32), chosen)
    )
    return ProximalState(jnp.zeros([], jnp.int32), alpha)

  def update(updates, state, params=None, **extra):
    del extra
    treedef, chosen, ups = _leaves(name, updates, params, where)
    step, alpha = state.prox_count, state.prox_alpha
    if every is not None:
      renew = lambda _: [
        1 / (jnp.abs(w.astype(jnp.float32)) + eps) for w in chosen if not is_hole(w)
      ]
      due = (step > 0) & (step % every == 0)
      leaves = jax.lax.cond(due, renew, lambda old: old, jax.tree.leaves(alpha))
      alpha = jax.tree.unflatten(jax.tree.structure(alpha), leaves)
    reach = _until(end, step, strength * (rate(step) if callable(rate) else rate))
    factors = [1.0] * len(chosen) if every is None else treedef.flatten_up_to(alpha)
    out = [
      update if is_hole(w) or update is None else _landing(w, update, reach * factor)
      for w, update, factor in zip(chosen, ups, factors, strict=True)
    ]
    return treedef.unflatten(out), ProximalState(optax.safe_increment(step), alpha)

  return optax.GradientTransformationExtraArgs(init, update)


def _leaves(name, updates, params, where):
  """(structure of params, its leaves with `MaskedNode` where left out, updates in their order)."""
  if params is None:
    raise ValueError(f'{name}: tx.update needs params, as in tx.update(grads, opt_state, params)')
  treedef = jax.tree.structure(params)
  return (
    treedef,
    treedef.flatten_up_to(select(params, where, origin=name)),
    treedef.flatten_up_to(updates),
  )


def _landing(w, update, threshold):
  """The update that brings the weight to the value of the proximal operator, exactly so at zero."""
  both = wider(w.dtype, update.dtype)
  wide = wider(both, jnp.float32)
  u = w.astype(wide) + update.astype(wide)
  moved = update.astype(wide) - jnp.sign(u) * jnp.asarray(threshold, wide)
  return jnp.where(jnp.abs(u) <= threshold, -w.astype(wide), moved).astype(both)


def _penalty(name, slope, strength, end, where):
  _check(name, strength, end)

  def init(params):
    select(params, where, origin=name)
    return PenaltyState(jnp.zeros([], jnp.int32))

  def update(updates, state, params=None, **extra):
    del extra
    treedef, chosen, ups = _leaves(name, updates, params, where)
    force = _until(end, state.penalty_count, strength)
    out = [
      g if is_hole(w) or g is None else (g + force * slope(w).astype(g.dtype)).astype(g.dtype)
      for w, g in zip(chosen, ups, strict=True)
    ]
    return treedef.unflatten(out), PenaltyState(optax.safe_increment(state.penalty_count))

  return optax.GradientTransformationExtraArgs(init, update)


def _until(end, step, value):
  return value if end is None else jnp.where(step < end, value, 0.0)


def _check(name, strength, end):
  for key, value in (('strength', strength), ('end', end)):
    refuse_half(name, key, value)
  if isinstance(strength, NUMBER) and not 0 <= strength < float('inf'):
    raise ValueError(f'{name}: strength={strength} must be finite and non-negative')
  if isinstance(end, int) and end < 1:
    raise ValueError(f'{name}: end={end} must be at least 1 step, or None for no end')

"""SCORE, second order: Optimal Brain Surgeon, the whole inverse Hessian of a small net."""

from jax.flatten_util import ravel_pytree

from prunejax.pruning.arguments import required
from prunejax.pruning.criteria.hessian_diagonal import wide
from prunejax.pruning.criteria.inverse_hessian import inverse_hessian, removal, rows, saliency
from prunejax.pruning.types import Criterion

MOST = 2**14  # weights under one H: 1 GiB of float32
NEEDS = {
  'gauss_newton': ('outputs', 'outputs=(n, f(params, i) -> the outputs of example i, a vector)'),
  'fisher': ('examples', 'examples=(n, f(params, i) -> the loss of example i)'),
}


def obs(estimate: str = 'fisher', alpha: float = 1e-4) -> Criterion:
  """w_q^2 / (2 [H^-1]_qq) over all pruned leaves together, moving the survivors (Hassibi & Stork, 1993).

  H = alpha I + (1/n) sum X X'. With `estimate` 'gauss_newton' X are the derivatives of each output, of
  `outputs=(n, f(params, i) -> [outputs])` and half a mean squared error, as in the paper; with 'fisher' the gradients
  of the loss of one example, of `examples=`. A weight at exactly 0 counts as removed before: it stays there and has
  no part in H. Several that go at once are made up for together. Raises ValueError for another estimate, an alpha not
  positive, or more than 16,384 weights.
  """
  if estimate not in NEEDS:
    raise ValueError(f'obs: estimate={estimate!r}; accepted: {", ".join(NEEDS)}')
  if not alpha > 0:
    raise ValueError(f'obs: alpha={alpha!r}; accepted: above 0 (the paper: 1e-8 to 1e-4)')

  def inverse(params, extra):
    weights, _ = ravel_pytree(wide(params))
    if weights.size > MOST:
      raise ValueError(
        f'obs: {weights.size} weights under one H; accepted: up to {MOST}, narrow it with where='
      )
    name, what = NEEDS[estimate]
    given = required(extra, name, f'obs({estimate!r})', what)
    return weights, inverse_hessian(*rows(given, params), alpha, weights != 0)

  def score(state, params, **extra):
    weights, inv = inverse(params, extra)
    return ravel_pytree(wide(params))[1](saliency(inv, weights))

  def compensate(state, params, masks, **extra):
    weights, inv = inverse(params, extra)
    gone = ~ravel_pytree(masks)[0].astype(bool)
    return ravel_pytree(wide(params))[1](removal(inv, weights, gone))

  return Criterion(lambda params: (), lambda state, params, **_: state, score, compensate)

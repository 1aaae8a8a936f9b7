"""Second-order scores of small nets: Optimal Brain Damage and Optimal Brain Surgeon."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning.criteria import hessian_diagonal
from prunejax.pruning.criteria.hessian_diagonal import wide
from prunejax.pruning.criteria.inverse_hessian import inverse_hessian, removal, rows, saliency
from prunejax.pruning.criteria.weights import stateless
from prunejax.pruning.types import Criterion

# What each estimate of the diagonal asks of `tx.update`.
DIAGONAL_NEEDS = {
  'hessian': 'value_fn',
  'levenberg_marquardt': 'outputs',
  'hutchinson': 'value_fn',
  'fisher': 'examples',
}
INVERSE_NEEDS = {'gauss_newton': 'outputs', 'fisher': 'examples'}
MOST_WEIGHTS = 2**14  # under one inverse Hessian: 1 GiB of float32


def obd(
  estimate: str = 'hessian', probes: int = 512, seed: int = 0, smooth: bool = True
) -> Criterion:
  """h_kk w_k^2 / 2, what the loss rises by when weight k is removed.

  Optimal Brain Damage (LeCun et al., 1990, eq. 5). Where h is negative, away from a minimum, the
  formula says nothing: h counts as 0. Scores are float32,
  also under x64.

  Args:
    estimate: of the diagonal h of the Hessian, see `hessian_diagonal`. 'hessian' is exact, with a
      product of the Hessian and a vector for each weight, and 'hutchinson' takes `probes` such
      products; both need `value_fn=`. 'levenberg_marquardt' needs `outputs=` of half a mean squared
      error, and 'fisher' needs `examples=`. Where there are examples, 'fisher' is the cheaper one
      at equal quality.
    probes: of 'hutchinson', at least 1. Its noise is large: on a net of 25,856 weights the rank
      correlation of its scores with the exact ones was 0.31 with 32 probes and 0.71 with 2,048 if
      they are not smoothed; with `smooth` 0.64, 0.97 with 512 and 0.99; of 'fisher' 0.97.
    seed: of 'hutchinson', which draws from it and the step.
    smooth: of 'hutchinson', draw the estimate towards a product of rows and columns as far as its
      noise demands, see `hessian_diagonal.smoothed_hutchinson`.

  Raises:
    ValueError: another estimate, or no probes.
  """
  if estimate not in DIAGONAL_NEEDS:
    raise ValueError(f'obd: estimate={estimate!r}; accepted: {", ".join(DIAGONAL_NEEDS)}')
  if not (isinstance(probes, int) and probes >= 1):
    raise ValueError(f'obd: probes={probes!r}; accepted: a whole number from 1')
  source = DIAGONAL_NEEDS[estimate]

  def score(params, *, step=0, stacked=(), **arguments):
    given = arguments[source]
    if estimate == 'hutchinson':
      key = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), step)
      if smooth:
        diagonal = hessian_diagonal.smoothed_hutchinson(given, params, key, probes, stacked)
      else:
        diagonal = hessian_diagonal.hutchinson(given, params, key, probes, stacked)
    else:
      diagonal_of = {
        'hessian': hessian_diagonal.hessian,
        'levenberg_marquardt': hessian_diagonal.gauss_newton,
        'fisher': hessian_diagonal.fisher,
      }
      diagonal = diagonal_of[estimate](given, params)
    # jnp.maximum passes on a NaN, so no mask rests on one unseen.
    rise = lambda h, w: jnp.maximum(h, 0) * jnp.square(w.astype(h.dtype)) / 2
    return jax.tree.map(lambda h, w: rise(h, w).astype(jnp.float32), diagonal, params)

  return stateless(score, needs=frozenset({source}))


def obs(estimate: str = 'fisher', alpha: float = 1e-4) -> Criterion:
  """w_q^2 / (2 [H^-1]_qq) over all pruned leaves together (OBS; Hassibi & Stork, 1993, eq. 5).

  The survivors are moved to make up for what is removed; weights that are removed at once are made
  up for together. H = alpha I + (1/n) sum of X X'. A weight at exactly 0 counts as removed before:
  it stays at 0 and has no part in H. Scores are float32, also under x64.

  Args:
    estimate: of H. 'gauss_newton' takes as X the derivatives of each output, of `outputs=` and half
      a mean squared error, as the paper does. 'fisher' takes the gradients of the loss of one
      example, of `examples=`.
    alpha: above 0; the paper has 1e-8 to 1e-4.

  Raises:
    ValueError: another estimate, an alpha that is not positive, or more than 16,384 weights.
  """
  if estimate not in INVERSE_NEEDS:
    raise ValueError(f'obs: estimate={estimate!r}; accepted: {", ".join(INVERSE_NEEDS)}')
  if not alpha > 0:
    raise ValueError(f'obs: alpha={alpha!r}; accepted: above 0 (the paper: 1e-8 to 1e-4)')
  source = INVERSE_NEEDS[estimate]

  def inverse(params, arguments):
    weights, _ = ravel_pytree(wide(params))
    if weights.size > MOST_WEIGHTS:
      raise ValueError(
        f'obs: {weights.size} weights under one H; accepted: up to {MOST_WEIGHTS}, choose fewer'
        ' with where='
      )
    return weights, inverse_hessian(*rows(arguments[source], params), alpha, weights != 0)

  def score(params, **arguments):
    weights, inv = inverse(params, arguments)
    scores = ravel_pytree(wide(params))[1](saliency(inv, weights))
    return jax.tree.map(lambda s: s.astype(jnp.float32), scores)

  def compensate(state, params, masks, **arguments):
    weights, inv = inverse(params, arguments)
    removed = ~ravel_pytree(masks)[0].astype(bool)
    return ravel_pytree(wide(params))[1](removal(inv, weights, removed))

  return stateless(score, compensate=compensate, needs=frozenset({source}))

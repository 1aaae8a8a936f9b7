"""SCORE, second order: Optimal Brain Damage."""

import jax
import jax.numpy as jnp

from prunejax.pruning.arguments import required
from prunejax.pruning.criteria import hessian_diagonal as diagonal
from prunejax.pruning.types import Criterion

# What each estimate asks of tx.update, and what that is.
NEEDS = {
  'hessian': ('value_fn', 'value_fn(params) -> loss'),
  'levenberg_marquardt': (
    'outputs',
    'outputs=(n, f(params, i) -> the outputs of example i, a vector)',
  ),
  'hutchinson': ('value_fn', 'value_fn(params) -> loss'),
  'fisher': ('examples', 'examples=(n, f(params, i) -> the loss of example i)'),
}


def obd(estimate: str = 'hessian', probes: int = 32, seed=0) -> Criterion:
  """h_kk w_k^2 / 2, what the loss rises by when a weight goes (Optimal Brain Damage; LeCun et al., 1990).

  `estimate` of the diagonal h, see `diagonal`: 'hessian', exact, and 'hutchinson', the mean of `probes` random ones
  drawn from `seed` and the step, need `value_fn=`; 'levenberg_marquardt' needs `outputs=` of half a mean squared
  error; 'fisher' needs `examples=`. Away from a minimum h may be negative, where the formula says
  nothing: it counts as 0. Raises ValueError for another estimate or no probes.
  """
  if estimate not in NEEDS:
    raise ValueError(f'obd: estimate={estimate!r}; accepted: {", ".join(NEEDS)}')
  if not (isinstance(probes, int) and probes >= 1):
    raise ValueError(f'obd: probes={probes!r}; accepted: a whole number from 1')

  def score(state, params, *, step=0, **extra):
    name, what = NEEDS[estimate]
    given = required(extra, name, f'obd({estimate!r})', what)
    if estimate == 'hutchinson':
      key = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), step)
      curve = diagonal.hutchinson(given, params, key, probes)
    else:
      of = {
        'hessian': diagonal.hessian,
        'levenberg_marquardt': diagonal.gauss_newton,
        'fisher': diagonal.fisher,
      }
      curve = of[estimate](given, params)
    # A NaN stays one: jnp.maximum passes it on, so that no mask rests on it unseen.
    return jax.tree.map(
      lambda h, w: jnp.maximum(h, 0) * jnp.square(w.astype(h.dtype)) / 2, curve, params
    )

  return Criterion(lambda params: (), lambda state, params, **_: state, score)

"""The inverse Hessian of a small net, and the step that makes up for what is removed (Hassibi & Stork, 1993).

Vectors hold all weights of a net, float32 or, with x64 enabled, float64: at alpha = 1e-8 the recursion needs the
latter.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning.criteria.hessian_diagonal import wide


def rows(pair, params):
  """(X [rows, weights], n): the derivatives of a pair (n, f(params, i) -> scalar or [outputs]), a row an output."""
  count, fn = pair
  flat, shaped = ravel_pytree(wide(params))
  one = jax.jacrev(lambda w, i: jnp.ravel(fn(shaped(w), i)))
  found = jax.lax.map(lambda i: one(flat, i), jnp.arange(count), batch_size=min(count, 64))
  return found.reshape(-1, flat.size), count


def inverse_hessian(x, count, alpha, alive=True):
  """(alpha I + X'X / count)^-1 by Sherman and Morrison, a row of X at a time (Hassibi & Stork, 1993).

  x: [rows, weights]. Weights that are not `alive`, bool [weights], take no part: alpha is all that H has of them.
  """
  x = jnp.where(alive, x, 0)

  def add(inv, row):
    across = inv @ row
    return inv - jnp.outer(across, across) / (count + row @ across), None

  return jax.lax.scan(add, jnp.eye(x.shape[1], dtype=x.dtype) / alpha, x)[0]


def saliency(inverse, weights):
  """L_q = w_q^2 / (2 [H^-1]_qq), [weights]: what the error rises by when weight q alone goes and the others make up."""
  return jnp.square(weights) / (2 * jnp.diagonal(inverse))


def removal(inverse, weights, gone):
  """-H^-1[:,Q] (H^-1[Q,Q])^-1 w_Q, [weights]: the step that takes the weights Q = `gone` to 0 at the least cost."""
  # Q has a size that only data knows; outside it the system is the identity with nothing on the right.
  block = jnp.where(gone[:, None] & gone, inverse, jnp.diag(~gone).astype(inverse.dtype))
  # Scaled to a unit diagonal: where a weight has next to no curvature its entries are as large as 1/alpha.
  scale = jnp.sqrt(jnp.diagonal(block))
  pull = (
    jnp.linalg.solve(block / (scale[:, None] * scale), jnp.where(gone, weights, 0) / scale) / scale
  )
  step = -inverse @ pull
  return jnp.where(gone, -weights, step)

"""The inverse Hessian of a small net, and the step that makes up for removed weights.

Hassibi & Stork (1993). Vectors hold all weights of a net, float32 or, with x64 enabled, float64: at
alpha = 1e-8 the recursion needs float64.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning import lapack, placement
from prunejax.pruning.criteria.hessian_diagonal import wide


def rows(pair, params):
  """Computes the derivatives that H is a sum of.

  Args:
    pair: (n, f(params, i) -> scalar or [outputs]).
    params: any tree.

  Returns:
    X [rows, weights], a row an output of an example, and n.
  """
  count, fn = pair
  flat, unravel = ravel_pytree(wide(params))
  one = jax.jacrev(lambda w, i: jnp.ravel(fn(unravel(w), i)))
  x = jax.lax.map(lambda i: one(flat, i), jnp.arange(count), batch_size=min(count, 64))
  return x.reshape(-1, flat.size), count


def inverse_hessian(x, count: int, alpha: float, alive=True):
  """Computes (alpha I + X'X / count)^-1 by Sherman and Morrison, one row of X at a time.

  Args:
    x: X [rows, weights].
    count: the number of examples.
    alpha: the multiple of the identity.
    alive: bool [weights]; of other weights H has `alpha` alone.

  Returns:
    [weights, weights].
  """
  x = jnp.where(jnp.broadcast_to(alive, x.shape[1:])[None], x, 0)

  def add(inv, row):
    product = inv @ row
    return inv - jnp.outer(product, product) / (count + row @ product), None

  start = placement.varying_as(jnp.eye(x.shape[1], dtype=x.dtype) / alpha, x)
  return jax.lax.scan(add, start, x)[0]


def saliency(inverse, weights):
  """Computes L_q = w_q^2 / (2 [H^-1]_qq), [weights].

  L_q is what the error rises by when weight q is removed and the others make up for it.
  """
  return jnp.square(weights) / (2 * jnp.diagonal(inverse))


def removal(inverse, weights, removed):
  """Computes -H^-1[:,Q] (H^-1[Q,Q])^-1 w_Q, [weights], with Q the `removed` weights.

  This step brings the weights Q to 0 at the least cost.
  """
  # The size of Q is known to the data alone. Outside Q the system is the identity, and 0 on the
  # right.
  block = jnp.where(
    removed[:, None] & removed[None], inverse, jnp.diag(~removed).astype(inverse.dtype)
  )
  # A unit diagonal: where a weight has next to no curvature, entries are as large as 1/alpha.
  scale = jnp.sqrt(jnp.diagonal(block))
  right = jnp.where(removed, weights, 0) / scale
  pull = lapack.solve(block / jnp.outer(scale, scale), right) / scale
  return jnp.where(removed, -weights, -inverse @ pull)

"""The diagonal of the Hessian by four estimates: trees shaped like params, float32 or wider.

`optax.MaskedNode` in `params`, for leaves that nobody prunes, stays. A weight that is used in
several places is one variable: its curvature is that of all its uses together, with the cross terms
between them, which LeCun et al. (1990, eq. 6) drop.
"""

import zlib

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning.paths import path_name


def wide(tree):
  """Returns the tree in float32, or in float64 where it is that already."""
  return jax.tree.map(lambda w: w.astype(jnp.promote_types(w.dtype, jnp.float32)), tree)


def hessian(value_fn, params):
  """Computes d2 E / d w_k^2 exactly, with one Hessian-vector product a weight: for small nets.

  LeCun et al. propagate it back at the cost of one gradient, but leave out cross terms between the
  units of a layer.

  Args:
    value_fn: params -> scalar E.
    params: any tree.
  """
  flat, unravel = ravel_pytree(wide(params))
  slope = jax.grad(lambda w: value_fn(unravel(w)))

  def entry(k):
    return jax.jvp(slope, (flat,), (jnp.zeros_like(flat).at[k].set(1),))[1][k]

  return unravel(jax.lax.map(entry, jnp.arange(flat.size), batch_size=min(flat.size, 64)))


def gauss_newton(outputs, params):
  """Computes (1/n) sum_i |d o_i / d w_k|^2, the Levenberg-Marquardt form.

  LeCun et al. (1990, sec. 2.2). This is the curvature of half the mean squared error without its
  f'' terms; it is never negative.

  Args:
    outputs: (n, o(params, i) -> [outputs]).
    params: any tree.
  """
  count, fn = outputs

  def squares(p, i):
    out, pull = jax.vjp(lambda p: fn(p, i), p)
    add = lambda total, one: (jax.tree.map(lambda t, j: t + j**2, total, pull(one)[0]), None)
    ones = jnp.eye(out.size, dtype=out.dtype).reshape(-1, *out.shape)
    # Output by output, to hold one gradient at a time.
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, p), ones)[0]

  return _mean(count, params, squares)


def fisher(examples, params):
  """Computes (1/n) sum_i (d E_i / d w_k)^2, the empirical Fisher information.

  Args:
    examples: (n, E(params, i) -> scalar).
    params: any tree.
  """
  count, fn = examples
  return _mean(count, params, lambda p, i: jax.tree.map(jnp.square, jax.grad(fn)(p, i)))


def hutchinson(value_fn, params, key, probes: int):
  """Computes the mean of v * H v over Rademacher vectors v (Hutchinson, 1990).

  The estimate has no bias, and is exact where H is diagonal.

  Args:
    value_fn: params -> scalar.
    params: any tree.
    key: of jax.random; each leaf draws by its path.
    probes: the number of vectors.
  """
  params = wide(params)
  slope = jax.grad(value_fn)

  def draw(key, path, w):
    leaf_key = jax.random.fold_in(key, zlib.crc32(path_name(path).encode()))
    return jax.random.rademacher(leaf_key, w.shape, w.dtype)

  def probe(total, key):
    v = jax.tree_util.tree_map_with_path(lambda path, w: draw(key, path, w), params)
    product = jax.jvp(slope, (params,), (v,))[1]
    return jax.tree.map(lambda t, x, hx: t + x * hx, total, v, product), None

  total, _ = jax.lax.scan(
    probe, jax.tree.map(jnp.zeros_like, params), jax.random.split(key, probes)
  )
  return jax.tree.map(lambda t: t / probes, total)


def _mean(count, params, squares):
  # One example at a time: all at once would be as many copies of the weights.
  params = wide(params)
  add = lambda total, i: (jax.tree.map(jnp.add, total, squares(params, i)), None)
  total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), jnp.arange(count))
  return jax.tree.map(lambda t: t / count, total)

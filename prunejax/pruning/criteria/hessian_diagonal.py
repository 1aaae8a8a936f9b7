"""The diagonal of the Hessian by four estimates: a tree shaped like params, float32 or wider.

Holes of `params` (leaves that nobody prunes) stay holes. A weight that stands in several places is one variable: its
curvature is that of all its places together, cross terms between them included, which LeCun et al. (1990, eq. 6) drop.
"""

import zlib

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning.types import path_name


def wide(tree):
  """The tree in float32, or float64 where it is that already."""
  return jax.tree.map(lambda w: w.astype(jnp.promote_types(w.dtype, jnp.float32)), tree)


def hessian(value_fn, params):
  """Exact: d2 E / d w_k^2 of value_fn(params) -> scalar E, one Hessian-vector product a weight (for small nets).

  LeCun et al. propagate it back at the cost of one gradient, but leave out cross terms between the units of a layer.
  """
  flat, shaped = ravel_pytree(wide(params))
  slope = jax.grad(lambda w: value_fn(shaped(w)))

  def entry(k):
    return jax.jvp(slope, (flat,), (jnp.zeros_like(flat).at[k].set(1),))[1][k]

  return shaped(jax.lax.map(entry, jnp.arange(flat.size), batch_size=min(flat.size, 64)))


def gauss_newton(outputs, params):
  """(1/n) sum_i |d o_i / d w_k|^2 for outputs = (n, o(params, i) -> [outputs]): the curvature of half the mean squared
  error without its f'' terms, never negative (LeCun et al., 1990, sec. 2.2, the Levenberg-Marquardt form).
  """
  count, fn = outputs

  def squares(p, i):
    out, pull = jax.vjp(lambda p: fn(p, i), p)
    add = lambda total, one: (jax.tree.map(lambda t, j: t + j**2, total, pull(one)[0]), None)
    ones = jnp.eye(out.size, dtype=out.dtype).reshape(-1, *out.shape)
    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, p), ones)[
      0
    ]  # output by output, for memory

  return _mean(count, params, squares)


def fisher(examples, params):
  """(1/n) sum_i (d E_i / d w_k)^2 for examples = (n, E(params, i) -> scalar): the empirical Fisher information."""
  count, fn = examples
  return _mean(count, params, lambda p, i: jax.tree.map(jnp.square, jax.grad(fn)(p, i)))


def hutchinson(value_fn, params, key, probes):
  """The mean of v * H v over `probes` Rademacher vectors v (Hutchinson, 1990): unbiased, exact where H is diagonal.

  key: of jax.random; each leaf draws by its path.
  """
  params = wide(params)
  slope = jax.grad(value_fn)

  def probe(total, key):
    draw = lambda path, w: jax.random.rademacher(
      jax.random.fold_in(key, zlib.crc32(path_name(path).encode())), w.shape, w.dtype
    )
    v = jax.tree_util.tree_map_with_path(draw, params)
    return jax.tree.map(
      lambda t, x, hx: t + x * hx, total, v, jax.jvp(slope, (params,), (v,))[1]
    ), None

  total, _ = jax.lax.scan(
    probe, jax.tree.map(jnp.zeros_like, params), jax.random.split(key, probes)
  )
  return jax.tree.map(lambda t: t / probes, total)


def _mean(count, params, squares):
  # One example at a time: all of them side by side would be as many copies of the weights.
  params = wide(params)
  add = lambda total, i: (jax.tree.map(jnp.add, total, squares(params, i)), None)
  total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), jnp.arange(count))
  return jax.tree.map(lambda t: t / count, total)

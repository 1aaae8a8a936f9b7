"""The diagonal of the Hessian by four estimates: trees shaped like params, float32 or wider.

`optax.MaskedNode` in `params`, for leaves that nobody prunes, stays. A weight that is used in
several places is one variable: its curvature is that of all its uses together, with the cross terms
between them, which LeCun et al. (1990, eq. 6) drop.
"""

import functools
import math
import zlib

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from prunejax.pruning import layer_names
from prunejax.pruning.counts import block_sum
from prunejax.pruning.dtypes import wider
from prunejax.pruning.paths import path_name


def wide(tree):
  """Returns the tree in float32, or in float64 where it is that already."""
  return jax.tree.map(lambda w: w.astype(wider(w.dtype, jnp.float32)), tree)


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


def hutchinson(value_fn, params, key, probes: int, stacked=()):
  """Computes the mean of v * H v over Rademacher vectors v (Hutchinson, 1990).

  The estimate has no bias, and is exact where H is diagonal. Its deviation at weight k is
  sqrt(sum_j H_kj^2 / probes), j other than k: it falls slowly with the number of probes and grows
  with the number of weights.

  Args:
    value_fn: params -> scalar.
    params: any tree.
    key: of jax.random; each leaf draws by its path.
    probes: the number of vectors.
    stacked: the argument `stacked` of a criterion.
  """
  return _moments(value_fn, params, key, probes, stacked)[0]


def smoothed_hutchinson(value_fn, params, key, probes: int, stacked=()):
  """Computes `hutchinson`, drawn towards a model of each leaf as far as its noise demands.

  The model of a kernel is (mean of its row) (mean of its column) / (mean of all), as in the factors
  of Adafactor (Shazeer & Stern, 2018): the curvature of a layer is near a product of what comes in
  and what goes out. Columns are the last axis. The model of a vector is its mean. Estimate and
  model are mixed with the weights of James and Stein (1961), max(0, 1 - noise / d) for the
  estimate: d is the mean squared difference of the two and noise the mean variance of the estimate,
  from the scatter of the probes. So the result tends to the exact diagonal as probes become many.

  Args:
    value_fn: params -> scalar.
    params: any tree.
    key: of jax.random; each leaf draws by its path.
    probes: the number of vectors. One vector says nothing of the noise: it is not smoothed.
    stacked: paths of leaves that hold one layer in each slice of axis 0.
  """
  mean, squares = _moments(value_fn, params, key, probes, stacked)
  if probes < 2:
    return mean

  def mixed(estimate, square):
    variance = jnp.maximum(square - estimate**2, 0) / (probes - 1)
    model = _row_times_column(estimate)
    difference = _mean_over((estimate - model) ** 2, range(estimate.ndim))
    noise = _mean_over(variance, range(estimate.ndim))
    share = jnp.maximum(1 - noise / jnp.where(difference > 0, difference, 1), 0)
    return jnp.where(jnp.isnan(estimate), estimate, share * estimate + (1 - share) * model)

  def one(path, estimate, square):
    return (jax.vmap(mixed) if path_name(path) in stacked else mixed)(estimate, square)

  return jax.tree_util.tree_map_with_path(one, mean, squares)


def _moments(value_fn, params, key, probes, stacked):
  """The means of v * H v and of its square over random vectors v."""
  params = wide(params)
  slope = jax.grad(value_fn)

  def draw(key, name, w):
    leaf_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return jax.random.rademacher(leaf_key, w.shape, w.dtype)

  def probe(totals, key):
    drawn = functools.partial(draw, key)
    v = jax.tree_util.tree_map_with_path(
      lambda path, w: layer_names.by_layer(drawn, path_name(path), w, stacked), params
    )
    product = jax.jvp(slope, (params,), (v,))[1]
    total = jax.tree.map(lambda t, x, hx: t + x * hx, totals[0], v, product)
    squares = jax.tree.map(lambda t, hx: t + hx * hx, totals[1], product)
    return (total, squares), None

  zeros = jax.tree.map(jnp.zeros_like, params)
  totals, _ = jax.lax.scan(probe, (zeros, zeros), jax.random.split(key, probes))
  return jax.tree.map(lambda t: t / probes, totals)


def _row_times_column(estimate):
  """(mean of the row) (mean of the column) / (mean of all); 0 where that mean is not above 0."""
  axes = tuple(range(estimate.ndim))
  whole = _mean_over(estimate, axes)
  if estimate.ndim < 2:
    return jnp.broadcast_to(jnp.maximum(whole, 0), estimate.shape)
  row, column = (jnp.maximum(_mean_over(estimate, part), 0) for part in (axes[-1:], axes[:-1]))
  return jnp.where(whole > 0, row * column / jnp.where(whole > 0, whole, 1), 0)


def _mean_over(x, axes):
  """The mean over axes, which stay with length 1; the same on every mesh."""
  sizes = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
  return (block_sum(x, sizes) / max(math.prod(sizes), 1)).astype(x.dtype)


def _mean(count, params, squares):
  # One example at a time: all at once would be as many copies of the weights.
  params = wide(params)
  add = lambda total, i: (jax.tree.map(jnp.add, total, squares(params, i)), None)
  total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), jnp.arange(count))
  return jax.tree.map(lambda t: t / count, total)

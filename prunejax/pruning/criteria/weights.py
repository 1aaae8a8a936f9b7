"""Scores made of the weights alone: magnitude, magnitude by deviation, chance."""

import zlib

import jax
import jax.numpy as jnp

from prunejax.pruning import layer_names
from prunejax.pruning.counts import block_sum
from prunejax.pruning.paths import path_name
from prunejax.pruning.placement import like
from prunejax.pruning.types import Criterion


def magnitude() -> Criterion:
  """|w|: small weights are removed first (Han et al., 2015; Zhu & Gupta, 2017).

  Scores are float32, [shape of the weights].
  """
  # The weights become float32 first: XLA would round a half-precision |w| before it is stored.
  return stateless(
    lambda params, **_: jax.tree.map(lambda w: jnp.abs(w.astype(jnp.float32)), params)
  )


def random(seed: int = 0) -> Criterion:
  """A fixed uniform draw in [0, 1) for every weight.

  The draw depends on `seed` and the leaf's path alone, so masks nest as sparsity rises.

  Args:
    seed: an integer, which may be traced.
  """

  def score(params, *, stacked=(), **_):
    key = jax.random.key(seed, impl='threefry2x32')
    return uniform_draws(key, params, stacked)

  return stateless(score)


def deviations() -> Criterion:
  """|w| / sigma, with sigma the standard deviation of the leaf's weights.

  Han et al. (2015, sec. 3). Weights at 0 count. Every layer of a stacked leaf has its own sigma. A
  leaf of equal weights has sigma 1. With `above(q)` the cut-off of a layer is the paper's: quality
  q times its deviation.
  """

  def scaled(w):
    w = w.astype(jnp.float32)
    mean = total(w) / max(w.size, 1)
    sigma = jnp.sqrt(total((w - mean) ** 2) / max(w.size, 1))
    # The mean of equal weights may differ from them in the last bit.
    equal = jnp.max(w, initial=-jnp.inf) <= jnp.min(w, initial=jnp.inf)
    return jnp.abs(w) / jnp.where(equal | (sigma == 0), 1, sigma)

  def score(params, *, stacked=(), **_):
    one = lambda path, w: (jax.vmap(scaled) if path_name(path) in stacked else scaled)(w)
    return jax.tree_util.tree_map_with_path(one, params)

  return stateless(score)


def stateless(score, **attributes) -> Criterion:
  """Makes a `Criterion` without a state.

  Args:
    score: `score(params, **arguments) -> scores`.
    **attributes: other fields of the `Criterion`, such as `needs`.
  """
  return Criterion(
    lambda params: (),
    lambda state, params, **_: state,
    lambda state, params, **arguments: score(params, **arguments),
    **attributes,
  )


def uniform_draws(key, params, stacked=()):
  """Draws float32 in [0, 1) from a key and each leaf's path; shaped and placed like `params`.

  Args:
    key: of jax.random.
    params: any tree.
    stacked: the argument `stacked` of a criterion; a layer with a name draws by that name.
  """

  def draw(name, w):
    leaf_key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return like(jax.random.uniform(leaf_key, w.shape), w)

  return jax.tree_util.tree_map_with_path(
    lambda path, w: layer_names.by_layer(draw, path_name(path), w, stacked), params
  )


def total(x) -> jax.Array:
  """Sums all entries to a float32 that is the same on every mesh."""
  return jnp.sum(block_sum(x, x.shape))

"""SCORE by what a weight does to the loss, or beside the other weights of its layer: normalised and smoothed scores."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.criteria.weights import _required, _stateless
from prunejax.pruning.selection import counts
from prunejax.pruning.types import Criterion, path_name


def snip() -> Criterion:
  """|w g| / sum of |w g| over all pruned leaves: connection sensitivity (SNIP; Lee et al., 2019, eq. 6). Needs `grad=`.

  The paper prunes once, before training, on one batch, with one threshold for all leaves: `one_shot(s, at=0)` and
  `global_threshold()`.
  """

  def score(params, *, grad, **_):
    found = jax.tree.map(_product, params, _required(grad, 'snip'))
    whole = sum(_total(leaf) for leaf in jax.tree.leaves(found))
    return jax.tree.map(lambda leaf: leaf / jnp.where(whole > 0, whole, 1), found)

  return _stateless(score)


class PlatonState(NamedTuple):
  platon_mean: Any
  platon_spread: Any


def platon(b1=0.85, b2=0.95) -> Criterion:
  """Mean importance times its uncertainty (PLATON; Zhang et al., 2022): with I = |w g|, M <- b1 M + (1 - b1) I and
  U <- b2 U + (1 - b2) |I - M|, the score is M U, float32. Needs `grad=` at every step.

  The paper has `cubic`, `every(10)` and `global_threshold()`. ValueError for a decay not in [0, 1).
  """
  for name, value in (('b1', b1), ('b2', b2)):
    if not 0 <= value < 1:
      raise ValueError(f'platon: {name}={value!r} is not in [0, 1)')

  def init(params):
    zeros = lambda: optax.tree.zeros_like(params, dtype=jnp.float32)
    return PlatonState(zeros(), zeros())

  def update(state, params, *, grad, **_):
    found = jax.tree.map(_product, params, _required(grad, 'platon'))
    mean = jax.tree.map(lambda m, i: b1 * m + (1 - b1) * i, state.platon_mean, found)
    spread = lambda u, i, m: b2 * u + (1 - b2) * jnp.abs(i - m)
    return PlatonState(mean, jax.tree.map(spread, state.platon_spread, found, mean))

  return Criterion(
    init,
    update,
    lambda state, params, **_: jax.tree.map(jnp.multiply, state.platon_mean, state.platon_spread),
  )


def deviations() -> Criterion:
  """|w| / sigma, sigma being the standard deviation of the leaf's weights, or of those of each layer of a stacked one,
  those at 0 included: how many deviations a weight is worth (Han et al., 2015, sec. 3).

  With `above(q)` the cut-off of a layer is the paper's, quality q times its deviation. A layer of equal weights has
  sigma 1.
  """

  def score(w):
    w = w.astype(jnp.float32)
    mean = _total(w) / max(w.size, 1)
    sigma = jnp.sqrt(_total((w - mean) ** 2) / max(w.size, 1))
    alike = jnp.max(w, initial=-jnp.inf) <= jnp.min(
      w, initial=jnp.inf
    )  # their mean may lie a last bit beside them
    return jnp.abs(w) / jnp.where(alike | (sigma == 0), 1, sigma)

  def each(params, *, stacked=(), **_):
    of = lambda path, w: (jax.vmap(score) if path_name(path) in stacked else score)(w)
    return jax.tree_util.tree_map_with_path(of, params)

  return _stateless(each)


def _product(w, g):
  return jnp.abs(w.astype(jnp.float32) * g.astype(jnp.float32))


def _total(x):
  """A sum that is the same on every mesh."""
  return jnp.sum(counts.block_sum(x, x.shape))

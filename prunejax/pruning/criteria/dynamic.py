"""Scores of dynamic sparse training: masks move while the number of weights stays (SET, RigL).

`regrow` is a product of two criteria: one says what stays, the other what comes back. The named
methods are such products.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts, placement
from prunejax.pruning.criteria.weights import magnitude, random, stateless, uniform_draws
from prunejax.pruning.paths import named_leaves, with_leaves
from prunejax.pruning.precision import refuse_float64
from prunejax.pruning.selection import plain, select
from prunejax.pruning.types import Criterion

_INFINITY = np.uint32(0x7F800000)  # its bits


def gradient() -> Criterion:
  """|g|: the weights that would move most if they were there (RigL; Evci et al., 2020).

  Needs `grad=`, of pruned weights as well. Scores are float32. They are NaN, which
  `prune_transform` reports, where the gradient of every pruned weight is exactly 0 and that of a
  kept one is not: the view has then cut off the gradient.
  """

  def score(params, *, grad, masks=None, **_):
    scores = jax.tree.map(lambda w, g: jnp.abs(g.astype(jnp.float32)), params, grad)
    if masks is None:
      return scores
    pairs = list(zip(jax.tree.leaves(scores), jax.tree.leaves(masks), strict=True))
    any_of = lambda flags: jnp.stack([jnp.any(flags(s, mask)) for s, mask in pairs]).any()
    pruned = any_of(lambda s, mask: ~mask)
    pruned_have_gradient = any_of(lambda s, mask: ~mask & (s != 0))
    kept_have_gradient = any_of(lambda s, mask: mask & (s != 0))
    cut_off = pruned & ~pruned_have_gradient & kept_have_gradient
    return jax.tree.map(lambda s: jnp.where(cut_off, jnp.nan, s), scores)

  return stateless(score, needs=frozenset({'grad'}), dense_gradient=True)


def noise(seed: int = 0) -> Criterion:
  """A uniform draw in [0, 1) that is new at every step.

  The draw depends on `seed`, the step and the leaf's path.
  """

  def score(params, *, step, stacked=(), **_):
    key = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), step)
    return uniform_draws(key, params, stacked)

  return stateless(score)


class RegrowState(NamedTuple):
  """The states of the criteria `keep`, `grow` and `first`."""

  regrow_keep: Any
  regrow_grow: Any
  regrow_first: Any


class _Ranked(NamedTuple):
  scores: dict


def regrow(
  keep: Criterion,
  grow: Criterion,
  fraction: float,
  end: int | None = None,
  first: Criterion | None = None,
) -> Criterion:
  """Drop and regrow (Evci et al., 2020, algorithm 1).

  Of the n kept weights of each leaf the floor(f n) lowest by `keep` are removed. The places that
  the schedule leaves are then filled by `grow`, from all weights that are not kept. Its scores rank
  single weights, so the structure must be `unstructured()`.

  Args:
    keep: scores of kept weights, at least 0.
    grow: scores of weights that may come back, at least 0.
    fraction: f, in [0, 1].
    end: with `end`, f at step t is fraction / 2 (1 + cos(pi t / end)), and 0 from step `end` on.
    first: scores a leaf that is whole so far; default `keep`.

  Raises:
    ValueError: `fraction` is outside [0, 1], or `end` is no step above 0.
  """
  if not 0 <= fraction <= 1:
    raise ValueError(
      f'regrow: fraction={fraction!r}, the share of the kept weights that is removed, is not in'
      ' [0, 1]'
    )
  if end is not None and not end > 0:
    raise ValueError(f'regrow: end={end!r} must be a step above 0')
  parts = (keep, grow, keep if first is None else first)

  def init(params):
    return RegrowState(*(part.init(params) for part in parts))

  def update(state, params, **arguments):
    return RegrowState(
      *(part.update(inner, params, **arguments) for part, inner in zip(parts, state, strict=True))
    )

  def share(step):
    if end is None:
      return jnp.float32(fraction)
    return fraction / 2 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / end, 1.0).astype(jnp.float32)))

  def score(state, params, *, step, masks=None, stacked=(), **arguments):
    given = {**arguments, 'step': step, 'masks': masks} | ({'stacked': stacked} if stacked else {})
    scores_of = lambda i: parts[i].score(state[i], params, **given)
    if masks is None:
      return scores_of(2)
    stay, come, start, kept = map(named_leaves, (scores_of(0), scores_of(1), scores_of(2), masks))
    for scores in (stay, come, start):
      refuse_float64(scores)
    rank = lambda *trees: _Ranked(_ranked(*trees, stacked))
    ranked = placement.automatic(rank, stay, stay, come, start, kept, share(step))
    return with_leaves(params, ranked.scores)

  return Criterion(
    init,
    update,
    score,
    needs=frozenset().union(*(part.needs for part in parts)),
    single_weights=True,
    dense_gradient=grow.dense_gradient,
    revives=True,
    reads_axes=next((part.reads_axes for part in parts if part.reads_axes), ''),
  )


def rigl(
  fraction: float = 0.3, end: int | None = None, first: str = 'random', seed: int = 0
) -> Criterion:
  """RigL (Evci et al., 2020): `regrow(magnitude(), gradient(), fraction, end)`.

  In the paper `fraction` is 0.3, `end` is three quarters of training, the allocation is `erk()`,
  the schedule is `constant`, and masks move with `every(100, until=end)`. The view must let the
  gradient through to pruned weights.

  Args:
    fraction: see `regrow`.
    end: see `regrow`.
    first: how the first masks are made: 'random' draws them from `seed`; or 'magnitude'.
    seed: an integer.

  Raises:
    ValueError: a value is out of range.
  """
  return regrow(magnitude(), gradient(), fraction, end, _first(first, seed))


def sparse_evolution(
  fraction: float = 0.3, end: int | None = None, first: str = 'random', seed: int = 0
) -> Criterion:
  """SET (Mocanu et al., 2018): `regrow(magnitude(), noise(seed), fraction, end)`.

  The weights nearest to 0 are removed, whatever their sign; the paper counts each sign by itself.
  Arguments and errors are those of `rigl`.
  """
  return regrow(magnitude(), noise(seed), fraction, end, _first(first, seed))


def _first(first, seed):
  if first not in ('random', 'magnitude'):
    raise ValueError(f"first={first!r}: expected 'random' or 'magnitude'")
  return random(seed) if first == 'random' else magnitude()


def _ranked(stay, come, start, kept, share, stacked=()):
  """Scores whose highest are the survivors by `stay`, and then all other weights by `come`.

  A leaf that is whole so far, or such a slice of a stacked leaf, is scored by `start`.
  """
  layer_axes = lambda name: tuple(range(1 if name in stacked else 0, kept[name].ndim))
  layer_size = lambda name: math.prod(kept[name].shape[axis] for axis in layer_axes(name))
  count = lambda name: jnp.sum(kept[name], layer_axes(name), dtype=jnp.int32, keepdims=True)
  alive = {name: count(name) for name in kept}
  survivors = {name: alive[name] - counts.share(alive[name], share) for name in kept}
  known = {name: jnp.where(kept[name], score, -jnp.inf) for name, score in stay.items()}
  shaped = lambda name: survivors[name] if name in stacked else jnp.reshape(survivors[name], ())
  survive = select(plain(known), {(name,): shaped(name) for name in kept}).masks
  ranked = {}
  for name, mask in kept.items():
    # Candidates become negative numbers in their own order, exactly: below every survivor.
    bits = lax.bitcast_convert_type(come[name].astype(jnp.float32), jnp.uint32)
    bits = _INFINITY - jnp.minimum(bits, _INFINITY - np.uint32(1))
    below = lax.bitcast_convert_type(bits | np.uint32(1 << 31), jnp.float32)
    score = jnp.where(survive[name] & mask, stay[name], below)
    is_nan = jnp.isnan(come[name]) | (mask & jnp.isnan(stay[name]))
    score = jnp.where(is_nan, jnp.nan, score)
    whole = alive[name] == layer_size(name)
    ranked[name] = jnp.where(whole, start[name], score)
  return ranked

"""SCORE of dynamic sparse training: masks move, the number of weights stays (SET, RigL).

`regrow` is a product of two criteria, what stays and what comes back; the named methods are such products.
"""

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import placement as layout
from prunejax.pruning.criteria import weights as criteria
from prunejax.pruning.criteria.weights import _required, _stateless
from prunejax.pruning.selection import counts
from prunejax.pruning.selection import search as selection
from prunejax.pruning.types import Criterion, named_leaves, path_name

_TOP = np.uint32(0x7F800000)  # the bits of infinity


def gradient() -> Criterion:
  """|g|: what would move most if it were there (RigL; Evci et al., 2020). Needs `grad=`, of pruned weights as well.

  Where every pruned weight's gradient is exactly 0 and a kept one's is not, the view has cut it off: scores are then
  NaN, which `prune_transform` reports, and no mask rests on them.
  """

  def score(params, *, grad, masks=None, **_):
    found = jax.tree.map(
      lambda w, g: jnp.abs(g.astype(jnp.float32)), params, _required(grad, 'gradient')
    )
    if masks is None:
      return found
    some = lambda choose: jnp.stack(
      [
        jnp.any(choose(s, mask))
        for s, mask in zip(jax.tree.leaves(found), jax.tree.leaves(masks), strict=True)
      ]
    ).any()
    gone, seen, live = (
      some(lambda s, m: ~m),
      some(lambda s, m: ~m & (s != 0)),
      some(lambda s, m: m & (s != 0)),
    )
    return jax.tree.map(lambda s: jnp.where(gone & ~seen & live, jnp.nan, s), found)

  made = _stateless(score)
  made.score.dense_gradient = True
  return made


def noise(seed=0) -> Criterion:
  """A uniform draw in [0, 1) that is new at every step, from `seed`, the step and the leaf's path."""

  def score(params, *, step, **_):
    key = jax.random.fold_in(jax.random.key(seed, impl='threefry2x32'), step)

    def draw(path, w):
      place = zlib.crc32(path_name(path).encode())
      return layout.like(jax.random.uniform(jax.random.fold_in(key, place), w.shape), w)

    return jax.tree_util.tree_map_with_path(draw, params)

  return _stateless(score)


class RegrowState(NamedTuple):
  regrow_keep: Any
  regrow_grow: Any
  regrow_first: Any


class _Ranked(NamedTuple):
  scores: dict


def regrow(
  keep: Criterion, grow: Criterion, fraction, end=None, first: Criterion | None = None
) -> Criterion:
  """Drop and regrow (Evci et al., 2020, alg. 1): of each leaf's kept weights the lowest floor(f n) by `keep` go, and as
  many as the schedule leaves room for come by `grow`, from all that are not kept.

  f is `fraction`, or with `end` the paper's fraction / 2 (1 + cos(pi t / end)), 0 from step `end` on. Both scores must
  be at least 0. A leaf that is whole so far is cut by `first` (default: `keep`). For single weights, since a mean of
  such scores means nothing. ValueError for a fraction not in [0, 1].
  """
  if not 0 <= fraction <= 1:
    raise ValueError(
      f'regrow: fraction={fraction!r}, the share of the kept weights that go, is not in [0, 1]'
    )
  if end is not None and not end > 0:
    raise ValueError(f'regrow: end={end!r} must be a step above 0')
  parts = (keep, grow, keep if first is None else first)

  def init(params):
    return RegrowState(*(part.init(params) for part in parts))

  def update(state, params, **extra):
    return RegrowState(
      *(part.update(its, params, **extra) for part, its in zip(parts, state, strict=True))
    )

  def share(step):
    if end is None:
      return jnp.float32(fraction)
    return fraction / 2 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / end, 1.0).astype(jnp.float32)))

  def score(state, params, *, step, masks=None, stacked=(), **extra):
    given = {**extra, 'step': step, 'masks': masks} | ({'stacked': stacked} if stacked else {})
    ask = lambda i: parts[i].score(state[i], params, **given)
    if masks is None:
      return ask(2)
    stay, come, start, kept = (named_leaves(tree) for tree in (ask(0), ask(1), ask(2), masks))
    rank = lambda *a: _Ranked(_rank(*a, stacked))
    ranked = layout.automatic(rank, stay, stay, come, start, kept, share(step)).scores
    return jax.tree.unflatten(jax.tree.structure(params), [ranked[name] for name in stay])

  score.single = True
  score.dense_gradient = getattr(grow.score, 'dense_gradient', False)
  return Criterion(init, update, score)


def rigl(fraction=0.3, end=None, first='random', seed=0) -> Criterion:
  """`regrow(magnitude(), gradient(), fraction, end)` (Evci et al., 2020): what comes back is what has the largest
  gradient. The first masks are drawn at random from `seed`, or with first='magnitude' made by magnitude.

  In the paper fraction is 0.3, `end` three quarters of training, the allocation `erk()`, the schedule `constant`, and
  masks move with `every(100, until=end)`. The view must let the gradient through to pruned weights.
  """
  return regrow(criteria.magnitude(), gradient(), fraction, end, _first(first, seed))


def sparse_evolution(fraction=0.3, end=None, first='random', seed=0) -> Criterion:
  """`regrow(magnitude(), noise(seed), fraction, end)`: SET (Mocanu et al., 2018), what comes back is drawn anew. The
  weights nearest to 0 go, whatever their sign; the paper counts each sign by itself.
  """
  return regrow(criteria.magnitude(), noise(seed), fraction, end, _first(first, seed))


def _first(first, seed):
  if first not in ('random', 'magnitude'):
    raise ValueError(f"first={first!r}: expected 'random' or 'magnitude'")
  return criteria.random(seed) if first == 'random' else criteria.magnitude()


def _rank(stay, come, start, kept, share, stacked=()):
  """Scores of which the highest are what stays, by `stay`, and then everything else by `come`."""
  inside = lambda name: tuple(range(1, kept[name].ndim)) if name in stacked else None
  alive = {name: jnp.sum(mask, inside(name), dtype=jnp.int32) for name, mask in kept.items()}
  leave = {name: counts.share(alive[name], share) for name in kept}
  known = {name: jnp.where(kept[name], score, -jnp.inf) for name, score in stay.items()}
  survive = selection.top(known, {name: alive[name] - leave[name] for name in kept}, stacked)
  out = {}
  for name, mask in kept.items():
    # Candidates take the negative numbers in their own order: exact, and below every survivor.
    bits = jnp.minimum(
      lax.bitcast_convert_type(come[name].astype(jnp.float32), jnp.uint32), _TOP - np.uint32(1)
    )
    below = lax.bitcast_convert_type((_TOP - bits) | np.uint32(1 << 31), jnp.float32)
    score = jnp.where(survive[name] & mask, stay[name], below)
    spoilt = jnp.isnan(come[name]) | (mask & jnp.isnan(stay[name]))
    score = jnp.where(spoilt, jnp.nan, score)
    whole = alive[name] == mask.size // alive[name].size
    out[name] = jnp.where(
      whole.reshape(*whole.shape, *[1] * (mask.ndim - whole.ndim)), start[name], score
    )
  return out

"""The approximate cut-off of TensorFlow's first pruning library, here to be measured against."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prunejax.pruning.allocations.shares import unit_sparsity
from prunejax.pruning.paths import named_leaves, with_leaves
from prunejax.pruning.precision import refuse_float64
from prunejax.pruning.schedules import MASK_STEP
from prunejax.pruning.structures.local import LOWEST
from prunejax.pruning.types import Allocation, Criterion


class HistogramState(NamedTuple):
  """The state of the criterion, and {path: smoothed cut-offs, float32 [axis 0], one a layer}.

  A leaf that stacks no layers has the same cut-off in every place.
  """

  histogram_criterion: Any
  histogram_cuts: dict


def histogram(bins: int = 256, decay: float = 0.9) -> Allocation:
  """A cut-off that is read off a histogram of the scores and smoothed over the moves of the masks.

  Gordon et al. (2020) ran one of the copies of that library. `uniform` keeps the number that was
  asked; this rule keeps about as many.

  A leaf keeps the units whose score is above decay * last cut-off + (1 - decay) * cut-off; the
  first last cut-off is 0. The cut-off is (largest score / bins) times the number of equal bins from
  0 to the largest score that hold together, counted from below, fewer units than the share to be
  removed. With `decay=0.9` twenty moves reach 88 % of a cut-off that stands still; 0.0 forgets.
  Scores must be at least 0, as magnitudes are. With a decay the structure must be `unstructured()`.

  Args:
    bins: the number of bins, 2 to 65,536.
    decay: the share of the last cut-off, in [0, 1).

  Raises:
    ValueError: a value is out of range.
  """
  if not (isinstance(bins, int) and 2 <= bins <= 1 << 16):
    raise ValueError(f'histogram: bins={bins!r}; a whole number from 2 to 65536 is needed')
  if not 0 <= decay < 1:
    raise ValueError(f'histogram: decay={decay!r} is not in [0, 1)')

  def allocate(units, sparsity):
    share = unit_sparsity(units, sparsity)
    kept = {}
    for name, score in units.scores.items():
      is_layered = name in units.stacked
      limit = (1 - decay) * _cuts(score, share, bins, is_layered)
      kept[name,] = _count_above(score, limit, is_layered)
    return kept

  def with_memory(criterion):
    return _remembering(criterion, bins, decay), Allocation(_finite)

  return Allocation(allocate, with_memory if decay else None)


def _remembering(criterion: Criterion, bins, decay) -> Criterion:
  """`criterion` with -inf for every score that is not above the smoothed cut-off of its leaf."""

  def init(params):
    layers = lambda w: w.shape[:1] if len(w.shape) > 1 else (1,)
    cuts = {name: jnp.zeros(layers(w), jnp.float32) for name, w in named_leaves(params).items()}
    return HistogramState(criterion.init(params), cuts)

  def update(state, params, *, sparsity, due, stacked=(), **arguments):
    arguments |= {'sparsity': sparsity, 'due': due} | ({'stacked': stacked} if stacked else {})
    inner = criterion.update(state.histogram_criterion, params, **arguments)

    def moved(cuts):
      scores = _scores(_prepared(inner, params, arguments), params, arguments)
      share = jnp.asarray(sparsity, jnp.float32)
      new = {name: _cuts(s, share, bins, name in stacked) for name, s in scores.items()}
      smoothed = lambda old, now: decay * old + (1 - decay) * jnp.ravel(now)
      return {name: smoothed(cuts[name], new[name]) for name in cuts}

    with jax.named_scope(MASK_STEP):
      cuts = jax.lax.cond(due, moved, lambda cuts: cuts, state.histogram_cuts)
    return HistogramState(inner, cuts)

  def _prepared(inner, params, arguments):
    if criterion.prepare is None:
      return inner
    return criterion.prepare(inner, params, **arguments)

  def _scores(ready, params, arguments):
    scores = named_leaves(criterion.score(ready, params, **arguments))
    refuse_float64(scores)
    return {name: score.astype(jnp.float32) for name, score in scores.items()}

  def prepare(state, params, **arguments):
    ready = criterion.prepare(state.histogram_criterion, params, **arguments)
    return state._replace(histogram_criterion=ready)

  def score(state, params, *, stacked=(), **arguments):
    arguments |= {'stacked': stacked} if stacked else {}
    cut_off = {}
    for name, s in _scores(state.histogram_criterion, params, arguments).items():
      cuts = state.histogram_cuts[name]
      limit = cuts.reshape(-1, *[1] * (s.ndim - 1)) if name in stacked else jnp.sum(cuts[:1])
      cut_off[name] = jnp.where((s > limit) | jnp.isnan(s), s, -jnp.inf)
    return with_leaves(params, cut_off)

  def compensate(state, params, masks, **arguments):
    return criterion.compensate(state.histogram_criterion, params, masks, **arguments)

  return criterion._replace(
    init=init,
    update=update,
    score=score,
    prepare=None if criterion.prepare is None else prepare,
    compensate=None if criterion.compensate is None else compensate,
    single_weights=True,
  )


def _finite(units, sparsity):
  """Counts of the units whose score the criterion has not cut off."""
  del sparsity
  return {
    # Where weights are pruned already, -inf stands for those and LOWEST for what is cut off.
    (name,): _count_above(score, LOWEST, name in units.stacked)
    for name, score in units.scores.items()
  }


def _count_above(score, limit, is_layered) -> jax.Array:
  axes = tuple(range(1, score.ndim)) if is_layered else None
  return jnp.sum(score > limit, axes, dtype=jnp.int32, keepdims=is_layered)


def _cuts(score, share, bins, is_layered) -> jax.Array:
  """The cut-off of a leaf, or those of its layers, [layers, 1, ...]; float32."""
  score = score.astype(jnp.float32)
  axes = tuple(range(1 if is_layered else 0, score.ndim))
  total = lambda flags: jnp.sum(flags, axes, dtype=jnp.int32, keepdims=is_layered)
  size = max(score.size // (max(score.shape[0], 1) if is_layered else 1), 1)
  top = jnp.max(score, axes, initial=0.0, keepdims=is_layered)
  bin_of = jnp.floor(score / jnp.where(top > 0, top, 1) * bins)
  bin_of = jnp.clip(bin_of, 0, bins - 1).astype(jnp.int32)
  # The number of bins is searched by halving, nine counts for 256 bins: a histogram of a leaf that
  # lies on many devices would be gathered.
  low, high = jnp.zeros(top.shape, jnp.int32), jnp.full(top.shape, bins, jnp.int32)
  for _ in range(bins.bit_length()):
    middle = (low + high) // 2
    reached = ~(total(bin_of <= middle).astype(jnp.float32) / size < share)
    low, high = (
      jnp.where(reached | (low == high), low, middle + 1),
      jnp.where(reached, middle, high),
    )
  return top / bins * low.astype(jnp.float32)

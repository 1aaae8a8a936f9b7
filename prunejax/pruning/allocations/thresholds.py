"""Allocations by threshold: the scores decide how much each leaf keeps."""

import functools

import jax
import jax.numpy as jnp

from prunejax.pruning import counts, selection
from prunejax.pruning.allocations.shares import NUMBER, class_rows, total_units, unit_sparsity
from prunejax.pruning.leaf_kinds import map_kinds
from prunejax.pruning.paths import compiled
from prunejax.pruning.types import Allocation


def global_threshold() -> Allocation:
  """One threshold for all leaves: each keeps what lies above it, blind to layers and classes.

  Ties go to earlier leaves.
  """

  def allocate(units, sparsity):
    if not units.scores:
      return {}
    return {tuple(units.scores): counts.kept(total_units(units), unit_sparsity(units, sparsity))}

  return Allocation(allocate)


def class_uniform(classes) -> Allocation:
  """Every class has the same sparsity and one threshold for all its leaves.

  See et al. (2016, sec. 3.2). With every leaf a class this is `uniform`. With all leaves in one
  class it is `global_threshold`, the paper's class-blind rule.

  Args:
    classes: regexes on paths; the first match counts.

  Raises:
    ValueError: when the link is initialised, as `by_class` raises.
  """
  patterns = [compiled(pattern, 'class_uniform classes') for pattern in classes]

  def allocate(units, sparsity):
    if not units.scores:
      return {}
    rows = class_rows(units.scores, patterns, 'class_uniform')
    kept = {}
    for row in dict.fromkeys(rows):
      names = tuple(n for n, r in zip(units.scores, rows, strict=True) if r == row)
      size = sum(units.scores[name].size for name in names)
      kept[names] = counts.kept(size, unit_sparsity(units, sparsity))
    return kept

  return Allocation(allocate)


def class_distribution(classes=None) -> Allocation:
  """The threshold of class c is lambda * sigma_c, with one lambda for all leaves.

  See et al. (2016, sec. 3.2); Han et al. (2015), where a class is a layer. sigma_c is the root mean
  square of the class's unit scores: for `magnitude` the standard deviation of its weights about 0.
  lambda is not searched: scores divided by sigma_c meet one global threshold.

  Args:
    classes: regexes on paths; the first match counts. None makes every leaf a class.

  Raises:
    ValueError: when the link is initialised, as `by_class` raises.
  """
  patterns = None
  if classes is not None:
    patterns = [compiled(pattern, 'class_distribution classes') for pattern in classes]

  def allocate(units, sparsity):
    names = list(units.scores)
    if not names:
      return {}
    if patterns is None:
      rows, layered = list(range(len(names))), units.stacked
    else:
      rows, layered = class_rows(names, patterns, 'class_distribution'), frozenset()
    sigmas = _class_deviations(units.scores, dict(zip(names, rows, strict=True)), layered)

    def scaled(sources):
      sources, sigmas = sources
      scores = units.read.read(sources)
      widened = lambda s, score: s.reshape(s.shape + (1,) * (score.ndim - s.ndim))
      return {
        name: scores[name] / widened(sigmas[row], scores[name])
        for name, row in zip(names, rows, strict=True)
      }

    goal = counts.kept(total_units(units), unit_sparsity(units, sparsity))
    read = selection.Scores(scaled, (units.read.sources, sigmas))
    masks = selection.select(read, {tuple(names): goal}).masks
    return {(name,): _count(mask, name in units.stacked) for name, mask in masks.items()}

  return Allocation(allocate)


def above(cut, *, relative: bool = False) -> Allocation:
  """Every leaf keeps the units whose score is above a cut-off, however many they are.

  The cut-off is in force whenever the schedule's sparsity is above 0; at 0 all units stay. With
  `deviations()` it is the quality times sigma of Han et al. (2015).

  Args:
    cut: a number, or pairs (regex on the path, number), or a dict; the first match counts.
    relative: the cut-off is `cut` times what the schedule says, which is then no sparsity. So
      `above(1.0, relative=True)` lets `cubic(0.1)` raise the cut-off to 0.1, as soft movement
      pruning does.

  Raises:
    ValueError: a cut-off is no number. When the link is initialised: as `by_class` raises.
  """
  table = dict(cut) if isinstance(cut, (dict, list, tuple)) else {'.*': cut}
  cuts = [(compiled(pattern, 'above cut'), value) for pattern, value in table.items()]
  for pattern, value in cuts:
    if isinstance(value, str) or (isinstance(value, NUMBER) and value != value):
      raise ValueError(f'above: {pattern.pattern!r} has {value!r}; a number is needed')

  def allocate(units, sparsity):
    if not units.scores:
      return {}
    rows = class_rows(units.scores, [pattern for pattern, _ in cuts], 'above')
    sparsity = jnp.asarray(sparsity, jnp.float32)
    kept = {}
    for (name, score), row in zip(units.scores.items(), rows, strict=True):
      level = jnp.asarray(cuts[row][1], jnp.float32) * (sparsity if relative else 1)
      stays = (score.astype(jnp.float32) > level) | (sparsity <= 0)
      kept[name,] = _count(stays, name in units.stacked)
    return kept

  return Allocation(allocate)


def _count(flags, layered: bool) -> jax.Array:
  """How many flags are set, int32: in all, or [layers, 1, ...] in each slice of axis 0."""
  if not layered:
    return jnp.sum(flags, dtype=jnp.int32)
  return jnp.sum(flags, tuple(range(1, flags.ndim)), dtype=jnp.int32, keepdims=True)


def _class_deviations(scores, rows, layered) -> dict:
  """{row: root mean square of the scores of its leaves}, 1 where they are all 0.

  Leaves in `layered` are alone in their row, and each slice of their axis 0 has a value of its own.
  """
  members = {row: [n for n in scores if rows[n] == row] for row in dict.fromkeys(rows.values())}

  def each_layer(fn, *tables):
    """`fn` of each leaf, or of each slice of a leaf that stacks layers."""
    values = {}
    for is_layered in (True, False):
      chosen = [name for name in scores if (name in layered) == is_layered]
      if chosen:
        given = ({name: table[name] for name in chosen} for table in tables)
        values |= map_kinds(jax.vmap(fn) if is_layered else fn, *given)
    return values

  largest = each_layer(_largest, scores)
  scales: dict = {}
  sigmas: dict = {}
  for names in members.values():
    # Divided by a power of two near the largest: the square of 1e-23 is no float32.
    scale = _power_of_two(functools.reduce(jnp.maximum, [largest[name] for name in names]))
    scales |= dict.fromkeys(names, scale)
  powers = each_layer(_power, scores, scales)
  for row, names in members.items():
    size = sum(scores[name][0].size if name in layered else scores[name].size for name in names)
    mean = sum(powers[name] for name in names) / max(size, 1)
    sigmas[row] = jnp.where(mean > 0, jnp.sqrt(mean) * scales[names[0]], 1.0)
  return sigmas


def _power(score, scale):
  score = score.astype(jnp.float32) / scale
  return jnp.sum(counts.block_sum(score * score, score.shape))


def _largest(score):
  return jnp.max(jnp.abs(score.astype(jnp.float32)), initial=0)


def _power_of_two(x):
  """The power of two at or above x; 1 where there is none."""
  return jnp.where(jnp.isfinite(x) & (x > 0), jnp.ldexp(jnp.float32(1), jnp.frexp(x)[1]), 1)

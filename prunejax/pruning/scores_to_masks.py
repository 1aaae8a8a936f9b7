"""From a criterion's scores to masks: pool, allocate, select, expand."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jax_core

from prunejax.pruning import kernel_layout, layer_names, placement, selection
from prunejax.pruning.allocations import uniform
from prunejax.pruning.counts import Wide
from prunejax.pruning.kernel_layout import Layouts
from prunejax.pruning.precision import refuse_float64
from prunejax.pruning.selection import Scores
from prunejax.pruning.structures import unstructured
from prunejax.pruning.structures.local import LOWEST, PRUNED_BEFORE
from prunejax.pruning.types import Allocation, Criterion, Structure, Units

# Operations that cost less to repeat than their results cost to store.
_CHEAP = frozenset(
  'abs neg sign add sub mul div max min square integer_pow convert_element_type select_n eq ne'
  ' lt le gt ge and or not broadcast_in_dim reshape squeeze slice stop_gradient copy jit pjit'
  ' add_any'.split()
)


class Selected(NamedTuple):
  """New masks.

  Attributes:
    masks: {path: bool, shaped like the scores}.
    units: {unit name: bool units kept}.
    nan: {path: bool scalar, True if a score of the leaf is NaN}.
    invalid: {path: bool scalar, True if the allocation has no answer for the leaf}.
  """

  masks: dict[str, Any]
  units: dict[str, Any]
  nan: dict[str, Any]
  invalid: dict[str, Any]


def select_masks(
  scores: dict[str, jax.Array],
  sparsity,
  *,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
  stacked=(),
  undivided: str | Sequence[str] = (),
  layout: str | Mapping[str, str] = '',
) -> dict[str, jax.Array]:
  """Computes masks for scores at a sparsity.

  Args:
    scores: {path: scores}, higher is kept.
    sparsity: the fraction removed, in [0, 1). It may be traced; a traced value is not checked.
    allocation: who pays; default `uniform()`.
    structure: what goes together; default `unstructured()`.
    stacked: paths of leaves that hold one layer in each slice of axis 0; each slice is cut alone.
    undivided: as in `prune_transform`.
    layout: which axes are inputs and outputs, as in `prune_transform`.

  Returns:
    {path: bool}, True = kept.

  Raises:
    ValueError: scores are float64, or are known and hold NaN; a sparsity that is known is out of
      range; or leaves may be divided. Nothing says so of traced values: a NaN is the lowest score.
  """
  most = 1.0 if structure is None else structure.cost
  reads_sparsity = allocation is None or allocation.reads_sparsity
  if reads_sparsity and not isinstance(sparsity, jax.core.Tracer):
    if not 0 <= float(sparsity) <= np.float32(most):
      raise ValueError(
        f'select_masks: sparsity={float(sparsity)} is outside of [0, {most}], what this structure'
        ' can remove; it is the fraction removed, so 90 % is 0.9'
      )
  placement.check_undivided(scores, undivided, 'select_masks')
  layouts = kernel_layout.layouts(scores, kernel_layout.parse(layout), set(stacked).__contains__)
  refuse_float64(scores)
  names = list(scores)

  def masks_of(leaves):
    read = selection.plain(dict(zip(names, leaves, strict=True)))
    given = dict(stacked=stacked, layouts=layouts)
    selected = select(read, sparsity, allocation, structure, **given)
    return [selected.masks[name] for name in names], [selected.nan[name] for name in names]

  leaves = list(scores.values())
  known = not any(isinstance(value, jax.core.Tracer) for value in (*leaves, sparsity))
  if known:  # outside of jit each operation would be compiled as a program of its own
    masks_of = jax.jit(masks_of)
  masks, nan = masks_of(leaves)
  if known and (wrong := [name for name, is_nan in zip(names, nan, strict=True) if is_nan.any()]):
    raise ValueError(f'select_masks: the scores of {wrong[0]!r} hold NaN')
  return dict(zip(names, masks, strict=True))


def check_units(criterion: Criterion, structure: Structure, origin: str):
  """Refuses scores of single weights under a structure of more than one."""
  if criterion.single_weights and not structure.single:
    raise ValueError(
      f'{origin}: the scores of this criterion rank single weights and have no mean over a unit; it'
      ' needs structure=unstructured()'
    )


def select(
  scores: Scores,
  sparsity,
  allocation=None,
  structure=None,
  *,
  old=None,
  stacked=(),
  layouts: Layouts | None = None,
  before=None,
) -> Selected:
  """Computes masks for scores that are read again and again rather than stored.

  Args:
    scores: see `selection.Scores`.
    sparsity: the fraction removed; may be traced.
    allocation: who pays; default `uniform()`.
    structure: what goes together; default `unstructured()`.
    old: the masks so far, {path: bool}. Of scores of 0.0, those of weights kept so far rank above
      those of weights that are pruned already.
    stacked: see `select_masks`. A mapping {path: names of its layers} makes each layer a leaf of
      its own, of that name.
    before: {path: bool}, True for a weight that ranks below all others. A unit ranks so if all that
      it would remove does.
    layouts: see `kernel_layout.layouts`; default: what is known of the scores alone.
  """
  allocation = uniform() if allocation is None else allocation
  structure = unstructured() if structure is None else structure
  if isinstance(stacked, Mapping) and any(stacked.values()):
    return _select_by_layer(scores, sparsity, allocation, structure, old, stacked, layouts, before)
  stacked = frozenset(stacked)

  def masks_of(sources, sparsity, old, before):
    read = scores._replace(sources=sources)
    if structure.single:
      read = read if before is None else _below(read, before)
      return _select_weights(read, sparsity, allocation, old, stacked, known)
    return _select_units(read, sparsity, allocation, structure, old, stacked, before, known)

  example = scores.read(scores.sources)
  refuse_float64(example)
  known = kernel_layout.layouts(example, (), stacked.__contains__) if layouts is None else layouts
  return placement.automatic(masks_of, example, scores.sources, sparsity, old, before)


def _select_by_layer(
  scores, sparsity, allocation, structure, old, layers, layouts, before
) -> Selected:
  """`select` with the layers of stacked leaves as leaves of their own."""
  split = lambda leaves: layer_names.split(leaves, layers)
  split_if_any = lambda leaves: None if leaves is None else split(leaves)
  paths = scores.read(scores.sources)
  known = kernel_layout.layouts(paths, (), layers.__contains__) if layouts is None else layouts
  if structure.single and _compete_alone(allocation, paths, layers, known):
    # Nothing but counts goes by the names, so that there are as few leaves as the model has.
    counted = Allocation(functools.partial(_counts_by_name, allocation, layers, known))
    given = dict(old=old, stacked=frozenset(layers), layouts=known, before=before)
    return select(scores, sparsity, counted, structure, **given)
  selected = select(
    Scores(lambda sources: split(scores.read(sources)), scores.sources),
    sparsity,
    allocation,
    structure,
    old=split_if_any(old),
    stacked=layer_names.without_names(layers),
    layouts=layer_names.split_layouts(known, layers),
    before=split_if_any(before),
  )
  any_of = lambda flags: jnp.any(jnp.stack(flags))
  return Selected(
    layer_names.join(selected.masks, layers, paths),
    selected.units,
    layer_names.join(selected.nan, layers, paths, any_of),
    layer_names.join(selected.invalid, layers, paths, any_of),
  )


def _units_by_name(units, layers, layouts) -> Units:
  """Units in which every layer that has a name is a leaf of its own."""
  split = lambda leaves: layer_names.split(leaves, layers)
  scores, known = split(units.scores), layer_names.split_layouts(layouts, layers)
  return units._replace(
    scores=scores,
    read=Scores(lambda sources: split(units.read.read(sources)), units.read.sources),
    shapes={name: kernel_layout.matrix_shape(known[name]) for name in scores},
    stacked=layer_names.without_names(layers),
    layouts=known,
  )


def _compete_alone(allocation, scores, layers, layouts) -> bool:
  """True if an allocation gives every leaf and every layer a number of its own."""

  def allocated(scores):
    units = Units(scores, selection.plain(scores), {}, 1.0)
    return allocation.allocate(_units_by_name(units, layers, layouts), jnp.float32(0))

  plain = {name: jax.ShapeDtypeStruct(s.shape, s.dtype) for name, s in scores.items()}
  counts = jax.eval_shape(allocated, plain)
  is_one = lambda names, number: (
    isinstance(names, tuple)
    and len(names) == 1
    and isinstance(number, jax.ShapeDtypeStruct)
    and number.size == 1
  )
  return not _are_masks(counts) and all(is_one(*item) for item in counts.items())


def _counts_by_name(allocation, layers, layouts, units, sparsity) -> dict:
  """The counts of an allocation whose layers compete alone, for stacked leaves."""
  counts = allocation.allocate(_units_by_name(units, layers, layouts), sparsity)
  counts = {name: count for (name,), count in counts.items()}

  def stacked(path):
    if not layers.get(path):
      return counts[path]
    numbers = jnp.stack([jnp.reshape(counts[name], ()) for name in layers[path]])
    return jnp.reshape(numbers, (-1,) + (1,) * (units.scores[path].ndim - 1))

  return {(path,): stacked(path) for path in units.scores}


def pooled_units(
  scores: dict, structure: Structure, stacked=frozenset(), layouts: Layouts | None = None
) -> Units:
  """Returns the units that an allocation shares out, from scores in memory."""
  if layouts is None:
    layouts = kernel_layout.layouts(scores, (), frozenset(stacked).__contains__)
  whole = kernel_layout.of_matrices(structure, layouts)
  pooled = whole.pool(scores)
  shapes = {name: kernel_layout.matrix_shape(layouts[name]) for name in scores}
  leaf_of = {name: name for name in scores}
  if whole.members is not None:
    members = whole.members({name: score.shape for name, score in scores.items()})
    shapes = {unit: shape for unit, (_, shape) in members.items()}
    leaf_of = {unit: leaves[0] for unit, (leaves, _) in members.items()}
    stacked = _stacked_units(members, stacked)
  unit_layouts = {
    unit: kernel_layout.of_units(layouts[leaf_of[unit]], structure, score.shape)
    for unit, score in pooled.items()
  }
  read, stacked = selection.plain(pooled), frozenset(stacked)
  return Units(pooled, read, shapes, structure.cost, stacked, unit_layouts)


def check(
  leaves: dict[str, jax.ShapeDtypeStruct],
  allocation: Allocation,
  structure: Structure,
  stacked=frozenset(),
  layouts: Layouts | None = None,
):
  """Raises the ValueError of an allocation or structure that does not fit the leaves."""
  if isinstance(stacked, Mapping):
    layouts = layouts and layer_names.split_layouts(layouts, stacked)
    leaves, stacked = layer_names.split(leaves, stacked), layer_names.without_names(stacked)
  units = lambda scores: pooled_units(scores, structure, stacked, layouts)
  jax.eval_shape(lambda scores: allocation.allocate(units(scores), jnp.float32(0)), leaves)


def _select_weights(scores, sparsity, allocation, old, stacked, layouts) -> Selected:
  """Every weight is a unit."""
  if not _is_cheap(scores):
    scores = selection.plain(scores.read(scores.sources))
  # An allocation that counts scores has to know, too, which of two zeros ranks higher.
  ranked = scores
  if old is not None:
    ranked = Scores(lambda both: _aged(scores.read(both[0]), both[1]), (scores.sources, old))
  example = ranked.read(ranked.sources)
  shapes = {name: kernel_layout.matrix_shape(layouts[name]) for name in example}
  units = Units(example, ranked, shapes, 1.0, stacked, layouts)
  allocated = allocation.allocate(units, sparsity)
  if _are_masks(allocated):
    nan = _nan(scores.read(scores.sources))
    return Selected(allocated, allocated, nan, _invalid({}, example))
  counts = _counts(allocated, example, stacked)
  masks, nan = selection.select(scores, _not_negative(counts), old)
  return Selected(masks, masks, nan, _invalid(counts, example))


def _select_units(
  scores, sparsity, allocation, structure, old, stacked, before, layouts
) -> Selected:
  """Units are pooled and stored."""
  read = scores.read(scores.sources)
  ranked = read if old is None else _aged(read, old)
  if before is None:
    units = pooled_units(ranked, structure, stacked, layouts)
  else:
    ranked, units = _pooled_below(ranked, before, structure, stacked, layouts)
  kept, invalid = allocation.allocate(units, sparsity), {}
  if not _are_masks(kept):
    counts = _counts(kept, units.scores, units.stacked)
    kept, invalid = selection.select(units.read, _not_negative(counts)).masks, counts
  leaf_invalid = _invalid(invalid, units.scores)
  whole = kernel_layout.of_matrices(structure, layouts)
  if whole.members is not None:
    members = whole.members({name: score.shape for name, score in read.items()})
    leaf_invalid = {
      name: leaf_invalid[unit] for unit, (names, _) in members.items() for name in names
    }
    leaf_invalid = {name: leaf_invalid[name] for name in read}
  return Selected(whole.expand(kept, ranked), kept, _nan(read), leaf_invalid)


def _below(scores: Scores, before: dict) -> Scores:
  """Scores in which those of the weights `before` are -inf, and no other is."""

  def read(sources):
    scores_of, before = sources
    return {
      name: _lowered(score, before[name], -jnp.inf)
      for name, score in scores.read(scores_of).items()
    }

  return Scores(read, (scores.sources, before))


def _lowered(score, before, value):
  """Float32 scores with `value` where `before` is set, and all others above; NaN stays."""
  score = jnp.maximum(score.astype(jnp.float32), LOWEST)
  return jnp.where(before & (score == score), jnp.float32(value), score)


def _pooled_below(scores, before, structure, stacked, layouts) -> tuple[dict, Units]:
  """Scores and units in which the weights `before` rank below all others and weigh nothing."""
  # A structure that removes a part of each unit ranks inside it: it has to see the lowest scores.
  value = PRUNED_BEFORE if structure.cost < 1 else -0.0
  scores = {name: _lowered(score, before[name], value) for name, score in scores.items()}
  units = pooled_units(scores, structure, stacked, layouts)
  some_left = kernel_layout.of_matrices(structure, layouts).pool(
    {name: jnp.where(gone, -0.0, 1.0) for name, gone in before.items()}
  )
  lowered = {
    name: _lowered(score, some_left[name] == 0, -jnp.inf) for name, score in units.scores.items()
  }
  return scores, units._replace(scores=lowered, read=selection.plain(lowered))


def _not_negative(counts: dict) -> dict:
  """Counts of which none is below 0."""
  raised = _as_one_array(counts, lambda values: jnp.maximum(values, 0))
  return counts | raised


def _invalid(counts: dict, names) -> dict:
  """{name: bool scalar, True if the allocation gave a count below 0}."""
  flags = dict.fromkeys(names, jnp.zeros((), bool))
  for group, negative in _as_one_array(counts, lambda values: values < 0).items():
    flags |= dict.fromkeys(group, jnp.any(negative))
  return flags


def _as_one_array(counts: dict, function) -> dict:
  """`function` of the counts in int32. Scalars go through it as one array.

  A TPU pads every array to 16 KiB, and there are as many counts as leaves.
  """
  values = {names: jnp.asarray(n) for names, n in counts.items() if not isinstance(n, Wide)}
  scalars = [names for names, count in values.items() if count.ndim == 0]
  done = {names: function(count) for names, count in values.items() if count.ndim}
  if scalars:
    together = function(jnp.stack([values[names] for names in scalars]))
    done |= {names: together[i] for i, names in enumerate(scalars)}
  return done


def _are_masks(allocated) -> bool:
  return bool(allocated) and all(
    jnp.issubdtype(jnp.result_type(v), jnp.bool_) for v in allocated.values()
  )


def _counts(allocated, scores, stacked) -> dict:
  """Counts by tuples of names. A name alone stands for its tuple; so did allocations of 0.1."""
  counts = {}
  for names, count in allocated.items():
    if isinstance(names, str):
      if names in stacked:
        count = jnp.reshape(count, (-1,) + (1,) * (scores[names].ndim - 1))
      names = (names,)
    counts[names] = count
  return counts


def _nan(scores):
  return {name: jnp.any(jnp.isnan(score)) for name, score in scores.items()}


def _stacked_units(members, stacked) -> frozenset:
  """The units whose leaves stack layers; ValueError where some leaves do and others do not."""
  flags = {unit: [name in stacked for name in names] for unit, (names, _) in members.items()}
  for unit, layered in flags.items():
    if any(layered) != all(layered):
      raise ValueError(
        f'the units {unit!r} lie in leaves of which only some are stacked: {list(members[unit][0])}'
      )
  return frozenset(unit for unit, layered in flags.items() if all(layered))


def _is_cheap(scores: Scores) -> bool:
  """True if `read` is elementwise throughout; a random draw or a matrix product is made once."""

  def is_plain(jaxpr):
    return all(
      eqn.primitive.name in _CHEAP
      and all(is_plain(inner) for inner in jax_core.jaxprs_in_params(eqn.params))
      for eqn in jaxpr.eqns
    )

  return is_plain(jax.make_jaxpr(lambda: scores.read(scores.sources))().jaxpr)


def _aged(scores: dict, old: dict) -> dict:
  """Float32 scores whose zeros tell the masks so far: 0.0 is kept, -0.0 is pruned.

  -0.0 ranks below 0.0.
  """
  floats = {name: score.astype(jnp.float32) for name, score in scores.items()}
  return {name: jnp.where(s == 0, jnp.where(old[name], 0.0, -0.0), s) for name, s in floats.items()}

"""From a criterion's scores to masks: pool, allocate, select, expand."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jax_core

from prunejax.pruning import kernel_layout, placement, selection
from prunejax.pruning.allocations import uniform
from prunejax.pruning.kernel_layout import Layouts
from prunejax.pruning.selection import Scores
from prunejax.pruning.structures import unstructured
from prunejax.pruning.types import Allocation, Structure, Units

# Operations that cost less to repeat than their results cost to store.
_CHEAP = frozenset(
  'abs neg sign add sub mul div max min square integer_pow convert_element_type select_n eq ne'
  ' lt le gt ge and or not broadcast_in_dim reshape squeeze stop_gradient copy jit pjit'
  ' add_any'.split()
)


class Selected(NamedTuple):
  """New masks.

  Attributes:
    masks: {path: bool, shaped like the scores}.
    units: {unit name: bool units kept}.
    nan: {path: bool scalar, True if a score of the leaf is NaN}.
  """

  masks: dict[str, Any]
  units: dict[str, Any]
  nan: dict[str, Any]


def select_masks(
  scores: dict[str, jax.Array],
  sparsity,
  *,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
  stacked=(),
  layout: str | Mapping[str, str] = '',
) -> dict[str, jax.Array]:
  """Computes masks for scores at a sparsity.

  Args:
    scores: {path: scores}, higher is kept.
    sparsity: the fraction removed, in [0, 1); may be traced.
    allocation: who pays; default `uniform()`.
    structure: what goes together; default `unstructured()`.
    stacked: paths of leaves that hold one layer in each slice of axis 0; each slice is cut alone.
    layout: which axes are inputs and outputs, as in `prune_transform`.

  Returns:
    {path: bool}, True = kept.
  """
  layouts = kernel_layout.layouts(scores, kernel_layout.parse(layout), set(stacked).__contains__)
  given = dict(stacked=stacked, layouts=layouts)
  return select(selection.plain(scores), sparsity, allocation, structure, **given).masks


def select(
  scores: Scores,
  sparsity,
  allocation=None,
  structure=None,
  *,
  old=None,
  stacked=(),
  layouts: Layouts | None = None,
) -> Selected:
  """Computes masks for scores that are read again and again rather than stored.

  Args:
    scores: see `selection.Scores`.
    sparsity: the fraction removed; may be traced.
    allocation: who pays; default `uniform()`.
    structure: what goes together; default `unstructured()`.
    old: the masks so far, {path: bool}. Of scores of 0.0, those of weights kept so far rank above
      those of weights that are pruned already.
    stacked: see `select_masks`.
    layouts: see `kernel_layout.layouts`; default: what is known of the scores alone.
  """
  allocation = uniform() if allocation is None else allocation
  structure = unstructured() if structure is None else structure
  stacked = frozenset(stacked)

  def masks_of(sources, sparsity, old):
    read = scores._replace(sources=sources)
    if structure.single:
      return _select_weights(read, sparsity, allocation, old, stacked, known)
    return _select_units(read, sparsity, allocation, structure, old, stacked, known)

  example = scores.read(scores.sources)
  known = kernel_layout.layouts(example, (), stacked.__contains__) if layouts is None else layouts
  return placement.automatic(masks_of, example, scores.sources, sparsity, old)


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
    return Selected(allocated, allocated, _nan(scores.read(scores.sources)))
  masks, nan = selection.select(scores, _counts(allocated, example, stacked), old)
  return Selected(masks, masks, nan)


def _select_units(scores, sparsity, allocation, structure, old, stacked, layouts) -> Selected:
  """Units are pooled and stored."""
  read = scores.read(scores.sources)
  ranked = read if old is None else _aged(read, old)
  units = pooled_units(ranked, structure, stacked, layouts)
  kept = allocation.allocate(units, sparsity)
  if not _are_masks(kept):
    kept = selection.select(units.read, _counts(kept, units.scores, units.stacked)).masks
  expand = kernel_layout.of_matrices(structure, layouts).expand
  return Selected(expand(kept, ranked), kept, _nan(read))


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

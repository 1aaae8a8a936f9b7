"""scores -> pool -> allocate -> select -> expand: the way from a criterion's scores to masks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jax_core

from prunejax.pruning import placement as layout
from prunejax.pruning.allocations import shares as allocations
from prunejax.pruning.selection import groups
from prunejax.pruning.selection import search as selection
from prunejax.pruning.selection.groups import Scores
from prunejax.pruning.structures import local as structures
from prunejax.pruning.types import Allocation, Structure, Units

# Reading these again costs less than storing what they gave.
_CHEAP = frozenset(
  'abs neg sign add sub mul div max min square integer_pow convert_element_type select_n eq ne lt le gt ge and or not'
  ' broadcast_in_dim reshape squeeze stop_gradient copy jit pjit add_any'.split()
)


class Selected(NamedTuple):
  """`masks` {path: bool}; `kept` {name: int32 units, a vector over the slices of a stacked leaf};
  `nan` {path: bool}, true where a score of the leaf is NaN; `memory` of an allocation that has one.
  """

  masks: dict[str, Any]
  kept: dict[str, Any]
  nan: dict[str, Any]
  memory: Any = None


def select_masks(
  scores: dict,
  sparsity,
  *,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
  stacked=(),
) -> dict:
  """Masks {path: bool} for scores {path: array} at a sparsity: pool, allocate, select, expand.

  Leaves named in `stacked` hold one layer in each slice of axis 0; each slice is cut alone.
  """
  return select(groups.plain(scores, stacked), sparsity, allocation, structure).masks


def select(
  scores: Scores, sparsity, allocation=None, structure=None, old=None, memory=None
) -> Selected:
  """Masks at a sparsity for scores that are read again and again rather than stored.

  `old`, masks {path: bool}: among scores of 0.0, weights that are kept so far go before those that
  are pruned already. `memory`: what the allocation decided before, of one that has a memory; None, nothing yet.
  """
  allocation = allocations.uniform() if allocation is None else allocation
  structure = structures.unstructured() if structure is None else structure

  def chosen(sources, sparsity, old, memory):
    found = scores._replace(sources=sources)
    stored = allocation.choose is not None or not structure.single
    return (_pooled if stored else _single)(found, sparsity, allocation, structure, old, memory)

  return layout.automatic(
    chosen, scores.read(scores.sources), scores.sources, sparsity, old, memory
  )


def _single(scores, sparsity, allocation, structure, old, memory):
  read = scores.read(scores.sources)
  if old is not None and sum(score.size for score in read.values()) <= groups.FEW:
    scores, old = groups.plain(_aged(read, old), scores.stacked), None
  elif not _cheap(scores):
    scores = groups.plain(read, scores.stacked)
  unsigned = (
    scores
    if old is None
    else scores._replace(
      # -0.0 is no lower than 0.0: which of two zeros goes is for the old masks to say.
      read=lambda sources: {
        name: jnp.where(s == 0, jnp.zeros_like(s), s) for name, s in scores.read(sources).items()
      }
    )
  )
  # What an allocation counts leaf by leaf has to know as well which of two zeros goes first.
  aged = (
    scores
    if old is None
    else scores._replace(
      read=lambda sources: _aged(scores.read(sources[0]), sources[1]), sources=(scores.sources, old)
    )
  )
  units = _units(unsigned if allocation.find is not None else aged, structure)
  of = groups.blocks(unsigned)
  like = units.scores
  if not of.problems:
    return Selected(
      {name: jnp.ones(s.shape, bool) for name, s in like.items()},
      allocation.keep(units, sparsity),
      {name: jnp.zeros((), bool) for name in like},
      memory,
    )
  found, memory = _found(allocation, units, of, sparsity, memory)
  masks, stay = selection.masks(of, found.edge, like, old, allocation.find is not None)
  nan = {name: jnp.any(flags) for name, flags in groups.by_name(of, found.nan, unsigned).items()}
  return Selected(masks, groups.by_name(of, found.edge.above + stay, unsigned), nan, memory)


def _pooled(scores, sparsity, allocation, structure, old, memory):
  read = scores.read(scores.sources)
  ranked = read if old is None else _aged(read, old)
  units = pooled_units(ranked, structure, scores.stacked)
  nan = {name: jnp.any(jnp.isnan(score)) for name, score in read.items()}
  if allocation.choose is not None:
    keep = allocation.choose(units, sparsity)
    return Selected(structure.expand(keep, ranked), allocation.keep(units, sparsity), nan, memory)
  of = groups.blocks(units.again)
  if of.problems:
    found, memory = _found(allocation, units, of, sparsity, memory)
    keep, _ = selection.masks(of, found.edge, units.scores)
    kept = groups.by_name(of, found.edge.above + found.edge.needed, units.again)
  else:
    keep, kept = (
      {name: jnp.ones(s.shape, bool) for name, s in units.scores.items()},
      allocation.keep(units, sparsity),
    )
  return Selected(structure.expand(keep, ranked), kept, nan, memory)


def _found(allocation, units, of, sparsity, memory) -> tuple[selection.Found, Any]:
  if allocation.find is not None:
    return allocation.find(units, of, sparsity), memory
  if allocation.remember is None:
    return selection.edges(of, groups.in_order(of, allocation.keep(units, sparsity))), memory
  kept, memory = allocation.remember(
    units, sparsity, allocation.init(units.parts()) if memory is None else memory
  )
  return selection.edges(of, groups.in_order(of, kept)), memory


def pooled_units(scores: dict, structure, stacked=()) -> Units:
  """The units that an allocation shares out, from scores in memory."""
  pooled, shapes = structure.pool(scores), _shapes(scores)
  if structure.members is not None:
    of = structure.members(shapes)
    shapes, stacked = {unit: shape for unit, (_, shape) in of.items()}, _stacked_units(of, stacked)
  return Units(pooled, groups.plain(pooled, stacked), shapes, structure.cost)


def _stacked_units(of, stacked):
  """The units whose leaves stack layers. Raises ValueError where some do and others do not."""
  found = {unit: [name in stacked for name in names] for unit, (names, _) in of.items()}
  for unit, layers in found.items():
    if any(layers) != all(layers):
      raise ValueError(
        f'the units {unit!r} lie in leaves of which only some are stacked: {list(of[unit][0])}'
      )
  return frozenset(unit for unit, layers in found.items() if all(layers))


def kept_units(scores: dict, sparsity, allocation, structure, stacked=()):
  """(units, units kept by name): what an allocation decides, before anything is selected."""
  units = pooled_units(scores, structure, stacked)
  return units, allocation.keep(units, sparsity)


def _units(scores: Scores, structure):
  read = scores.read(scores.sources)
  return Units(read, scores, _shapes(read), structure.cost)


def _shapes(scores):
  return {name: score.shape for name, score in scores.items()}


def _cheap(scores: Scores) -> bool:
  """True if `read` is elementwise all through: a random draw or a matrix product is made once."""

  def plain(jaxpr):
    return all(
      eqn.primitive.name in _CHEAP
      and all(plain(inner) for inner in jax_core.jaxprs_in_params(eqn.params))
      for eqn in jaxpr.eqns
    )

  return plain(jax.make_jaxpr(scores.read)(scores.sources).jaxpr)


def _aged(scores: dict, old: dict) -> dict:
  """Float32 scores with every zero as 0.0 where the weight is kept so far and as -0.0, which ranks below
  it, where it is pruned already.
  """
  floats = {name: score.astype(jnp.float32) for name, score in scores.items()}
  return {name: jnp.where(s == 0, jnp.where(old[name], 0.0, -0.0), s) for name, s in floats.items()}

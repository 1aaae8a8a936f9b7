"""scores -> pool -> allocate -> select -> expand: the way from a criterion's scores to masks."""

from prunejax.pruning import allocation as allocations
from prunejax.pruning import layout, selection
from prunejax.pruning import structure as structures
from prunejax.pruning.types import Allocation, Structure, Units


def select_masks(
  scores: dict,
  sparsity,
  *,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
) -> dict:
  """Masks {path: bool} for scores {path: array} at a sparsity: pool, allocate, select, expand."""
  allocation = allocations.uniform() if allocation is None else allocation
  structure = structures.unstructured() if structure is None else structure

  def chosen(scores, sparsity):
    units, kept = kept_units(scores, sparsity, allocation, structure)
    return structure.expand(selection.top(units.scores, kept), scores)

  return layout.automatic(chosen, scores, sparsity)


def kept_units(scores, sparsity, allocation, structure):
  units = Units(structure.pool(scores), {name: score.shape for name, score in scores.items()}, structure.cost)
  return units, allocation.keep(units, sparsity)

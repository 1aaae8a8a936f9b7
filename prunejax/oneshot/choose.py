"""Chooses the masks of one block, and what its surviving weights become."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.oneshot import shares
from prunejax.pruning import scores_to_masks, selection
from prunejax.pruning.types import Allocation, Criterion, Structure


class Kernels(NamedTuple):
  """The kernels of a block that are pruned, as matrices [in, out].

  Attributes:
    shapes: {path: shape}.
    reads: {path: path of the first kernel that reads the same array}.
  """

  shapes: dict[str, tuple[int, ...]]
  reads: dict[str, str]


def sweeps(criterion: Criterion, structure: Structure) -> bool:
  """Whether masks are chosen inside a sweep."""
  return bool(criterion.layerwise.sweep and structure.inputs)


def statistics(criterion: Criterion, kernels: Kernels) -> Callable:
  """Makes (inputs of a segment) -> {path: statistics}, one for each array that is read."""

  def of(inputs):
    rows = lambda x: x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    first = dict.fromkeys(kernels.reads.values())
    return {name: criterion.layerwise.statistics(rows(inputs[name])) for name in first}

  return of


def counts(
  criterion: Criterion,
  structure: Structure,
  kernels: Kernels,
  kept: Mapping[str, np.ndarray],
  before: Mapping[str, jax.Array],
) -> dict[str, np.ndarray]:
  """Returns what `masks` takes: the units kept of each unit name, or of each slab of a kernel.

  Args:
    criterion: SCORE.
    structure: TOGETHER.
    kernels: what is pruned.
    kept: {unit name: units to keep}.
    before: as `masks` takes it. A slab that has lost more single weights already than its share
      keeps what it has, and the other slabs keep more.
  """
  if not sweeps(criterion, structure):
    return dict(kept)
  rows, spans = slab_rows(criterion, structure), structure.inputs
  of_slabs = {
    name: shares.by_slab(kept[name], *shape, rows, spans) for name, shape in kernels.shapes.items()
  }
  if before and spans == 1:
    left = {name: shares.left_in_slabs(before[name], rows, like) for name, like in of_slabs.items()}
    of_slabs = {name: shares.within(of_slabs[name], left[name]) for name in of_slabs}
  return of_slabs


def slab_rows(criterion: Criterion, structure: Structure) -> int:
  """The inputs that a sweep ranks together: a group of n:m, or a block of single weights."""
  return structure.inputs if structure.inputs > 1 else criterion.layerwise.sweep_rows


def masks(criterion: Criterion, structure: Structure, kernels: Kernels) -> Callable:
  """Makes the function that prunes a block. What it computes is compiled.

  Args:
    criterion: SCORE.
    structure: TOGETHER.
    kernels: what is pruned.

  Returns:
    (statistics, {path: w [in, out]}, counts, before) -> ({path: mask}, {path: new w}, NaN), where
    NaN is True if a score or a new weight, float32, is not finite. `counts` is what `counts`
    returned. `before` is {path: bool [in, out], True for a weight that is pruned already}, or {}:
    such weights rank below all others and stay pruned.
  """
  if sweeps(criterion, structure):
    return _in_sweep(criterion, structure, kernels)
  of_one = criterion.layerwise

  @jax.jit
  def prune(statistics, weights, kept, before):
    weights = {name: w.astype(jnp.float32) for name, w in weights.items()}
    ready = {name: of_one.ready(value) for name, value in statistics.items()}
    scores = {name: of_one.score(ready[kernels.reads[name]], w) for name, w in weights.items()}
    fixed = Allocation(
      lambda units, sparsity: {(name,): count for name, count in kept.items()},
      reads_sparsity=False,
    )
    read = selection.plain(scores)
    selected = scores_to_masks.select(read, 0.0, fixed, structure, before=before or None)
    masks, new = dict(selected.masks), dict(weights)
    masks |= {name: masks[name] & ~gone for name, gone in before.items()}
    if of_one.compensate:
      for name, w in weights.items():
        new[name] = w + of_one.compensate(ready[kernels.reads[name]], w, masks[name])
    new = {name: jnp.where(masks[name], w, 0) for name, w in new.items()}
    nan = jnp.stack([*selected.nan.values(), *(~jnp.all(jnp.isfinite(w)) for w in new.values())])
    return masks, new, jnp.any(nan)

  return prune


def _in_sweep(criterion, structure, kernels):
  of_one, rows = criterion.layerwise, slab_rows(criterion, structure)
  ready_of = jax.jit(of_one.ready)

  # A program for each shape: to compile one for all of them takes twice the memory.
  @jax.jit
  def swept(ready, weights, kept, *before):
    def one(part):
      ready, w, kept, *before = part
      return of_one.sweep(ready, w.astype(jnp.float32), kept, structure, rows, *before)

    masks, new = lax.map(one, tuple(map(jnp.stack, (ready, weights, kept, *before))))
    return list(masks), list(new), ~jnp.all(jnp.isfinite(new))

  def prune(statistics, weights, kept, before):
    ready = {name: ready_of(value) for name, value in statistics.items()}
    masks, new, nan = {}, {}, False
    for names in _alike(kernels.shapes):
      of_each = lambda given, names=names: [given[name] for name in names]
      reads = [ready[kernels.reads[name]] for name in names]
      gone = [of_each(before)] if before else []
      *found, wrong = swept(reads, of_each(weights), of_each(kept), *gone)
      nan = nan | wrong
      for name, mask, w in zip(names, *found, strict=True):
        masks[name], new[name] = mask, w
    return {n: masks[n] for n in weights}, {n: new[n] for n in weights}, nan

  return prune


def _alike(shapes):
  groups: dict = {}
  for name, shape in shapes.items():
    groups.setdefault(shape, []).append(name)
  return list(groups.values())

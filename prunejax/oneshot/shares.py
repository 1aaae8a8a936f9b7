"""How many units each kernel keeps, and each slab of a kernel; which blocks pay more."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning import scores_to_masks
from prunejax.pruning.types import Allocation, Structure


class Owl(NamedTuple):
  """Blocks with more outliers are pruned less; see `owl`."""

  outlier: float
  spread: float


def owl(outlier: float = 5.0, spread: float = 0.08) -> Owl:
  """Shares by outliers (OWL; Yin et al., 2023): a block with many is pruned less than the others.

  D is the share of a block's weights with |W_ij| ||X_i|| above `outlier` times the mean of their
  kernel, measured on the dense model. A block keeps 1 - S + 2 `spread` (D - mean D) / (max D -
  min D) of its weights, so the mean over blocks is S.

  Args:
    outlier: M of the paper, above 0: 5 or 10 there.
    spread: lambda of the paper, in [0, 0.5]; the sparsities of two blocks differ by 2 `spread` at
      most.

  Raises:
    ValueError: a number out of range.
  """
  if not outlier > 0:
    raise ValueError(f'owl: outlier={outlier!r} must be above 0, as 5.0 is')
  if not 0 <= spread <= 0.5:
    raise ValueError(f'owl: spread={spread!r} must be in [0, 0.5], as 0.08 is')
  return Owl(float(outlier), float(spread))


def can_remove(structure: Structure) -> str:
  """Returns the sparsities that a structure can reach, as an interval in words."""
  return f'[0, {structure.cost:g}]' if structure.cost < 1 else '[0, 1)'


def by_outliers(
  shares: Owl, outlying: np.ndarray, weights: np.ndarray, sparsity: float, most: float = 1.0
) -> np.ndarray:
  """Returns the sparsity of each block.

  Args:
    shares: what `owl` made.
    outlying: D of each block.
    weights: the number of weights that are pruned in each block; means are weighted by them. 0 for
      a block that is left whole.
    sparsity: S, of all blocks together.
    most: what the structure can remove of a block.

  Raises:
    ValueError: a block's sparsity would be outside of [0, most].
  """
  pays = weights > 0  # a block of which nothing is pruned says nothing about the others
  width = np.ptp(outlying[pays])
  mean = lambda x: float(np.average(x, weights=weights))
  moved = 2 * shares.spread * (outlying / width if width else np.zeros_like(outlying))
  sparsities = np.where(pays, sparsity - (moved - mean(moved)), sparsity)
  if sparsities.min() < 0 or sparsities.max() > most:
    raise ValueError(
      f'owl: with spread={shares.spread} blocks have sparsities from {sparsities.min():.3f} to'
      f' {sparsities.max():.3f}, outside of [0, {most:g}]: take a smaller spread'
    )
  return sparsities


def outliers(norms: jax.Array, w: jax.Array, outlier: float) -> jax.Array:
  """Counts the weights of a kernel [in, out] whose |W_ij| ||X_i|| is above `outlier` means.

  Args:
    norms: ||X_i|| of each input [in].
    w: the kernel.
    outlier: M of the paper.
  """
  size = jnp.abs(w.astype(jnp.float32)) * norms[:, None]
  return jnp.sum(size > outlier * jnp.mean(size), dtype=jnp.int32)


def kept_units(
  shapes: Mapping[str, tuple[int, ...]],
  allocation: Allocation,
  structure: Structure,
  sparsity: float,
) -> dict[str, np.ndarray]:
  """Returns how many units stay, {unit name: int32 array}, of an allocation that needs no scores.

  Args:
    shapes: {path: shape} of every kernel, as a matrix [in, out].
    allocation: one that is `by_shape`.
    structure: what goes together.
    sparsity: the fraction of weights removed.
  """

  def counts(sparsity):
    # The scores decide nothing, so the compiler leaves them out.
    scores = {name: jnp.zeros(shape, jnp.float32) for name, shape in shapes.items()}
    units = scores_to_masks.pooled_units(scores, structure)
    kept = {}
    for names, count in allocation.allocate(units, sparsity).items():
      (name,) = (names,) if isinstance(names, str) else names
      kept[name] = jnp.asarray(count)
    return kept

  sparsity = jnp.float32(sparsity)
  alike: dict[tuple[int, ...], list[str]] = {}
  for name, count in jax.eval_shape(counts, sparsity).items():
    alike.setdefault(count.shape, []).append(name)

  # One array for all counts of a shape: the program compiles in a fifth of the time.
  @jax.jit
  def stacked(sparsity):
    kept = counts(sparsity)
    return [jnp.stack([kept[name] for name in names]) for names in alike.values()]

  groups = zip(alike.values(), jax.device_get(stacked(sparsity)), strict=True)
  return {name: count for names, group in groups for name, count in zip(names, group, strict=True)}


def by_slab(kept: np.ndarray, inputs: int, outputs: int, rows: int, spans: int) -> np.ndarray:
  """Shares the units that a kernel keeps among its slabs, in proportion and exactly.

  Args:
    kept: how many units stay: a number, or [1, outputs] for each output.
    inputs: the inputs of the kernel.
    outputs: its outputs.
    rows: inputs of a slab.
    spans: inputs that a unit spans.

  Returns:
    int32 [slabs], or [slabs, 1, outputs]. The sum over slabs is `kept`.
  """
  total = inputs // spans
  ends = np.minimum(np.arange(rows, inputs + rows, rows), inputs) // spans
  kept = np.asarray(kept, np.int64)
  shape = (-1,) + (1,) * kept.ndim
  upto = kept[None] * ends.reshape(shape) // total
  if kept.ndim:
    upto = np.broadcast_to(upto, (len(ends), 1, outputs))
  return np.diff(upto, axis=0, prepend=0).astype(np.int32)


def left_in_slabs(gone: np.ndarray, rows: int, like: np.ndarray) -> np.ndarray:
  """Counts the weights of each slab of a kernel that are not pruned yet.

  Args:
    gone: bool [in, out], True for a weight that is pruned already.
    rows: inputs of a slab.
    like: what `by_slab` returned.

  Returns:
    int64, shaped like `like`.
  """
  alive = ~np.asarray(gone)
  each = np.add.reduceat(alive, np.arange(0, len(alive), rows), axis=0, dtype=np.int64)
  return each[:, None] if like.ndim > 1 else each.sum(1)


def within(kept: np.ndarray, left: np.ndarray) -> np.ndarray:
  """Returns counts of slabs that are at most `left`, with the sum of `kept` where there is so much.

  What one slab lacks the others keep, in proportion to what they would have lost.

  Args:
    kept: int [slabs, ...], the units that stay by the share of each slab.
    left: the units that each slab has.
  """
  own = np.minimum(kept, left).astype(np.int64)
  spare = left - own
  lacking = np.minimum(kept.sum(0, dtype=np.int64) - own.sum(0), spare.sum(0))
  upto = np.cumsum(spare, 0) * lacking // np.maximum(spare.sum(0), 1)
  return (own + np.diff(upto, axis=0, prepend=0)).astype(np.int32)

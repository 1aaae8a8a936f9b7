"""SparseGPT's sweep over the inputs of a kernel (Frantar & Alistarh, 2023, algorithm 1).

Inputs are done with one after the other. What a pruned weight carried moves to the inputs after it.
U is the upper Cholesky factor of the inverse Hessian H^-1 = U^T U, see `layerwise.sparsegpt`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from prunejax.pruning import placement, scores_to_masks, selection
from prunejax.pruning.types import Allocation, Structure

CHUNK = 16  # inputs that are swept one by one before the rest of their block is brought up to date


def swept(w: jax.Array, mask: jax.Array, upper: jax.Array, block: int) -> jax.Array:
  """Returns w [in, out] after the sweep, for a mask that was chosen before it.

  Args:
    w: float32 weights [in, out].
    mask: bool [in, out], True = kept.
    upper: U [in, in].
    block: the inputs that are swept before the rest is brought up to date.
  """
  length, outputs = w.shape
  size = min(block, length)
  more = -length % size
  w = jnp.pad(w, ((0, more), (0, 0)))
  removed = jnp.pad(~mask, ((0, more), (0, 0)))
  # The padded rows are never pruned, so nothing is divided by their zeros.
  upper = jnp.pad(upper, ((0, more), (0, more)))

  def one_block(w, start):
    rows = lax.dynamic_slice_in_dim(upper, start, size)
    square = lax.dynamic_slice_in_dim(rows, start, size, 1)
    gone = lax.dynamic_slice_in_dim(removed, start, size)

    def one(i, carry):
      slab, errors = carry
      pivot = jnp.where(square[i, i] > 0, square[i, i], 1)
      error = jnp.where(gone[i], slab[i] / pivot, 0)
      return slab - jnp.outer(square[i], error), errors.at[i].set(error)

    slab = lax.dynamic_slice_in_dim(w, start, size)
    first = slab, jnp.zeros_like(slab)
    _, errors = lax.fori_loop(0, size, one, first)
    # Rows of U are 0 before their own input, so inputs already swept stay as they are.
    return w - jnp.matmul(rows.T, errors, precision=lax.Precision.HIGHEST), None

  w, _ = lax.scan(one_block, w, jnp.arange(0, length, size))
  return w[:length]


def chosen(
  upper: jax.Array,
  w: jax.Array,
  kept: jax.Array,
  structure: Structure,
  rows: int,
  before: jax.Array | None = None,
  *,
  block: int,
) -> tuple[jax.Array, jax.Array]:
  """Chooses the mask of w [in, out] inside the sweep, from weights that the sweep has moved.

  A slab of `rows` inputs is ranked when the sweep comes to it: for single weights a block, for n:m
  a group.

  Args:
    upper: U [in, in].
    w: float32 weights [in, out].
    kept: how many units of each slab stay, int32 [slabs], or [slabs, 1, out] for each output.
    structure: one whose units span `Structure.inputs` inputs of one output.
    rows: inputs of a slab.
    before: bool [in, out], True for a weight that is pruned already. It ranks below all others of
      its slab and stays pruned. None: no weight is.
    block: inputs that are swept before the rest is brought up to date.

  Returns:
    The mask, bool [in, out], True = kept; and the weights, 0 where they are pruned.
  """
  length, outputs = w.shape
  rows = min(rows, length)
  slabs = max(min(block, length) // rows, 1)  # in a block
  size = slabs * rows
  chunk = rows if slabs > 1 or rows % CHUNK else CHUNK
  more = -length % size
  w, upper = jnp.pad(w, ((0, more), (0, 0))), jnp.pad(upper, ((0, more), (0, more)))
  before = None if before is None else jnp.pad(before, ((0, more), (0, 0)))
  missing = (len(w) // rows) - len(kept)
  kept = jnp.pad(kept, ((0, missing), *((0, 0),) * (kept.ndim - 1)))
  kept = kept.reshape(-1, slabs, *kept.shape[1:])

  def ranked(slab, pivots, kept, start):
    # Padded inputs have no pivot; below all others, they are never among those that stay.
    scores = jnp.where(pivots[:, None] > 0, (slab / _positive(pivots)[:, None]) ** 2, -jnp.inf)
    fixed = Allocation(lambda units, sparsity: {('w',): kept}, reads_sparsity=False)
    read = selection.plain({'w': scores})
    if before is None:
      return scores_to_masks.select(read, 0.0, fixed, structure).masks['w']
    gone = lax.dynamic_slice_in_dim(before, start, len(slab))
    selected = scores_to_masks.select(read, 0.0, fixed, structure, before={'w': gone})
    return selected.masks['w'] & ~gone

  def one_block(w, given):
    start, kept = given
    in_block = lax.dynamic_slice_in_dim(upper, start, size)
    square = lax.dynamic_slice_in_dim(in_block, start, size, 1)
    pivots = jnp.diagonal(square)
    slab = lax.dynamic_slice_in_dim(w, start, size)
    mask = jnp.zeros((size, outputs), bool)
    if slabs == 1:
      mask = ranked(slab, pivots, kept[0], start)

    def one_chunk(carry, at):
      slab, mask, errors = carry
      cut = lambda x: lax.dynamic_slice_in_dim(x, at, chunk)
      if slabs > 1:
        mask = lax.dynamic_update_slice_in_dim(
          mask, ranked(cut(slab), cut(pivots), kept[at // rows], start + at), at, 0
        )
      factors = cut(square)
      corner = lax.dynamic_slice_in_dim(factors, at, chunk, 1)
      left, gone = cut(slab), ~cut(mask)

      def one(i, carry):
        left, lost = carry
        error = jnp.where(gone[i], left[i] / _positive(corner[i, i]), 0)
        return left - jnp.outer(corner[i], error), lost.at[i].set(error)

      _, lost = lax.fori_loop(0, chunk, one, (left, jnp.zeros_like(left)))
      slab = slab - jnp.matmul(factors.T, lost, precision=lax.Precision.HIGHEST)
      return (slab, mask, lax.dynamic_update_slice_in_dim(errors, lost, at, 0)), None

    first = slab, placement.varying_as(mask, slab), jnp.zeros_like(slab)
    (_, mask, errors), _ = lax.scan(one_chunk, first, jnp.arange(0, size, chunk))
    # Rows of U are 0 before their own input, so inputs already swept stay as they are.
    return w - jnp.matmul(in_block.T, errors, precision=lax.Precision.HIGHEST), mask

  w, mask = lax.scan(one_block, w, (jnp.arange(0, len(w), size), kept))
  mask = mask.reshape(-1, outputs)[:length]
  return mask, jnp.where(mask, w[:length], 0)


def _positive(pivots):
  """Pivots, with 1 in the place of those of padded inputs."""
  return jnp.where(pivots > 0, pivots, 1)

"""Allocation output by output: the comparison group of Wanda (Sun et al., 2023, section 3)."""

import jax.numpy as jnp

from prunejax.pruning import counts
from prunejax.pruning.allocations.shares import unit_sparsity
from prunejax.pruning.types import Allocation


def per_output() -> Allocation:
  """Every output has the same sparsity: a score is compared only with those of the same output.

  Outputs are the last axis of a kernel [..., in, out]. Of n units of an output n - floor(n s + 1/2)
  are kept; ties go to the lower input. Under a structure the units are its own.

  Raises:
    ValueError: when the link is initialised: a leaf has fewer than two axes, or one unit an output.
  """

  def allocate(units, sparsity):
    kept = {}
    for name, score in units.scores.items():
      if score.ndim < 2 or score.shape[-2] < 2:
        raise ValueError(
          f'per_output: {name!r} has units of shape {tuple(score.shape)}, nothing to compare inside'
          ' an output; kernels [..., in, out] are needed: leave the leaf out with where=, or use'
          ' uniform()'
        )
      count = counts.narrow(counts.kept([score.shape[-2]], unit_sparsity(units, sparsity)))[0]
      kept[name,] = jnp.broadcast_to(count, (*score.shape[:-2], 1, score.shape[-1]))
    return kept

  return Allocation(allocate)

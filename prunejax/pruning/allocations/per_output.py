"""Allocation output by output: the comparison group of Wanda (Sun et al., 2023, section 3)."""

import math

import jax.numpy as jnp

from prunejax.pruning import counts
from prunejax.pruning.allocations.shares import unit_sparsity
from prunejax.pruning.kernel_layout import axes_of, default
from prunejax.pruning.types import Allocation


def per_output() -> Allocation:
  """Every output has the same sparsity: a score is compared only with those of the same output.

  Of n units of an output n - floor(n s + 1/2) are kept; ties go to the lower input. An output of a
  convolution has the units of all positions of its window. Under a structure the units are its own.

  Raises:
    ValueError: when the link is initialised: a leaf has no input axis, or one unit an output, or
      its layout is not known (see `layout` of `prune_transform`).
  """

  def allocate(units, sparsity):
    kept = {}
    for name, score in units.scores.items():
      layouts = units.layouts if name in units.layouts else {name: default(score.shape)}
      axes = axes_of(layouts, name, 'per_output')
      competes = [axis in ('in', 'window') for axis in axes]
      size = math.prod(n for n, flag in zip(score.shape, competes, strict=True) if flag)
      if 'in' not in axes or size < 2:
        raise ValueError(
          f'per_output: {name!r} has units of shape {tuple(score.shape)}, nothing to compare inside'
          ' an output; kernels [..., in, out] are needed: leave the leaf out with where=, or use'
          ' uniform()'
        )
      count = counts.narrow(counts.kept([size], unit_sparsity(units, sparsity)))[0]
      cells = [1 if flag else n for n, flag in zip(score.shape, competes, strict=True)]
      kept[name,] = jnp.broadcast_to(count, cells)
    return kept

  return Allocation(allocate, by_shape=True)

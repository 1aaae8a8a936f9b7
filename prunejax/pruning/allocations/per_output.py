"""WHO PAYS, output by output: the comparison group of Wanda (Sun et al., 2023, section 3)."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import counts
from prunejax.pruning.selection.groups import map_kinds, order_key
from prunejax.pruning.types import Allocation


def per_output() -> Allocation:
  """Every output (last axis of a kernel [..., in, out]) has the same sparsity: scores are compared only with those that
  feed the same output.

  Of n units of an output `n - floor(n s + 1/2)` are kept, ties going to the lower input; under a structure the units
  are its own. ValueError for a leaf with fewer than two axes, or with one unit an output.
  """

  def kept(length, sparsity, cost):
    asked = jnp.minimum(jnp.asarray(sparsity, jnp.float32) / np.float32(cost), 1)
    return counts.narrow(counts.kept([length], asked))[0]

  def check(scores):
    for name, score in scores.items():
      if score.ndim < 2 or score.shape[-2] < 2:
        raise ValueError(
          f'per_output: {name!r} has units of shape {tuple(score.shape)}, nothing to compare inside an output; kernels '
          '[..., in, out] are needed: leave the leaf out with where=, or use uniform()'
        )

  def keep(units, sparsity):
    check(units.scores)
    totals = [
      kept(units.scores[part.name].shape[-2], sparsity, units.cost) for part in units.parts()
    ]
    columns = [part.size // units.scores[part.name].shape[-2] for part in units.parts()]
    return (
      units.by_name(jnp.stack([k * c for k, c in zip(totals, columns, strict=True)]))
      if totals
      else {}
    )

  def choose(units, sparsity):
    check(units.scores)
    return map_kinds(
      lambda score: _highest(score, kept(score.shape[-2], sparsity, units.cost)), units.scores
    )

  return Allocation(keep, choose=choose)


def _highest(score, count):
  """The `count` highest of each column of [..., in, out]. Found by counting, so that of a column whose rows lie on
  several devices only counts cross.
  """
  keys, length = order_key(score), score.shape[-2]
  total = lambda flags: jnp.sum(flags, axis=-2, keepdims=True, dtype=jnp.int32)
  column = (*score.shape[:-2], 1, score.shape[-1])

  def raised(i, edge):
    higher = edge | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(total(keys >= higher) >= count, higher, edge)

  edge = lax.fori_loop(0, 32, raised, jnp.zeros(column, jnp.uint32))
  needed = count - total(keys > edge)
  tied, place = keys == edge, lax.broadcasted_iota(jnp.int32, score.shape, score.ndim - 2)
  bits = length.bit_length()

  def reached(i, end):
    further = end + (jnp.int32(1) << (bits - 1 - i))
    return jnp.where(total(tied & (place < further)) <= needed, further, end)

  end = lax.fori_loop(0, bits, reached, jnp.zeros(column, jnp.int32))
  return (keys > edge) | (tied & (place < end))

"""Structures whose units lie within one leaf: n:m groups, blocks, rows, columns."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts
from prunejax.pruning.leaf_kinds import map_kinds
from prunejax.pruning.selection import order_key
from prunejax.pruning.types import Structure

# The score, in a group of n:m, of a weight that was pruned before the link started: it is the first
# to be removed, and that costs nothing.
PRUNED_BEFORE = np.finfo(np.float32).min
# The lowest score of any other weight, where some are pruned before; -inf is raised to it.
LOWEST = np.nextafter(PRUNED_BEFORE, np.float32(0))


def unstructured() -> Structure:
  """Every weight is a unit of its own."""
  return Structure(lambda scores: scores, lambda kept, scores: kept, single=True, inputs=1)


def n_m(n: int, m: int) -> Structure:
  """At most n of every m weights in a row along the input axis (2:4 in Mishra et al., 2021).

  The unit is a group of m along the inputs of one output. Pruning it removes its m - n lowest
  scores; ties keep the lower position. So a schedule fills a leaf group by group, and at sparsity
  (m - n) / m, the most that n:m can remove, every group is n:m. Which axes are inputs and outputs:
  see `layout` of `prune_transform`.

  Args:
    n: the weights of a group that may stay.
    m: the size of a group.

  Raises:
    ValueError: not 0 < n < m. When the link is initialised: m does not divide the axis.
  """
  if not (_is_size(n) and _is_size(m) and n < m):
    raise ValueError(f'n_m({n!r}, {m!r}): n and m must be integers with 0 < n < m, as in n_m(2, 4)')

  def check(name, shape):
    _need_matrix(name, shape, f'n_m({n}, {m})')
    if shape[-2] % m:
      raise ValueError(
        f'n_m({n}, {m}): {m} does not divide the input axis (-2) of {name!r}, whose shape is '
        f'{tuple(shape)}; leave the leaf out with where=, or choose an m that divides'
      )

  def dropped(score):
    groups = score.shape[:-2] + (score.shape[-2] // m, m, score.shape[-1])
    keys = order_key(score).reshape(groups)
    place = lax.broadcasted_iota(jnp.int32, groups, len(groups) - 2)
    beaten_by = jnp.zeros(groups, jnp.int32)
    for j in range(m):
      other = keys[..., j : j + 1, :]
      is_above = (other > keys) | ((other == keys) & (j < place))
      beaten_by += is_above.astype(jnp.int32)
    return (beaten_by >= n).reshape(score.shape)

  def loss(score):
    costs = dropped(score) & (score.astype(jnp.float32) != PRUNED_BEFORE)
    lowest = jnp.where(costs, score.astype(jnp.float32), -0.0)
    return _block_mean(lowest, (1,) * (score.ndim - 2) + (m, 1), m - n)

  def opened(kept, score):
    return jnp.repeat(kept, m, axis=-2) | ~dropped(score)

  def pool(scores):
    for name, score in scores.items():
      check(name, score.shape)
    return map_kinds(loss, scores)

  def expand(kept, scores):
    return map_kinds(opened, kept, scores)

  return Structure(pool, expand, cost=(m - n) / m, reads_axes=f'n_m({n}, {m})', inputs=m)


def block(rows: int, columns: int) -> Structure:
  """Blocks of inputs x outputs of a kernel (see `layout` of `prune_transform`).

  Blocks at the edge are smaller where the size does not divide the axis.

  Raises:
    ValueError: a size is no positive integer.
  """
  if not (_is_size(rows) and _is_size(columns)):
    raise ValueError(
      f'block({rows!r}, {columns!r}): both sizes must be positive integers, as in block(8, 8)'
    )
  return _blocks(
    f'block({rows}, {columns})', lambda shape: (1,) * (len(shape) - 2) + (rows, columns)
  )


def rows(size: int = 1) -> Structure:
  """Whole input rows: all weights that one input feeds, `size` neighbouring inputs at a time.

  Which axes are inputs and outputs: see `layout` of `prune_transform`.

  Raises:
    ValueError: `size` is no positive integer.
  """
  if not _is_size(size):
    raise ValueError(f'rows({size!r}): the number of neighbouring rows must be a positive integer')
  return _blocks(f'rows({size})', lambda shape: (*shape[:-2], size, shape[-1]))


def columns(size: int = 1) -> Structure:
  """Whole output columns: all weights of one output unit, `size` neighbours at a time.

  Which axes are inputs and outputs: see `layout` of `prune_transform`.

  Raises:
    ValueError: `size` is no positive integer.
  """
  if not _is_size(size):
    raise ValueError(
      f'columns({size!r}): the number of neighbouring columns must be a positive integer'
    )
  return _blocks(f'columns({size})', lambda shape: (*shape[:-1], size))


def _blocks(label, sizes_of) -> Structure:
  def sizes(shape):
    return tuple(max(1, min(size, axis)) for size, axis in zip(sizes_of(shape), shape, strict=True))

  def mean(score):
    return _block_mean(score, sizes(score.shape), _block_sizes(score.shape, sizes(score.shape)))

  def opened(kept, score):
    for axis, (size, length) in enumerate(zip(sizes(score.shape), score.shape, strict=True)):
      kept = lax.slice_in_dim(jnp.repeat(kept, size, axis=axis), 0, length, axis=axis)
    return kept

  def pool(scores):
    for name, score in scores.items():
      _need_matrix(name, score.shape, label)
    return map_kinds(mean, scores)

  expand = lambda kept, scores: map_kinds(opened, kept, scores)
  return Structure(pool, expand, reads_axes=label)


def _block_sizes(shape, sizes):
  """The number of weights in each block, float32; blocks at the far edges may be smaller."""
  weights = np.ones((), np.float32)
  for length, size in zip(shape, sizes, strict=True):
    ends = np.minimum(np.arange(0, length, size) + size, length)
    weights = np.multiply.outer(weights, np.diff(ends, prepend=0).astype(np.float32))
  return weights


def _block_mean(score, sizes, weights):
  """The mean over blocks, or -0.0 where a block is -0.0 throughout.

  -0.0 marks weights that are pruned already and ranks below every other zero.
  """
  gone = lax.bitcast_convert_type(jnp.asarray(score, jnp.float32), jnp.uint32) == np.uint32(1 << 31)
  alive = counts.count_blocks((~gone).astype(jnp.int32), sizes) > 0
  # Hidden from XLA, which would multiply by the reciprocal of a constant and be off by one bit.
  weights = lax.optimization_barrier(jnp.asarray(weights, jnp.float32))
  return jnp.where(alive, counts.block_sum(score, sizes) / weights, -0.0)


def _is_size(value) -> bool:
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) > 0


def _need_matrix(name, shape, label):
  if len(shape) < 2:
    raise ValueError(
      f'{label}: {name!r} has shape {tuple(shape)}, but this structure needs kernels '
      '[..., in, out]; leave such leaves out with where='
    )

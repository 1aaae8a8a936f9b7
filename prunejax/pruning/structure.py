"""TOGETHER: which weights are kept or pruned as one. A unit's score is the mean score of its
weights, so units of any size compare.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning import counts
from prunejax.pruning.selection import order_key
from prunejax.pruning.types import Structure


def unstructured() -> Structure:
  """Every weight is a unit of its own."""
  return Structure(lambda scores: scores, lambda kept, scores: kept)


def n_m(n: int, m: int) -> Structure:
  """At most n of every m weights in a row along the input axis (-2) of [..., in, out] kernels
  (Mishra et al., 2021: 2:4).

  The unit is a group of m: pruning it removes its m - n lowest scores, ties keeping the lower
  position. So a schedule fills a leaf group by group, and at sparsity (m - n) / m, the most that
  n:m can remove, every group is n:m. ValueError if m does not divide the axis.
  """
  if not (_is_size(n) and _is_size(m) and n < m):
    raise ValueError(f'n_m({n!r}, {m!r}): n and m must be integers with 0 < n < m, as in n_m(2, 4)')

  def dropped(name, score):
    _need_matrix(name, score, f'n_m({n}, {m})')
    if score.shape[-2] % m:
      raise ValueError(
        f'n_m({n}, {m}): {m} does not divide the input axis of {name!r}, which has shape '
        f'{tuple(score.shape)};'
        f' axis -2 must be a multiple of {m} (leave the leaf out with where=, or choose another m)'
      )
    groups = score.shape[:-2] + (score.shape[-2] // m, m, score.shape[-1])
    keys = order_key(score).reshape(groups)
    place = lax.broadcasted_iota(jnp.int32, groups, len(groups) - 2)
    beaten_by = jnp.zeros(groups, jnp.int32)
    for j in range(m):
      other = keys[..., j : j + 1, :]
      beaten_by += (other > keys) | ((other == keys) & (j < place))
    return (beaten_by >= n).reshape(score.shape)

  def pool(scores):
    return {name: _loss(score, dropped(name, score)) for name, score in scores.items()}

  def _loss(score, gone):
    sizes = (1,) * (score.ndim - 2) + (m, 1)
    return _block_mean(jnp.where(gone, score.astype(jnp.float32), -0.0), sizes, m - n)

  def expand(kept, scores):
    return {
      name: jnp.repeat(kept[name], m, axis=-2) | ~dropped(name, score)
      for name, score in scores.items()
    }

  return Structure(pool, expand, cost=(m - n) / m)


def block(rows: int, columns: int) -> Structure:
  """Blocks of rows x columns on the last two axes; blocks at the edge are smaller where the size
  does not divide the axis.
  """
  if not (_is_size(rows) and _is_size(columns)):
    raise ValueError(
      f'block({rows!r}, {columns!r}): both sizes must be positive integers, as in block(8, 8)'
    )
  return _blocks(
    f'block({rows}, {columns})', lambda shape: (1,) * (len(shape) - 2) + (rows, columns)
  )


def rows(size: int = 1) -> Structure:
  """Whole input rows (axis -2: all weights that one input feeds), `size` neighbours at a time."""
  if not _is_size(size):
    raise ValueError(f'rows({size!r}): the number of neighbouring rows must be a positive integer')
  return _blocks(f'rows({size})', lambda shape: (*shape[:-2], size, shape[-1]))


def columns(size: int = 1) -> Structure:
  """Whole output columns (the last axis: all weights of one output unit or filter), `size`
  neighbours at a time.
  """
  if not _is_size(size):
    raise ValueError(
      f'columns({size!r}): the number of neighbouring columns must be a positive integer'
    )
  return _blocks(f'columns({size})', lambda shape: (*shape[:-1], size))


def _blocks(label, sizes_of) -> Structure:
  def fitted(name, score):
    _need_matrix(name, score, label)
    return tuple(
      max(1, min(size, length))
      for size, length in zip(sizes_of(score.shape), score.shape, strict=True)
    )

  def pool(scores):
    pooled = {}
    for name, score in scores.items():
      sizes = fitted(name, score)
      weights = 1.0
      for axis, (size, length) in enumerate(zip(sizes, score.shape, strict=True)):
        ends = np.minimum(np.arange(0, length, size) + size, length)
        weights = weights * np.diff(ends, prepend=0).astype(np.float32).reshape(
          (-1,) + (1,) * (score.ndim - axis - 1)
        )
      pooled[name] = _block_mean(score, sizes, weights)
    return pooled

  def expand(kept, scores):
    masks = {}
    for name, score in scores.items():
      mask = kept[name]
      for axis, (size, length) in enumerate(zip(fitted(name, score), score.shape, strict=True)):
        mask = lax.slice_in_dim(jnp.repeat(mask, size, axis=axis), 0, length, axis=axis)
      masks[name] = mask
    return masks

  return Structure(pool, expand)


def _block_mean(score, sizes, weights):
  """Mean over blocks, or -0.0 (below every other zero) where a block is -0.0 throughout: pruned
  already.
  """
  gone = lax.bitcast_convert_type(jnp.asarray(score, jnp.float32), jnp.uint32) == np.uint32(1 << 31)
  alive = counts.count_blocks((~gone).astype(jnp.int32), sizes) > 0
  return jnp.where(alive, counts.block_sum(score, sizes) / weights, -0.0)


def _is_size(value) -> bool:
  return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0


def _need_matrix(name, score, label):
  if score.ndim < 2:
    raise ValueError(
      f'{label}: {name!r} has shape {tuple(score.shape)}, but this structure needs kernels '
      '[..., in, out]; leave such leaves out with where='
    )

"""Second-order scores of large models: the empirical Fisher matrix in blocks.

oBERT (Kurtic et al., 2022). A block is `block` neighbours along the input axis of one output of a
kernel [..., in, out]. So the blocks of a kernel that a mesh divides on its last axis lie whole on
one device, and so do they on the input axis where each device has whole blocks. Only the sums that
gradients make cross devices.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from prunejax.pruning import placement
from prunejax.pruning.leaf_kinds import map_kinds
from prunejax.pruning.paths import named_leaves, with_leaves
from prunejax.pruning.types import Criterion


class Fisher(NamedTuple):
  """The inverse of each block of the Fisher matrix, and the number of gradients in it.

  Attributes:
    fisher_inverse: {path: float32 [..., blocks, out, block, block]}.
    fisher_count: int32, for `source='steps'`.
  """

  fisher_inverse: Any
  fisher_count: Any = ()


def block_fisher(
  block: int = 50, gradients: int = 1024, damp: float = 1e-7, source: str = 'examples'
) -> Criterion:
  """w_q^2 / (2 [F^-1]_qq), with F the empirical Fisher matrix in blocks.

  Kurtic et al. (2022, sec. 3). F = damp I + (1/m) sum of g_i g_i^T over m gradients. Survivors are
  moved to make up for all that is removed from a block together. F^-1 is built by rank-one updates
  in float32 and takes `block` numbers a weight.

  The block size is the largest divisor of the input axis in (block / 2, block], so that no block is
  cut (50 becomes 48 for BERT). Without such a divisor blocks are equal and the last is shorter.

  Args:
    block: the largest block size.
    gradients: the largest m.
    damp: the multiple of the identity, above 0.
    source: 'examples' builds F at each move of the masks from the gradients of single examples, of
      `examples=`: m = min(gradients, n). The moves are the paper's recomputations: four with
      `staircase(0.225, 0.9, steps=1, jumps=3)`, one with `one_shot(0.9)`. 'steps' uses the gradient
      of every step, `grad=`, and starts anew once F holds `gradients` of them; F^-1 is then part of
      the state, and masks should move `every(gradients, begin=gradients - 1)`.

  Raises:
    ValueError: a value is out of range.
  """
  for name, value in (('block', block), ('gradients', gradients)):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise ValueError(f'block_fisher: {name}={value!r} must be a positive integer')
  if not damp > 0:
    raise ValueError(f'block_fisher: damp={damp!r} must be above 0, as 1e-7 is')
  if source not in ('examples', 'steps'):
    raise ValueError(f"block_fisher: source={source!r}; expected 'examples' or 'steps'")

  def start(params):
    identity = {name: _identity(w, block, damp) for name, w in named_leaves(params).items()}
    return placement.varying_as(identity, params)

  def absorb(inverse, grad, m):
    add = lambda inverse, grads: {
      name: _absorbed(inverse[name], _in_blocks(g, block), m) for name, g in grads.items()
    }
    return placement.on_auto_axes(add, inverse, named_leaves(grad), like=inverse)

  def init(params):
    return Fisher(start(params), jnp.zeros([], jnp.int32)) if source == 'steps' else Fisher({})

  def update(state, params, *, grad=None, **_):
    if source == 'examples':
      return state
    starts_anew = state.fisher_count % gradients == 0
    inverse = jax.tree.map(
      lambda old, new: jnp.where(starts_anew, new, old), state.fisher_inverse, start(params)
    )
    return Fisher(absorb(inverse, grad, gradients), state.fisher_count + 1)

  def prepare(state, params, *, examples=None, **_):
    if source == 'steps':
      return state
    count, loss = examples
    m = min(gradients, count)
    one = lambda inverse, i: (absorb(inverse, jax.grad(loss)(params, i), m), None)
    return Fisher(lax.scan(one, start(params), jnp.arange(m))[0])

  def inverse_of(state, params, arguments):
    ready = state if state.fisher_inverse else prepare(state, params, **arguments)
    return ready.fisher_inverse

  def score(state, params, **arguments):
    def one(w, inverse):
      diagonal = _out_of_blocks(jnp.diagonal(inverse, axis1=-2, axis2=-1), w.shape)
      return w.astype(jnp.float32) ** 2 / (2 * diagonal)

    weights, inverse = named_leaves(params), inverse_of(state, params, arguments)
    scores = functools.partial(map_kinds, one)
    return with_leaves(params, placement.on_auto_axes(scores, weights, inverse, like=weights))

  def compensate(state, params, masks, **arguments):
    def one(w, mask, inverse):
      weights, removed = _in_blocks(w, block), _in_blocks(~mask, block)
      return _out_of_blocks(_without(weights, removed, inverse) - weights, w.shape)

    weights = named_leaves(params)
    given = weights, named_leaves(masks), inverse_of(state, params, arguments)
    changes = functools.partial(map_kinds, one)
    return with_leaves(params, placement.on_auto_axes(changes, *given, like=weights))

  needs = frozenset({'grad' if source == 'steps' else 'examples'})
  return Criterion(init, update, score, compensate, prepare, needs=needs, reads_axes='block_fisher')


def _size_of(length: int, block: int) -> int:
  """The block size on an axis of `length`."""
  sizes = range(min(block, length), block // 2, -1)
  divisor = next((size for size in sizes if length % size == 0), None)
  return divisor or math.ceil(length / math.ceil(length / block))


def _in_blocks(array, block):
  """[..., in, out] as [..., blocks, out, size], padded with zeros; a vector is one output."""
  array = array if array.ndim > 1 else array.reshape(-1, 1)
  array = array if array.dtype == bool else array.astype(jnp.float32)
  *front, length, out = array.shape
  size = _size_of(length, block)
  array = jnp.pad(array, [(0, 0)] * len(front) + [(0, -length % size), (0, 0)])
  return array.reshape(*front, -1, size, out).swapaxes(-1, -2)


def _out_of_blocks(array, shape):
  """The inverse of `_in_blocks`, for an array of `shape`."""
  *front, count, out, size = array.shape
  length = shape[-2] if len(shape) > 1 else math.prod(shape)
  array = array.swapaxes(-1, -2).reshape(*front, count * size, out)
  return lax.slice_in_dim(array, 0, length, axis=-2).reshape(shape)


def _identity(w, block, damp):
  """The inverse of each block before the first gradient. It lies on a mesh as the weights do."""
  *front, length, out = w.shape if w.ndim > 1 else (math.prod(w.shape), 1)
  size = _size_of(length, block)
  eye = jnp.eye(size, dtype=jnp.float32) / damp
  blocks = math.ceil(length / size)
  inverse = jnp.broadcast_to(eye, (*front, blocks, out, size, size))
  lies = jax.typeof(w).sharding
  if w.ndim < 2 or not placement.explicit_axes(lies):
    return inverse
  *front_axes, in_axis, out_axis = lies.spec
  parts = in_axis if isinstance(in_axis, tuple) else () if in_axis is None else (in_axis,)
  whole_blocks = blocks % math.prod(lies.mesh.shape[part] for part in parts) == 0
  spec = PartitionSpec(*front_axes, in_axis if whole_blocks else None, out_axis, None, None)
  return jax.sharding.reshard(inverse, NamedSharding(lies.mesh, spec))


def _absorbed(inverse, g, m):
  """(F + g g^T / m)^-1 (Sherman & Morrison)."""
  product = jnp.einsum('...ij,...j->...i', inverse, g, precision=lax.Precision.HIGHEST)
  scale = m + jnp.sum(g * product, axis=-1)
  return inverse - product[..., :, None] * (product / scale[..., None])[..., None, :]


def _without(w, removed, inverse):
  """Weights [..., size] after Optimal Brain Surgeon has removed some of them, one after the other.

  The result is that of all at once, and elementwise: it lies on a mesh as the weights do.
  """

  def one(q, carry):
    w, inverse = carry
    at_q = lambda array: lax.dynamic_index_in_dim(array, q, -1, keepdims=False)
    column, is_removed = at_q(inverse), at_q(removed)
    share = jnp.where(is_removed, 1 / jnp.where(is_removed, at_q(column), 1), 0)
    w = w - (at_q(w) * share)[..., None] * column
    return w, inverse - (column * share[..., None])[..., :, None] * column[..., None, :]

  return lax.fori_loop(0, w.shape[-1], one, (w, inverse))[0]

"""SCORE (second order): the empirical Fisher matrix in blocks (oBERT; Kurtic et al., 2022, section 3).

A block is `block` neighbours along the input axis inside one output of a kernel [..., in, out]: blocks of a kernel that
a mesh divides on its last axis lie whole on a device, and so do they on its input axis where a part holds whole blocks.
Nothing but gradients' own sums then crosses devices.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prunejax.pruning.criteria.weights import _required
from prunejax.pruning.selection.groups import map_kinds
from prunejax.pruning.types import Criterion, named_leaves


class Fisher(NamedTuple):
  """The inverse of each block of the Fisher matrix by path, float32 [..., blocks, out, block, block], and how many
  gradients it holds (int32).
  """

  fisher_inverse: Any
  fisher_count: Any = ()


def block_fisher(
  block: int = 50, gradients: int = 1024, damp: float = 1e-7, source: str = 'examples'
) -> Criterion:
  """w_q^2 / (2 [F^-1]_qq) with F = damp I + (1 / m) sum_i g_i g_i^T in blocks (section 3), and the survivors moved for
  all that goes in a block together. F^-1 by rank-one updates in float32: `block` numbers a weight.

  `source='examples'`: at each move of the masks anew from the gradients of m = min(gradients, n) examples one by one,
  of the n of `examples=(n, loss(params, i))`. The paper's recomputations are thus the moves of the masks: four with
  `staircase(0.225, 0.9, steps=1, jumps=3)`, one with `one_shot(0.9)`. `source='steps'`: from the gradient of every
  step, `grad=`; F starts afresh once it holds `gradients`, so let masks move `every(gradients, begin=gradients - 1)`.
  F^-1 is then in the state.

  The size of a block is the largest divisor of the input axis in (block / 2, block], so that none is cut (50 is 48 for
  a BERT); without one, blocks of equal size and a shorter last. ValueError for numbers that are not positive.
  """
  for name, value in (('block', block), ('gradients', gradients)):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise ValueError(f'block_fisher: {name}={value!r} must be a positive integer')
  if not damp > 0:
    raise ValueError(f'block_fisher: damp={damp!r} must be above 0, as 1e-7 is')
  if source not in ('examples', 'steps'):
    raise ValueError(f"block_fisher: source={source!r}; expected 'examples' or 'steps'")

  def start(params):
    return {name: _identity(w.shape, block, damp) for name, w in named_leaves(params).items()}

  def absorb(inverse, grad, m):
    return {
      name: _absorbed(inverse[name], _in_blocks(g, block), m)
      for name, g in named_leaves(grad).items()
    }

  def init(params):
    return Fisher(start(params), jnp.zeros([], jnp.int32)) if source == 'steps' else Fisher({})

  def update(state, params, *, grad=None, **_):
    if source == 'examples':
      return state
    grad, fresh = (
      _required(grad, "block_fisher(source='steps')"),
      state.fisher_count % gradients == 0,
    )
    inverse = jax.tree.map(
      lambda old, new: jnp.where(fresh, new, old), state.fisher_inverse, start(params)
    )
    return Fisher(absorb(inverse, grad, gradients), state.fisher_count + 1)

  def prepare(state, params, *, examples=None, **_):
    if source == 'steps':
      return state
    if examples is None:
      raise ValueError(
        'block_fisher() needs examples=(n, loss(params, i)) in tx.update, the loss of each example alone; '
        "prunejax.train.observe makes it of a Flax model, and source='steps' does with grad="
      )
    count, loss = examples
    m = min(gradients, count)
    one = lambda inverse, i: (absorb(inverse, jax.grad(loss)(params, i), m), None)
    return Fisher(lax.scan(one, start(params), jnp.arange(m))[0])

  def inverse_of(state, params, extra):
    found = state if state.fisher_inverse else prepare(state, params, **extra)
    return found.fisher_inverse

  def score(state, params, **extra):
    def one(w, inverse):
      curvature = _out_of_blocks(jnp.diagonal(inverse, axis1=-2, axis2=-1), w.shape)
      return w.astype(jnp.float32) ** 2 / (2 * curvature)

    return _like(params, map_kinds(one, named_leaves(params), inverse_of(state, params, extra)))

  def compensate(state, params, masks, **extra):
    def one(w, mask, inverse):
      weights, gone = _in_blocks(w, block), _in_blocks(~mask, block)
      return _out_of_blocks(_without(weights, gone, inverse) - weights, w.shape)

    given = named_leaves(params), named_leaves(masks), inverse_of(state, params, extra)
    return _like(params, map_kinds(one, *given))

  return Criterion(init, update, score, compensate, prepare)


def _size_of(length: int, block: int) -> int:
  """How many neighbours of an axis make a block."""
  whole = [size for size in range(min(block, length), block // 2, -1) if length % size == 0]
  return whole[0] if whole else math.ceil(length / math.ceil(length / block))


def _in_blocks(array, block):
  """[..., in, out] as [..., blocks, out, size], zeros at the end; a vector counts as one output."""
  array = array if array.ndim > 1 else array.reshape(-1, 1)
  array = array if array.dtype == bool else array.astype(jnp.float32)
  *front, length, out = array.shape
  size = _size_of(length, block)
  array = jnp.pad(array, [(0, 0)] * len(front) + [(0, -length % size), (0, 0)])
  return array.reshape(*front, -1, size, out).swapaxes(-1, -2)


def _out_of_blocks(array, shape):
  """What `_in_blocks` did, undone for an array of `shape`."""
  *front, count, out, size = array.shape
  length = shape[-2] if len(shape) > 1 else math.prod(shape)
  array = array.swapaxes(-1, -2).reshape(*front, count * size, out)
  return lax.slice_in_dim(array, 0, length, axis=-2).reshape(shape)


def _identity(shape, block, damp):
  *front, length, out = shape if len(shape) > 1 else (math.prod(shape), 1)
  size = _size_of(length, block)
  eye = jnp.eye(size, dtype=jnp.float32) / damp
  return jnp.broadcast_to(eye, (*front, math.ceil(length / size), out, size, size))


def _absorbed(inverse, g, m):
  """(F + g g^T / m)^-1 (Sherman & Morrison)."""
  along = jnp.einsum('...ij,...j->...i', inverse, g, precision=lax.Precision.HIGHEST)
  scale = m + jnp.sum(g * along, axis=-1)
  return inverse - along[..., :, None] * (along / scale[..., None])[..., None, :]


def _without(w, gone, inverse):
  """Weights [..., size] with those that are `gone` brought to 0 one after the other, the others moved by the Optimal
  Brain Surgeon: the same as all at once, and elementwise, so that it lies on a mesh as the weights do.
  """

  def one(q, carry):
    w, inverse = carry
    at = lambda array: lax.dynamic_index_in_dim(array, q, -1, keepdims=False)
    column, goes = at(inverse), at(gone)
    share = jnp.where(goes, 1 / jnp.where(goes, at(column), 1), 0)
    w = w - (at(w) * share)[..., None] * column
    return w, inverse - (column * share[..., None])[..., :, None] * column[..., None, :]

  return lax.fori_loop(0, w.shape[-1], one, (w, inverse))[0]


def _like(params, named):
  return jax.tree.unflatten(
    jax.tree.structure(params), [named[name] for name in named_leaves(params)]
  )

"""SCORE (layer by layer): how much of a layer's output does each weight carry, on the activations that go into it?

A kernel W [in, out] takes rows X [rows, in] to X W. `activations`, an extra argument of `tx.update`, is a function
(params) -> {path of W: X}; `train.observe` makes it of a Flax model. X may have the leading axes of a kernel
[..., in, out]. Only X^T X matters, which `accumulate` sums over all steps so far, one more forward pass each; without
it, the batch of the step in which masks move is all the calibration there is.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prunejax.pruning.selection.groups import map_kinds
from prunejax.pruning.types import Criterion, named_leaves


class Calibration(NamedTuple):
  """What is known of a layer's inputs, by path, float32: sums of squares [..., in], or a matrix [..., in, in]."""

  layer_inputs: Any


class Ready(NamedTuple):
  """What score and compensation are made from, by path."""

  layer_ready: Any


def wanda(accumulate: bool = False) -> Criterion:
  """|W_ij| ||X_i||_2 (Sun et al., 2023, eq. 1), float32. Needs `activations=`.

  The paper compares inside each output: that is `allocation=per_output()`.
  """
  squares = lambda x: jnp.sum(x * x, axis=-2)

  def score(ready, w):
    return jnp.abs(w.astype(jnp.float32)) * jnp.sqrt(ready)[..., None]

  return _criterion(
    'wanda', accumulate, lambda shape: shape[:-1], squares, lambda total: total, score
  )


def sparsegpt(damp: float = 0.01, block: int = 128, accumulate: bool = False) -> Criterion:
  """w_i^2 / U_ii^2, with U the upper Cholesky factor of H^-1 = U^T U and H = X^T X + damp mean(diag(X^T X)) I, and the
  sweep that moves the survivors (Frantar & Alistarh, 2023, algorithm 1). Needs `activations=`.

  U_ii^2 is the i-th diagonal of the inverse of H without the inputs before i, which the sweep has done with. All masks
  are chosen before the sweep, by any allocation and structure; the paper's code chooses them every 128 inputs, of
  weights that the sweep has moved. `block` inputs are swept before the rest is brought up to date, which changes the
  cost, not the result. Everything float32. ValueError for damp <= 0 or block < 1.
  """
  if not damp > 0:
    raise ValueError(
      f'sparsegpt: damp={damp!r} must be above 0, as 0.01 is: inputs that are never active need it'
    )
  if isinstance(block, bool) or not isinstance(block, int) or block < 1:
    raise ValueError(f'sparsegpt: block={block!r} must be a positive integer')
  gram = lambda x: jnp.einsum('...ri,...rj->...ij', x, x, precision=lax.Precision.HIGHEST)

  def score(upper, w):
    return (w.astype(jnp.float32) / jnp.diagonal(upper, axis1=-2, axis2=-1)[..., None]) ** 2

  def compensate(upper, w, mask):
    swept = lambda w, mask, upper: _swept(w, mask, upper, block)
    for _ in range(w.ndim - 2):
      swept = jax.vmap(swept)
    w = w.astype(jnp.float32)
    return swept(w, mask, upper) - w

  size = lambda shape: (*shape[:-1], shape[-2])
  return _criterion(
    'sparsegpt', accumulate, size, gram, lambda total: _factor(total, damp), score, compensate
  )


def _criterion(label, accumulate, size, of_rows, of_total, score_of, compensate_of=None):
  """The way from activations to scores, leaf by leaf.

  size: shape of a kernel -> shape of what is kept of its inputs; of_rows: X -> that; of_total: that -> what
  score_of(., w) and compensate_of(., w, mask) need.
  """

  def init(params):
    return Calibration(
      {n: jnp.zeros(size(w.shape), jnp.float32) for n, w in _kernels(label, params).items()}
      if accumulate
      else {}
    )

  def seen(params, activations):
    return {name: of_rows(x) for name, x in _inputs(label, params, activations).items()}

  def update(state, params, *, activations=None, **_):
    if not accumulate:
      return state
    return Calibration(jax.tree.map(jnp.add, state.layer_inputs, seen(params, activations)))

  def prepare(state, params, *, activations=None, **_):
    total = state.layer_inputs if accumulate else seen(params, activations)
    return Ready(map_kinds(of_total, total))

  def ready(state, params, extra):
    return (state if isinstance(state, Ready) else prepare(state, params, **extra)).layer_ready

  def score(state, params, **extra):
    return _like(params, map_kinds(score_of, ready(state, params, extra), _kernels(label, params)))

  def compensate(state, params, masks, **extra):
    given = ready(state, params, extra), named_leaves(params), named_leaves(masks)
    return _like(params, map_kinds(compensate_of, *given))

  return Criterion(init, update, score, compensate if compensate_of else None, prepare)


def _kernels(label, params):
  kernels = named_leaves(params)
  for name, w in kernels.items():
    if len(w.shape) < 2:
      raise ValueError(
        f'{label}(): {name!r} has shape {tuple(w.shape)} and is no kernel [in, out]; leave it out with '
        'where=, a regex of the kernels to prune'
      )
  return kernels


def _inputs(label, params, activations):
  """{path: float32 [..., rows, in]} for every kernel. Raises ValueError naming the leaf that has none."""
  if activations is None:
    raise ValueError(
      f'{label}() needs activations=, a function (params) -> {{path of a kernel: [rows, in]}}, in tx.update; '
      'prunejax.train.observe makes it of a Flax model'
    )
  found, out = activations(params), {}
  for name, w in _kernels(label, params).items():
    if name not in found:
      some = ', '.join(map(repr, list(found)[:3]))
      raise ValueError(
        f'{label}(): no activations go into {name!r}, which is then no dense layer (an embedding?); '
        f'leave it out with where=, a regex of kernels such as {some or "(there are none)"}'
      )
    x = jnp.asarray(found[name]).astype(jnp.float32)
    if x.ndim != w.ndim or x.shape[-1] != w.shape[-2]:
      raise ValueError(
        f'{label}(): activations of {name!r} have shape {x.shape}, its kernel {tuple(w.shape)}; '
        '[rows, in] for [in, out] is needed'
      )
    out[name] = x
  return out


def _like(params, named):
  return jax.tree.unflatten(
    jax.tree.structure(params), [named[name] for name in named_leaves(params)]
  )


def _factor(gram, damp):
  """U, upper triangular, with U^T U the inverse of the damped matrix [..., in, in].

  A Cholesky factor from the last input to the first is R with H = R R^T, R upper triangular; so U = R^-1, and H^-1
  itself, which would lose digits, is never formed.
  """
  mean = jnp.mean(jnp.diagonal(gram, axis1=-2, axis2=-1), axis=-1)[..., None, None]
  eye = jnp.eye(gram.shape[-1], dtype=jnp.float32)
  damped = gram + damp * jnp.where(mean > 0, mean, 1) * eye
  flipped = lambda matrix: matrix[..., ::-1, ::-1]
  upper = flipped(jnp.linalg.cholesky(flipped(damped)))
  return jax.scipy.linalg.solve_triangular(upper, jnp.broadcast_to(eye, upper.shape))


def _swept(w, mask, upper, block):
  """W [in, out] after the sweep: input after input, what a pruned weight carried goes to the inputs behind it."""
  length, outputs = w.shape
  size = min(block, length)
  more = -length % size
  w = jnp.pad(w, ((0, more), (0, 0)))
  gone = jnp.pad(~mask, ((0, more), (0, 0)))
  upper = jnp.pad(
    upper, ((0, more), (0, more))
  )  # the rows added are never pruned, so nothing divides by their zeros

  def sweep(w, start):
    rows = lax.dynamic_slice_in_dim(upper, start, size)
    square = lax.dynamic_slice_in_dim(rows, start, size, 1)
    went = lax.dynamic_slice_in_dim(gone, start, size)

    def one(i, carry):
      slab, errors = carry
      error = jnp.where(went[i], slab[i] / jnp.where(square[i, i] > 0, square[i, i], 1), 0)
      return slab - square[i][:, None] * error, errors.at[i].set(error)

    first = lax.dynamic_slice_in_dim(w, start, size), jnp.zeros((size, outputs), jnp.float32)
    _, errors = lax.fori_loop(0, size, one, first)
    # Rows of U are zero before their own input, so those already swept stay as they are.
    return w - jnp.matmul(rows.T, errors, precision=lax.Precision.HIGHEST), None

  w, _ = lax.scan(sweep, w, jnp.arange(0, length, size))
  return w[:length]

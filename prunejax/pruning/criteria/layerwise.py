"""Layer-by-layer scores: how much of a layer's output does each weight carry on the layer's inputs?

A kernel W [in, out] turns rows X [rows, in] into X W. The extra argument `activations` is a
function (params) -> {path of W: X}; `prunejax.observe` makes it of a Flax model. X may have the
leading axes of a kernel [..., in, out]. Only X^T X matters. With `accumulate` it is summed over all
steps so far, at the cost of one more forward pass a step. Without it, the batch of the step in
which masks move is all the calibration there is. How a leaf is such a kernel says `layout` of
`prune_transform`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prunejax.pruning import lapack, placement
from prunejax.pruning.criteria import sweep
from prunejax.pruning.leaf_kinds import map_kinds
from prunejax.pruning.paths import named_leaves, with_leaves
from prunejax.pruning.types import Criterion, Layerwise


class Calibration(NamedTuple):
  """Statistics of each kernel's inputs: {path: float32 [..., in] or [..., in, in]}."""

  layer_inputs: Any


class Ready(NamedTuple):
  """What score and compensation are made from: {path: array}."""

  layer_ready: Any


def wanda(accumulate: bool = False) -> Criterion:
  """|W_ij| ||X_i||_2 (Wanda; Sun et al., 2023, eq. 1), float32.

  Needs `activations=`. The paper compares weights within each output: `allocation=per_output()`.

  Args:
    accumulate: sum the inputs of all steps so far.
  """
  squares = lambda x: jnp.sum(x * x, axis=-2)

  def score(ready, w):
    return jnp.abs(w.astype(jnp.float32)) * jnp.sqrt(ready)[..., None]

  return _criterion('wanda', accumulate, lambda shape: shape[:-1], squares, lambda s: s, score)


def sparsegpt(damp: float = 0.01, block: int = 128, accumulate: bool = False) -> Criterion:
  """w_i^2 / U_ii^2, and the sweep that moves the survivors.

  SparseGPT (Frantar & Alistarh, 2023, algorithm 1). U is the upper Cholesky factor of H^-1 = U^T U,
  with H = X^T X + damp mean(diag(X^T X)) I. U_ii^2 is the i-th diagonal of the inverse of H without
  the inputs before i, which the sweep has done with. In `prune_transform` all masks are chosen
  before the sweep, by any allocation and structure. `prunejax.oneshot` chooses them as the paper
  does, inside the sweep: every `block` inputs, or for every group of n:m, of weights that the sweep
  has moved. Everything is float32. Needs `activations=`.

  Args:
    damp: the damping, above 0.
    block: the inputs that are swept before the rest is brought up to date. Where masks are chosen
      before the sweep it changes the cost, not the result.
    accumulate: sum the inputs of all steps so far.

  Raises:
    ValueError: `damp` or `block` is not positive.
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
    swept = lambda w, mask, upper: sweep.swept(w, mask, upper, block)
    for _ in range(w.ndim - 2):
      swept = jax.vmap(swept)
    w = w.astype(jnp.float32)
    return swept(w, mask, upper) - w

  gram_shape = lambda shape: (*shape[:-1], shape[-2])
  factor = lambda gram: _factor(gram, damp)
  choose = functools.partial(sweep.chosen, block=block)
  return _criterion(
    'sparsegpt', accumulate, gram_shape, gram, factor, score, compensate, choose, block
  )


def _criterion(
  label,
  accumulate,
  statistics_shape,
  statistics_of,
  ready_of,
  score_of,
  compensate_of=None,
  sweep_of=None,
  sweep_rows=0,
) -> Criterion:
  """Makes a criterion of functions of single leaves.

  Args:
    label: the name of the criterion, for errors.
    accumulate: sum the statistics of all steps so far.
    statistics_shape: shape of a kernel -> shape of the statistics of its inputs.
    statistics_of: X -> statistics.
    ready_of: statistics -> ready.
    score_of: (ready, w) -> scores.
    compensate_of: (ready, w, mask) -> changes, or None.
    sweep_of: `Layerwise.sweep`, or None.
    sweep_rows: `Layerwise.sweep_rows`.
  """

  def init(params):
    if not accumulate:
      return Calibration({})
    kernels = _kernels(label, params)
    zeros = {n: jnp.zeros(statistics_shape(w.shape), jnp.float32) for n, w in kernels.items()}
    return Calibration(zeros)

  def seen(params, activations):
    statistics = lambda inputs: {name: statistics_of(x) for name, x in inputs.items()}
    return placement.on_auto_axes(statistics, _inputs(label, params, activations))

  def update(state, params, *, activations=None, **_):
    if not accumulate:
      return state
    return Calibration(jax.tree.map(jnp.add, state.layer_inputs, seen(params, activations)))

  def prepare(state, params, *, activations=None, **_):
    statistics = state.layer_inputs if accumulate else seen(params, activations)
    return Ready(placement.on_auto_axes(lambda given: map_kinds(ready_of, given), statistics))

  def ready(state, params, arguments):
    return (state if isinstance(state, Ready) else prepare(state, params, **arguments)).layer_ready

  def score(state, params, **arguments):
    kernels = _kernels(label, params)
    given = ready(state, params, arguments), kernels
    scores = placement.on_auto_axes(functools.partial(map_kinds, score_of), *given, like=kernels)
    return with_leaves(params, scores)

  def compensate(state, params, masks, **arguments):
    kernels = named_leaves(params)
    given = ready(state, params, arguments), kernels, named_leaves(masks)
    change = functools.partial(map_kinds, compensate_of)
    return with_leaves(params, placement.on_auto_axes(change, *given, like=kernels))

  return Criterion(
    init,
    update,
    score,
    compensate if compensate_of else None,
    prepare,
    needs=frozenset({'activations'}),
    reads_axes=label,
    layerwise=Layerwise(
      statistics_of,
      ready_of,
      score_of,
      compensate_of,
      sweep_of,
      sweep_rows,
      within_output=label == 'wanda',
    ),
  )


def _kernels(label, params):
  kernels = named_leaves(params)
  for name, w in kernels.items():
    if len(w.shape) < 2:
      raise ValueError(
        f'{label}(): {name!r} has shape {tuple(w.shape)} and is no kernel [in, out]; leave it out'
        ' with where=, a regex of the kernels to prune'
      )
  return kernels


def _inputs(label, params, activations):
  """{path: float32 [..., rows, in]} for every kernel; ValueError naming a leaf that has none."""
  given, inputs = activations(params), {}
  for name, w in _kernels(label, params).items():
    if name not in given:
      kernels = ', '.join(map(repr, list(given)[:3])) or '(there are none)'
      raise ValueError(
        f'{label}(): no activations go into {name!r}, so it is no dense layer (an embedding?);'
        f' leave it out with where=, a regex of kernels such as {kernels}'
      )
    x = jnp.asarray(given[name]).astype(jnp.float32)
    if x.ndim != w.ndim or x.shape[-1] != w.shape[-2]:
      raise ValueError(
        f'{label}(): activations of {name!r} have shape {x.shape}, its kernel {tuple(w.shape)};'
        ' [rows, in] for [in, out] is needed'
      )
    inputs[name] = x
  return inputs


def _factor(gram, damp):
  """U, upper triangular, with U^T U the inverse of the damped matrix [..., in, in].

  A Cholesky factor from the last input to the first is R with H = R R^T, R upper triangular; so
  U = R^-1, and H^-1, which would lose digits, is never formed.
  """
  mean = jnp.mean(jnp.diagonal(gram, axis1=-2, axis2=-1), axis=-1)[..., None, None]
  eye = jnp.eye(gram.shape[-1], dtype=jnp.float32)
  damped = gram + damp * jnp.where(mean > 0, mean, 1) * jnp.broadcast_to(eye, gram.shape)
  flipped = lambda matrix: matrix[..., ::-1, ::-1]
  cholesky, inverse = lapack.cholesky, lapack.inverse_of_upper
  for _ in range(gram.ndim - 2):
    cholesky, inverse = jax.vmap(cholesky), jax.vmap(inverse)
  return inverse(flipped(cholesky(flipped(damped))))

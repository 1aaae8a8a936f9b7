"""Arguments of `tx.update` for Flax NNX models.

All functions here take the model and return functions of the parameters as `nnx.Optimizer` hands
them to `tx.update`: the `nnx.State` of the variables that `wrt` selects. The model is not changed.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prunejax.observe import batches
from prunejax.observe.rows import input_rows, joined, refuse_batch_axes
from prunejax.pruning.paths import matches, named_leaves

_PATCHED = threading.RLock()


class LayerInput(nnx.Intermediate):
  """The recorded inputs of one dense layer, a tuple with one pair a call.

  A pair is the rows, and an empty array whose last axis but one has the length that is the number
  of axes of the layer's kernel. Axes that scans and vmaps add come in front of both.
  """


def value_fn(
  model: nnx.Module, loss: Callable[[nnx.Module, Any], jax.Array], batch: Any, wrt: Any = nnx.Param
) -> Callable[..., jax.Array]:
  """Makes `value_fn=`, the loss of the batch, for `obd('hessian')` and `obd('hutchinson')`.

  Args:
    model: the model.
    loss: (model, batch) -> scalar.
    batch: any pytree that `loss` takes.
    wrt: the filter of the parameters, as for `nnx.Optimizer`.

  Returns:
    A function (params) -> scalar. It ignores keyword arguments.
  """
  return batches.value_fn(_of_params(model, loss, wrt), batch)


def examples(
  model: nnx.Module, loss: Callable[[nnx.Module, Any], jax.Array], batch: Any, wrt: Any = nnx.Param
) -> tuple[int, Callable[[Any, Any], jax.Array]]:
  """Makes `examples=`, the loss of each example alone, for `block_fisher`, `obs`, `obd('fisher')`.

  Args:
    model: the model.
    loss: (model, batch) -> scalar; it is called with batches of one example.
    batch: a pytree of arrays whose first axis counts the examples.
    wrt: the filter of the parameters, as for `nnx.Optimizer`.

  Returns:
    (n, function (params, i) -> scalar), with n the number of examples.

  Raises:
    ValueError: if the arrays of the batch do not agree on the number of examples.
  """
  return batches.examples(_of_params(model, loss, wrt), batch)


def outputs(
  model: nnx.Module, call: Callable[[nnx.Module, Any], jax.Array], batch: Any, wrt: Any = nnx.Param
) -> tuple[int, Callable[[Any, Any], jax.Array]]:
  """Makes `outputs=`, what the model says of each example, for a loss of half a squared error.

  Args:
    model: the model.
    call: (model, batch) -> array [n, ...]; it is called with batches of one example.
    batch: a pytree of arrays whose first axis counts the examples.
    wrt: the filter of the parameters, as for `nnx.Optimizer`.

  Returns:
    (n, function (params, i) -> vector [outputs]), with n the number of examples.

  Raises:
    ValueError: if the arrays of the batch do not agree on the number of examples.
  """
  return batches.outputs(_of_params(model, call, wrt), batch)


def activations(
  model: nnx.Module,
  *args: Any,
  valid: jax.Array | None = None,
  where: str | Callable[[str, Any], bool] = '.*',
  wrt: Any = nnx.Param,
  method: Callable[..., Any] | None = None,
  **kwargs: Any,
) -> Callable[[Any], dict[str, jax.Array]]:
  """Makes `activations=`, the inputs of every dense layer, for `wanda` and `sparsegpt`.

  The model runs only when the criterion calls the function. Call the model as in evaluation:
  without dropout and without updates of its statistics.

  Args:
    model: the model.
    *args: the arguments of the model: the batch.
    valid: bool array such as [batch, length], False at padding. Rows of padding become 0, so that
      they add nothing. Layers whose input has other leading axes are recorded whole.
    where: regex on the whole path of a kernel, or predicate of (path, None): the kernels to record.
      Give it what `prune_transform` gets.
    wrt: the filter of the parameters, as for `nnx.Optimizer`.
    method: (model, *args, **kwargs) -> anything, instead of calling the model itself.
    **kwargs: keyword arguments of the model.

  Returns:
    A function (params) -> {path of a kernel: float32 [..., rows, in]}, for every `nnx.Linear` and
    `nnx.LinearGeneral` that runs. The paths are those of `prune_transform`. A layer with several
    input axes has them as one.

  Raises:
    ValueError: when the function runs. For a `nnx.LinearGeneral` with batch axes, unless `where`
      leaves it out.
  """
  chosen = matches(where, 'activations: where')

  def run(model, *args, **kwargs):
    return (method or type(model).__call__)(model, *args, **kwargs)

  def record(params):
    copy = _merged(model, params, wrt)
    names = {
      id(module): '/'.join((*map(str, path), 'kernel')) for path, module in nnx.iter_modules(copy)
    }
    with _recording(names, chosen, valid):
      _, state = nnx.capture(run, LayerInput)(copy, *args, **kwargs)
    kernels = named_leaves(params)
    recorded = {
      '/'.join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)
    }
    return {
      name: joined([rows for rows, _ in calls], kernels[name], calls[0][1].shape[-2])
      for name, calls in recorded.items()
      if name in kernels and chosen(name, None)
    }

  return record


def _of_params(model, fn, wrt):
  """fn(model, batch) as a function of (params, batch)."""
  return lambda params, batch: fn(_merged(model, params, wrt), batch)


def _merged(model, params, wrt):
  """A copy of the model that holds `params`, an `nnx.State` of arrays or of variables."""
  graphdef, _, rest = nnx.split(model, wrt, ...)
  return nnx.merge(graphdef, params, nnx.as_pure(rest))


@contextlib.contextmanager
def _recording(names, chosen, valid) -> Iterator[None]:
  """Makes dense layers record their input. Flax has no interceptor for NNX, so two classes change.

  `nnx.capture` changes classes in the same way.
  """

  def wrapped(original, contracted):
    @functools.wraps(original)
    def call(self, *args, **kwargs):
      # Inside nnx.scan and nnx.vmap a layer is a copy without a name; it is chosen afterwards.
      name = names.get(id(self))
      if name is None or chosen(name, None):
        x = args[0] if args else kwargs['inputs']
        rows = input_rows(x, contracted(name or 'kernel', self, x), valid)
        axes = jnp.zeros((self.kernel.get_value().ndim, 0))
        self.sow(LayerInput, 'kernel', (rows, axes))
      return original(self, *args, **kwargs)

    return call

  with _PATCHED:
    linear, general = nnx.Linear.__call__, nnx.LinearGeneral.__call__
    nnx.Linear.__call__ = wrapped(linear, lambda name, layer, x: (x.ndim - 1,))
    nnx.LinearGeneral.__call__ = wrapped(general, _contracted)
    try:
      yield
    finally:
      nnx.Linear.__call__, nnx.LinearGeneral.__call__ = linear, general


def _contracted(name: str, layer: nnx.LinearGeneral, x: jax.Array) -> tuple[int, ...]:
  """The axes of `x` that a layer contracts. Raises ValueError for a kernel that has no rows."""
  as_tuple = lambda value: (value,) if isinstance(value, int) else tuple(value)
  refuse_batch_axes(name, 'nnx.LinearGeneral', tuple(layer.batch_axis))
  return tuple(axis % x.ndim for axis in as_tuple(layer.axis))

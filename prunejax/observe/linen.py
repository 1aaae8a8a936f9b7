"""Arguments of `tx.update` for Flax Linen models.

`value_fn`, `examples` and `outputs` take functions of (params, batch), as `model.apply` makes them.
`activations` records what goes into each `nn.Dense` and `nn.DenseGeneral` of a model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import traverse_util

from prunejax.observe.batches import examples as examples
from prunejax.observe.batches import outputs as outputs
from prunejax.observe.batches import value_fn as value_fn
from prunejax.observe.rows import input_rows, joined, refuse_batch_axes
from prunejax.pruning.paths import matches, named_leaves

COLLECTION = 'activations'


def activations(
  model: nn.Module,
  *args: Any,
  valid: jax.Array | None = None,
  where: str | Callable[[str, Any], bool] = '.*',
  variables: Mapping[str, Any] | None = None,
  method: Any = None,
  rngs: Any = None,
  **kwargs: Any,
) -> Callable[[Any], dict[str, jax.Array]]:
  """Makes `activations=`, the inputs of every dense layer, for `wanda` and `sparsegpt`.

  The model runs only when the criterion calls the function. Call the model as in evaluation:
  without dropout and without updates of its statistics.

  A layer inside `nn.scan` or `nn.vmap` needs `variable_axes={'params': 0, 'activations': 0}` there.
  Its activations are then stacked as its kernel is: [layers, rows, in] for [layers, in, out].

  Args:
    model: the module, as for `model.apply`.
    *args: the arguments of the model after the variables: the batch.
    valid: bool array such as [batch, length], False at padding. Rows of padding become 0, so that
      they add nothing. Layers whose input has other leading axes are recorded whole.
    where: regex on the whole path of a kernel, or predicate of (path, None): the kernels to record.
      Give it what `prune_transform` gets.
    variables: the other collections, such as {'batch_stats': ...}.
    method: the method to run, as for `model.apply`.
    rngs: random keys, as for `model.apply`.
    **kwargs: keyword arguments of the model.

  Returns:
    A function (params) -> {path of a kernel: float32 [..., rows, in]}. The paths are those of
    `prune_transform`. A layer with several input axes has them as one. `params` is the collection
    'params', or the dict of variables that holds it.

  Raises:
    ValueError: when the function runs. For a `nn.DenseGeneral` with batch axes, unless `where`
      leaves it out. For a layer inside a lifted transform that drops the recorded inputs.
  """
  chosen = matches(where, 'activations: where')

  def record(params):
    whole = isinstance(params, Mapping) and 'params' in params
    given = {**(variables or {}), **(params if whole else {'params': params})}
    prefix = ('params',) if whole else ()
    axes_of = {}  # the number of axes of each kernel inside its layer

    def intercept(call, call_args, call_kwargs, context):
      module = context.module
      if context.method_name == '__call__' and isinstance(module, nn.Dense | nn.DenseGeneral):
        name = '/'.join((*prefix, *module.path, 'kernel'))
        if chosen(name, None):
          x = call_args[0] if call_args else call_kwargs['inputs']
          append = lambda calls, rows: (*calls, rows)
          rows = input_rows(x, _contracted(name, module, x), valid)
          axes_of[name] = _kernel_axes(module)
          module.sow(COLLECTION, 'kernel', rows, init_fn=tuple, reduce_fn=append)
      return call(*call_args, **call_kwargs)

    with nn.intercept_methods(intercept):
      _, state = model.apply(given, *args, mutable=[COLLECTION], method=method, rngs=rngs, **kwargs)
    recorded = {
      '/'.join((*prefix, *path)): calls
      for path, calls in traverse_util.flatten_dict(state.get(COLLECTION, {})).items()
    }
    for name in sorted(axes_of.keys() - recorded.keys()):
      raise ValueError(
        f'activations: the layer of {name!r} runs inside nn.scan or nn.vmap, which drops what was '
        f"recorded; give that transform variable_axes={{'params': 0, '{COLLECTION}': 0}}"
      )
    kernels = named_leaves(params)
    return {
      name: joined(calls, kernels[name], axes_of[name])
      for name, calls in recorded.items()
      if name in kernels
    }

  return record


def _contracted(name: str, module: nn.Dense | nn.DenseGeneral, x: jax.Array) -> tuple[int, ...]:
  """The axes of `x` that a layer contracts. Raises ValueError for a kernel that has no rows."""
  if isinstance(module, nn.Dense):
    return (x.ndim - 1,)
  refuse_batch_axes(name, 'nn.DenseGeneral', _as_tuple(module.batch_dims))
  return tuple(axis % x.ndim for axis in _as_tuple(module.axis))


def _kernel_axes(module: nn.Dense | nn.DenseGeneral) -> int:
  if isinstance(module, nn.Dense):
    return 2
  return len(_as_tuple(module.axis)) + len(_as_tuple(module.features))


def _as_tuple(value) -> tuple[int, ...]:
  return (value,) if isinstance(value, int) else tuple(value)

"""Arguments of `tx.update` that are functions of the parameters and of one batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from prunejax.pruning.paths import named_leaves


def value_fn(loss: Callable[[Any, Any], jax.Array], batch: Any) -> Callable[..., jax.Array]:
  """Makes `value_fn=`, the loss of the batch, for `obd('hessian')` and `obd('hutchinson')`.

  Args:
    loss: (params, batch) -> scalar.
    batch: any pytree that `loss` takes.

  Returns:
    A function (params) -> scalar. It ignores keyword arguments.
  """
  return lambda params, **_: loss(params, batch)


def examples(
  loss: Callable[[Any, Any], jax.Array], batch: Any
) -> tuple[int, Callable[[Any, Any], jax.Array]]:
  """Makes `examples=`, the loss of each example alone, for `block_fisher`, `obs`, `obd('fisher')`.

  Args:
    loss: (params, batch) -> scalar; it is called with batches of one example.
    batch: a pytree of arrays whose first axis counts the examples.

  Returns:
    (n, function (params, i) -> scalar), with n the number of examples.

  Raises:
    ValueError: if the arrays of the batch do not agree on the number of examples.
  """
  count = _count('examples', batch)
  return count, lambda params, i: loss(params, _one(batch, i))


def outputs(
  model: Callable[[Any, Any], jax.Array], batch: Any
) -> tuple[int, Callable[[Any, Any], jax.Array]]:
  """Makes `outputs=`, what the model says of each example, for a loss of half a squared error.

  `obd('levenberg_marquardt')` and `obs('gauss_newton')` read it.

  Args:
    model: (params, batch) -> array [n, ...]; it is called with batches of one example.
    batch: a pytree of arrays whose first axis counts the examples.

  Returns:
    (n, function (params, i) -> vector [outputs]), with n the number of examples.

  Raises:
    ValueError: if the arrays of the batch do not agree on the number of examples.
  """
  count = _count('outputs', batch)
  return count, lambda params, i: jnp.ravel(model(params, _one(batch, i)))


def _count(argument: str, batch: Any) -> int:
  """The number of examples in a batch, or a ValueError that shows all shapes."""
  shapes = {name or 'batch': jnp.shape(leaf) for name, leaf in named_leaves(batch).items()}
  counts = {shape[0] if shape else None for shape in shapes.values()}
  if len(counts) != 1 or None in counts:
    raise ValueError(
      f'{argument}: the first axis of every array of the batch must count the examples; '
      f'the arrays have shapes {shapes}'
    )
  return counts.pop()


def _one(batch: Any, i: Any) -> Any:
  """Example i of a batch, as a batch of one."""
  return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(jnp.asarray(x), i, 1), batch)

"""How the inputs of a dense layer become the rows that `wanda` and `sparsegpt` read."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def input_rows(x: jax.Array, axes: Sequence[int], valid: jax.Array | None) -> jax.Array:
  """Lays out a layer's input like the input axes of the layer's kernel.

  Args:
    x: the input of one call of the layer.
    axes: the axes of `x` that the layer contracts, in the order of the kernel's input axes.
    valid: boolean array; where the other axes of `x` have its shape, rows at False become 0.

  Returns:
    float32 [rows, in]. `in` counts all contracted axes together, in the order of the kernel.
  """
  x = jnp.moveaxis(jnp.asarray(x).astype(jnp.float32), axes, range(-len(axes), 0))
  batch = x.shape[: x.ndim - len(axes)]
  if valid is not None and batch == valid.shape:
    x = jnp.where(jnp.reshape(valid, batch + (1,) * len(axes)), x, 0)
  return x.reshape(math.prod(batch), -1)


def joined(calls: Sequence[jax.Array], kernel: jax.Array, axes: int) -> jax.Array:
  """Joins the rows of all calls of a layer to one array [..., rows, in].

  A layer that a scan over time calls with one kernel has rows of shape [time, rows, in]. Its axes
  may stand before and after those of a scan over layers, each of which has a kernel of its own.

  Args:
    calls: what was recorded, [..., rows, in] with the axes that scans and vmaps added.
    kernel: the layer's kernel among the parameters.
    axes: the number of axes that the kernel has inside the layer.

  Raises:
    ValueError: the sizes of the axes do not tell which ones the kernel has.
  """
  rows = jnp.concatenate(calls, axis=-2)
  added, lead = rows.shape[:-2], kernel.shape[: kernel.ndim - axes]
  places = [
    place
    for place in itertools.combinations(range(len(added)), len(lead))
    if tuple(added[i] for i in place) == lead
  ]
  if len(places) != 1:
    raise ValueError(
      f'activations: a layer with a kernel of shape {kernel.shape} is called under scans or vmaps'
      f' of sizes {added}, and {"none" if not places else "more than one"} of these can be the axes'
      f' {lead} of the kernel: expected sizes that differ'
    )
  rows = jnp.moveaxis(rows, places[0], range(len(lead)))
  return rows.reshape(*lead, -1, rows.shape[-1])


def refuse_batch_axes(name: str, layer: str, axes: Sequence[int]) -> None:
  """Raises a ValueError for a layer that has one kernel for each index of a batch axis."""
  if axes:
    raise ValueError(
      f'activations: {name!r} is the kernel of a {layer} with batch axes {tuple(axes)}; such '
      'layers have no activations. Leave the leaf out with where=, here and in prune_transform'
    )

"""A mesh with named axes, and `(regex, axes)` rules that lay out the train state on it."""

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax.pruning.paths import matches_end, path_name


def make_mesh(data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Makes a ('data', 'model') mesh with Auto axes.

  Args:
    data: devices on the batch axis; -1 for all that are left.
    model: devices on the tensor axis.
    devices: the devices; None for all.

  Raises:
    ValueError: the axes do not use the devices.
  """
  devices = jax.devices() if devices is None else devices
  data = len(devices) // model if data == -1 else data
  if data < 1 or data * model != len(devices):
    raise ValueError(
      f'mesh.data={data} x mesh.model={model} does not use the {len(devices)} devices there are'
    )
  return Mesh(np.array(devices).reshape(data, model), ('data', 'model'))


def shard(tree, mesh: Mesh, rules: Sequence[tuple] = ()):
  """Returns a tree of NamedSharding.

  Args:
    tree: shapes or arrays.
    mesh: a mesh.
    rules: pairs (regex, axes). The regex must match the end of a leaf's path, so that a moment or a
      mask is laid out as its weight. `axes` has for each dimension None, an axis or a tuple of
      axes. The first match wins. A leaf that no rule matches, or of another rank, is replicated.

  Raises:
    ValueError: an axis is unknown or does not divide the dimension.
  """
  matched = [(matches_end(pattern, 'mesh.rules'), axes) for pattern, axes in rules]

  def place(path, leaf):
    name = path_name(path)
    for matches, axes in matched:
      if matches(name) and len(axes) == len(leaf.shape):
        for size, axis in zip(leaf.shape, axes, strict=True):
          parts = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
          if not set(parts) <= set(mesh.shape) or size % math.prod(
            mesh.shape[part] for part in parts
          ):
            raise ValueError(
              f'mesh.rules: {axis!r} does not divide {name} of shape {leaf.shape} on'
              f' {dict(mesh.shape)}'
            )
        return NamedSharding(mesh, PartitionSpec(*axes))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(place, tree)


def check_rules(rules):
  """Checks the rules of `shard`.

  Raises:
    ValueError: a rule is no pair (regex, axes).
  """
  for rule in rules:
    try:
      pattern, axes = rule
      matches_end(pattern, 'mesh.rules')
      tuple(axes)
    except (TypeError, ValueError) as error:
      raise ValueError(
        f'mesh.rules: {rule!r} is no rule ({error}); expected (regex, axes), as'
        " ('ffn/output/kernel', ('model', None))"
      ) from None


def steady(step: Callable, shardings) -> Callable:
  """Returns a jitted step that lays the new state out as the old one.

  Otherwise the compiler may choose another layout, and the second step would be another program.

  Args:
    step: a jitted function (state, batch) -> (state, metrics).
    shardings: the layout of the state.
  """
  if jax.tree.leaves(shardings)[0].mesh.size == 1:
    return step
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def check_batch(mesh: Mesh, batch_size: int):
  """Checks that a batch divides among the devices of the data axis.

  Raises:
    ValueError: it does not.
  """
  if batch_size % mesh.shape['data']:
    raise ValueError(
      f'batch_size={batch_size} does not divide among the {mesh.shape["data"]} devices of mesh.data'
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the layout of a batch: examples over the data axis."""
  return NamedSharding(mesh, PartitionSpec('data'))


def part_of_batch(mesh: Mesh) -> tuple[int, int]:
  """Returns (index, count): which of how many equal parts of a batch this process computes.

  Processes that hold devices of one row of the mesh compute the same part.

  Raises:
    ValueError: the parts would not be equal.
  """
  rows = [{device.process_index for device in row} for row in mesh.devices]
  own = [row for row, owners in enumerate(rows) if jax.process_index() in owners]
  size = max(len(own), 1)
  if not own or own != list(range(own[0], own[0] + size)) or own[0] % size or len(rows) % size:
    raise ValueError(
      f'mesh.data={len(rows)} x mesh.model={len(mesh.devices[0])} does not give each of the'
      f' {jax.process_count()} processes an equal part of the batch'
    )
  return own[0] // size, len(rows) // size


def put_batch(batch: dict, mesh: Mesh) -> dict:
  """Returns the global batch, of which this process has the rows `batch` (`part_of_batch`)."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()
  }


def put_whole(batch: dict, mesh: Mesh) -> dict:
  """Lays out a batch that every process has whole.

  Examples lie over the data axis if it divides their number; otherwise every device has them all.
  """
  divides = all(len(array) % mesh.shape['data'] == 0 for array in batch.values())
  sharding = batch_sharding(mesh) if divides else NamedSharding(mesh, PartitionSpec())
  return place(batch, {name: sharding for name in batch})


def place(tree, shardings):
  """Lays out a tree that every process has whole, by a tree of shardings."""
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  part = lambda leaf, sharding: jax.make_array_from_callback(
    leaf.shape, sharding, lambda index: leaf[index]
  )
  return jax.tree.map(lambda leaf, sharding: part(np.asarray(leaf), sharding), tree, shardings)

"""A mesh with named axes, and `(regex, axes)` rules that place every leaf of the train state on it."""

import functools
import math

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax.pruning.paths import matches_end, path_name


def make_mesh(data=-1, model=1, devices=None) -> Mesh:
  """A ('data', 'model') mesh over all devices; -1 takes what is left. Axes are Auto. Raises ValueError."""
  devices = jax.devices() if devices is None else devices
  data = len(devices) // model if data == -1 else data
  if data < 1 or data * model != len(devices):
    raise ValueError(
      f'mesh.data={data} x mesh.model={model} does not use the {len(devices)} devices there are'
    )
  return Mesh(np.array(devices).reshape(data, model), ('data', 'model'))


def shard(tree, mesh, rules=()):
  """A tree of NamedSharding for a tree of shapes.

  A rule is (regex, axes): the regex must match the end of a leaf's path, so that a moment or a mask lies where its
  weight does; `axes` has for each dimension None, an axis or several, as ('data', 'model'). First match wins; a leaf no
  rule matches, or of another rank, is replicated.
  Raises ValueError when an axis is unknown or does not divide the dimension.
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
              f'mesh.rules: {axis!r} does not divide {name} of shape {leaf.shape} on {dict(mesh.shape)}'
            )
        return NamedSharding(mesh, PartitionSpec(*axes))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(place, tree)


def check_rules(rules):
  """Raises ValueError for what is no list of (regex, axes)."""
  for rule in rules:
    try:
      pattern, axes = rule
      matches_end(pattern, 'mesh.rules')
      tuple(axes)
    except (TypeError, ValueError) as error:
      raise ValueError(
        f"mesh.rules: {rule!r} is no rule ({error}); expected (regex, axes), as ('ffn/output/kernel', ('model', None))"
      ) from None


def steady(step, shardings):
  """`step(state, batch) -> (state, metrics)`, jitted, the state lying after it as before: `shardings` is its layout.

  Left to itself the compiler may lay the new state out otherwise, and the second step would be another program.
  """
  leaves, treedef = jax.tree.flatten(shardings)
  return step if leaves[0].mesh.size == 1 else _steady(step, treedef, tuple(leaves))


@functools.lru_cache(maxsize=16)
def _steady(step, treedef, leaves):
  return jax.jit(step, donate_argnums=0, out_shardings=(treedef.unflatten(leaves), None))


def check_batch(mesh, batch_size):
  """Raises ValueError when a batch does not divide among the devices of the data axis."""
  if batch_size % mesh.shape['data']:
    raise ValueError(
      f'batch_size={batch_size} does not divide among the {mesh.shape["data"]} devices of mesh.data'
    )


def batch_sharding(mesh):
  """Examples over the data axis."""
  return NamedSharding(mesh, PartitionSpec('data'))


def part_of_batch(mesh) -> tuple[int, int]:
  """(index, count): which of how many equal parts of a batch the devices of this process compute.

  Processes that hold devices of one row of the mesh compute the same part. Raises ValueError when the parts would not
  be equal.
  """
  rows = [{device.process_index for device in row} for row in mesh.devices]
  mine = [at for at, owners in enumerate(rows) if jax.process_index() in owners]
  size = max(len(mine), 1)
  if not mine or mine != list(range(mine[0], mine[0] + size)) or mine[0] % size or len(rows) % size:
    raise ValueError(
      f'mesh.data={len(rows)} x mesh.model={len(mesh.devices[0])} does not give each of the {jax.process_count()}'
      ' processes an equal part of the batch'
    )
  return mine[0] // size, len(rows) // size


def put_batch(batch, mesh):
  """The rows of this process (`part_of_batch`) become its part of the global batch."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()
  }


def put_whole(batch, mesh):
  """A batch that every process has whole: over the data axis where its rows divide, else on every device."""
  divides = all(len(array) % mesh.shape['data'] == 0 for array in batch.values())
  sharding = batch_sharding(mesh) if divides else NamedSharding(mesh, PartitionSpec())
  return place(batch, {name: sharding for name in batch})


def place(tree, shardings):
  """A tree that every process has whole, laid out by a tree of shardings."""
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)
  part = lambda leaf, sharding: jax.make_array_from_callback(
    leaf.shape, sharding, lambda index: leaf[index]
  )
  return jax.tree.map(lambda leaf, sharding: part(np.asarray(leaf), sharding), tree, shardings)

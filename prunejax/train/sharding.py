"""A mesh with named axes, and `(regex, axes)` rules that place every leaf of the train state on it."""

import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def make_mesh(data=-1, model=1, devices=None) -> Mesh:
  """A ('data', 'model') mesh over all devices; -1 takes what is left. Axes are Auto. Raises ValueError."""
  devices = jax.devices() if devices is None else devices
  data = len(devices) // model if data == -1 else data
  if data < 1 or data * model != len(devices):
    raise ValueError(f'mesh.data={data} x mesh.model={model} does not use the {len(devices)} devices there are')
  return Mesh(np.array(devices).reshape(data, model), ('data', 'model'))


def path_of(path) -> str:
  """'params/encoder/layer_0/ffn/output/kernel' for a JAX key path."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def shard(tree, mesh, rules=()):
  """A tree of NamedSharding for a tree of shapes.

  A rule is (regex, axes): the regex must match the end of a leaf's path, so that a moment or a mask lies where its
  weight does. First match wins; a leaf no rule matches, or of another rank, is replicated.
  Raises ValueError when an axis is unknown or does not divide the dimension.
  """

  def place(path, leaf):
    name = path_of(path)
    for pattern, axes in rules:
      if re.search(f'(?:^|/)(?:{pattern})$', name) and len(axes) == len(leaf.shape):
        for size, axis in zip(leaf.shape, axes, strict=True):
          if axis is not None and (axis not in mesh.shape or size % mesh.shape[axis]):
            raise ValueError(f'mesh.rules: {axis!r} does not divide {name} of shape {leaf.shape} on {dict(mesh.shape)}')
        return NamedSharding(mesh, PartitionSpec(*axes))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(place, tree)


def check_batch(mesh, batch_size):
  """Raises ValueError when a batch does not divide among the devices of the data axis."""
  if batch_size % mesh.shape['data']:
    raise ValueError(f'batch_size={batch_size} does not divide among the {mesh.shape["data"]} devices of mesh.data')


def batch_sharding(mesh):
  """Examples over the data axis."""
  return NamedSharding(mesh, PartitionSpec('data'))


def put_batch(batch, mesh):
  """This process's rows become its part of the global batch."""
  sharding = batch_sharding(mesh)
  return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}

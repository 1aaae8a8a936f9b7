"""Activations that stay divided by examples on a mesh.

Where weights are divided over the devices that also divide the batch (FSDP), a compiler may gather
the weights of a layer, or divide its activations along their width and add them up between devices.
The second moves more, and holds the activations of all examples. Naming the layout of what leaves a
layer decides for the first.
"""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

BATCH_AXIS = 'data'  # of a mesh: its devices hold different examples, see train/sharding.py


def by_example(activations: Any) -> Any:
  """Returns the same activations, laid out by examples; the compiler chooses all other axes.

  Nothing changes where there is no mesh with an Auto axis 'data' of several devices, or where they
  do not divide the number of examples.

  Args:
    activations: a tree of arrays [batch, ...].
  """
  return jax.tree.map(_by_example, activations)


def _by_example(array):
  mesh = jax.typeof(array).sharding.mesh
  kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
  parts = mesh.shape[BATCH_AXIS] if kinds.get(BATCH_AXIS) == AxisType.Auto else 1
  if parts == 1 or array.shape[0] % parts:
    return array
  free = (PartitionSpec.UNCONSTRAINED,) * (array.ndim - 1)
  return jax.lax.with_sharding_constraint(
    array, NamedSharding(mesh, PartitionSpec(BATCH_AXIS, *free))
  )

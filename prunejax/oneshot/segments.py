"""A batch of segments: one after the other on a device, side by side on the devices of a mesh.

Every segment goes through the same program, whatever the mesh, and sums over segments are taken in
one order, that of a binary tree. So masks that rest on the sums are the same on every mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'data'


def power_of_two(number: int) -> int:
  """Returns the smallest power of two that is at least `number`."""
  return 1 << max(number - 1, 0).bit_length()


def check_mesh(mesh: Mesh | None, batch: int) -> None:
  """Checks that a batch divides among the devices.

  Args:
    mesh: a mesh with the axis 'data', or None.
    batch: segments of a batch.

  Raises:
    ValueError: it does not, or the batch is no power of two.
  """
  if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1 or batch & (batch - 1):
    raise ValueError(f'batch={batch!r}: expected a power of two, as 8 is')
  if mesh is None:
    return
  if AXIS not in mesh.shape:
    raise ValueError(f'the mesh has the axes {list(mesh.shape)}: expected one called {AXIS!r}')
  devices = mesh.shape[AXIS]
  if devices & (devices - 1) or batch % devices:
    raise ValueError(
      f'batch={batch} segments do not divide among the {devices} devices of the axis {AXIS!r}:'
      ' expected a power of two of devices, and no more than segments of a batch'
    )


def place(tree: Any, mesh: Mesh | None) -> Any:
  """Lays out arrays [segments, ...] over the devices of the axis 'data'."""
  if mesh is None:
    return jax.tree.map(jnp.asarray, tree)
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  make = lambda leaf: jax.make_array_from_callback(leaf.shape, sharding, lambda at: leaf[at])
  return jax.tree.map(lambda leaf: make(np.asarray(leaf)), tree)


def mapped(fn: Callable, mesh: Mesh | None) -> Callable:
  """Makes a function of one segment into one of a batch.

  Args:
    fn: (weights, segment) -> a segment of the same shapes; a segment has 1 on axis 0.
    mesh: the mesh, or None.

  Returns:
    (weights, batch, valid) -> batch. Where `valid`, bool [batch], is False the segment stays as it
    is and nothing is computed.
  """

  def local(weights, batch, valid):
    def one(given):
      segment, is_valid = given
      lead = jax.tree.map(lambda x: x[None], segment)
      out = lax.cond(is_valid, lambda x: fn(weights, x), lambda x: x, lead)
      return jax.tree.map(lambda x: x[0], out)

    return lax.map(one, (batch, valid))

  return _on_mesh(local, mesh, PartitionSpec(AXIS))


def summed(fn: Callable, mesh: Mesh | None) -> Callable:
  """Makes a function of one segment into its sum over the segments of a batch.

  Args:
    fn: (weights, segment) -> pytree of float32 arrays.
    mesh: the mesh, or None.

  Returns:
    (weights, batch, valid) -> the sum over the segments that are valid.
  """

  def local(weights, batch, valid):
    def zeros():
      first = jax.tree.map(lambda x: x[:1], batch)
      shapes = jax.eval_shape(fn, weights, first)
      return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def tree(part, is_valid):
      """The sum over a power of two of segments: that of its first half plus that of the second."""
      count = len(is_valid)
      if count == 1:
        return lax.cond(is_valid[0], lambda x: fn(weights, x), lambda x: zeros(), part)
      halves = jax.tree.map(lambda x: x.reshape(2, count // 2, *x.shape[1:]), (part, is_valid))
      add = lambda so_far, half: (jax.tree.map(jnp.add, so_far, tree(*half)), None)
      return lax.scan(add, zeros(), halves)[0]

    total = tree(batch, valid)
    distance = 1
    while mesh is not None and distance < mesh.shape[AXIS]:
      # Each device adds the sum of its neighbour subtree; addition commutes, so all get one value.
      pairs = [(i, i ^ distance) for i in range(mesh.shape[AXIS])]
      other = jax.tree.map(lambda x, pairs=pairs: lax.ppermute(x, AXIS, pairs), total)
      total = jax.tree.map(jnp.add, total, other)
      distance *= 2
    return total

  return _on_mesh(local, mesh, PartitionSpec())


def _on_mesh(local, mesh, out):
  if mesh is None:
    return local
  whole, parts = PartitionSpec(), PartitionSpec(AXIS)
  return jax.shard_map(
    local, mesh=mesh, in_specs=(whole, parts, parts), out_specs=out, check_vma=False
  )

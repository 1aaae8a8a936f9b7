"""How arrays lie on a mesh, where the core has to know.

On an Explicit mesh, the default of `jax.make_mesh`, the type of an array holds its sharding, and
every operation has to state the sharding of its result. Selection works on Auto axes, where the
compiler decides. Masks come back with the sharding of their scores.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def automatic(fn, scores: dict, *args):
  """Calls `fn(*args)` with every Explicit axis of the scores' mesh made Auto inside.

  `fn` returns a tuple that starts with a dict named and shaped like `scores`. That dict is laid out
  like the scores, and everything else is whole on all devices. Without an Explicit axis this is
  plain `fn(*args)`.
  """
  lies = {name: jax.typeof(score).sharding for name, score in scores.items()}
  explicit = [sharding for sharding in lies.values() if explicit_axes(sharding)]
  if not explicit:
    return fn(*args)
  # Shapes alone: with their layout they would be Explicit again.
  found = jax.eval_shape(
    fn, *jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), args)
  )
  whole = NamedSharding(explicit[0].mesh, PartitionSpec())
  out = type(found)(lies, *(jax.tree.map(lambda _: whole, part) for part in found[1:]))
  return jax.sharding.auto_axes(fn, axes=explicit_axes(explicit[0]), out_sharding=out)(*args)


def on_auto_axes(fn, *args, like=None):
  """Calls `fn(*args)` with every Explicit axis of the mesh of the arguments made Auto inside.

  Without an Explicit axis this is plain `fn(*args)`.

  Args:
    fn: a function of arrays alone.
    *args: trees of arrays.
    like: a tree of arrays or shardings in the structure of the result, by which it is laid out.
      None: whole on all devices.
  """
  kinds = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(args)]
  explicit = [sharding for sharding in kinds if explicit_axes(sharding)]
  if not explicit:
    return fn(*args)
  plain = lambda x: jax.ShapeDtypeStruct(jax.typeof(x).shape, jax.typeof(x).dtype)
  result = jax.eval_shape(fn, *jax.tree.map(plain, args))
  whole = NamedSharding(explicit[0].mesh, PartitionSpec())
  sharding_of = lambda x: x if isinstance(x, NamedSharding) else jax.typeof(x).sharding
  lies = jax.tree.map(lambda _: whole, result) if like is None else jax.tree.map(sharding_of, like)
  return jax.sharding.auto_axes(fn, axes=explicit_axes(explicit[0]), out_sharding=lies)(*args)


def explicit_axes(sharding) -> tuple:
  """The names of the Explicit axes of a sharding's mesh."""
  kinds = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
  return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def check_undivided(tree, undivided: str | Sequence[str], origin: str):
  """Refuses leaves that may be divided over the devices of a manual mesh axis.

  Inside `jax.shard_map` and `jax.pmap` a program sees the part of one device, so scores would be
  ranked part by part.

  Args:
    tree: the leaves to rank.
    undivided: names of axes along which every device has whole leaves.
    origin: the name of the caller, for the error.

  Raises:
    ValueError: a leaf varies along an axis that is not in `undivided`; or the program does not
      know whether it does, under `check_vma=False`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  known = (undivided,) if isinstance(undivided, str) else tuple(undivided)
  axes = [axis for axis in mesh.manual_axes if axis not in known and mesh.shape[axis] > 1]
  for axis in axes:
    is_tracked = axis in _varying(jax.lax.axis_index(axis))
    if is_tracked and not any(axis in _varying(leaf) for leaf in jax.tree.leaves(tree)):
      continue
    why = 'a leaf is divided' if is_tracked else 'leaves may be divided (check_vma=False)'
    raise ValueError(
      f'{origin}: {why} over the axis {axis!r} of jax.shard_map or jax.pmap, and each device would'
      f' rank its part alone; call tx.update outside, or say undivided={axis!r} if every device has'
      ' whole leaves: copies, or a model of its own'
    )


def _varying(array) -> frozenset:
  """The manual axes along which an array is known to vary."""
  kind = jax.typeof(array)
  return getattr(kind, 'vma', None) or kind.manual_axis_type.varying


def varying_as(tree, like):
  """Marks arrays as varying along every manual axis along which an array of `like` does.

  The carry of a loop must have one type, so what it starts with has to vary as what it reads.
  """
  axes = frozenset().union(*map(_varying, jax.tree.leaves(like)))

  def marked(x):
    more = tuple(axes - _varying(x))
    return jax.lax.pcast(x, more, to='varying') if more else x

  return jax.tree.map(marked, tree)


def devices(tree) -> int:
  """The number of devices of the mesh on which arrays lie; 1 where there is no mesh."""
  meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree)]
  return max((mesh.size for mesh in meshes if not mesh.empty), default=1)


def like(array, model):
  """`array` laid out as `model` lies, where that is a matter of type; else as it is."""
  sharding = jax.typeof(model).sharding
  return jax.sharding.reshard(array, sharding) if explicit_axes(sharding) else array


def on_host(array) -> np.ndarray:
  """The whole array as numpy. Where several processes hold parts, all of them must call this."""
  if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)
  return np.asarray(array)

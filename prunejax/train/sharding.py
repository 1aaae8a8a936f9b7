"""A mesh with named axes, and rules that lay out the train state on it.

Rules are pairs `(regex, axes)`, or the name of a set for the models of this package:

  fsdp         every matrix is divided over the axis 'data', along its inputs or outputs
  tensor       matrices of a layer over 'model', as Shoeybi et al. (2019) divide them: query, key,
               value and the first of a feed-forward block by outputs, the others by inputs
  fsdp+tensor  both
"""

import math
import re
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from prunejax.pruning.paths import matches_end, named_leaves, path_name
from prunejax.train.model_sizes import RULES

NAMED = RULES
# (regex of the end of a path, axis that fsdp divides, axis that tensor divides), None for neither.
DIVIDED = (
  (r'attention/(query|key|value)/kernel', 0, 1),
  (r'attention/(query|key|value)/bias', None, 0),
  (r'attention/output/kernel', 1, 0),
  (r'ffn/(intermediate|gate)/kernel', 0, 1),
  (r'ffn/(intermediate|gate)/bias', None, 0),
  (r'ffn/output/kernel', 1, 0),
  (r'embeddings/word/embedding', 1, 0),
  (r'embeddings/(position|segment)/embedding', 1, None),
  (r'attention/position/kernel', 0, 1),  # of XLNet
  (r'(.*/)?(kernel|embedding)', 0, None),
  (r'(.*/)?[^/]*(bias|scale|segment|mask)[^/]*', None, None),
)


def make_mesh(
  data: int = -1,
  model: int = 1,
  devices: Sequence[jax.Device] | None = None,
  axes: str = 'auto',
) -> Mesh:
  """Makes a ('data', 'model') mesh.

  Args:
    data: devices on the batch axis; -1 for all that are left.
    model: devices on the tensor axis.
    devices: the devices; None for all.
    axes: 'auto', the compiler lays out what the rules leave open; or 'explicit', layouts are part
      of the types of arrays, and only the model itself is left to the compiler.

  Raises:
    ValueError: the axes do not use the devices.
  """
  devices = jax.devices() if devices is None else devices
  data = len(devices) // model if data == -1 else data
  if data < 1 or data * model != len(devices):
    raise ValueError(
      f'mesh.data={data} x mesh.model={model} does not use the {len(devices)} devices there are'
    )
  kind = {'auto': AxisType.Auto, 'explicit': AxisType.Explicit}[axes]
  return Mesh(np.array(devices).reshape(data, model), ('data', 'model'), axis_types=(kind,) * 2)


def shard(tree, mesh: Mesh, rules: str | Sequence[tuple] = ()):
  """Returns a tree of NamedSharding.

  Args:
    tree: shapes or arrays.
    mesh: a mesh.
    rules: pairs (regex, axes). The regex must match the end of a leaf's path, so that a moment or a
      mask is laid out as its weight. `axes` has for each dimension None, an axis or a tuple of
      axes. The first match wins. A leaf that no rule matches, or of another rank, is replicated.
      Of a leaf that stacks layers, a rule sees the name and the shape of the first layer; the axis
      of layers is not divided. Or a name of `NAMED`.

  Raises:
    ValueError: an axis is unknown or does not divide the dimension.
  """
  named = isinstance(rules, str)
  rows = _rows(rules)

  def place(path, leaf):
    name, shape = _layer(path_name(path), leaf.shape)
    for matches, axes in rows:
      if matches(name) and (named or len(axes) == len(shape)):
        axes = _fitting(rules, axes, shape, mesh) if named else axes
        for size, axis in zip(shape, axes, strict=True):
          parts = axis if isinstance(axis, tuple) else () if axis is None else (axis,)
          if not set(parts) <= set(mesh.shape) or size % math.prod(
            mesh.shape[part] for part in parts
          ):
            raise ValueError(
              f'mesh.rules: {axis!r} does not divide {name} of shape {leaf.shape} on'
              f' {dict(mesh.shape)}'
            )
        lead = (None,) * (len(leaf.shape) - len(shape))
        return NamedSharding(mesh, PartitionSpec(*lead, *axes))
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(place, tree)


def check_leaves(rules: str | Sequence[tuple], params):
  """Checks that the rules of `shard` are about the leaves of a model.

  Args:
    rules: as in `shard`.
    params: the parameters, or their shapes.

  Raises:
    ValueError: a rule matches no leaf; or a set of rules says nothing of a matrix.
  """
  leaves = dict(_layer(name, leaf.shape) for name, leaf in named_leaves(params).items())
  if isinstance(rules, str):
    rows = _rows(rules)
    for name, shape in leaves.items():
      if len(shape) > 1 and not any(matches(name) for matches, _ in rows):
        raise ValueError(
          f'mesh.rules={rules!r} says nothing of {name!r} of shape {shape}: expected the leaves of'
          ' a model of this package; give pairs (regex, axes) instead'
        )
    return
  for pattern, axes in rules:
    matches = matches_end(pattern, 'mesh.rules')
    if not any(matches(name) and len(shape) == len(axes) for name, shape in leaves.items()):
      near = [name for name in leaves if matches(name)]
      why = (
        f'{near[0]!r} has the shape {leaves[near[0]]}' if near else f'leaves: {list(leaves)[:6]}'
      )
      raise ValueError(
        f'mesh.rules: {(pattern, axes)!r} matches no leaf with {len(axes)} axes ({why})'
      )


def _rows(rules):
  """[(predicate of a path, axes)]; of a set of rules the axes are (of fsdp, of tensor)."""
  if not isinstance(rules, str):
    return [(matches_end(pattern, 'mesh.rules'), tuple(axes)) for pattern, axes in rules]
  return [(matches_end(pattern, 'mesh.rules'), axes) for pattern, *axes in DIVIDED]


def _fitting(name, axes, shape, mesh):
  """The axes of a leaf under a set of rules: the mesh axes divide the ones meant, or another."""
  parts: list = [()] * len(shape)
  for mesh_axis, axis in zip(('data', 'model'), axes, strict=True):
    kind = {'data': 'fsdp', 'model': 'tensor'}[mesh_axis]
    if axis is None or kind not in name.split('+') or axis >= len(shape):
      continue
    # A vocabulary has any number of rows; the width of a model has many divisors.
    for at in (axis, *(i for i in range(len(shape)) if i != axis)):
      taken = math.prod(mesh.shape[part] for part in parts[at])
      if shape[at] % (taken * mesh.shape[mesh_axis]) == 0:
        parts[at] = (*parts[at], mesh_axis)
        break
  return tuple(part[0] if len(part) == 1 else part or None for part in parts)


def _layer(name, shape):
  """(name, shape) of the first layer of a leaf that stacks layers; of another leaf its own."""
  first = re.sub(r'(^|/)layers(/|$)', r'\1layer_0\2', name)
  return first, tuple(shape[1:] if first != name else shape)


def check_rules(rules):
  """Checks the form of the rules of `shard`.

  Raises:
    ValueError: a rule is no pair (regex, axes), or there is no set of such a name.
  """
  if isinstance(rules, str):
    if rules not in NAMED:
      raise ValueError(
        f'mesh.rules={rules!r}: expected one of {", ".join(NAMED)}, or pairs (regex, axes)'
      )
    return
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
  """Lays out a tree that every process has whole, or as its part, by a tree of shardings."""
  if jax.process_count() == 1:
    return jax.device_put(tree, shardings)

  def part(leaf, sharding):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:  # divided already
      return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

  return jax.tree.map(part, tree, shardings)

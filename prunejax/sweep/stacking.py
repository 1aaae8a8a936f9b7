"""Many train states as one: stacked on a leading axis of members and stepped by one program.

Each member is stepped as if it were alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import prunejax
from prunejax.pruning import paths
from prunejax.train import sharding

BATCHING = ('map', 'vmap')
# Scopes of the loops over members and over the steps of a turn, whose lengths are data.
MEMBERS, STEPS = 'members_in_turn', 'steps_of_a_turn'


def is_common(leaf) -> bool:
  """Returns whether all members share a leaf of the state: counters, which are integer scalars.

  What decides when masks move is therefore never batched. Under `vmap` a `lax.cond` on a counter
  stays a `cond`, and steps between mask updates cost nothing.
  """
  return leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)


def abstract(state, width: int):
  """Returns the shapes of `width` members stacked.

  Args:
    state: the state of one member, shapes or arrays.
    width: the number of places.
  """
  wide = lambda x: jax.ShapeDtypeStruct(x.shape if is_common(x) else (width, *x.shape), x.dtype)
  return jax.tree.map(wide, state)


def make_mesh(
  members: int,
  data: int = -1,
  model: int = 1,
  *,
  count: int,
  batch_size: int,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Makes a ('members', 'data', 'model') mesh.

  Args:
    members: devices on the axis of members; -1 for as many as divide the devices and do not
      outnumber the members.
    data: devices on the batch axis; -1 for all that are left.
    model: devices on the tensor axis.
    count: the number of members.
    batch_size: examples a batch, which the batch axis must divide.
    devices: the devices; None for all.

  Raises:
    ValueError: the axes do not use the devices.
  """
  devices = jax.devices() if devices is None else devices
  left = len(devices) // model
  if members == -1:
    fits = lambda n: left % n == 0 and (data in (-1, left // n)) and not batch_size % (left // n)
    members = max((n for n in range(1, min(left, count) + 1) if fits(n)), default=left)
  rest = left // members if data == -1 and members > 0 else data
  if members < 1 or members * rest * model != len(devices):
    raise ValueError(
      f'population.mesh={members} x mesh.data={data} x mesh.model={model} does not use the'
      f' {len(devices)} devices'
    )
  return Mesh(np.array(devices).reshape(members, rest, model), ('members', 'data', 'model'))


def shard(state, mesh: Mesh, rules: str | Sequence[tuple] = ()):
  """Returns the shardings of the stacked state.

  Each is that of `sharding.shard` for one member, with the members over the axis of that name.

  Args:
    state: the state of one member, shapes or arrays.
    mesh: a mesh of `make_mesh`.
    rules: as in `sharding.shard`.
  """

  def wide(leaf, placed):
    if is_common(leaf):
      return placed
    return NamedSharding(mesh, PartitionSpec('members', *placed.spec))

  return jax.tree.map(wide, state, sharding.shard(state, mesh, rules))


def part_of_batch(mesh: Mesh) -> tuple[int, int]:
  """Returns `sharding.part_of_batch` of a mesh of `make_mesh`: each group reads whole batches."""
  by_data = mesh.devices.swapaxes(0, 1).reshape(mesh.shape['data'], -1)
  return sharding.part_of_batch(Mesh(by_data, ('data', 'model')))


def put_batches(batches: dict, mesh: Mesh) -> dict:
  """Lays batches out on the devices: examples over the data axis, all batches on every group.

  Args:
    batches: {name: [steps, distinct batches, b, ...]}, the rows of this process.
    mesh: a mesh of `make_mesh`.
  """
  placed = NamedSharding(mesh, PartitionSpec(None, None, 'data'))
  return {
    name: jax.make_array_from_process_local_data(placed, array) for name, array in batches.items()
  }


def make_step(step: Callable, batching: str, mesh: Mesh) -> Callable:
  """Makes a turn of many members, which is a few steps of each, from the step of one.

  Args:
    step: (state, batch) -> (state, metrics) of one member, unchanged.
    batching: 'vmap' steps all members of a device in one batched step; 'map' gives them their turns
      one after the other inside the program.
    mesh: a mesh of `make_mesh`. Each group of devices steps its own members and exchanges nothing
      with the others.

  Returns:
    A function (state, batches, rows, steps) -> (state, metrics of shape [turn, members]). `batches`
    is {name: [turn, distinct batches, b, ...]}, `rows` int32 [members] the batch of each member.
    Members that read the same data share one row. A negative row marks a place whose member does
    not train. `steps` int32 [] is how many steps of the turn are taken, at least 1; metrics of the
    others are 0.

  Raises:
    ValueError: `batching` is neither.
  """
  if batching not in BATCHING:
    raise ValueError(
      f'population.batching={batching!r}: expected {" or ".join(map(repr, BATCHING))}'
    )
  group = {'vmap': _at_once, 'map': _in_turn}[batching](step)
  if mesh.shape['members'] == 1:
    return group

  def stacked_step(state, batches, rows, steps):
    spread = jax.tree.map(
      lambda x: PartitionSpec() if is_common(x) else PartitionSpec('members'), state
    )
    each = PartitionSpec('members')
    return jax.shard_map(
      group,
      mesh=mesh,
      in_specs=(spread, PartitionSpec(), each, PartitionSpec()),
      out_specs=(spread, PartitionSpec(None, 'members')),
      axis_names={'members'},
      check_vma=False,
    )(state, batches, rows, steps)

  return stacked_step


def _pick(batches, row):
  """The batch of one member; no choice is compiled where all members read the same."""
  return jax.tree.map(lambda x: x[0] if x.shape[0] == 1 else x[row], batches)


def _turn(step, state, batches, steps):
  """Takes the first `steps` steps of a turn: (state, metrics of shape [turn, ...])."""
  batch = lambda nth: jax.tree.map(lambda x: x[nth], batches)

  def one(nth, carried):
    state, metrics = carried
    state, new = step(state, batch(nth))
    return state, jax.tree.map(lambda all_steps, x: _set(all_steps, x, nth), metrics, new)

  blank = _blank(step, state, batches)
  # The number of rounds is data, so XLA cannot unroll one and compile that step in another way.
  with jax.named_scope(STEPS):
    return jax.lax.fori_loop(0, steps, one, (state, blank))


def _blank(step, state, batches, places=()):
  """Zeros for the metrics of a turn."""
  first = jax.tree.map(lambda x: x[0], batches)
  shapes = jax.eval_shape(step, state, first)[1]
  turn = len(jax.tree.leaves(batches)[0])
  return jax.tree.map(lambda x: jnp.zeros((turn, *places, *x.shape), x.dtype), shapes)


def _at_once(step):
  def group(state, batches, rows, steps):
    axes = jax.tree.map(lambda x: None if is_common(x) else 0, state)
    one = lambda member, row, batch: step(member, _pick(batch, row))
    # jax checks an output axis of None: no counter may come to depend on a member.
    many = jax.vmap(one, in_axes=(axes, 0, None), out_axes=(axes, 0))
    if len(jax.tree.leaves(batches)[0]) > 1:
      return _turn(lambda state, batch: many(state, rows, batch), state, batches, steps)
    # A loop of one round would make an accelerator wait for its host.
    state, metrics = many(state, rows, jax.tree.map(lambda x: x[0], batches))
    return state, jax.tree.map(lambda x: x[None], metrics)

  return group


def _in_turn(step):
  # Traced once, though its shapes are asked for before the loop; the program is the same.
  step = jax.jit(step, inline=True)

  def group(state, batches, rows, steps):
    order = jnp.argsort(rows < 0)  # places whose members still train come first
    # At least one member is stepped, because a step moves the counters.
    count = jnp.maximum(jnp.sum(rows >= 0, dtype=jnp.int32), 1)

    def one(nth, carried):
      stacked, _, metrics = carried
      i = order[nth]
      stepped = lambda member, batch: step(member, _pick(batch, rows[i]))
      # The loop of a turn takes and returns a member in a buffer of its own. Without one XLA fuses
      # reading the stack with writing it, and copies the whole stack for each member to be safe.
      member, new_metrics = _turn(stepped, take(stacked, i), batches, steps)
      # Counters move after the last member: until then each member must read this turn's.
      stacked = jax.tree.map(
        lambda old, new: old if is_common(new) else _set(old, new, i), stacked, member
      )
      place = lambda old, new: jax.lax.dynamic_update_index_in_dim(old, new, i, 1)
      return stacked, _counters(member), jax.tree.map(place, metrics, new_metrics)

    first = lambda member, batch: step(member, _pick(batch, 0))
    blank = _blank(first, take(state, 0), batches, (len(rows),))
    # A loop that carries the stack updates it in place; `lax.map` would hold it twice.
    with jax.named_scope(MEMBERS):
      carried = jax.lax.fori_loop(0, count, one, (state, _counters(state), blank))
    state, counters, metrics = carried
    counters = iter(counters)
    return jax.tree.map(lambda x: next(counters) if is_common(x) else x, state), metrics

  return group


def _counters(state):
  return [x for x in jax.tree.leaves(state) if is_common(x)]


def _set(stacked, new, i):
  return jax.lax.dynamic_update_index_in_dim(stacked, new, i, 0)


def take(stacked, i):
  """Returns the state of member `i` of a stacked state."""
  return jax.tree.map(
    lambda x: x if is_common(x) else jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), stacked
  )


def put(stacked, state, i):
  """Returns `stacked` with `state` as its member `i`; the counters are those of `state`."""
  return jax.tree.map(lambda old, new: new if is_common(new) else _set(old, new, i), stacked, state)


def removed(stacked, where: Any) -> tuple[jax.Array, jax.Array]:
  """Counts what is pruned of each member's leaves that `where` matches.

  Args:
    stacked: a stacked state.
    where: as in `prune_transform`.

  Returns:
    int32 zeros of the masks [leaves, members], and the sizes of the leaves [leaves].
  """
  masks = paths.named_leaves(
    prunejax.get_masks(stacked['opt_state'], stacked['params'], unpruned=True)
  )
  masks = [mask for name, mask in masks.items() if paths.matches(where)(name, mask[0])]
  counts = [jnp.sum(~mask, axis=range(1, mask.ndim), dtype=jnp.int32) for mask in masks]
  return jnp.stack(counts), jnp.array([mask[0].size for mask in masks])

"""Many train states as one: stacked on a leading axis of members, stepped by one program, each as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import prunejax
from prunejax.pruning import paths
from prunejax.train import sharding

BATCHING = ('map', 'vmap')


def is_common(leaf):
  """Counters (integer scalars) are one for all members: what decides when masks move is never batched, so under
  `vmap` a `lax.cond` on them stays a `cond` and steps between mask updates cost nothing."""
  return leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.integer)


def abstract(state, width):
  """The shapes of `width` members stacked; `state` is that of one, of shapes or arrays."""
  wide = lambda x: jax.ShapeDtypeStruct(x.shape if is_common(x) else (width, *x.shape), x.dtype)
  return jax.tree.map(wide, state)


def make_mesh(members, data=-1, model=1, *, count, batch_size, devices=None) -> Mesh:
  """A ('members', 'data', 'model') mesh. -1 takes what is left: `members` as many as divide the devices and do not
  outnumber the `count` members there are, then `data`. Raises ValueError when the axes do not use the devices."""
  devices = jax.devices() if devices is None else devices
  left = len(devices) // model
  if members == -1:
    fits = lambda n: left % n == 0 and (data in (-1, left // n)) and not batch_size % (left // n)
    members = max((n for n in range(1, min(left, count) + 1) if fits(n)), default=left)
  rest = left // members if data == -1 and members > 0 else data
  if members < 1 or members * rest * model != len(devices):
    raise ValueError(
      f'population.mesh={members} x mesh.data={data} x mesh.model={model} does not use the {len(devices)} devices'
    )
  return Mesh(np.array(devices).reshape(members, rest, model), ('members', 'data', 'model'))


def shard(state, mesh, rules=()):
  """Shardings of the stacked state: `sharding.shard` for one member, members over the axis of that name."""

  def wide(leaf, placed):
    return (
      placed if is_common(leaf) else NamedSharding(mesh, PartitionSpec('members', *placed.spec))
    )

  return jax.tree.map(wide, state, sharding.shard(state, mesh, rules))


def part_of_batch(mesh):
  """`sharding.part_of_batch` of a mesh with an axis of members: each group of members reads whole batches."""
  by_data = mesh.devices.swapaxes(0, 1).reshape(mesh.shape['data'], -1)
  return sharding.part_of_batch(Mesh(by_data, ('data', 'model')))


def put_batches(batches, mesh):
  """[distinct, b, ...] arrays of this process's rows: examples over the data axis, every member group has them all."""
  placed = NamedSharding(mesh, PartitionSpec(None, 'data'))
  return {
    name: jax.make_array_from_process_local_data(placed, array) for name, array in batches.items()
  }


def make_step(step, batching, mesh):
  """Builds the step of many members from the step of one.

  Args:
    step: (state, batch) -> (state, metrics) of one member; its own objective, untouched.
    batching: 'vmap' does all members of a device in one batched step; 'map' one after the other inside the program.
    mesh: ('members', 'data', 'model'). Each group of devices steps its own members and never hears of the others.

  Returns:
    stacked_step(state, batches, rows) -> (state, metrics of shape [members]). batches: {name: [distinct, b, ...]};
    rows: int32 [members], the batch of each member. Members that read the same data share one row.
  """
  if batching not in BATCHING:
    raise ValueError(
      f'population.batching={batching!r}: expected {" or ".join(map(repr, BATCHING))}'
    )
  group = {'vmap': _at_once, 'map': _in_turn}[batching](step)
  if mesh.shape['members'] == 1:
    return group

  def stacked_step(state, batches, rows):
    spread = jax.tree.map(
      lambda x: PartitionSpec() if is_common(x) else PartitionSpec('members'), state
    )
    each = PartitionSpec('members')
    return jax.shard_map(
      group,
      mesh=mesh,
      in_specs=(spread, PartitionSpec(), each),
      out_specs=(spread, each),
      axis_names={'members'},
      check_vma=False,
    )(state, batches, rows)

  return stacked_step


def _pick(batches, row):
  """The batch of one member; where all read the same there is nothing to choose."""
  return jax.tree.map(lambda x: x[0] if x.shape[0] == 1 else x[row], batches)


def _at_once(step):
  def group(state, batches, rows):
    axes = jax.tree.map(lambda x: None if is_common(x) else 0, state)
    one = lambda member, row: step(member, _pick(batches, row))
    # An axis of None on the way out is a promise that jax checks: no counter may come to depend on a member.
    return jax.vmap(one, in_axes=(axes, 0), out_axes=(axes, 0))(state, rows)

  return group


def _in_turn(step):
  def group(state, batches, rows):
    alive = jnp.argsort(rows < 0)  # slots, those that still train first
    count = jnp.maximum(
      jnp.sum(rows >= 0, dtype=jnp.int32), 1
    )  # one at least: someone must move the counters

    def one(nth, carried):
      state_now, _, metrics = carried
      i = alive[nth]
      # Always true, and data: what goes into a cond and comes out of it is a member in a place of its own. Without one
      # XLA reads the stack inside the writing of it, and copies all of it for each member to be safe.
      stay = lambda member, batch: (
        member,
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes),
      )
      member, told = jax.lax.cond(
        nth < count, step, stay, take(state_now, i), _pick(batches, rows[i])
      )
      # Counters wait for the last member: until then each must read this step's.
      state_now = jax.tree.map(
        lambda all_, new: all_ if is_common(new) else _set(all_, new, i), state_now, member
      )
      return (
        state_now,
        _counters(member),
        jax.tree.map(lambda all_, new: _set(all_, new, i), metrics, told),
      )

    shapes = jax.eval_shape(lambda s, b: step(take(s, 0), _pick(b, 0))[1], state, batches)
    blank = jax.tree.map(lambda x: jnp.zeros((len(rows), *x.shape), x.dtype), shapes)
    # A loop that carries the stack updates it in place; `lax.map` would hold it twice.
    # Its length is data, so XLA cannot take one round out of it and compile a member in another way.
    state, counters, metrics = jax.lax.fori_loop(0, count, one, (state, _counters(state), blank))
    counters = iter(counters)
    return jax.tree.map(lambda x: next(counters) if is_common(x) else x, state), metrics

  return group


def _counters(state):
  return [x for x in jax.tree.leaves(state) if is_common(x)]


def _set(all_, new, i):
  return jax.lax.dynamic_update_index_in_dim(all_, new, i, 0)


def take(stacked, i):
  """Member `i` of a stacked state."""
  return jax.tree.map(
    lambda x: x if is_common(x) else jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False), stacked
  )


def removed(stacked, where):
  """What is pruned of each member's leaves that `where` matches: (int32 zeros of the masks [leaves, members], sizes of
  the leaves)."""
  found = paths.named_leaves(prunejax.get_masks(stacked['opt_state'], stacked['params']))
  masks = [mask for name, mask in found.items() if paths.matches(where)(name, mask)]
  counts = [jnp.sum(~mask, axis=range(1, mask.ndim), dtype=jnp.int32) for mask in masks]
  return jnp.stack(counts), jnp.array([mask[0].size for mask in masks])


def put(stacked, state, i):
  """`stacked` with `state` as its member `i`; counters are the newcomer's."""
  return jax.tree.map(lambda old, new: new if is_common(new) else _set(old, new, i), stacked, state)

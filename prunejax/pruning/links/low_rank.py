"""Low rank as a rival of pruning at equal bytes.

A kernel [in, out] of rank r is two factors of r (in + out) numbers. `rank_for` finds the rank whose
factors store as many numbers as the pruned kernel has non-zeros. Like a pruning link, this link is
the last of its chain and acts by its update.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunejax.pruning import counts, kernel_layout, lapack, placement, schedules
from prunejax.pruning.dtypes import wider
from prunejax.pruning.paths import is_hole, named_leaves, select

EVERY_STEP = schedules.every(1)


class LowRankState(NamedTuple):
  """The state of `low_rank`.

  Attributes:
    lowrank_count: steps taken, int32.
    lowrank_ranks: {path: rank of the kernel, int32 [1]}; min(in, out) is a kernel as it is.
    lowrank_basis: {path: basis of its rows, float32 [out, min(in, out)], columns from the rank on
      0}.
  """

  lowrank_count: Any
  lowrank_ranks: dict
  lowrank_basis: dict


def rank_for(shape, sparsity) -> jax.Array:
  """Computes the largest rank whose factors store at most the non-zeros of a pruned kernel.

  Args:
    shape: (in, out).
    sparsity: of the pruned kernel; may be traced.

  Returns:
    int32. At sparsity 0 it is min(in, out): the kernel as it is.
  """
  rows, columns = shape
  kept = counts.narrow(counts.kept(rows * columns, sparsity))
  full = min(rows, columns)
  rank = jnp.minimum(kept // (rows + columns), full)
  return jnp.where(jnp.asarray(sparsity) > 0, rank, full).astype(jnp.int32)


def truncated(kernel, rank):
  """Computes the nearest matrix of a rank (Eckart & Young, 1936).

  Args:
    kernel: [in, out].
    rank: an integer; may be traced.

  Returns:
    The matrix, float32 [in, out], and a basis of its rows [out, min(in, out)].
  """
  left, values, right = lapack.thin_svd(kernel.astype(jnp.float32))
  kept = jnp.arange(values.size) < rank
  weights = jnp.where(kept, values, 0)
  return (left * weights[None]) @ right, jnp.where(kept[None], right.T, 0)


def low_rank(
  schedule: schedules.Schedule | Callable,
  when: schedules.When | Callable = EVERY_STEP,
  *,
  where='.*',
  undivided: str | Sequence[str] = (),
  layout: str | Mapping[str, str] = '',
) -> optax.GradientTransformationExtraArgs:
  """Makes a last link that holds kernels at the rank `rank_for(shape, schedule(step))`.

  When ranks move, w + update becomes its truncated singular value decomposition. At other steps it
  is brought back to its rank by one step of block power iteration from the last basis (Halko et
  al., 2011, without the random start): two thin QR decompositions. Ranks are data, so one program
  serves any sparsity. A sparsity outside [0, 1] makes the updates NaN.

  Args:
    schedule: as in `prune_transform`.
    when: as in `prune_transform`.
    where: as in `prune_transform`.
    undivided: as in `prune_transform`.
    layout: as in `prune_transform`.

  Raises:
    ValueError: `when` ends before the schedule does; from `init`, a leaf is no matrix, or its
      layout is not known; from `update`, leaves may be divided, see `undivided`.
  """
  rows = kernel_layout.parse(layout)
  schedule, when = schedules.as_schedule(schedule), schedules.as_when(when)
  ranks_move = schedules.moves('low_rank', schedule, when)

  def init(params):
    _, chosen = _chosen(params, where, rows)
    ranks = {name: jnp.full((1,), min(w.shape), jnp.int32) for name, w in chosen.items()}
    basis = {name: jnp.zeros((w.shape[1], min(w.shape)), jnp.float32) for name, w in chosen.items()}
    return LowRankState(jnp.zeros([], jnp.int32), ranks, basis)

  def update(updates, state, params=None, **extra):
    del extra
    if params is None:
      raise ValueError(
        'low_rank: tx.update needs params, as in tx.update(grads, opt_state, params)'
      )
    placement.check_undivided(params, undivided, 'low_rank')
    step, treedef = state.lowrank_count, jax.tree.structure(params)
    due, sparsity = ranks_move(step), jnp.asarray(schedule(step), jnp.float32)
    # A sparsity that is wrong at run time must not make kernels 0 unseen.
    is_wrong = due & ~((sparsity >= 0) & (sparsity <= 1))
    updates = dict(zip(named_leaves(params), treedef.flatten_up_to(updates), strict=True))
    ranks, basis = {}, {}
    layouts, chosen = _chosen(params, where, rows)
    for name, w in chosen.items():
      dtype = wider(w.dtype, updates[name].dtype)
      step_of_matrix = kernel_layout.to_matrix(updates[name], layouts[name])
      target = w.astype(jnp.float32) + step_of_matrix.astype(jnp.float32)
      before = state.lowrank_ranks[name][0]
      asked = jnp.where(due, jnp.minimum(rank_for(w.shape, sparsity), before), before)
      act = jnp.where(asked >= min(w.shape), 0, jnp.where(due, 1, 2))
      moved = lambda *given: jax.lax.switch(given[0], _ACTS, *given[1:])
      basis_before = state.lowrank_basis[name]
      now, basis[name] = placement.on_auto_axes(
        moved, act, target, asked, basis_before, like=(target, basis_before)
      )
      change = (now - w.astype(jnp.float32)).astype(dtype)
      change = kernel_layout.from_matrix(change, layouts[name])
      landed = jnp.where(act == 0, updates[name].astype(dtype), change)
      updates[name] = jnp.where(is_wrong, jnp.asarray(jnp.nan, dtype), landed)
      ranks[name] = asked[None]
    state = LowRankState(optax.safe_increment(step), ranks, basis)
    return treedef.unflatten(updates.values()), state

  return optax.GradientTransformationExtraArgs(init, update)


def ranks(opt_state) -> dict[str, int]:
  """Returns {path: rank} of the kernels that links hold below their full rank.

  Args:
    opt_state: an optimizer state that has the links at any depth.
  """
  is_state = lambda node: isinstance(node, LowRankState)
  states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
  held = [
    (name, int(rank[0]), state.lowrank_basis[name].shape[-1])
    for state in states
    for name, rank in state.lowrank_ranks.items()
  ]
  return {name: rank for name, rank, full in held if rank < full}


def factors(kernel, rank: int):
  """Factors the nearest matrix of a rank: what is stored of a kernel.

  Returns:
    left [in, rank] and right [rank, out], float32, whose product is that matrix.
  """
  left, values, right = np.linalg.svd(np.asarray(kernel, np.float64), full_matrices=False)
  root = np.sqrt(values[:rank])
  return np.float32(left[:, :rank] * root), np.float32(root[:, None] * right[:rank])


def numbers(params, held: dict[str, int]) -> int:
  """Counts the numbers to store.

  Args:
    params: any tree.
    held: {path: rank}, see `ranks`; of these kernels the two factors are stored, of other leaves
      all entries.
  """
  return sum(
    held[name] * sum(w.shape) if name in held else int(np.prod(np.shape(w)))
    for name, w in named_leaves(params).items()
  )


def _power_step(kernel, rank, basis):
  """One step of block power iteration: the kernel on the range of its product with `basis`."""
  kept = jnp.arange(basis.shape[1]) < rank
  left = lapack.orthonormal(kernel @ basis)
  left = jnp.where(kept[None], left, 0)  # QR gives a zero column an arbitrary direction
  rows = left.T @ kernel
  right = lapack.orthonormal(rows.T)
  return left @ rows, jnp.where(kept[None], right, 0)


_ACTS = (
  lambda kernel, rank, basis: (kernel, placement.varying_as(basis, kernel)),
  lambda kernel, rank, basis: truncated(kernel, rank),
  _power_step,
)


def _chosen(params, where, rows):
  """The layouts of all leaves, and {path: matrix [in, out]} of the chosen ones."""
  leaves = named_leaves(select(params, where, origin='low_rank'))
  layouts = kernel_layout.layouts(params, rows, pruned=leaves)
  chosen = {}
  for name, w in leaves.items():
    if is_hole(w):
      continue
    if sorted(set(kernel_layout.axes_of(layouts, name, 'low_rank'))) != ['in', 'out']:
      raise ValueError(
        f'low_rank: {name!r} has shape {tuple(w.shape)}; only a kernel [in, out] has a rank: leave'
        ' the leaf out with where='
      )
    chosen[name] = kernel_layout.to_matrix(w, layouts[name])
  return layouts, chosen

"""Low rank as a rival of pruning at equal bytes: a link that keeps kernels at the rank which as many numbers pay for.

A kernel [in, out] of rank r is two factors of r (in + out) numbers; `rank_for` says which r the non-zeros of a pruned
kernel would buy. Like a pruning link it is the last of its chain and acts by its update.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunejax.pruning import schedules
from prunejax.pruning.selection import counts
from prunejax.pruning.types import is_hole, named_leaves, select


class LowRankState(NamedTuple):
  """Steps taken (int32), and for each chosen kernel the rank it is held at (int32 [1]) and a basis of its rows (float32
  [out, min(in, out)], columns from the rank on 0), by path. A rank of min(in, out) is a kernel as it is.
  """

  lowrank_count: Any
  lowrank_ranks: dict
  lowrank_basis: dict


def rank_for(shape, sparsity):
  """The largest rank at which r (in + out) numbers are no more than the non-zeros kept of [in, out] at `sparsity`.

  At sparsity 0 it is min(in, out): the kernel as it is. `sparsity` may be traced; the result is an int32 scalar.
  """
  rows, columns = shape
  kept = counts.narrow(counts.kept(rows * columns, sparsity))
  full = min(rows, columns)
  return jnp.where(
    jnp.asarray(sparsity) > 0, jnp.minimum(kept // (rows + columns), full), full
  ).astype(jnp.int32)


def truncated(kernel, rank):
  """(the nearest matrix of that rank, basis of its rows [out, min(in, out)]): Eckart & Young, 1936. `rank` may be
  traced.
  """
  left, values, right = jnp.linalg.svd(kernel.astype(jnp.float32), full_matrices=False)
  kept = jnp.arange(values.size) < rank
  return (left * jnp.where(kept, values, 0)) @ right, jnp.where(kept, right.T, 0)


def low_rank(
  schedule,
  when=schedules.every(1),  # noqa: B008 (a pure function)
  *,
  where='.*',
) -> optax.GradientTransformationExtraArgs:
  """A last link that brings kernels to the rank `rank_for(shape, schedule(step))` and holds them there.

  If `when(step)`, or step is the schedule's `end`, w + update becomes its truncated singular value decomposition. At
  the other steps it is brought back to its rank by one step of block power iteration from the basis it had (Halko et
  al., 2011, without the random start): two thin QR decompositions. Ranks are data: one program for any sparsity.
  `where`: as in `prune_transform`; ValueError for a leaf that is not 2-D.
  """
  end = schedules._forced_step('low_rank', schedule, when)

  def init(params):
    chosen = _chosen(params, where)
    ranks = {name: jnp.full((1,), min(w.shape), jnp.int32) for name, w in chosen.items()}
    basis = {name: jnp.zeros((w.shape[1], min(w.shape)), jnp.float32) for name, w in chosen.items()}
    return LowRankState(jnp.zeros([], jnp.int32), ranks, basis)

  def update(updates, state, params=None, **extra):
    del extra
    if params is None:
      raise ValueError(
        'low_rank: tx.update needs params, as in tx.update(grads, opt_state, params)'
      )
    step, treedef = state.lowrank_count, jax.tree.structure(params)
    due = when(step) if end is None else when(step) | (step == end)
    moves = dict(zip(named_leaves(params), treedef.flatten_up_to(updates), strict=True))
    ranks, basis = {}, {}
    for name, w in _chosen(params, where).items():
      both = jnp.promote_types(w.dtype, moves[name].dtype)
      target = w.astype(jnp.float32) + moves[name].astype(jnp.float32)
      before = state.lowrank_ranks[name][0]
      asked = jnp.where(due, jnp.minimum(rank_for(w.shape, schedule(step)), before), before)
      act = jnp.where(asked >= min(w.shape), 0, jnp.where(due, 1, 2))
      now, basis[name] = jax.lax.switch(act, _ACTS, target, asked, state.lowrank_basis[name])
      moves[name] = jnp.where(
        act == 0, moves[name].astype(both), (now - w.astype(jnp.float32)).astype(both)
      )
      ranks[name] = asked[None]
    return treedef.unflatten(moves.values()), LowRankState(optax.safe_increment(step), ranks, basis)

  return optax.GradientTransformationExtraArgs(init, update)


def _held(kernel, rank, basis):
  """One step of block power iteration: the kernel on the range of what it makes of `basis`."""
  kept = jnp.arange(basis.shape[1]) < rank
  left, _ = jnp.linalg.qr(kernel @ basis)
  left = jnp.where(kept, left, 0)  # columns of 0 have a direction by chance
  rows = left.T @ kernel
  right, _ = jnp.linalg.qr(rows.T)
  return left @ rows, jnp.where(kept, right, 0)


_ACTS = (
  lambda kernel, rank, basis: (kernel, basis),
  lambda kernel, rank, basis: truncated(kernel, rank),
  _held,
)


def _chosen(params, where):
  chosen = {
    name: w
    for name, w in named_leaves(select(params, where, origin='low_rank')).items()
    if not is_hole(w)
  }
  for name, w in chosen.items():
    if len(w.shape) != 2:
      raise ValueError(
        f'low_rank: {name!r} has shape {tuple(w.shape)}; only a kernel [in, out] has a rank: see where='
      )
  return chosen


def ranks(opt_state) -> dict:
  """{path: rank} of the kernels that links of an optimizer state, at any depth, hold below their full rank."""
  is_state = lambda node: isinstance(node, LowRankState)
  found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]
  held = [
    (name, int(rank[0]), state.lowrank_basis[name].shape[-1])
    for state in found
    for name, rank in state.lowrank_ranks.items()
  ]
  return {name: rank for name, rank, full in held if rank < full}


def factors(kernel, rank: int):
  """(left [in, rank], right [rank, out]) float32 whose product is the nearest matrix of that rank: what is stored."""
  left, values, right = np.linalg.svd(np.asarray(kernel, np.float64), full_matrices=False)
  root = np.sqrt(values[:rank])
  return np.float32(left[:, :rank] * root), np.float32(root[:, None] * right[:rank])


def numbers(params, held: dict) -> int:
  """Numbers to store: of a kernel in `held` ({path: rank}, see `ranks`) its two factors, of any other leaf all."""
  return sum(
    held[name] * sum(w.shape) if name in held else int(np.prod(np.shape(w)))
    for name, w in named_leaves(params).items()
  )

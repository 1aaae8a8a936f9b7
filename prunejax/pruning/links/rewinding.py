"""Back to early weights: the rounds of the lottery-ticket hypothesis as one chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.links.fresh_moments import _gone
from prunejax.pruning.types import named_leaves


class RewindState(NamedTuple):
  """Steps taken (int32), the weights and the optimizer's state to go back to, the optimizer's state, and the states of
  the pruning links.
  """

  rewind_count: Any
  rewind_params: Any
  rewind_state: Any
  rewind_inner: Any
  rewind_links: Any


def rewind(
  inner: optax.GradientTransformation, *links, when, to: int = 0
) -> optax.GradientTransformationExtraArgs:
  """`optax.chain(inner, *links)`, the links being those that prune, in which at steps t with `when(t)` everything that
  is not pruned goes back to what it was before step `to` (Frankle & Carbin, 2019; Frankle et al., 2020).

  Weights, biases, `inner`'s moments and its count, hence its learning-rate schedule, are set back; masks stay. The move
  takes two steps, since p + (early - p) would be off by a rounding: in step t, in which the masks move on the trained
  weights, all weights land on 0, and in step t + 1 on 0 + early, bit for bit, pruned ones staying at 0. Neither step
  trains, nor may masks move in the second. Steps up to `to` never rewind. ValueError for `to` below 0.
  """
  if to < 0:
    raise ValueError(f'rewind: to={to!r} must be a step, at least 0')
  inner = optax.with_extra_args_support(inner)
  pruning = optax.chain(*links)
  due = lambda t: when(t) & (t > to)

  def init(params):
    # A copy: a train step that gives its state away cannot give one buffer twice.
    return RewindState(
      jnp.zeros([], jnp.int32),
      jax.tree.map(jnp.copy, params),
      inner.init(params),
      inner.init(params),
      pruning.init(params),
    )

  def update(updates, state, params=None, **extra):
    if params is None:
      raise ValueError('rewind: tx.update needs params')
    t = state.rewind_count
    early, start = state.rewind_params, state.rewind_state
    if to:  # what init saw is not yet what is wanted
      now = lambda new, old: jax.tree.map(lambda a, b: jnp.where(t == to, a, b), new, old)
      early, start = now(params, early), now(state.rewind_inner, start)
    out, trained = inner.update(updates, state.rewind_inner, params, **extra)
    out, pruned = pruning.update(out, state.rewind_links, params, **extra)
    leaves, back = due(t), (t > 0) & due(t - 1)
    gone, landed = _gone(pruned), []
    treedef = jax.tree.structure(params)
    for (name, p), u, e in zip(
      named_leaves(params).items(), treedef.flatten_up_to(out), jax.tree.leaves(early), strict=True
    ):
      survivor = jnp.where(gone[name], jnp.zeros_like(e), e) if name in gone else e
      dtype = jnp.promote_types(u.dtype, p.dtype)
      landed.append(
        jnp.where(
          leaves, -p.astype(dtype), jnp.where(back, survivor.astype(dtype), u.astype(dtype))
        )
      )
    trained = jax.tree.map(lambda a, b: jnp.where(back, a, b), start, trained)
    return treedef.unflatten(landed), RewindState(
      optax.safe_increment(t), early, start, trained, pruned
    )

  return optax.GradientTransformationExtraArgs(init, update)

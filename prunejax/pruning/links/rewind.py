"""Back to early weights: the rounds of the lottery-ticket hypothesis as one chain."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.dtypes import wider
from prunejax.pruning.paths import named_leaves
from prunejax.pruning.state import removed_weights


class RewindState(NamedTuple):
  """The state of `rewind`.

  Attributes:
    rewind_count: steps taken, int32.
    rewind_params: the weights to go back to.
    rewind_state: the state of the optimizer to go back to.
    rewind_inner: the state of the optimizer.
    rewind_links: the states of the pruning links.
  """

  rewind_count: Any
  rewind_params: Any
  rewind_state: Any
  rewind_inner: Any
  rewind_links: Any


def rewind(
  inner: optax.GradientTransformation, *links, when: Callable, to: int = 0
) -> optax.GradientTransformationExtraArgs:
  """Makes a chain that sets everything that is not pruned back to its value before step `to`.

  Frankle & Carbin (2019); Frankle et al. (2020). Weights, biases, the moments of `inner` and its
  count, hence its learning-rate schedule, are set back; masks stay.

  Going back takes two steps, since p + (early - p) would be off by a rounding. In step t masks move
  on the trained weights, and all weights land on 0. In step t + 1 they land on 0 + early, bit for
  bit, while pruned weights stay at 0. Neither step trains, and masks may not move in the second.
  Steps up to `to` never go back.

  Args:
    inner: the optimizer.
    *links: the links that prune.
    when: step -> go back at this step?
    to: the step whose weights are restored.

  Raises:
    ValueError: `to` is negative.
  """
  if to < 0:
    raise ValueError(f'rewind: to={to!r} must be a step, at least 0')
  inner = optax.with_extra_args_support(inner)
  pruning = optax.chain(*links)
  due = lambda t: when(t) & (t > to)

  def init(params):
    # A copy: a train step that donates its state cannot donate one buffer twice.
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
    if to:  # `init` saw weights that are earlier than step `to`
      at_to = lambda new, old: jax.tree.map(lambda a, b: jnp.where(t == to, a, b), new, old)
      early, start = at_to(params, early), at_to(state.rewind_inner, start)
    out, trained = inner.update(updates, state.rewind_inner, params, **extra)
    out, pruned = pruning.update(out, state.rewind_links, params, **extra)
    to_zero, to_early = due(t), (t > 0) & due(t - 1)
    removed, landed = removed_weights(pruned), []
    treedef = jax.tree.structure(params)
    for (name, p), u, e in zip(
      named_leaves(params).items(), treedef.flatten_up_to(out), jax.tree.leaves(early), strict=True
    ):
      survivor = jnp.where(removed[name], jnp.zeros_like(e), e) if name in removed else e
      dtype = wider(u.dtype, p.dtype)
      update = jnp.where(to_early, survivor.astype(dtype), u.astype(dtype))
      # A NaN says that the masks of this leaf rest on one, and must not be lost.
      landed.append(jnp.where(to_zero & ~jnp.isnan(update), -p.astype(dtype), update))
    trained = jax.tree.map(lambda a, b: jnp.where(to_early, a, b), start, trained)
    step = optax.safe_increment(t)
    return treedef.unflatten(landed), RewindState(step, early, start, trained, pruned)

  return optax.GradientTransformationExtraArgs(init, update)

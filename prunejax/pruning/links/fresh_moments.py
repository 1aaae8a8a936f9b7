"""Weights that come back start anew: the optimizer forgets what it knew of them.

`optax.tree.map_params` identifies the per-parameter state of an optimizer, so any optimizer works.
"""

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.paths import is_hole, named_leaves
from prunejax.pruning.state import PruneState, removed_weights


def reset_moments(tx: optax.GradientTransformation, opt_state, params, revived):
  """Resets the optimizer's state of some weights to what `tx.init(params)` makes.

  State of another shape than its leaf (Adafactor's row and column means), step counts,
  hyperparameters and the states of pruning links stay.

  Args:
    tx: the optimizer.
    opt_state: its state.
    params: the parameters.
    revived: bool, shaped like params; True = the weight has just come back.

  Returns:
    The new state.

  Raises:
    ValueError: `optax.tree.map_params` cannot read the state of this optimizer (`optax.lbfgs`).
  """
  mark = lambda part, back: part if is_hole(part) else jnp.asarray(back)
  try:
    marks = optax.tree.map_params(
      tx, mark, opt_state, revived, transform_non_params=lambda part: False, is_leaf=is_hole
    )
  except (IndexError, TypeError, AttributeError) as error:
    raise ValueError(
      f'reset_moments: optax.tree.map_params cannot read the state of this optimizer ({error});'
      ' leave it out of the chain that is reset'
    ) from error

  def renewed(part, new, back):
    if back is False or isinstance(part, PruneState) or jnp.shape(part) != jnp.shape(back):
      return part
    return jnp.where(back, jnp.asarray(new, part.dtype), part)

  is_state = lambda node: isinstance(node, PruneState)
  return jax.tree.map(renewed, opt_state, tx.init(params), marks, is_leaf=is_state)


def with_fresh_moments(
  inner: optax.GradientTransformation, *links
) -> optax.GradientTransformationExtraArgs:
  """Makes `optax.chain(inner, *links)` in which a weight that comes back starts anew.

  In the step in which a mask turns from False to True the weight stays at 0.0, and what `inner`
  remembers of it becomes what `inner.init` makes (`reset_moments`). From the next step on it is
  trained as a new weight. Under a link with `zero_pruned=False` weights are never removed, so
  nothing is reset there.

  Args:
    inner: the optimizer.
    *links: the links that prune.
  """
  whole = optax.chain(inner, *links)
  inner = optax.with_extra_args_support(inner)
  pruning = optax.chain(*links)

  def update(updates, state, params=None, **extra):
    updates, inner_state = inner.update(updates, state[0], params, **extra)
    updates, link_states = pruning.update(updates, state[1:], params, **extra)
    before, after = removed_weights(state[1:]), removed_weights(link_states)
    treedef = jax.tree.structure(params)
    revived, out = [], []
    for name, update in zip(named_leaves(params), treedef.flatten_up_to(updates), strict=True):
      back = before[name] & ~after[name] if name in before else jnp.zeros((), bool)
      revived.append(back)
      out.append(jnp.where(back, jnp.zeros_like(update), update) if name in before else update)
    inner_state = reset_moments(inner, inner_state, params, treedef.unflatten(revived))
    return treedef.unflatten(out), (inner_state, *link_states)

  return optax.GradientTransformationExtraArgs(whole.init, update)

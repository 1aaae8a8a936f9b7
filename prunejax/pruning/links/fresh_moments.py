"""Weights that come back: what an optimizer remembers of them is of the weight that was removed, and is made new.

Which parts of an optimizer's state belong to single weights is asked of `optax.tree.map_params`, so that it holds for
any optimizer; none is known here by name.
"""

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.state import LatentPruneState, PruneState, prune_states
from prunejax.pruning.types import is_hole, named_leaves


def reset_moments(tx: optax.GradientTransformation, opt_state, params, revived):
  """`opt_state` of `tx` with everything that belongs to a weight in `revived` as `tx.init(params)` makes it.

  `revived` is a tree of booleans shaped like `params` (True = has just come back). State of another shape than its
  leaf (Adafactor's row and column means), step counts, hyperparameters and the states of pruning links stay. ValueError
  for an optimizer of which `optax.tree.map_params` cannot tell what belongs to a weight (`optax.lbfgs`).
  """
  mark = lambda part, back: part if is_hole(part) else jnp.asarray(back)
  try:
    marks = optax.tree.map_params(
      tx, mark, opt_state, revived, transform_non_params=lambda part: False, is_leaf=is_hole
    )
  except (IndexError, TypeError, AttributeError) as error:
    raise ValueError(
      f'reset_moments: optax.tree.map_params cannot read the state of this optimizer ({error}); leave it out of the'
      ' chain that is reset'
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
  """`optax.chain(inner, *links)`, the links being those that prune, in which a weight that comes back starts anew.

  In the step in which a mask turns from False to True the weight stays at 0.0, and what `inner` remembers of it becomes
  what `inner.init` makes (`reset_moments`): from the next step on it is trained as a new weight. Under a link with
  `zero_pruned=False` weights are never gone, so there nothing is reset.
  """
  whole = optax.chain(inner, *links)
  inner = optax.with_extra_args_support(inner)
  pruning = optax.chain(*links)

  def update(updates, state, params=None, **extra):
    updates, first = inner.update(updates, state[0], params, **extra)
    updates, last = pruning.update(updates, state[1:], params, **extra)
    gone, still = _gone(state[1:]), _gone(last)
    treedef = jax.tree.structure(params)
    revived, out = [], []
    for name, update in zip(named_leaves(params), treedef.flatten_up_to(updates), strict=True):
      back = gone[name] & ~still[name] if name in gone else jnp.zeros((), bool)
      revived.append(back)
      out.append(jnp.where(back, jnp.zeros_like(update), update) if name in gone else update)
    first = reset_moments(inner, first, params, treedef.unflatten(revived))
    return treedef.unflatten(out), (first, *last)

  return optax.GradientTransformationExtraArgs(whole.init, update)


def _gone(opt_state) -> dict:
  """{path: True where a weight is removed}, of the leaves that some link sets to zero."""
  found = {}
  for state in prune_states(opt_state):
    if not isinstance(state, LatentPruneState):
      for name, mask in named_leaves(state.prune_mask).items():
        found[name] = found[name] | ~mask if name in found else ~mask
  return found

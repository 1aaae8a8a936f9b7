"""The extra arguments of an update that are functions of the parameters, as a criterion may call them."""

import jax

from prunejax.pruning.types import is_hole, named_leaves, path_name

FUNCTIONS = ('value_fn', 'activations', 'examples', 'outputs')


def completed(extra: dict, chosen, params) -> dict:
  """`extra` with its functions of the parameters as functions of `chosen`, the leaves that a link prunes and the only
  ones that its criterion sees; all others are as they are in `params`.
  """
  if any(is_hole(leaf) for leaf in jax.tree.leaves(params, is_leaf=is_hole)):
    return {
      name: _hidden(name, value) if name in FUNCTIONS else value for name, value in extra.items()
    }
  holes = [is_hole(leaf) for leaf in jax.tree.leaves(chosen, is_leaf=is_hole)]
  if not any(holes):
    return extra
  weights, treedef = jax.tree.flatten(params, is_leaf=is_hole)

  def whole(tree):
    given = iter(jax.tree.leaves(tree))
    return treedef.unflatten(
      [w if hole else next(given) for hole, w in zip(holes, weights, strict=True)]
    )

  out = dict(extra)
  for name in ('value_fn', 'activations'):
    if (f := extra.get(name)) is not None:
      out[name] = lambda tree, *args, f=f, **kwargs: f(whole(tree), *args, **kwargs)
  for name in ('examples', 'outputs'):
    if extra.get(name) is not None:
      count, f = extra[name]
      out[name] = count, lambda tree, i, f=f: f(whole(tree), i)
  return out


def _hidden(name, value):
  """A function of parameters of which this link sees a part: an error where a criterion calls it, nothing else."""

  def call(*args, **kwargs):
    raise ValueError(
      f'{name}= is a function of all parameters, and optax.masked or optax.partition hides some from this link: leave'
      ' them away, and choose the leaves with where= of prune_transform'
    )

  return value if value is None else (value[0], call) if isinstance(value, tuple) else call


def aligned(grad, chosen):
  """`grad` (any tree that has the chosen leaves) shaped like `chosen`, or None."""
  if grad is None:
    return None
  given = named_leaves(grad)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(chosen)
  missing = [path_name(path) for path, _ in leaves if path_name(path) not in given]
  if missing:
    raise ValueError(
      f'grad= has no leaf {missing[0]!r}; it must be shaped like params (it has {list(given)[:6]})'
    )
  return treedef.unflatten([given[path_name(path)] for path, _ in leaves])


def required(extra, name, who, what):
  """An extra argument of tx.update. Raises ValueError that says who asks for it, and for what."""
  if extra.get(name) is None:
    raise ValueError(f'{who} needs {what}: call tx.update(grads, opt_state, params, {name}=...)')
  return extra[name]

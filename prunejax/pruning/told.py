"""The extra arguments of `tx.update` as a criterion takes them: for the leaves that its link prunes, and no others."""

import jax

from prunejax.pruning.types import is_hole, named_leaves, path_name


def aligned(grad, chosen):
  """`grad` (any tree that has the chosen leaves) shaped like `chosen`, or None."""
  if grad is None:
    return None
  given = named_leaves(grad)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(chosen)
  missing = [path_name(path) for path, _ in leaves if path_name(path) not in given]
  if missing:
    raise ValueError(f'grad= has no leaf {missing[0]!r}; it must be shaped like params (it has {list(given)[:6]})')
  return treedef.unflatten([given[path_name(path)] for path, _ in leaves])


def whole(extra, params) -> dict:
  """The extra arguments `value_fn`, `examples` and `activations` as functions of the chosen leaves alone: what a
  link does not prune is taken from `params`.
  """
  treedef, weights = jax.tree.structure(params), jax.tree.leaves(params)

  def filled(fn):
    def of_chosen(chosen, *args, **kwargs):
      leaves = zip(treedef.flatten_up_to(chosen), weights, strict=True)
      return fn(treedef.unflatten([w if is_hole(leaf) else leaf for leaf, w in leaves]), *args, **kwargs)

    return of_chosen

  given = {name: filled(extra[name]) for name in ('value_fn', 'activations') if extra.get(name) is not None}
  if extra.get('examples') is not None:
    count, loss = extra['examples']
    given['examples'] = count, filled(loss)
  return {**extra, **given}

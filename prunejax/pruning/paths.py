"""Names of leaves: one namer and one matcher of leaf paths for the whole project.

A leaf's path is written 'encoder/layer_0/kernel', whatever kind of pytree holds the leaf. Pruning,
sharding rules and configs all choose leaves by regexes on such paths.
"""

import collections
import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def path_name(path) -> str:
  """Returns 'a/b/c' for a key path of `jax.tree_util`.

  The box that Flax NNX puts around an array (an attribute called `value`) is no level of its own.
  """
  keys = [_key_name(key) for key in path]
  if len(keys) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and keys[-1] == 'value':
    keys = keys[:-1]
  return '/'.join(keys)


def named_leaves(tree, is_leaf=None) -> dict[str, Any]:
  """Returns the leaves of any pytree as {path: leaf}, in the tree's own order."""
  leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
  return {path_name(path): leaf for path, leaf in leaves}


def with_leaves(tree, leaves: dict[str, Any]):
  """Returns a tree of the structure of `tree` with the leaves given by path."""
  return jax.tree.unflatten(jax.tree.structure(tree), [leaves[name] for name in named_leaves(tree)])


def check_distinct(tree, origin: str):
  """Raises ValueError, which begins with `origin`, if two leaves of a pytree have one path."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  names = sorted(path_name(path) for path, _ in leaves)
  for name, following in itertools.pairwise(names):
    if name == following:
      raise ValueError(
        f'{origin}: two leaves of the tree have the path {name!r} and cannot be told apart'
      )


def is_hole(node) -> bool:
  """Returns True for `optax.MaskedNode`, which stands where a link does not prune."""
  return isinstance(node, optax.MaskedNode)


def is_prunable(leaf) -> bool:
  """Returns True for floating-point arrays or their shapes.

  Integers, random keys and Python scalars are never pruned.
  """
  return (
    hasattr(leaf, 'shape') and hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def compiled(pattern: str, origin: str) -> re.Pattern:
  """Compiles a regex.

  Args:
    pattern: the regex.
    origin: the argument or config key that it came from, for the error.

  Raises:
    ValueError: `pattern` is no regular expression.
  """
  try:
    return re.compile(pattern)
  except (re.error, TypeError) as error:
    raise ValueError(f'{origin}={pattern!r} is not a regular expression: {error}') from None


def matches(where, origin: str = 'where') -> Callable[[str, Any], bool]:
  """Returns a predicate of (path, leaf).

  Args:
    where: a regex that must match the whole path, or such a predicate already.
    origin: the argument or config key that `where` came from, for the error.
  """
  if callable(where):
    return where
  pattern = compiled(where, origin)

  def matches_path(name: str, leaf: Any = None) -> bool:
    return pattern.fullmatch(name) is not None

  return matches_path


def matches_end(pattern: str, origin: str) -> Callable[[str], bool]:
  """Returns a predicate that is true for a path whose last levels match the regex `pattern`.

  Moments and masks repeat the path of their weight at the end of a longer path, so one rule places
  all of them alike.
  """
  compiled(pattern, origin)
  ending = re.compile(f'(?:^|/)(?:{pattern})$')
  return lambda name: ending.search(name) is not None


def first_match(name: str, patterns: list[re.Pattern]) -> int | None:
  """Returns the index of the first regex that matches the whole path, or None."""
  return next((row for row, p in enumerate(patterns) if p.fullmatch(name)), None)


def select(tree, where, *, origin: str):
  """Puts `optax.MaskedNode` in the place of every leaf that is not chosen.

  Args:
    tree: any pytree of arrays or shapes.
    where: see `matches`. Leaves that are not floating-point are never chosen.
    origin: the name of the caller, for errors.

  Raises:
    ValueError: no leaf is chosen, or two leaves have one path.
  """
  chosen = matches(where)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
  check_distinct(tree, origin)
  _check_boxes([path for path, _ in leaves], origin)
  kept = [
    leaf if is_prunable(leaf) and chosen(path_name(path), leaf) else optax.MaskedNode()
    for path, leaf in leaves
  ]
  if leaves and all(is_hole(leaf) for leaf in kept):
    names = [path_name(path) for path, leaf in leaves if is_prunable(leaf)]
    more = f' and {len(names) - 6} more' if len(names) > 6 else ''
    shown = ', '.join(map(repr, names[:6])) + more
    raise ValueError(
      f'{origin}: where={where!r} matches no floating-point leaf; it must match a whole path '
      f'such as {shown or "(none here)"}'
    )
  return jax.tree.unflatten(treedef, kept)


def _key_name(key) -> str:
  for field in ('key', 'name', 'idx'):
    if hasattr(key, field):
      return str(getattr(key, field))
  return str(key)


def _check_boxes(paths, origin: str):
  """Refuses an array in an attribute called `value` that has neighbours.

  An NNX box holds nothing else, so such an attribute would lose its name in the path.
  """
  inside = collections.Counter(path[:i] for path in paths for i in range(len(path)))
  for path in paths:
    is_box = len(path) > 1 and path_name(path) == path_name(path[:-1])
    if is_box and inside[path[:-1]] > 1:
      raise ValueError(
        f'{origin}: {jax.tree_util.keystr(path)} is an array in an attribute called value beside'
        ' others, which cannot be told from the box that nnx puts around an array: give it another'
        ' name, or hold it in a dict'
      )

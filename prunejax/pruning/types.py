"""The four kinds of value that a pruning method is made of, and how leaves are named.

`prune_transform` is the product of a criterion, a schedule, an allocation and a structure. A
criterion sees pytrees shaped like `params` (with `optax.MaskedNode` where nothing is pruned);
everything after it sees flat dicts from a leaf's path to an array.
"""

import collections
import itertools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prunejax.pruning.selection.groups import Scores


class Criterion(NamedTuple):
  """How much does each weight matter? Higher scores are kept.

  `init(params) -> state`, `update(state, params, *, grad, step, **extra) -> state` at every step,
  and `score(state, params, *, grad, step, **extra) -> scores` only when masks move. `grad` is None
  when the caller gave none. `update` and `score` also get `masks`, those so far (shaped like params,
  True = kept), from `prune_transform`, and, where leaves hold one layer in each slice of axis 0, their
  names as `stacked`.

  `compensate(state, params, masks, *, grad, step, **extra) -> changes`, if given, is asked when masks
  have just moved: what is added to each surviving weight to make up for those that went (Optimal
  Brain Surgeon and its heirs), a tree shaped like params.

  `prepare(state, params, *, grad, step, **extra) -> ready`, if given, is asked once when masks move, and
  `score` and `compensate` get `ready` in the place of the state: what is costly and serves both.

  Other extra arguments of `tx.update` reach all of them by name. Those that cost something to make are
  functions, called only where they are needed, inside the `cond` in which masks move:
  `value_fn(params) -> scalar`, the loss (optax's own name); `examples`, a pair (n, loss(params, i) ->
  scalar), the loss of example i alone; `outputs`, a pair (n, f(params, i) -> [outputs]), what the model says of it
  where the loss is half a mean squared error; `activations(params) -> {path: [rows, in]}`, what went into each
  kernel [in, out]. They take `params` as the criterion sees it; `prune_transform` fills in the leaves that it does not
  prune. `train.observe` makes all of them of a Flax model.
  """

  init: Callable[[Any], Any]
  update: Callable[..., Any]
  score: Callable[..., Any]
  compensate: Callable[..., Any] | None = None
  prepare: Callable[..., Any] | None = None


class Structure(NamedTuple):
  """Which weights go together: `pool({path: scores}) -> {name: unit scores}` and `expand({name:
  units kept}, {path: scores}) -> {path: mask}`.

  `cost` is the fraction of a unit's weights that go when the unit is pruned: 1, or (m - n) / m for
  n:m. With `single` every weight is a unit, and scores need not be stored to be pooled.

  Names are paths, unless `members({path: shape}) -> {name: (paths, shape)}` is given, for units that lie in several
  leaves: then it says in which, and the shape that all of them have as one matrix of a column a unit.
  """

  pool: Callable[[dict[str, jax.Array]], dict[str, jax.Array]]
  expand: Callable[[dict[str, jax.Array], dict[str, jax.Array]], dict[str, jax.Array]]
  cost: float = 1.0
  single: bool = False
  members: Callable[[dict[str, tuple]], dict[str, tuple]] | None = None


class Part(NamedTuple):
  """What is thresholded alone: a leaf, or one slice (`index`) of a leaf that stacks layers on axis 0.

  `size` is its number of units, `shape` that of its weights.
  """

  name: str
  index: int | None
  size: int
  shape: tuple[int, ...]


class Units(NamedTuple):
  """What an allocation shares out: scores of units by name (`again` reads them without storing
  them), the shapes of their weights by name, the structure's `cost`, and the names whose
  slices along axis 0 are parts of their own.
  """

  scores: dict[str, jax.Array]
  again: Scores
  shapes: dict[str, tuple[int, ...]]
  cost: float = 1.0

  def parts(self) -> list[Part]:
    found = []
    for name, score in self.scores.items():
      shape = tuple(self.shapes[name])
      if name in self.again.stacked:
        found += [
          Part(name, i, math.prod(score.shape[1:]), shape[1:]) for i in range(score.shape[0])
        ]
      else:
        found.append(Part(name, None, score.size, shape))
    return found

  def by_name(self, values) -> dict[str, jax.Array]:
    """A vector over parts as {name: scalar, or a vector over the slices of a stacked leaf}."""
    out, at = {}, 0
    for name, score in self.scores.items():
      count = score.shape[0] if name in self.again.stacked else 1
      out[name] = values[at : at + count] if name in self.again.stacked else values[at]
      at += count
    return out


class Allocation(NamedTuple):
  """Who pays: `keep(units, sparsity) -> {name: int32 number of units kept}` (a vector over the slices
  of a stacked leaf); `sparsity` is a float32 scalar, maybe traced.

  `find(units, blocks, sparsity) -> selection.Found`, if given, is asked instead for the masks: an
  allocation that meets the thresholds on its way need not have them searched again.

  `choose(units, sparsity) -> {name: bool units kept}`, if given, is asked instead of any threshold: an
  allocation whose groups are finer than a leaf.

  `init(list of Part) -> memory` and `remember(units, sparsity, memory) -> (as keep, memory)`, if given, are
  for one that depends on what it decided before: `remember` is asked at every move of the masks, and
  `keep` is what it would say the first time.
  """

  keep: Callable[[Units, jax.Array], dict[str, jax.Array]]
  find: Callable[..., Any] | None = None
  init: Callable[[list[Part]], Any] | None = None
  remember: Callable[..., Any] | None = None
  choose: Callable[..., Any] | None = None


def _key_name(key) -> str:
  for field in ('key', 'name', 'idx'):
    if hasattr(key, field):
      return str(getattr(key, field))
  return str(key)


def path_name(path) -> str:
  """'a/b/c' for a key path of `jax.tree_util`; the box that nnx puts around an array does not count
  as a level.
  """
  keys = [_key_name(key) for key in path]
  if len(keys) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and keys[-1] == 'value':
    keys = keys[:-1]
  return '/'.join(keys)


def named_leaves(tree, is_leaf=None) -> dict[str, Any]:
  """The leaves of any pytree by path, in the tree's own order."""
  return {
    path_name(path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
  }


def is_hole(node) -> bool:
  """True for the place of a leaf that a link does not prune."""
  return isinstance(node, optax.MaskedNode)


def is_prunable(leaf) -> bool:
  """True for floating-point arrays (or their shapes); integers, keys and Python scalars are never
  pruned.
  """
  return (
    hasattr(leaf, 'shape') and hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def selects(where) -> Callable[[str, Any], bool]:
  """`where` as a predicate of (path, leaf): a regex that must match the whole path, or such a
  predicate already.
  """
  if callable(where):
    return where
  pattern = compiled(where, 'where')
  return lambda name, leaf: pattern.fullmatch(name) is not None


def compiled(pattern: str, origin: str) -> re.Pattern:
  """A compiled regex, or a ValueError that says whose it was."""
  try:
    return re.compile(pattern)
  except (re.error, TypeError) as error:
    raise ValueError(f'{origin}={pattern!r} is not a regular expression: {error}') from None


def _check_boxes(paths, origin):
  """A leaf in an attribute called `value` looks like the box of nnx, which holds nothing else."""
  inside = collections.Counter(path[:i] for path in paths for i in range(len(path)))
  for path in paths:
    box = len(path) > 1 and path_name(path) == path_name(path[:-1])
    if box and inside[path[:-1]] > 1:
      raise ValueError(
        f'{origin}: {jax.tree_util.keystr(path)} is an array in an attribute called value beside others, which cannot'
        ' be told from the box that nnx puts around an array: give it another name, or hold it in a dict'
      )


def select(tree, where, *, origin: str):
  """`tree` with `optax.MaskedNode` for every leaf that `where` leaves out; a ValueError when that
  is every leaf, or when two leaves have one path.
  """
  chosen = selects(where)
  leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
  if len(named_leaves(tree)) < len(leaves):
    names = sorted(path_name(path) for path, _ in leaves)
    twice = next(a for a, b in itertools.pairwise(names) if a == b)
    raise ValueError(
      f'{origin}: two leaves of the tree have the path {twice!r} and cannot be told apart'
    )
  _check_boxes([path for path, _ in leaves], origin)
  kept = [
    leaf if is_prunable(leaf) and chosen(path_name(path), leaf) else optax.MaskedNode()
    for path, leaf in leaves
  ]
  if leaves and all(is_hole(leaf) for leaf in kept):
    names = [path_name(path) for path, leaf in leaves if is_prunable(leaf)]
    shown = ', '.join(map(repr, names[:6])) + (
      f' and {len(names) - 6} more' if len(names) > 6 else ''
    )
    raise ValueError(
      f'{origin}: where={where!r} matches no floating-point leaf; it must match a whole path '
      f'such as {shown or "(none here)"}'
    )
  return treedef.unflatten(kept)

"""Stacked leaves, which hold one layer in each slice of axis 0, and the names of their layers.

A model that scans over its layers has such leaves. Where the names that the layers have in the
unrolled model are known, whatever goes by the name of a leaf is as it is there: `where`, the
classes of an allocation, random draws, and the order in which ties are broken.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prunejax.pruning.kernel_layout import Layout, Layouts
from prunejax.pruning.paths import compiled, matches, named_leaves

Rows = tuple[tuple[re.Pattern, str], ...]  # (regex of a stacked leaf, template of a layer or '')
Layers = Mapping[str, tuple[str, ...]]  # {path of a stacked leaf: its layers' names, or ()}


def parse(stacked: str | Mapping[str, str]) -> Rows:
  """Reads `stacked=` of `prune_transform`.

  Raises:
    ValueError: a regex is none, or a name of layers has no place for their number.
  """
  if not stacked:
    return ()
  if isinstance(stacked, str):
    return ((compiled(stacked, 'stacked'), ''),)
  for pattern, template in stacked.items():
    if '{}' not in template:
      raise ValueError(
        f'stacked={{{pattern!r}: {template!r}}}: expected the name of a layer with {{}} for its'
        " number, such as r'\\1/layer_{}/\\2'"
      )
  return tuple((compiled(pattern, 'stacked'), template) for pattern, template in stacked.items())


def is_stacked(rows: Rows, path: str) -> bool:
  """Returns True for the path of a stacked leaf."""
  return any(pattern.fullmatch(path) for pattern, _ in rows)


def layers_of(tree: Any, rows: Rows, origin: str = '') -> Layers:
  """Finds the stacked leaves of a tree.

  Args:
    tree: the parameters, or those that are pruned.
    rows: of `parse`.
    origin: the name of the caller, if all leaves have to be layers that can be pruned; '' for any.

  Raises:
    ValueError: a leaf without axes; a pruned leaf with less than two.
  """
  layers = {}
  for path, leaf in named_leaves(tree).items():
    if not (getattr(leaf, 'shape', ()) and is_stacked(rows, path)):
      continue
    if origin and len(leaf.shape) < 2:
      raise ValueError(
        f'{origin}: {path!r} has shape {tuple(leaf.shape)} and cannot be stacked layers'
      )
    layers[path] = _names(rows, path, leaf.shape[0])
  return layers


class ByLayer(NamedTuple):
  """A predicate of (path, leaf) that chooses a stacked leaf by the names of its layers.

  Attributes:
    where: as in `prune_transform`.
    rows: of `parse`.
  """

  where: Any
  rows: Rows

  def __call__(self, path: str, leaf: Any) -> bool:
    """Returns whether the leaf is chosen.

    Raises:
      ValueError: only some of its layers are.
    """
    chosen = matches(self.where)
    names = _names(self.rows, path, leaf.shape[0]) if getattr(leaf, 'shape', ()) else ()
    if not names:
      return chosen(path, leaf)
    layer = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    flags = [chosen(name, layer) for name in names]
    if any(flags) != all(flags):
      raise ValueError(
        f'where={self.where!r} chooses {names[flags.index(True)]!r} and not'
        f' {names[flags.index(False)]!r}: layers that are stacked are pruned together or not at all'
      )
    return all(flags)

  def __repr__(self) -> str:
    return repr(self.where)


def chooser(where: str | Callable, rows: Rows) -> Any:
  """Returns `where` for leaves that may be stacked."""
  return ByLayer(where, rows) if any(template for _, template in rows) else where


def split(leaves: Mapping[str, Any], layers: Layers) -> dict[str, Any]:
  """Returns {path: leaf} with every layer that has a name as a leaf of its own.

  They are in the order that the unrolled model has, if it is a tree of dicts.
  """
  if not any(layers.values()):
    return dict(leaves)
  out: dict[str, Any] = {}
  for path, leaf in leaves.items():
    names = layers.get(path, ())
    out |= {name: _layer(leaf, i) for i, name in enumerate(names)} if names else {path: leaf}
  return {path: out[path] for path in sorted(out, key=lambda path: path.split('/'))}


def join(leaves: Mapping[str, Any], layers: Layers, paths: Any, combine=jnp.stack) -> dict:
  """Returns what `split` was given, from leaves with the names of layers.

  Args:
    leaves: {path: array}.
    layers: as in `split`.
    paths: the paths of the result, in order.
    combine: list of the layers' arrays -> array of the stacked leaf.
  """
  return {
    path: combine([leaves[name] for name in layers[path]]) if layers.get(path) else leaves[path]
    for path in paths
  }


def split_layouts(layouts: Layouts, layers: Layers) -> dict[str, Layout]:
  """Returns layouts in which every layer that has a name is a leaf of its own."""
  out: dict[str, Layout] = {}
  for path, layout in layouts.items():
    inner = Layout(layout.axes and layout.axes[1:], tuple(layout.shape[1:]))
    out |= dict.fromkeys(layers[path], inner) if layers.get(path) else {path: layout}
  return out


def without_names(layers: Layers) -> frozenset[str]:
  """Returns the stacked leaves whose layers have no names."""
  return frozenset(path for path, names in layers.items() if not names)


def first_names(layers: Layers) -> dict[str, str]:
  """Returns {path of a stacked leaf: name of its first layer}."""
  return {path: names[0] for path, names in layers.items() if names}


def by_layer(draw: Callable, path: str, leaf: Any, stacked: Any) -> jax.Array:
  """Draws random numbers for a leaf as for its layers.

  Args:
    draw: (path, leaf) -> array shaped like the leaf.
    path: of the leaf.
    leaf: an array, stacked or not.
    stacked: the argument `stacked` of a criterion.
  """
  names = stacked.get(path, ()) if isinstance(stacked, Mapping) else ()
  if not names:
    return draw(path, leaf)
  return jnp.stack([draw(name, leaf[i]) for i, name in enumerate(names)])


def _names(rows, path, depth):
  for pattern, template in rows:
    if (match := pattern.fullmatch(path)) and template:
      return tuple(match.expand(template.replace('{}', str(i))) for i in range(depth))
  return ()


def _layer(leaf, i):
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
  return lax.index_in_dim(leaf, i, 0, keepdims=False)

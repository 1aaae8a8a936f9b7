"""Leaves of one kind: a function over many leaves is traced once for each kind, not for each leaf.

Leaves are of one kind if their shapes agree and their paths differ only in numbers
('layer_0/kernel', 'layer_7/kernel'). Sharding rules go by path, so such leaves lie on a mesh alike,
and stacking them moves nothing.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def kinds(arrays: dict, *more: dict) -> list[list[str]]:
  """Groups the names of a dict of arrays by kind, in order of first appearance.

  Args:
    arrays: {path: array}.
    *more: dicts with the same names; leaves of a kind have one shape in each of them.
  """
  groups: dict = {}
  for name in arrays:
    shapes = tuple(jnp.shape(table[name]) for table in (arrays, *more))
    groups.setdefault((re.sub(r'\d+', '#', name), shapes), []).append(name)
  return list(groups.values())


def stacked(arrays: dict, names: list[str], fn: Callable = lambda array: array) -> jax.Array:
  """Stacks `fn` of the named arrays, [len(names), *shape].

  Rows are written in place: a concatenation would copy twice on a CPU.
  """
  rows = [jnp.asarray(fn(arrays[name])) for name in names]
  out = jnp.broadcast_to(rows[0], (len(names), *rows[0].shape))
  for i, row in enumerate(rows[1:], 1):
    out = lax.dynamic_update_index_in_dim(out, row, i, 0)
  return out


def map_kinds(fn: Callable, *dicts: dict) -> dict:
  """Returns {name: fn(a[name], b[name], ...)} in the order of the first dict.

  `fn` is traced once for each kind of leaf.
  """
  out: dict = {}
  for names in kinds(*dicts):
    results = jax.vmap(fn)(*(stacked(arrays, names) for arrays in dicts))
    out.update(zip(names, results, strict=True))
  return {name: out[name] for name in dicts[0]}

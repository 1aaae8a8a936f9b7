"""Leaves of one kind handled as one array: a program for 12 layers is then as small as a program
for one.

Leaves are of one kind if their shapes agree and their paths differ only in numbers
('layer_0/kernel', 'layer_7/kernel'). Rules for sharding go by path, so such leaves lie on a mesh
alike and stacking them moves nothing.
"""

import re

import jax
import jax.numpy as jnp


def kinds(arrays: dict) -> list[list[str]]:
  """The names of a dict of arrays, gathered by kind, in order of first appearance."""
  found = {}
  for name, array in arrays.items():
    found.setdefault((re.sub(r'\d+', '#', name), jnp.shape(array)), []).append(name)
  return list(found.values())


def stacked(arrays: dict, names: list[str], fn=lambda array: array) -> jax.Array:
  """`fn` of each array, [len(names), *shape]; written in place, since a concatenation would copy
  twice on CPU.
  """
  rows = [jnp.asarray(fn(arrays[name])) for name in names]
  out = jnp.broadcast_to(rows[0], (len(names), *rows[0].shape))
  for i, row in enumerate(rows[1:], 1):
    out = jax.lax.dynamic_update_index_in_dim(out, row, i, 0)
  return out


def map_kinds(fn, *dicts: dict) -> dict:
  """`{name: fn(a[name], b[name], ...)}` in the order of the first dict, traced once for each kind
  of leaf.
  """
  out = {}
  for names in kinds(dicts[0]):
    results = jax.vmap(fn)(*(stacked(arrays, names) for arrays in dicts))
    out.update(zip(names, results, strict=True))
  return {name: out[name] for name in dicts[0]}

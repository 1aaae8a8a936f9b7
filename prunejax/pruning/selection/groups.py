"""Leaves as the blocks that selection counts: one problem a row, small leaves of one kind stacked.

Leaves are of one kind if their shapes agree and their paths differ only in numbers
('layer_0/kernel', 'layer_7/kernel'). Rules for sharding go by path, so such leaves lie on a mesh
alike and stacking them moves nothing. Small ones are stacked, so that a small model is a small
program; large ones are read where they lie, so that nothing is copied.
"""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import counts

# Leaves of at most this many scores are stacked by kind; in a small tree all are.
SMALL = 1 << 16
FEW = 1 << 22


class Scores(NamedTuple):
  """Scores that can be read again and again: `read(sources) -> {path: array}`, cheap and elementwise.

  What is read in a loop is computed there, from `sources`; scores handed over as plain arrays would
  have to be in memory. Leaves named in `stacked` hold one problem in each slice of axis 0.
  """

  read: Callable[[Any], dict]
  sources: Any
  stacked: frozenset = frozenset()


class Blocks(NamedTuple):
  """The problems of a selection: `read(sources)` gives uint32 keys, arrays [problems, *shape].

  `problems` holds (path, slice or None) in the order of the rows of all blocks, `shapes` each
  block's (rows, shape of a row), `kinds` a number for each block's kind, `paths` the leaves in their own
  order, and `arrange(arrays by path)` brings arrays that are shaped like the scores into blocks.
  """

  read: Callable[[Any], list]
  sources: Any
  problems: tuple
  shapes: tuple
  kinds: tuple
  paths: tuple
  arrange: Callable[[dict], list]

  def order(self) -> np.ndarray:
    """The place of each problem among all, leaf after leaf in their own order."""
    place = {path: i for i, path in enumerate(self.paths)}
    ranked = [(place[name], index or 0) for name, index in self.problems]
    return np.argsort(sorted(range(len(ranked)), key=ranked.__getitem__))

  def sizes(self) -> list[int]:
    return [math.prod(shape) for rows, shape in self.shapes for _ in range(rows)]


def plain(scores: dict, stacked=frozenset()) -> Scores:
  """Scores that are in memory anyway."""
  return Scores(lambda sources: sources, scores, frozenset(stacked))


def order_key(scores) -> jax.Array:
  """uint32 keys in the order of float32 scores: NaN lowest, then -inf .. -0.0 < 0.0 .. inf."""
  bits = lax.bitcast_convert_type(jnp.asarray(scores).astype(jnp.float32), jnp.uint32)
  key = jnp.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
  return jnp.where(bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000), np.uint32(0), key)


def blocks(scores: Scores) -> Blocks:
  """Raises ValueError for a leaf too large to be counted in int32."""
  shapes = {
    name: score.shape for name, score in jax.eval_shape(scores.read, scores.sources).items()
  }
  for name, shape in shapes.items():
    size = math.prod(shape[1:] if name in scores.stacked else shape)
    if size > counts.LARGEST_LEAF:
      raise ValueError(f'{name!r} has {size} units; a leaf may have {counts.LARGEST_LEAF}')
  some = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, shape in shapes.items()
    if math.prod(shape)
  }
  limit = FEW if sum(math.prod(shape) for shape in shapes.values()) <= FEW else SMALL
  small, large = [], []
  for names in kinds(some):
    lone = names[0] in scores.stacked or math.prod(shapes[names[0]]) > limit or len(names) == 1
    (large if lone else small).append(names)
  # Blocks of one kind stand together, so that what is learned of their rows can be stacked: they lie on a mesh alike.
  kind_of = {name: i for i, names in enumerate(small + large) for name in names}
  large = [name for names in large for name in names]

  def one(name, array):
    array = array if name in scores.stacked else array[None]
    return array[..., None] if array.ndim == 1 else array

  def many(arrays, names):
    found = stacked(arrays, names)
    return found[..., None] if found.ndim == 1 else found

  def arrange(arrays):
    return [many(arrays, names) for names in small] + [one(name, arrays[name]) for name in large]

  # Keys of small leaves are made once: stacking them anew at every pass would cost more than it saves.
  arrays = scores.read(scores.sources)
  fixed = [order_key(many(arrays, names)) for names in small]

  def read(sources):
    fixed, again = sources
    if not large:
      return list(fixed)
    arrays = scores.read(again)
    return list(fixed) + [order_key(one(name, arrays[name])) for name in large]

  problems = [(name, None) for names in small for name in names]
  which = [kind_of[names[0]] for names in small] + [kind_of[name] for name in large]
  rows = [(len(names), shapes[names[0]] or (1,)) for names in small]
  for name in large:
    deep = name in scores.stacked
    count, shape = (shapes[name][0], shapes[name][1:]) if deep else (1, shapes[name])
    problems += [(name, i if deep else None) for i in range(count)]
    rows.append((count, shape or (1,)))
  return Blocks(
    read,
    (fixed, scores.sources),
    tuple(problems),
    tuple(rows),
    tuple(which),
    tuple(shapes),
    arrange,
  )


def in_order(of: Blocks, values: dict) -> jax.Array:
  """A vector over problems from {path: scalar, or a vector over the slices of a stacked leaf}."""
  return jnp.stack([values[name] if i is None else values[name][i] for name, i in of.problems])


def by_name(of: Blocks, values, scores: Scores) -> dict:
  """{path: scalar or vector over slices} from a vector over problems; 0 for a leaf without units."""
  found = {}
  for row, (name, _) in enumerate(of.problems):
    found.setdefault(name, []).append(values[row])
  shapes = jax.eval_shape(scores.read, scores.sources)
  empty = lambda name: jnp.zeros(
    shapes[name].shape[:1] if name in scores.stacked else (), values.dtype
  )
  joined = lambda name: jnp.stack(found[name]) if name in scores.stacked else found[name][0]
  return {name: joined(name) if name in found else empty(name) for name in shapes}


def kinds(arrays: dict, *more: dict) -> list[list[str]]:
  """The names of a dict of arrays, gathered by kind, in order of first appearance. Those of a kind have one shape here,
  and one in each dict of `more`.
  """
  found = {}
  for name in arrays:
    shapes = tuple(jnp.shape(of[name]) for of in (arrays, *more))
    found.setdefault((re.sub(r'\d+', '#', name), shapes), []).append(name)
  return list(found.values())


def stacked(arrays: dict, names: list[str], fn=lambda array: array) -> jax.Array:
  """`fn` of each array, [len(names), *shape]; written in place, since a concatenation would copy
  twice on CPU.
  """
  rows = [jnp.asarray(fn(arrays[name])) for name in names]
  out = jnp.broadcast_to(rows[0], (len(names), *rows[0].shape))
  for i, row in enumerate(rows[1:], 1):
    out = lax.dynamic_update_index_in_dim(out, row, i, 0)
  return out


def map_kinds(fn, *dicts: dict) -> dict:
  """`{name: fn(a[name], b[name], ...)}` in the order of the first dict, traced once for each kind
  of leaf.
  """
  out = {}
  for names in kinds(*dicts):
    results = jax.vmap(fn)(*(stacked(arrays, names) for arrays in dicts))
    out.update(zip(names, results, strict=True))
  return {name: out[name] for name in dicts[0]}

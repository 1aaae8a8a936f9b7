"""One pass over the scores of all leaves, which counts the keys at or above given ones.

Every pass reads the scores where they lie. Between devices the counts of all leaves cross together,
and nothing else does.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jax_core
from jax.interpreters import partial_eval

from prunejax.pruning.selection import counts
from prunejax.pruning.selection.counts import Wide
from prunejax.pruning.selection.threshold import STEPS, Bracket, Goal, done


class Scores(NamedTuple):
  """Scores that are read again and again: `read(sources) -> {name: array}`, cheap and elementwise.

  What is read in a loop is computed there, from `sources`; scores handed over as plain arrays would
  have to be in memory.
  """

  read: Callable[[Any], dict]
  sources: Any


class Block(NamedTuple):
  """Leaves whose brackets are one array [len(names), *cells].

  `cells` is () or has one length for each axis of a leaf, 1 where scores compete. `groups` are
  (begin, end) of the leaves that share a threshold, which stand together. `sizes`, int32 [leaves,
  *cells], are the scores of each cell. `devices` is how many devices the leaves lie on.
  """

  names: tuple
  cells: tuple
  groups: tuple
  sizes: np.ndarray
  devices: int


class Leaf(NamedTuple):
  """How one leaf is read: `read(arrays, row)` gives its keys; `row` is its row in its block."""

  read: Callable
  arrays: Any


def readers(scores: Scores) -> dict[str, Leaf]:
  """Returns how to read each leaf's scores alone, from the sources that they depend on."""
  program, shapes = jax.make_jaxpr(scores.read, return_shape=True)(scores.sources)
  sources, names = jax.tree.leaves(scores.sources), jax.tree.leaves({name: name for name in shapes})
  leaves = {}
  for name in shapes:
    jaxpr, used = partial_eval.dce_jaxpr(program.jaxpr, [other == name for other in names])
    call = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(jaxpr, program.consts))
    arrays = [source for source, needed in zip(sources, used, strict=True) if needed]
    leaves[name] = Leaf(lambda arrays, row, call=call: call(*arrays)[0], arrays)
  return leaves


def goal_of(block: Block, wanted: Wide, by_value: bool) -> Goal:
  """Returns the goal of a block: counts of leaves that share a threshold are added."""
  if all(end - begin == 1 for begin, end in block.groups):
    return Goal(wanted, counts.widen, lambda values: values, by_value)

  def each(add, values):
    """Adds over the leaves (the last axis) of every group, and gives each leaf its group's sum."""
    sums = []
    for begin, end in block.groups:
      spread = lambda limb, size=end - begin: jnp.repeat(limb[..., None], size, -1)
      sums.append(jax.tree.map(spread, add(values[..., begin:end])))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *sums)

  total = lambda values: each(lambda part: counts.total(counts.widen(part), -1), values)
  wrapped = lambda values: each(lambda part: jnp.sum(part, -1, dtype=jnp.uint32), values)
  return Goal(wanted, total, wrapped, by_value)


def count(leaves, blocks, keys, spans, needed) -> list:
  """Reads all leaves once.

  Args:
    leaves: {name: Leaf}.
    blocks: list of Block; the other arguments have one entry for each.
    keys: uint32 [STEPS, leaves, *cells], to count at.
    spans: (low, width), uint32 [leaves, *cells].
    needed: (bool, int32), both [leaves, *cells]: what must be read, and the count elsewhere.

  Returns:
    For each block int32 [STEPS, leaves, *cells], the scores at or above each key, and uint32
    [leaves, *cells], the sum of `key - low` over keys in [low, low + width), modulo 2^32.
  """
  # Without the barrier XLA would make all keys once, before the loop, and keep them.
  arrays = {name: leaf.arrays for name, leaf in leaves.items()}
  arrays, keys, spans = lax.optimization_barrier((arrays, keys, spans))
  counted = []
  for block, asked, (low, width), (reads, known) in zip(blocks, keys, spans, needed, strict=True):
    # Between devices no leaf is skipped: all counts go together.
    skips = block.devices == 1 and jax.default_backend() == 'cpu'
    ends, columns = jnp.concatenate([asked, low[None], width[None]]), []
    for row, name in enumerate(block.names):
      one = functools.partial(_one_leaf, leaves[name].read, row, block)
      if skips:
        none = lambda *_, cells=block.cells: [jnp.zeros(cells, jnp.int32)] * (STEPS + 1)
        columns.append(lax.cond(jnp.any(reads[row]), one, none, arrays[name], ends))
      else:
        columns.append(one(arrays[name], ends))
    if block.devices == 1:
      table = jnp.stack([jnp.stack(column) for column in zip(*columns, strict=True)])
    else:
      table = jnp.stack([column.reshape(-1, *block.cells) for column in columns], 1)
    number = jnp.where(reads[None], table[:STEPS], known[None]) if skips else table[:STEPS]
    counted.append((number, lax.bitcast_convert_type(table[STEPS], jnp.uint32)))
  return counted


def span(bracket: Bracket):
  """Returns (low, width) of a bracket, over which a pass sums."""
  return bracket.low, bracket.high - bracket.low


def open_leaves(bracket: Bracket, goal: Goal, everything=False):
  """Returns what a pass must read, and the count elsewhere: see `count`."""
  reads = ~done(bracket, goal) & (bracket.at_low != bracket.at_high)
  return reads | everything, bracket.at_high


def all_done(brackets, goals):
  """Returns bool: no bracket needs another pass."""
  flags = [jnp.all(done(b, g)) for b, g in zip(brackets, goals, strict=True)]
  return jnp.all(jnp.stack(flags))


def _one_leaf(read, row, block, arrays, ends):
  key = read(arrays, row)
  shape = block.cells or (1,) * key.ndim
  table = totals(key, ends[:, row].reshape(-1, *shape), shape, block.devices)
  return [value.reshape(block.cells) for value in table] if block.devices == 1 else table


def totals(key, ends, cells, devices):
  """Returns STEPS counts and one sum of keys, int32, over the axes where `cells` is 1.

  Args:
    key: uint32 keys of a leaf.
    cells: one length for each axis of `key`.
    devices: how many devices `key` lies on.
    ends: uint32 [STEPS + 2, ...]: what to count at, and where the sum begins and how far it goes.
  """
  axes = tuple(axis for axis, length in enumerate(cells) if length == 1)
  if devices > 1:  # one sum, which devices add as one vector; a TPU pads each scalar to 16 KiB
    is_sum = np.arange(STEPS + 1).reshape((-1,) + (1,) * key.ndim) == STEPS
    key, low, width = key[None], ends[: STEPS + 1], ends[STEPS + 1 :]
    offset = lax.bitcast_convert_type(jnp.where(key - low < width, key - low, 0), jnp.int32)
    table = jnp.where(is_sum, offset, (key >= low).astype(jnp.int32))
    return jnp.sum(table, tuple(axis + 1 for axis in axes), dtype=jnp.int32)
  low, width = ends[STEPS], ends[STEPS + 1]
  offset = lax.bitcast_convert_type(jnp.where(key - low < width, key - low, 0), jnp.int32)
  # One reduction with many outputs fuses with what made its inputs; one output would not, on CPU.
  parts = [(key >= end).astype(jnp.int32) for end in ends[:STEPS]] + [offset]
  add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
  return lax.reduce(tuple(parts), (np.int32(0),) * len(parts), add, axes)

"""Passes over the scores of all leaves, each of which counts the keys at or above given ones.

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

from prunejax.pruning import counts
from prunejax.pruning.counts import Wide
from prunejax.pruning.selection import spare_bits, threshold
from prunejax.pruning.selection.threshold import STEPS, Goal

FEW_LEFT = 0.5  # share of the scores; below it, a pass on a CPU skips the leaves that are done
# Scores of all leaves from which a search that compiles for seconds more is worth it. A pass over
# fewer takes a fraction of a millisecond: few.py selects among them on one device, and on several
# the search begins without a sample.
MANY = 2**20


class Scores(NamedTuple):
  """Scores that are read again and again: `read(sources) -> {name: array}`, cheap and elementwise.

  What is read in a loop is computed there, from `sources`; scores handed over as plain arrays would
  have to be in memory.
  """

  read: Callable[[Any], dict]
  sources: Any


class Leaf(NamedTuple):
  """How one leaf is read: `read(arrays)` gives its scores, or its keys.

  `spare` is how many of a key's lowest bits its scores do not need.
  """

  read: Callable
  arrays: Any
  spare: int = 0


class Block(NamedTuple):
  """Leaves whose brackets are one array [len(names), *cells].

  `cells` is () or has one length for each axis of a leaf, 1 where scores compete. `groups` are
  (begin, end) of the leaves that share a threshold, which stand together. `sizes`, int32 [leaves,
  *cells], are the scores of each cell. `devices` is how many devices the leaves lie on. `spare` is
  how many of a key's lowest bits are left out, because no score needs them.
  """

  names: tuple
  cells: tuple
  groups: tuple
  sizes: np.ndarray
  devices: int
  spare: np.uint32


def readers(scores: Scores) -> dict[str, Leaf]:
  """Returns how to read each leaf's scores alone, from the sources that they depend on."""
  program, shapes = jax.make_jaxpr(scores.read, return_shape=True)(scores.sources)
  sources, names = jax.tree.leaves(scores.sources), jax.tree.leaves({name: name for name in shapes})
  leaves = {}
  for name in shapes:
    jaxpr, used = partial_eval.dce_jaxpr(program.jaxpr, [other == name for other in names])
    call = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(jaxpr, program.consts))
    arrays = [source for source, needed in zip(sources, used, strict=True) if needed]
    (spare,) = spare_bits.of_outputs(jaxpr)
    leaves[name] = Leaf(lambda arrays, call=call: call(*arrays)[0], arrays, spare)
  return leaves


def goal_of(block: Block, wanted: Wide) -> Goal:
  """Returns the goal of a block: counts of leaves that share a threshold are added."""
  if all(end - begin == 1 for begin, end in block.groups):
    return Goal(wanted, counts.widen)

  def total(found):
    """Adds over the leaves (the last axis) of every group, and gives each leaf its group's sum."""
    sums = []
    for begin, end in block.groups:
      spread = lambda limb, size=end - begin: jnp.repeat(limb[..., None], size, -1)
      sums.append(jax.tree.map(spread, counts.total(counts.widen(found[..., begin:end]), -1)))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *sums)

  return Goal(wanted, total)


def search(leaves, blocks, goals, brackets, keys, parts, nan=False):
  """Narrows the brackets of all blocks, a pass at a time, until they are done.

  Args:
    leaves: {name: Leaf}.
    blocks: list of Block; goals, brackets and keys have one entry for each.
    goals: how many scores stay.
    brackets: where the search begins.
    keys: what the first pass counts at, uint32 [STEPS, leaves, *cells].
    parts: a function of the number of passes so far: does the next one take equal parts?
    nan: whether the first pass reads every leaf in any case, because it finds NaN.

  Returns:
    The brackets, how many passes that took, and for each block int32 [leaves, *cells], how many
    scores are at or above the first key of the first pass.
  """

  def one_pass(carried):
    step, brackets, keys, first = carried
    found = _read(leaves, blocks, goals, brackets, keys, nan & (step == 0))
    first = [jnp.where(step == 0, new[0], old) for new, old in zip(found, first, strict=True)]
    brackets = [
      # The first keys lie around no line, so that what they leave shows nothing.
      bracket._replace(lumps=bracket.lumps & (step > 0))
      for bracket in map(threshold.narrowed, brackets, goals, keys, found)
    ]
    keys = [threshold.guess(*pair, parts(step + 1)) for pair in zip(brackets, goals, strict=True)]
    return step + 1, brackets, keys, first

  def unsettled(carried):
    flags = [jnp.all(threshold.done(*pair)) for pair in zip(carried[1], goals, strict=True)]
    return ~jnp.all(jnp.stack(flags)) | (nan & (carried[0] == 0))

  none = [jnp.zeros_like(bracket.at_low) for bracket in brackets]
  begin = jnp.int32(0), brackets, keys, none
  step, brackets, _, first = lax.while_loop(unsettled, one_pass, begin)
  return list(map(threshold.ended, brackets, goals)), step, first


def _read(leaves, blocks, goals, brackets, keys, everything):
  """Reads all leaves once: for each block the scores at or above each key, int32 like `keys`."""
  # The count at an empty bracket is known, and that of a finished one is not asked.
  needed = [
    ~threshold.done(bracket, goal) & (bracket.at_low != bracket.at_high)
    for bracket, goal in zip(brackets, goals, strict=True)
  ]
  # Without the barrier XLA would make all keys once, before the loop, and keep them.
  arrays = {name: leaf.arrays for name, leaf in leaves.items()}
  arrays, keys = lax.optimization_barrier((arrays, keys))

  def read(skips):
    found = []
    for block, asked, bracket, reads in zip(blocks, keys, brackets, needed, strict=True):
      columns = []
      for row, name in enumerate(block.names):
        one = functools.partial(_one_leaf, leaves[name].read, block)
        if skips:
          known = lambda *_, row=row, at=bracket.at_high: [at[row]] * STEPS
          one = functools.partial(lax.cond, jnp.any(reads[row]), one, known)
        columns.append(jnp.stack(one(arrays[name], asked[:, row])))
      found.append(jnp.stack(columns, 1))
    return found

  sizes = [np.float32(block.sizes) for block in blocks]
  if blocks[0].devices > 1 or jax.default_backend() != 'cpu':
    return read(skips=False)
  # A CPU takes the leaves of conditionals one after the other, and others side by side.
  left = sum(jnp.sum(jnp.where(reads, n, 0)) for reads, n in zip(needed, sizes, strict=True))
  few = left < FEW_LEFT * sum(np.sum(size) for size in sizes)
  return lax.cond(few & ~everything, lambda: read(skips=True), lambda: read(skips=False))


def _one_leaf(read, block, arrays, keys):
  key = read(arrays)
  found = count(key, keys.reshape(-1, *(block.cells or (1,) * key.ndim)), block.devices)
  return [number.reshape(block.cells) for number in found]


def count(key, keys, devices):
  """Returns how many keys of a leaf are at or above each of `keys`: a list of STEPS int32 arrays.

  Args:
    key: uint32 keys of a leaf.
    keys: uint32 [STEPS, *cells], one length for each axis of `key`, 1 where scores compete.
    devices: how many devices `key` lies on.
  """
  axes = tuple(axis for axis, length in enumerate(keys.shape[1:]) if length == 1)
  if devices > 1:  # one sum, which devices add as one vector; a TPU pads each scalar to 16 KiB
    axes = tuple(axis + 1 for axis in axes)
    return list(jnp.sum(key[None] >= keys, axes, dtype=jnp.int32))
  parts = tuple((key >= at).astype(jnp.int32) for at in keys)
  add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
  return list(lax.reduce(parts, (np.int32(0),) * len(parts), add, axes))

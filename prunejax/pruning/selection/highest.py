"""Exact selection of the highest scores by counting.

A score read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a threshold. A search over a small part of the scores says where to
ask. The same search over all scores then finds the threshold, and once more over positions where
scores tie at it. Only counts cross devices; nothing is sorted, gathered or copied.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.leaf_kinds import kinds
from prunejax.pruning.selection import counts, threshold
from prunejax.pruning.selection.counts import Wide
from prunejax.pruning.selection.keys import TOP, ZERO, order_key
from prunejax.pruning.selection.threshold import STEPS, Bracket, Goal

SAMPLE = 64  # at most one score of so many guides the first pass
FEWEST = 4096  # scores of a group that a sample has at least


class Scores(NamedTuple):
  """Scores that are read again and again: `read(sources) -> {name: array}`, cheap and elementwise.

  What is read in a loop is computed there, from `sources`; scores handed over as plain arrays would
  have to be in memory.
  """

  read: Callable[[Any], dict]
  sources: Any


class Selected(NamedTuple):
  """`masks` {name: bool, shaped like the scores}; `nan` {name: bool scalar, some score is NaN}."""

  masks: dict[str, jax.Array]
  nan: dict[str, jax.Array]


class Block(NamedTuple):
  """Leaves whose brackets are one array [len(names), *cells].

  `groups` are (begin, end) of the leaves that share a threshold, one after the other.
  """

  names: tuple
  cells: tuple
  groups: tuple


def plain(scores: dict) -> Scores:
  """Returns scores that are in memory anyway as `Scores`."""
  return Scores(lambda sources: sources, scores)


def select(scores: Scores, wanted: dict, old: dict | None = None) -> Selected:
  """Keeps the highest scores of every group, exactly as many as asked.

  NaN is the lowest score, then -inf .. -0.0 < 0.0 .. inf. Of equal scores, earlier leaves and lower
  positions stay.

  Args:
    scores: scores by leaf, in the order in which ties are served.
    wanted: {leaf names: how many stay}. Leaves of one key share one threshold, and the count is one
      scalar, int32 or `counts.Wide`. A key of a single leaf may have an int32 array that broadcasts
      against the scores: 1 on the axes along which scores compete.
    old: masks so far, by leaf. With them 0.0 and -0.0 are equal, and of zeros those kept so far stay
      before those already pruned.

  Raises:
    ValueError: for float64 scores, and for a leaf too large to be counted in int32.
  """
  shapes = jax.eval_shape(scores.read, scores.sources)
  _check(shapes)
  empty = {name for name, s in shapes.items() if not math.prod(s.shape)}
  blocks, goals = _blocks(shapes, wanted, empty)
  masks = {name: jnp.ones(shapes[name].shape, bool) for name in empty}
  nan = {name: jnp.zeros((), bool) for name in empty}
  if blocks:
    brackets, flags = _search(scores, shapes, blocks, goals, old)
    masks |= _masks(scores, shapes, blocks, goals, brackets, old)
    nan |= flags
  order = lambda table: {name: table[name] for name in shapes}
  return Selected(order(masks), order(nan))


def _check(shapes):
  for name, score in shapes.items():
    size = math.prod(score.shape)
    if size > counts.LARGEST_LEAF:
      raise ValueError(f'{name!r} has {size} units; a leaf may have {counts.LARGEST_LEAF}')
    if score.dtype == jnp.float64:
      raise ValueError(f'the scores of {name!r} are float64; cast them to float32 to rank them')


def _blocks(shapes, wanted, empty):
  """The blocks of all leaves but the empty ones, and the goal of each."""
  shared, alone, first = [], {}, {name: i for i, name in enumerate(shapes)}
  for names, count in wanted.items():
    names = tuple(sorted((name for name in names if name not in empty), key=first.__getitem__))
    cells = () if isinstance(count, Wide) else jnp.shape(count)
    if names and math.prod(cells) == 1:
      wide = count if isinstance(count, Wide) else counts.widen(jnp.asarray(count, jnp.int32))
      shared.append((names, Wide(*(jnp.reshape(limb, ()) for limb in wide))))
    elif names:
      (name,) = names
      alone[name] = jnp.broadcast_to(
        jnp.asarray(count, jnp.int32), (1,) * (len(shapes[name].shape) - len(cells)) + cells
      )
  blocks, goals = [], []
  if shared:
    names = tuple(name for group, _ in shared for name in group)
    ends = np.cumsum([0] + [len(group) for group, _ in shared])
    groups = tuple(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    limb = lambda i: jnp.stack([count[i] for group, count in shared for _ in group])
    blocks.append(Block(names, (), groups))
    goals.append(_goal(blocks[-1], Wide(limb(0), limb(1)), line=True))
  for names in kinds({name: shapes[name] for name in alone}, alone):
    groups = tuple((i, i + 1) for i in range(len(names)))
    blocks.append(Block(tuple(names), alone[names[0]].shape, groups))
    stack = counts.widen(jnp.stack([alone[name] for name in names]))
    goals.append(_goal(blocks[-1], stack, line=True))
  return blocks, goals


def _goal(block: Block, wanted: Wide, line: bool) -> Goal:
  if all(end - begin == 1 for begin, end in block.groups):
    return Goal(wanted, counts.widen, lambda values: values, line)

  def each(fn, values):
    """`fn` over the leaves (the last axis) of every group, given back to each of them."""
    sums = [
      jax.tree.map(
        lambda part, n=end - begin: jnp.broadcast_to(part[..., None], (*part.shape, n)),
        fn(values[..., begin:end]),
      )
      for begin, end in block.groups
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, -1), *sums)

  total = lambda values: each(lambda part: counts.total(counts.widen(part), -1), values)
  wrapped = lambda values: each(lambda part: jnp.sum(part, -1, dtype=jnp.uint32), values)
  return Goal(wanted, total, wrapped, line)


def _search(scores, shapes, blocks, goals, old):
  """The brackets of all groups, settled or closed on one key, and {name: some score is NaN}."""

  def keys(sources):
    arrays = scores.read(sources)
    if old is not None:  # Which of two zeros goes first, the old masks say.
      arrays = {n: jnp.where(s == 0, jnp.zeros_like(s), s) for n, s in arrays.items()}
    return lambda name: order_key(arrays[name])

  begin = []
  for block, goal in zip(blocks, goals, strict=True):
    size = jnp.asarray(_sizes(block, shapes))
    low = jnp.zeros(size.shape, jnp.uint32)
    begin.append(threshold.start(low, jnp.full_like(low, TOP), size, goal))
  first = _first(scores, shapes, blocks, goals, begin, keys)

  def nan_or_low(step, bracket):
    # In the first pass the sum counts NaN, whose key is 0.
    return jnp.where(step == 0, np.uint32(0xFFFFFFFF), bracket.low), jnp.where(
      step == 0, np.uint32(2), bracket.high - bracket.low
    )

  def one_pass(carried):
    step, brackets, thresholds, nan = carried
    spans = [nan_or_low(step, bracket) for bracket in brackets]
    found = _count(keys, scores.sources, shapes, blocks, thresholds, spans)
    nan = [
      jnp.where(step == 0, spread > 0, flag) for flag, (_, spread) in zip(nan, found, strict=True)
    ]
    # What the first pass sums is no guide: no mean is taken of it.
    brackets = [
      moved._replace(whole=moved.whole & (step > 0))
      for moved in (
        threshold.narrowed(bracket, goal, asked, number, spread)
        for bracket, goal, asked, (number, spread) in zip(
          brackets, goals, thresholds, found, strict=True
        )
      )
    ]
    parts = step % 3 == 2
    asked = [threshold.guess(b, g, parts) for b, g in zip(brackets, goals, strict=True)]
    return step + 1, brackets, asked, nan

  def open_(carried):
    step, brackets, *_ = carried
    return (step == 0) | ~_all_done(brackets, goals)

  flags = [jnp.zeros(bracket.low.shape, bool) for bracket in begin]
  steps, brackets, _, nan = lax.while_loop(open_, one_pass, (jnp.int32(0), begin, first, flags))
  if TRACE:
    jax.debug.print('passes {}', steps)
  return brackets, {
    name: jnp.any(flag)
    for block, flags in zip(blocks, nan, strict=True)
    for name, flag in zip(block.names, flags, strict=True)
  }


TRACE = False


def _all_done(brackets, goals):
  flags = [jnp.all(threshold.done(b, g)) for b, g in zip(brackets, goals, strict=True)]
  return jnp.all(jnp.stack(flags))


def _sizes(block, shapes):
  """int32 [leaves, *cells]: scores of each cell."""
  cell = lambda name: math.prod(shapes[name].shape) // max(math.prod(block.cells), 1)
  return np.stack([np.full(block.cells, cell(name), np.int32) for name in block.names])


def _count(keys, sources, shapes, blocks, thresholds, spans):
  """For each block int32 [STEPS, leaves, *cells], keys at or above each threshold, and uint32
  [leaves, *cells], the sum of `key - low` over keys in [low, low + width) of `spans`.
  """
  # Without the barrier XLA would make all keys once, before the loop, and keep them.
  sources, thresholds, spans = lax.optimization_barrier((sources, thresholds, spans))
  key_of = keys(sources)
  found = []
  for block, asked, (low, width) in zip(blocks, thresholds, spans, strict=True):
    columns = []
    for i, name in enumerate(block.names):
      key, one = key_of(name), lambda value: value[i]  # noqa: B023
      parts = [(key >= one(asked[j])).astype(jnp.int32) for j in range(STEPS)]
      offset = key - one(low)
      parts.append(lax.bitcast_convert_type(jnp.where(offset < one(width), offset, 0), jnp.int32))
      axes = tuple(axis for axis in range(key.ndim) if not block.cells or block.cells[axis] == 1)
      add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
      sums = lax.reduce(tuple(parts), (np.int32(0),) * len(parts), add, axes)
      columns.append(jnp.stack([s.reshape(block.cells) for s in sums]))
    stack = jnp.stack(columns, 1)
    spread = lax.bitcast_convert_type(stack[STEPS], jnp.uint32)
    found.append((stack[:STEPS], spread))
  return found


def _first(scores, shapes, blocks, goals, begin, keys):
  """The first thresholds of every block: uint32 [STEPS, leaves, *cells]."""
  steps = {
    name: _stride(shapes[name].shape, block.cells) for block in blocks for name in block.names
  }
  asked = [threshold.guess(b, g, True) for b, g in zip(begin, goals, strict=True)]
  sampled = [i for i, block in enumerate(blocks) if any(steps[name][1] > 1 for name in block.names)]
  if not sampled:
    return asked
  some = [blocks[i] for i in sampled]

  def sample(sources):
    key_of = keys(sources)

    def of(name):
      axis, step = steps[name]
      key = key_of(name)
      if step == 1:
        return key
      split = key.reshape(key.shape[:axis] + (-1, step) + key.shape[axis + 1 :])
      return lax.index_in_dim(split, step // 2, axis + 1, keepdims=False)

    return of

  scale, sigmas, ranks = [], [], []
  for i in sampled:
    block, goal, bracket = blocks[i], goals[i], begin[i]
    step = np.array([steps[name][1] for name in block.names], np.int32)
    step = step.reshape((-1,) + (1,) * len(block.cells))
    scale.append(step)
    widest = np.concatenate(
      [np.full((b - a, *step.shape[1:]), step[a:b].max()) for a, b in block.groups]
    ).astype(np.float32)
    ranks.append(counts.widen(jnp.broadcast_to(widest.astype(np.int32), goal.wanted.hi.shape)))
    size = threshold.to_float(goal.total(jnp.asarray(_sizes(block, shapes))))
    share = threshold.to_float(goal.wanted) / size
    sigmas.append(jnp.sqrt(size * share * (1 - share) * (widest - (widest == 1))))

  def search(side):
    aims, starts = [], []
    for i, sigma, least in zip(sampled, sigmas, ranks, strict=True):
      goal = goals[i]
      size = jnp.asarray(_sizes(blocks[i], shapes))
      total = goal.total(size)
      shift = counts.widen((3.5 * sigma).astype(jnp.int32))
      shift = jax.tree.map(lambda limb: jnp.where(side == 0, limb, -limb), shift)
      moved = counts.carried(goal.wanted.hi + shift.hi, goal.wanted.lo + shift.lo)
      most = counts.subtract(total, least)
      pick = lambda flag, a, b: jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)
      moved = pick(counts.at_least(moved, least), moved, least)
      moved = pick(counts.at_least(most, moved), moved, most)
      aim = goal._replace(wanted=moved)
      aims.append(aim)
      low = jnp.zeros(size.shape, jnp.uint32)
      starts.append(threshold.start(low, jnp.full_like(low, TOP), size, aim))

    def one_pass(carried):
      turn, brackets = carried
      parts = SAMPLE_PARTS[turn % len(SAMPLE_PARTS)]
      guesses = [threshold.guess(b, g, parts) for b, g in zip(brackets, aims, strict=True)]
      spans = [(b.low, b.high - b.low) for b in brackets]
      found = _count(sample, scores.sources, shapes, some, guesses, spans)
      brackets = [
        threshold.narrowed(b, g, a, number * step, spread * step.astype(np.uint32))
        for b, g, a, step, (number, spread) in zip(
          brackets, aims, guesses, scale, found, strict=True
        )
      ]
      return turn + 1, brackets

    def open_(carried):
      flags = [
        jnp.all(threshold.done(b, g) | (threshold.inside(b, g) <= sigma))
        for b, g, sigma in zip(carried[1], aims, sigmas, strict=True)
      ]
      return ~jnp.all(jnp.stack(flags))

    turns, brackets = lax.while_loop(open_, one_pass, (jnp.int32(0), starts))
    if TRACE:
      jax.debug.print('sample passes {}', turns)
    return brackets

  both = jax.vmap(search)(jnp.arange(2))
  for i, sigma, pair in zip(sampled, sigmas, both, strict=True):
    below, above = (jax.tree.map(lambda x, side=side: x[side], pair) for side in (0, 1))
    high = jnp.maximum(above.high, below.low)
    between = Bracket(
      below.low, high, below.at_low, above.at_high, below.low, jnp.zeros(high.shape, bool)
    )
    middle = threshold.guess(between, goals[i], False, sigma)
    asked[i] = jnp.concatenate([below.low[None], middle[1:-1], high[None]])
  return asked


SAMPLE_PARTS = jnp.array([True, True, False, True, False, False])


def _stride(shape, cells):
  """(axis, step): a sample takes the middle of every `step` neighbours along `axis`."""
  best = (0, 1)
  size = math.prod(shape) // max(math.prod(cells), 1)
  for axis, length in enumerate(shape):
    if cells and cells[axis] != 1:
      continue
    for step in range(2, SAMPLE + 1):
      if length % step == 0 and size // step >= FEWEST and step > best[1]:
        best = (axis, step)
  return best


def _masks(scores, shapes, blocks, goals, brackets, old):
  cuts = _ties(scores, shapes, blocks, goals, brackets, old)
  zero = [(b.low == ZERO) & ~threshold.settled(b, g) for b, g in zip(brackets, goals, strict=True)]
  sources, brackets, cuts = lax.optimization_barrier((scores.sources, brackets, cuts))
  arrays = scores.read(sources)

  def masks(aged):
    out = {}
    for block, bracket, cut, flag in zip(blocks, brackets, cuts, zero, strict=True):
      for i, name in enumerate(block.names):
        score = arrays[name]
        if old is not None:
          score = jnp.where(score == 0, jnp.zeros_like(score), score)
        place = _places(shapes[name].shape)
        if aged:
          place = jnp.where(flag[i] & old[name], place + np.uint32(score.size), place)
        # One comparison for scores above the threshold and at it: a key used twice would be stored.
        out[name] = order_key(score) >= bracket.low[i] + (place < cut[i]).astype(jnp.uint32)
    return out

  if old is None:
    return masks(False)
  some = jnp.any(jnp.stack([jnp.any(flag) for flag in zero]))
  return lax.cond(some, lambda: masks(True), lambda: masks(False))


def _places(shape, one=np.uint32(1)):
  """uint32 places of a leaf's scores from `size` down to 1, without an array in memory."""
  place, stride = jnp.full(shape, math.prod(shape), jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    place = place - lax.broadcasted_iota(jnp.uint32, shape, axis) * (np.uint32(stride) * one)
    stride *= shape[axis]
  return place


def _ties(scores, shapes, blocks, goals, brackets, old):
  """uint32 [leaves, *cells] of every block: of the scores at `low` those whose place is at or above
  the cut stay. Places fall from `size` to 1; a zero kept so far is `size` places higher.
  """
  aged = old is not None
  sizes = [
    jnp.asarray(
      np.stack([np.full(b.cells, math.prod(shapes[n].shape)) for n in b.names]), jnp.uint32
    )
    for b in blocks
  ]

  def places(sources):
    sources, masks, keys, one = sources
    arrays = scores.read(sources)
    at = {name: (b, i) for b, block in enumerate(blocks) for i, name in enumerate(block.names)}

    def of(name):
      b, i = at[name]
      score = arrays[name]
      place = _places(shapes[name].shape, one)
      if aged:
        score = jnp.where(score == 0, jnp.zeros_like(score), score)
        place = jnp.where((keys[b][i] == ZERO) & masks[name], place + np.uint32(score.size), place)
      return jnp.where(order_key(score) == keys[b][i], place, np.uint32(0))

    return of

  sources = (scores.sources, old if aged else (), [b.low for b in brackets], jnp.uint32(1))
  begin, aims = [], []
  for b, (block, goal, bracket, size) in enumerate(
    zip(blocks, goals, brackets, sizes, strict=True)
  ):
    closed = ~threshold.settled(bracket, goal)
    tied = jnp.where(closed, bracket.at_low - bracket.at_high, 0)
    needed = tied
    if any(b - a > 1 for a, b in block.groups):
      missing = counts.subtract(goal.wanted, goal.total(bracket.at_high))
      kept = jnp.zeros_like(tied)
      if aged:
        # Zeros kept so far go first, of whatever leaf.
        ask = [jnp.broadcast_to(s + 1, (STEPS, *s.shape)) for s in sizes]
        spans = [(jnp.zeros_like(s), jnp.zeros_like(s)) for s in sizes]
        some = jnp.any(closed & (bracket.low == ZERO))
        kept = lax.cond(
          some,
          lambda: _count(places, sources, shapes, blocks, ask, spans)[b][0][0],
          lambda: jnp.zeros_like(tied),
        )
        kept = jnp.where(closed, kept, 0)
      served = []
      for a, z in block.groups:
        part = lambda values: values[a:z]
        before = lambda values: counts.running(counts.widen(values[a:z]))
        lack = jax.tree.map(part, missing)
        first = counts.clipped(counts.subtract(lack, before(kept)), kept[a:z])
        rest = counts.subtract(
          lack, jax.tree.map(lambda x: x[None], counts.total(counts.widen(kept[a:z])))
        )
        then = counts.clipped(counts.subtract(rest, before(tied - kept)), (tied - kept)[a:z])
        served.append(first + then)
      needed = jnp.where(closed, jnp.concatenate(served), tied)
    else:
      needed = jnp.where(closed, counts.narrow(goal.wanted) - bracket.at_high, tied)
    one = Block(block.names, block.cells, tuple((i, i + 1) for i in range(len(block.names))))
    aim = _goal(one, counts.widen(needed), line=False)
    aims.append(aim)
    low = jnp.ones_like(size)
    begun = threshold.start(low, (2 * size + 1) if aged else size + 1, tied, aim)
    begin.append(begun._replace(low=jnp.where(closed, begun.low, 1)))

  def one_pass(carried):
    step, brackets = carried
    asked = [
      threshold.guess(b, g, step % 3 == (0 if aged else 2))
      for b, g in zip(brackets, aims, strict=True)
    ]
    spans = [(b.low, b.high - b.low) for b in brackets]
    found = _count(places, sources, shapes, blocks, asked, spans)
    return step + 1, [
      threshold.narrowed(b, g, a, number, spread)
      for b, g, a, (number, spread) in zip(brackets, aims, asked, found, strict=True)
    ]

  steps, ended = lax.while_loop(
    lambda carried: ~_all_done(carried[1], aims), one_pass, (jnp.int32(0), begin)
  )
  if TRACE:
    jax.debug.print('tie passes {}', steps)
  return [b.low for b in ended]

"""Exact selection of the highest scores by counting.

A score read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a threshold. A search over a small part of the scores says where to
ask. The same search over all scores then finds the threshold, and once more over positions where
scores tie at it. Only counts cross devices; nothing is sorted, gathered or copied.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jax_core
from jax.interpreters import partial_eval

from prunejax.pruning import placement
from prunejax.pruning.leaf_kinds import kinds, stacked
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

  `groups` are (begin, end) of the leaves that share a threshold, one after the other. `devices` is
  how many devices they lie on.
  """

  names: tuple
  cells: tuple
  groups: tuple
  devices: int


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
  devices = placement.devices(scores.sources)
  blocks, goals = _blocks(shapes, wanted, empty, devices)
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


def _blocks(shapes, wanted, empty, devices):
  """The blocks of all leaves but the empty ones, and the goal of each."""
  shared, alone, first = [], {}, {name: i for i, name in enumerate(shapes)}
  for names, count in wanted.items():
    names = tuple(sorted((name for name in names if name not in empty), key=first.__getitem__))
    cells = () if isinstance(count, Wide) else jnp.shape(count)
    if names and math.prod(cells) == 1:
      wide = count if isinstance(count, Wide) else Wide(np.int32(0), jnp.asarray(count, jnp.int32))
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
    blocks.append(Block(names, (), groups, devices))
    goals.append(_goal(blocks[-1], counts.carried(limb(0), limb(1)), line=True))
  for names in kinds({name: shapes[name] for name in alone}, alone):
    groups = tuple((i, i + 1) for i in range(len(names)))
    blocks.append(Block(tuple(names), alone[names[0]].shape, groups, devices))
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
  leaves = _leaf_keys(scores, old)
  begin = []
  for block, goal in zip(blocks, goals, strict=True):
    size = jnp.asarray(_sizes(block, shapes))
    low = jnp.zeros(size.shape, jnp.uint32)
    begin.append(threshold.start(low, jnp.full_like(low, TOP), size, goal))
  asked = _first(leaves, shapes, blocks, goals, begin)
  flags = [jnp.zeros(bracket.low.shape, bool) for bracket in begin]

  def one_pass(carried):
    step, brackets, asked, nan = carried
    first = step == 0
    # In the first pass the sum counts NaN, whose key is 0.
    spans = [
      (jnp.where(first, np.uint32(0xFFFFFFFF), b.low), jnp.where(first, 2, b.high - b.low))
      for b in brackets
    ]
    found = _count(leaves, blocks, asked, spans, _active(brackets, goals, first))
    nan = [jnp.where(first, sums > 0, flag) for flag, (_, sums) in zip(nan, found, strict=True)]
    brackets = [
      threshold.narrowed(bracket, goal, keys, number, jnp.where(first, 0, sums))
      for bracket, goal, keys, (number, sums) in zip(brackets, goals, asked, found, strict=True)
    ]
    brackets = [b._replace(whole=b.whole & ~first) for b in brackets]
    asked = [threshold.guess(b, g, step % 3 == 2) for b, g in zip(brackets, goals, strict=True)]
    return step + 1, brackets, asked, nan

  def unsettled(carried):
    return (carried[0] == 0) | ~_all_done(carried[1], goals)

  steps, brackets, _, nan = lax.while_loop(unsettled, one_pass, (jnp.int32(0), begin, asked, flags))
  if TRACE:
    jax.debug.print('passes {}', steps)
  nan = {
    name: jnp.any(flag)
    for block, flags in zip(blocks, nan, strict=True)
    for name, flag in zip(block.names, flags, strict=True)
  }
  return brackets, nan


TRACE = False


def _all_done(brackets, goals):
  flags = [jnp.all(threshold.done(b, g)) for b, g in zip(brackets, goals, strict=True)]
  return jnp.all(jnp.stack(flags))


def _active(brackets, goals, first=False):
  """For each block the leaves that a pass has to read, and the counts of those that it need not."""
  return [
    (first | (~threshold.done(b, g) & (b.at_low != b.at_high)), b.at_high)
    for b, g in zip(brackets, goals, strict=True)
  ]


def _sizes(block, shapes):
  """int32 [leaves, *cells]: scores of each cell."""
  cell = lambda name: math.prod(shapes[name].shape) // max(math.prod(block.cells), 1)
  return np.stack([np.full(block.cells, cell(name), np.int32) for name in block.names])


def _leaf_reader(scores):
  """{name: (function of a list of arrays to the leaf's scores, that list)}: a leaf read alone."""
  closed, shape = jax.make_jaxpr(scores.read, return_shape=True)(scores.sources)
  sources, names = jax.tree.leaves(scores.sources), jax.tree.leaves({n: n for n in shape})
  readers = {}
  for name in shape:
    used = [other == name for other in names]
    jaxpr, needed = partial_eval.dce_jaxpr(closed.jaxpr, used)
    fn = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(jaxpr, closed.consts))
    given = [source for source, use in zip(sources, needed, strict=True) if use]
    readers[name] = (lambda arrays, fn=fn: fn(*arrays)[0], given)
  return readers


def _unsigned(score, old):
  """The scores with 0.0 for -0.0 where the old masks say which of two zeros goes first."""
  return score if old is None else jnp.where(score == 0, jnp.zeros_like(score), score)


def _leaf_keys(scores, old):
  readers = _leaf_reader(scores)
  return {
    name: (lambda arrays, i, read=read: order_key(_unsigned(read(arrays), old)), arrays)
    for name, (read, arrays) in readers.items()
  }


def _count(leaves, blocks, asked, spans, active):
  """Counts the keys of all leaves: one pass.

  Args:
    leaves: {name: (function of arrays and a row to keys, arrays)}.
    asked: for each block uint32 [STEPS, leaves, *cells].
    spans: for each block (low, width), uint32 [leaves, *cells].
    active: for each block, bool and int32 [leaves, *cells]: what must be read, and the count
      elsewhere.

  Returns:
    For each block int32 [STEPS, leaves, *cells], keys at or above each of `asked`, and uint32
    [leaves, *cells], the sum of `key - low` over keys in [low, low + width), modulo 2^32.
  """
  # Without the barrier XLA would make all keys once, before the loop, and keep them.
  given = {name: arrays for name, (_, arrays) in leaves.items()}
  given, asked, spans = lax.optimization_barrier((given, asked, spans))
  found = []
  for block, keys, (low, width), (reads, rest) in zip(blocks, asked, spans, active, strict=True):
    ends, columns = jnp.concatenate([keys, low[None], width[None]]), []
    for i, name in enumerate(block.names):
      read = functools.partial(_count_leaf, leaves[name][0], i, block)
      if _skips(block):
        none = lambda *_, cells=block.cells: (jnp.zeros(cells, jnp.int32),) * (STEPS + 1)
        columns.append(lax.cond(jnp.any(reads[i]), read, none, given[name], ends))
      else:
        columns.append(read(given[name], ends))
    stack = jnp.stack([jnp.stack(row) for row in zip(*columns, strict=True)])
    number = jnp.where(reads, stack[:STEPS], rest) if _skips(block) else stack[:STEPS]
    found.append((number, lax.bitcast_convert_type(stack[STEPS], jnp.uint32)))
  return found


def _skips(block):
  """Whether leaves that are done are skipped: not between devices, where all counts go together."""
  return jax.default_backend() == 'cpu' and block.devices == 1


def _count_leaf(read, i, block, arrays, ends):
  sums = _totals(read(arrays, i), ends[:, i], _axes(block.cells), block.devices)
  return tuple(value.reshape(block.cells) for value in sums)


def _axes(cells):
  return tuple(axis for axis, length in enumerate(cells) if length == 1) if cells else None


def _totals(key, ends, axes, devices):
  *asked, low, width = ends
  offset = key - low
  parts = [(key >= end).astype(jnp.int32) for end in asked]
  parts.append(lax.bitcast_convert_type(jnp.where(offset < width, offset, 0), jnp.int32))
  axes = tuple(range(key.ndim)) if axes is None else axes
  if devices > 1:  # sums that devices add; of one reduction they would gather the parts
    return [jnp.sum(part, axes, dtype=jnp.int32) for part in parts]
  # One reduction with many outputs fuses with what made its inputs; one output would not, on CPU.
  add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
  return lax.reduce(tuple(parts), (np.int32(0),) * len(parts), add, axes)


def _first(leaves, shapes, blocks, goals, begin):
  """The first keys to count at: uint32 [STEPS, leaves, *cells] of every block."""
  strides = {name: _stride(shapes[name], block) for block in blocks for name in block.names}
  asked = [threshold.guess(b, g, True) for b, g in zip(begin, goals, strict=True)]
  for b, block in enumerate(blocks):
    if any(strides[name][1] > 1 for name in block.names):
      asked[b] = _by_sample(leaves, shapes, block, goals[b], strides)
  return asked


def _by_sample(leaves, shapes, block, goal, strides):
  samples = {}
  for i, name in enumerate(block.names):
    read, arrays = leaves[name]
    samples[name] = _thinned(read(arrays, i), *strides[name])
  stacks = [(names, stacked(samples, names)) for names in kinds(samples)]
  rows = [name for names, _ in stacks for name in names]
  order = np.array([rows.index(name) for name in block.names])
  lift = lambda values: np.array(values).reshape((-1,) + (1,) * len(block.cells))
  step = lift([strides[name][1] for name in block.names]).astype(np.int32)
  widest = np.concatenate([np.full_like(step[a:b], step[a:b].max()) for a, b in block.groups])
  size = jnp.asarray(_sizes(block, shapes))
  total = goal.total(size)
  share = threshold.to_float(goal.wanted) / threshold.to_float(total)
  sigma = jnp.sqrt(threshold.to_float(total) * share * (1 - share) * (widest - (widest == 1)))
  least = counts.widen(jnp.broadcast_to(widest, sigma.shape))
  most = counts.subtract(total, least)
  at = {name: i for i, name in enumerate(block.names)}

  def search(sign):
    shift = counts.widen((3.5 * sigma).astype(jnp.int32) * sign)
    aim = counts.carried(goal.wanted.hi + shift.hi, goal.wanted.lo + shift.lo)
    pick = lambda flag, a, b: jax.tree.map(lambda x, y: jnp.where(flag, x, y), a, b)
    aim = pick(counts.at_least(aim, least), aim, least)
    aim = goal._replace(wanted=pick(counts.at_least(most, aim), aim, most))
    low = jnp.zeros(size.shape, jnp.uint32)
    begin = threshold.start(low, jnp.full_like(low, TOP), size, aim)

    def one_pass(carried):
      turn, bracket = carried
      keys = threshold.guess(bracket, aim, SAMPLE_PARTS[turn % len(SAMPLE_PARTS)])
      ends = jnp.concatenate([keys, bracket.low[None], (bracket.high - bracket.low)[None]])
      sums = []
      for names, stack in stacks:
        rows = np.array([at[name] for name in names])
        mine = ends[:, rows].reshape(
          (STEPS + 2, len(names)) + (block.cells or (1,) * (stack.ndim - 1))
        )
        axes = tuple(a + 1 for a in (_axes(block.cells) or range(stack.ndim - 1)))
        sums.append(
          jnp.stack(_totals(stack, mine, axes, block.devices)).reshape(
            (STEPS + 1, len(names), *block.cells)
          )
        )
      found = jnp.concatenate(sums, 1)[:, order] * step
      spread = lax.bitcast_convert_type(found[STEPS], jnp.uint32)
      return turn + 1, threshold.narrowed(bracket, aim, keys, found[:STEPS], spread)

    def wide(carried):
      bracket = carried[1]
      near = threshold.inside(bracket, aim) <= sigma
      return ~jnp.all(threshold.done(bracket, aim) | near)

    turns, bracket = lax.while_loop(wide, one_pass, (jnp.int32(0), begin))
    if TRACE:
      jax.debug.print('sample passes {}', turns)
    return bracket

  both = jax.vmap(search)(jnp.array([1, -1], jnp.int32))
  below, above = (jax.tree.map(lambda x, side=side: x[side], both) for side in (0, 1))
  high = jnp.maximum(above.high, below.low)
  between = Bracket(
    below.low, high, below.at_low, above.at_high, below.low, jnp.zeros(high.shape, bool)
  )
  middle = threshold.guess(between, goal, False, sigma)
  return jnp.concatenate([below.low[None], middle[1:-1], high[None]])


SAMPLE_PARTS = jnp.array([True, True, False, True, False, False])


def _stride(score, block):
  """(axis, step): a sample takes the middle of every `step` neighbours along `axis`.

  Every device has as many of them as the next, so that none has to be moved.
  """
  best, cells = (0, 1), block.cells
  for axis, length in enumerate(score.shape):
    if cells and cells[axis] != 1:
      continue
    for step in range(2, SAMPLE + 1):
      enough = math.prod(score.shape) // max(math.prod(cells), 1) // step >= FEWEST
      if length % (step * block.devices) == 0 and enough and step > best[1]:
        best = (axis, step)
  return best


def _thinned(key, axis, step):
  if step == 1:
    return key
  split = key.reshape(key.shape[:axis] + (-1, step) + key.shape[axis + 1 :])
  return lax.index_in_dim(split, step // 2, axis + 1, keepdims=False)


def _masks(scores, shapes, blocks, goals, brackets, old):
  cuts = _ties(scores, shapes, blocks, goals, brackets, old)
  zero = [(b.low == ZERO) & ~threshold.settled(b, g) for b, g in zip(brackets, goals, strict=True)]
  sources, brackets, cuts = lax.optimization_barrier((scores.sources, brackets, cuts))

  def masks(aged):
    out, arrays = {}, scores.read(sources)
    for block, bracket, cut, flag in zip(blocks, brackets, cuts, zero, strict=True):
      for i, name in enumerate(block.names):
        score = _unsigned(arrays[name], old)
        place = _places(score.shape)
        if aged:
          place = jnp.where(flag[i] & old[name], place + np.uint32(score.size), place)
        # One comparison for scores above the threshold and at it: a key used twice would be stored.
        out[name] = order_key(score) >= bracket.low[i] + (place < cut[i]).astype(jnp.uint32)
    return out

  if old is None:
    return masks(False)
  some = jnp.any(jnp.stack([jnp.any(flag) for flag in zero]))
  return lax.cond(some, lambda: masks(True), lambda: masks(False))


def _places(shape, one=1):
  """uint32 places of a leaf's scores from `size` down to 1, without an array in memory."""
  place, stride = jnp.full(shape, math.prod(shape), jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    place = place - lax.broadcasted_iota(jnp.uint32, shape, axis) * (
      np.uint32(stride) * jnp.uint32(one)
    )
    stride *= shape[axis]
  return place


def _ties(scores, shapes, blocks, goals, brackets, old):
  """uint32 [leaves, *cells] of every block: of the scores at `low` those whose place is at or above
  the cut stay. Places fall from `size` to 1; a zero kept so far is `size` places higher.
  """
  aged, readers = old is not None, _leaf_reader(scores)
  sizes = [
    jnp.asarray(
      np.stack([np.full(b.cells, math.prod(shapes[n].shape)) for n in b.names]), jnp.uint32
    )
    for b in blocks
  ]

  def places(read, arrays, i):
    arrays, mask, levels, one = arrays
    score, level = _unsigned(read(arrays), old), levels[i]
    place = _places(score.shape, one)
    if aged:
      place = jnp.where((level == ZERO) & mask, place + np.uint32(score.size), place)
    return jnp.where(order_key(score) == level, place, np.uint32(0))

  leaves = {}
  for block, bracket in zip(blocks, brackets, strict=True):
    for name in block.names:
      read, arrays = readers[name]
      mask = old[name] if aged else ()
      leaves[name] = (functools.partial(places, read), (arrays, mask, bracket.low, jnp.uint32(1)))
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
        every = [(jnp.ones(s.shape, bool), jnp.zeros(s.shape, jnp.int32)) for s in sizes]
        some = jnp.any(closed & (bracket.low == ZERO))
        kept = lax.cond(
          some,
          lambda: _count(leaves, blocks, ask, spans, every)[b][0][0],
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
    one = block._replace(groups=tuple((i, i + 1) for i in range(len(block.names))))
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
    found = _count(leaves, blocks, asked, spans, _active(brackets, aims))
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

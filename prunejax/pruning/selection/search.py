"""Exact selection of the highest scores by counting.

A float32 read as an unsigned integer keeps its order, so the k-th highest score is found by asking
how many scores lie at or above a threshold. A small sample says where to ask (`bracket`); two or
three passes later the few scores that are still in question are looked at by row (`survey`), which
settles the threshold and the ties at it. Whatever the sample says, the counts decide: the result is
exact, and the same on every mesh. Every pass is compares and sums, so only counts, the sample and
the rows' few scores cross devices; nothing is sorted, gathered or copied.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from prunejax.pruning.selection import bracket as brackets
from prunejax.pruning.selection import counts, digits, groups, survey
from prunejax.pruning.selection.bracket import Goal
from prunejax.pruning.selection.groups import Blocks
from prunejax.pruning.selection.groups import order_key as order_key
from prunejax.pruning.selection.survey import Edge

_ZERO = np.uint32(1 << 31)  # the key of 0.0


class Found(NamedTuple):
  """The edges of a selection, vectors over the problems of its blocks, and bool [problems]: some of
  the problem's scores are NaN.
  """

  edge: Edge
  nan: jax.Array


def edges(of: Blocks, kept) -> Found:
  """The edge of each problem's `kept` highest scores; `kept` is int32 [problems]."""
  return _find(of, Goal(counts.widen(kept), common=False))


def common_edge(of: Blocks, kept: counts.Wide) -> Found:
  """One threshold for the `kept` highest scores of all problems together; ties go to earlier ones."""
  return _find(of, Goal(jax.tree.map(lambda limb: jnp.reshape(limb, (1,)), kept), common=True))


def top(scores: dict, kept: dict, stacked=()) -> dict:
  """Masks (bool, shaped like the scores) of each leaf's `kept[name]` highest scores; ties go to the
  lower flat position. Of a leaf in `stacked` each slice of axis 0 has a count of its own.
  """
  of = groups.blocks(groups.plain(scores, stacked))
  if not of.problems:
    return {name: jnp.ones(jnp.shape(score), bool) for name, score in scores.items()}
  kept = groups.in_order(of, {name: jnp.asarray(count, jnp.int32) for name, count in kept.items()})
  return masks(of, edges(of, kept).edge, scores)[0]


def masks(
  of: Blocks, edge: Edge, like: dict, old: dict | None = None, common: bool = False
) -> tuple[dict, jax.Array]:
  """Masks shaped like the arrays `like` from the edges of their problems, and how many of its ties each problem keeps.

  `old` are the masks so far: where the threshold is 0.0, a zero whose weight is kept so far goes
  before one that is pruned already, so that gradual pruning only ever adds to what is pruned; where the threshold is
  `common` to all problems, before such a one of any of them.
  """
  zero = (edge.key == _ZERO) & (edge.tied > 0)
  plain = lambda: (_unblocked(of, _compared(of, edge), like), edge.needed)
  if old is None:
    return plain()

  def aged():
    found, needed = _by_age(of, edge, zero, of.arrange(old), common)
    return _unblocked(of, found, like), needed

  return lax.cond(jnp.any(zero), aged, plain)


def _find(of: Blocks, goal: Goal) -> Found:
  problems, sizes, shapes = len(of.problems), of.sizes(), of.shapes
  if sum(sizes) <= groups.FEW:
    return Found(*digits.find(of.read(of.sources), sizes, of.order(), goal))
  room = jnp.asarray([survey.room(shapes).sum()] if goal.common else survey.room(shapes))
  drawn = brackets.sample(_again(of, room), goal)

  grain = brackets.grain(drawn)

  def step(looks):
    return jnp.where(looks == 0, grain, np.uint32(1))

  def ready(bracket, looks):
    # A look that did not settle it is only tried again with far fewer scores in the bracket.
    few = bracket.inside <= jnp.maximum(room / 8.0**looks, 3)
    return jnp.all(few | (bracket.high - bracket.low <= step(looks)))

  def one_pass(looks, carried):
    bracket, passes = carried
    kind = jnp.where(passes == 0, 0, jnp.asarray([1, 1, 2, 0])[(passes - 1) % 4])
    thresholds = brackets.guess(kind, bracket, goal, drawn, step(looks))
    found = brackets.count(_again(of, bracket.low), goal.each(thresholds, problems))
    return brackets.narrowed(bracket, thresholds, found, goal), passes + 1

  def one_look(carried):
    bracket, passes, looks, _, _ = carried
    enough = passes + 3
    going = lambda c: ~ready(c[0], looks) & (c[1] < enough)
    bracket, passes = lax.while_loop(going, functools.partial(one_pass, looks), (bracket, passes))
    ends = (goal.each(end, problems) for end in (bracket.low, bracket.high))
    seen = survey.look(_again(of, bracket.low), *ends, of.kinds)
    done = jnp.all(survey.resolved(seen, goal) | (bracket.high - bracket.low <= 1))
    bracket = survey.tightened(bracket, seen, goal)
    return bracket, passes, looks + 1, seen, done

  begin = brackets.start(sizes, goal)
  nothing = jnp.zeros(problems, jnp.uint32)
  blank = jax.tree.map(
    lambda s: jnp.zeros(s.shape, s.dtype),
    jax.eval_shape(lambda: survey.look(of.read(of.sources), nothing, nothing, of.kinds)),
  )
  carried = (begin, jnp.int32(0), jnp.int32(0), blank, jnp.zeros((), bool))
  bracket, _, _, seen, _ = lax.while_loop(lambda c: ~c[-1], one_look, carried)
  bracket = survey.closed(bracket, seen, goal)
  tied = survey.tied(bracket, seen, goal)
  key = goal.each(bracket.low, problems)
  needed = survey.decided(bracket.above, tied, goal, of.order())

  def read_ties(row):
    return [
      rows_of == brackets.rows(key, at, rows_of)
      for at, rows_of in _picked(_again(of, bracket.low), row, of.kinds)
    ]

  cut = survey.cut(survey.tie_rows(seen, key), needed, read_ties, shapes)
  return Found(Edge(key, bracket.above, tied, needed, cut), survey.nans(seen))


def _again(of: Blocks, after):
  """The keys, read anew: tied to `after`, or XLA would keep a copy of them from one use to the next."""
  sources, _ = lax.optimization_barrier((of.sources, after))
  return of.read(sources)


def _picked(found: list, row, kinds):
  """Row `row[i]` of problem i: pairs of a first problem and the rows [problems, tail] from there on."""
  picked, at = [], 0
  for block in found:
    place, flat = [], row[at : at + len(block)]
    for size in reversed(block.shape[1 : 1 + survey.lead(block.shape[1:])]):
      place.insert(0, flat % np.uint32(size))
      flat = flat // np.uint32(size)
    index = (np.arange(len(block), dtype=np.uint32), *place)
    picked.append((block.at[index].get(mode='promise_in_bounds').reshape(len(block), -1),))
    at += len(block)
  joined = [rows for (rows,) in survey.neighbours(picked, kinds)]
  return zip(np.cumsum([0] + [len(rows) for rows in joined[:-1]]), joined, strict=True)


def _compared(of: Blocks, edge: Edge) -> list:
  found, at = [], 0
  for key in _again(of, edge.key):
    level, cut = (brackets.rows(field, at, key) for field in (edge.key, edge.cut))
    # One comparison for scores above the edge and at it: XLA would store a key that is used twice.
    late = survey.positions(key.shape[1:]) >= cut
    found.append(key >= level + late.astype(jnp.uint32))
    at += len(key)
  return found


def _by_age(of: Blocks, edge: Edge, zero, old: list, common: bool) -> tuple[list, jax.Array]:
  """The same, but zeros at the edge stay in two classes: kept so far, then pruned already; and how many stay."""

  def ties():
    at = 0
    for key, mask in zip(_again(of, edge.cut), old, strict=True):
      yield at, key == brackets.rows(edge.key, at, key), mask
      at += len(key)

  both = []
  for _, tie, mask in ties():
    parts = ((tie & mask).astype(jnp.int32), (tie & ~mask).astype(jnp.int32))
    add = lambda a, b: (a[0] + b[0], a[1] + b[1])
    axes = tuple(range(1 + survey.lead(tie.shape[1:]), tie.ndim))
    both.append(lax.reduce(parts, (np.int32(0),) * 2, add, axes))
  by_row = survey.neighbours(both, of.kinds)
  whole = lambda a: jnp.sum(a, tuple(range(1, a.ndim)), dtype=jnp.int32)
  kept_so_far, gone = (jnp.concatenate([whole(pair[part]) for pair in by_row]) for part in (0, 1))
  stay = edge.needed
  if common:
    missing, order = counts.total(counts.widen(stay[:, None])), of.order()
    rest = counts.subtract(missing, counts.total(counts.widen(kept_so_far[:, None])))
    by_age = survey.served(missing, kept_so_far, order) + survey.served(rest, gone, order)
    stay = jnp.where(zero, by_age, stay)
  among_kept = stay < kept_so_far
  weights, at = [], 0
  for kept, pruned in by_row:
    weights.append(jnp.where(brackets.rows(among_kept, at, kept), kept, pruned))
    at += len(kept)
  needed = jnp.where(zero, stay - jnp.where(among_kept, 0, kept_so_far), 0)

  def read_ties(row):
    # As integers: the rows of booleans that lie on a mesh would be fetched by gathering all of them.
    flags = [
      (tie & (mask == brackets.rows(among_kept, at, tie))).astype(jnp.int32)
      for at, tie, mask in ties()
    ]
    return [flags for _, flags in _picked(flags, row, of.kinds)]

  cut = survey.cut(weights, needed, read_ties, of.shapes)
  found = []
  for plain, (at, tie, mask) in zip(_compared(of, edge), ties(), strict=True):
    early = survey.positions(tie.shape[1:]) < brackets.rows(cut, at, tie)
    aged = jnp.where(brackets.rows(among_kept, at, tie), mask & early, mask | early)
    found.append(jnp.where(brackets.rows(zero, at, tie) & tie, aged, plain))
  return found, stay


def _unblocked(of: Blocks, found: list, like: dict) -> dict:
  """Blocks of masks as {path: mask}, in the order of `like`."""
  out, at = (
    {name: jnp.ones(jnp.shape(leaf), bool) for name, leaf in like.items() if not jnp.size(leaf)},
    0,
  )
  for block in found:
    name, slice_of = of.problems[at]
    parts = (
      {name: block}
      if slice_of is not None
      else {
        name: row for (name, _), row in zip(of.problems[at : at + len(block)], block, strict=True)
      }
    )
    out.update({name: part.reshape(jnp.shape(like[name])) for name, part in parts.items()})
    at += len(block)
  return {name: out[name] for name in like}

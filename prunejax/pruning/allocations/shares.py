"""WHO PAYS: how many units each leaf keeps at a sparsity. Every factory makes an `Allocation`; the
counts are exact integers.

The total is `n - floor(n s + 1/2)` units (`counts.kept`): of each leaf for `uniform` and
`by_class`, of all leaves together for the others. Under a structure it is units that are counted;
`report.who_pays` shows the weights.
"""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning.allocations import histogram as histograms
from prunejax.pruning.selection import counts, groups
from prunejax.pruning.selection import search as selection
from prunejax.pruning.selection.groups import map_kinds
from prunejax.pruning.types import Allocation, Units, compiled

NUMBER = (int, float, np.number)  # what can be checked: a jax array may be traced


def uniform() -> Allocation:
  """Every leaf has the same sparsity: the matrix-local rule of Gordon et al., 2020."""
  return Allocation(lambda units, sparsity: _local(units, dict.fromkeys(units.scores, sparsity)))


def by_class(table, *, relative: bool = False) -> Allocation:
  """Every leaf has the sparsity of the first regex in `table` that matches its path: pairs (regex,
  number), or a dict.

  A number is the class's own sparsity in [0, 1), in force whenever the schedule's is above 0; with
  `relative` it is a factor of the schedule's sparsity (the product is cut at 1). ValueError for a
  leaf that no regex matches and for a regex that matches no leaf.
  """
  rows = [(compiled(pattern, 'by_class table'), value) for pattern, value in dict(table).items()]
  for pattern, value in rows:
    if isinstance(value, NUMBER) and not (value >= 0 and (relative or value < 1)):
      accepted = 'a factor of at least 0' if relative else 'a sparsity in [0, 1)'
      raise ValueError(f'by_class: {pattern.pattern!r} has {value!r}; {accepted} is needed')

  def keep(units, sparsity):
    if not units.scores:
      return {}
    classes = _classes(units.scores, [pattern for pattern, _ in rows], 'by_class')
    for pattern, value in rows:
      if not relative and isinstance(value, NUMBER) and np.float32(value) > np.float32(units.cost):
        raise ValueError(
          f'by_class: {pattern.pattern!r} asks for {value}, but this structure can remove at most {units.cost}'
        )
    sparsity = jnp.asarray(sparsity, jnp.float32)
    shares = [jnp.asarray(value, jnp.float32) for _, value in rows]
    shares = [
      share * sparsity if relative else jnp.where(sparsity > 0, share, 0) for share in shares
    ]
    return _local(
      units, {name: shares[row] for name, row in zip(units.scores, classes, strict=True)}
    )

  return Allocation(keep)


def global_threshold() -> Allocation:
  """One threshold for all leaves: each keeps what lies above it, ties going to earlier leaves.
  Blind to layers and classes.
  """

  def find(units, of, sparsity):
    return selection.common_edge(of, counts.kept(_total(units), _unit_sparsity(units, sparsity)))

  def keep(units, sparsity):
    of = groups.blocks(units.again)
    edge = find(units, of, sparsity).edge if of.problems else None
    return groups.by_name(
      of, edge.above + edge.needed if edge else jnp.zeros(0, jnp.int32), units.again
    )

  return Allocation(keep, find)


def class_distribution(classes=None) -> Allocation:
  """The threshold of class c is lambda * sigma_c, with the one lambda that meets the sparsity asked
  of all leaves together.

  (See et al., 2016, sec. 3.2; Han et al., 2015, where a class is a layer.) `classes` are regexes on
  paths, the first match counts; None makes every leaf a class. sigma_c is the root mean square of
  the class's unit scores, which for `magnitude` is the standard deviation of its weights about
  zero. lambda is not searched: scores divided by sigma_c meet one global threshold.
  """
  patterns = (
    None
    if classes is None
    else [compiled(pattern, 'class_distribution classes') for pattern in classes]
  )
  whole = global_threshold()

  def keep(units, sparsity):
    names = list(units.scores)
    if not names:
      return {}
    of = (
      range(len(names))
      if patterns is None
      else _classes(units.scores, patterns, 'class_distribution')
    )
    layers = lambda name: units.again.stacked.intersection([name]) if patterns is None else ()

    def each(fn, *tables):
      """`fn` of each leaf, or of each layer of one that stacks them."""
      found = {}
      for apart in (True, False):
        chosen = [name for name in names if bool(layers(name)) == apart]
        if chosen:
          given = ({name: table[name] for name in chosen} for table in tables)
          found |= map_kinds(jax.vmap(fn) if apart else fn, *given)
      return found

    largest, unit, sigma = each(_largest, units.scores), {}, {}
    rows = {
      row: [name for name, its in zip(names, of, strict=True) if its == row]
      for row in dict.fromkeys(of)
    }
    for members in rows.values():
      # Divided by a power of two near the largest: squares of scores such as 1e-23 are no float32.
      scale = _power_of_two(functools.reduce(jnp.maximum, [largest[name] for name in members]))
      unit |= dict.fromkeys(members, scale)
    power = each(_power, units.scores, unit)
    for row, members in rows.items():
      size = sum(
        units.scores[name][0].size if layers(name) else units.scores[name].size for name in members
      )
      mean = sum(power[name] for name in members) / max(size, 1)
      sigma[row] = jnp.where(mean > 0, jnp.sqrt(mean) * unit[members[0]], 1.0)

    def scaled(sources):
      sources, sigma = sources
      found = units.again.read(sources)
      wide = lambda name, s: s.reshape(s.shape + (1,) * (found[name].ndim - s.ndim))
      return {
        name: found[name] / wide(name, sigma[row]) for row, name in zip(of, names, strict=True)
      }

    again = units.again._replace(read=scaled, sources=(units.again.sources, sigma))
    return whole.keep(units._replace(again=again), sparsity)

  return Allocation(keep)


def erk() -> Allocation:
  """Density proportional to sum(shape) / prod(shape) (Erdos-Renyi-Kernel; Evci et al., 2020),
  leaves that would pass 1 being dense.

  The total kept is exact: fractions are rounded down and the units left over go, one each, to the
  first leaves that were rounded.
  """

  def keep(units, sparsity):
    every = units.parts()
    full = [i for i, part in enumerate(every) if part.size]
    parts = [every[i] for i in full]
    if not parts:
      return units.by_name(jnp.zeros(len(every), jnp.int32)) if every else {}
    sizes = [part.size for part in parts]
    shares = _erk_shares(parts)
    # Leaves become dense in the order of share / size; with the j first dense, the next joins them
    # above `limits[j]` units kept.
    order = sorted(range(len(parts)), key=lambda i: (-Fraction(shares[i], max(sizes[i], 1)), i))
    dense = [sum(sizes[i] for i in order[:j]) for j in range(len(order))]
    spread = [sum(shares[i] for i in order[j:]) for j in range(len(order))]
    limits = [dense[j] + sizes[i] * spread[j] // shares[i] for j, i in enumerate(order)]
    goal = counts.kept(_total(units), _unit_sparsity(units, sparsity))
    over = ~counts.at_least(counts.wide(limits), goal)
    j = jnp.minimum(jnp.sum(over, dtype=jnp.int32), len(order) - 1)
    rank = np.argsort(order)
    left = counts.subtract(goal, counts.Wide(*(limb[j] for limb in counts.wide(dense))))
    divisor = jnp.asarray(spread, jnp.int32)[j]
    share = jnp.minimum(jnp.asarray(shares, jnp.int32), divisor)
    part, rest = counts.multiply_divide(left, share, divisor)
    is_dense = jnp.asarray(rank) < j
    part = jnp.where(is_dense, jnp.asarray(sizes, jnp.int32), counts.narrow(part))
    rounded = (~is_dense) & (rest > 0)
    over = counts.subtract(goal, counts.total(counts.widen(part)))
    first = jnp.cumsum(rounded, dtype=jnp.int32) <= counts.narrow(over)
    return units.by_name(
      jnp.zeros(len(every), jnp.int32).at[np.array(full)].set(part + (rounded & first))
    )

  return Allocation(keep)


def histogram(bins: int = 256, decay: float = 0.9) -> Allocation:
  """Approximate, with a memory: the cut-off of TensorFlow's first pruning library, one of whose copies Gordon et al.,
  2020, ran. Here to be measured against; `uniform` keeps the number that was asked.

  A leaf keeps the units whose score lies above `decay * its last cut + (1 - decay) * cut`, the first last cut being 0
  and cut = (largest score / bins) * (how many of the equal bins from 0 to the largest score, counted from below, hold
  together fewer units than the share to be removed). With `decay=0.9` twenty moves of the masks reach 88 % of a cut
  that stands still; 0.0 is no memory. Scores are taken to be at least 0, as magnitudes are. ValueError for `bins`
  not in 2..65536 or `decay` not in [0, 1).
  """
  if not (isinstance(bins, int) and 2 <= bins <= 1 << 16):
    raise ValueError(f'histogram: bins={bins!r}; a whole number from 2 to 65536 is needed')
  if not 0 <= decay < 1:
    raise ValueError(f'histogram: decay={decay!r} is not in [0, 1)')
  init = lambda parts: jnp.zeros(len(parts), jnp.float32)
  remember = lambda units, sparsity, cuts: histograms.remember(units, sparsity, cuts, bins, decay)
  return Allocation(
    lambda units, sparsity: remember(units, sparsity, init(units.parts()))[0], None, init, remember
  )


def _power(score, scale):
  score = score.astype(jnp.float32) / scale
  return jnp.sum(counts.block_sum(score * score, score.shape))


def _largest(score):
  return jnp.max(jnp.abs(score.astype(jnp.float32)), initial=0)


def _power_of_two(x):
  """The one at or above x; 1 for what has none."""
  return jnp.where(jnp.isfinite(x) & (x > 0), jnp.ldexp(jnp.float32(1), jnp.frexp(x)[1]), 1)


def _erk_shares(parts):
  """Integers proportional to size * sum(shape) / prod(shape): sum(shape) itself where every weight
  is a unit.
  """
  exact = [
    Fraction(part.size * sum(part.shape), max(math.prod(part.shape), 1))
    if part.shape
    else Fraction(1)
    for part in parts
  ]
  unit = math.lcm(*(share.denominator for share in exact))
  whole = max(1, math.ceil(sum(exact)))
  largest = (1 << 28) // whole
  scale = (
    min(unit, largest) if largest else Fraction(1 << 28, whole)
  )  # a vector of more weights than 2^28
  return [max(1, math.floor(share * scale)) for share in exact]


def _classes(scores, patterns, origin):
  """For each leaf the row of the first pattern that matches its path."""
  rows = []
  for name in scores:
    found = [row for row, pattern in enumerate(patterns) if pattern.fullmatch(name)]
    if not found:
      raise ValueError(
        f'{origin}: no class matches {name!r}; the classes are {[p.pattern for p in patterns]}'
      )
    rows.append(found[0])
  for row, pattern in enumerate(patterns):
    if row not in rows:
      raise ValueError(
        f'{origin}: class {pattern.pattern!r} is the first match of no leaf; the leaves are {list(scores)[:6]}'
      )
  return rows


def _local(units, sparsities):
  """`sparsities` by name."""
  parts = units.parts()
  if not parts:
    return {}
  asked = jnp.stack([_unit_sparsity(units, sparsities[part.name]) for part in parts])
  return units.by_name(counts.narrow(counts.kept([part.size for part in parts], asked)))


def _unit_sparsity(units, sparsity):
  return jnp.minimum(jnp.asarray(sparsity, jnp.float32) / np.float32(units.cost), 1)


def _total(units: Units) -> int:
  return sum(score.size for score in units.scores.values())

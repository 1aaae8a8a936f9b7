"""Allocations by share: each leaf keeps a share of its units that no score decides."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning import counts
from prunejax.pruning.paths import compiled, first_match
from prunejax.pruning.precision import refuse_half
from prunejax.pruning.types import Allocation, Units

NUMBER = (int, float, np.number)  # can be checked; a jax array may be traced


def uniform() -> Allocation:
  """Every leaf has the same sparsity: the matrix-local rule of Gordon et al. (2020)."""

  def allocate(units, sparsity):
    return _by_sparsity(units, dict.fromkeys(units.scores, sparsity))

  return Allocation(allocate, by_shape=True)


def by_class(table, *, relative: bool = False) -> Allocation:
  """Every leaf has the sparsity of the first regex that matches its path.

  Args:
    table: pairs (regex, number), or a dict. A number is the sparsity of the class, in [0, 1); it is
      in force whenever the schedule's sparsity is above 0.
    relative: numbers are factors of the schedule's sparsity instead; the product is cut at 1.

  Raises:
    ValueError: a number is out of range. When the link is initialised: a leaf that no regex
      matches, a regex that matches no leaf, or a sparsity above what the structure can remove. A
      number that is known only at run time spoils its leaves then, see `prune_transform`.
  """
  rows = [(compiled(pattern, 'by_class table'), value) for pattern, value in dict(table).items()]
  for pattern, value in rows:
    refuse_half('by_class', f'the number of {pattern.pattern!r}', value)
    if isinstance(value, NUMBER) and not (value >= 0 and (relative or value < 1)):
      accepted = 'a factor of at least 0' if relative else 'a sparsity in [0, 1)'
      raise ValueError(f'by_class: {pattern.pattern!r} has {value!r}; {accepted} is needed')

  def allocate(units, sparsity):
    if not units.scores:
      return {}
    classes = class_rows(units.scores, [pattern for pattern, _ in rows], 'by_class')
    for pattern, value in rows:
      too_much = isinstance(value, NUMBER) and np.float32(value) > np.float32(units.cost)
      if too_much and not relative:
        raise ValueError(
          f'by_class: {pattern.pattern!r} asks for {value}, but this structure can remove at most'
          f' {units.cost}'
        )
    sparsity = jnp.asarray(sparsity, jnp.float32)
    shares = [jnp.asarray(value, jnp.float32) for _, value in rows]
    shares = [
      share * sparsity if relative else jnp.where(sparsity > 0, share, 0) for share in shares
    ]
    sparsities = {name: shares[row] for name, row in zip(units.scores, classes, strict=True)}
    kept = _by_sparsity(units, sparsities)
    for name, row in zip(units.scores, classes, strict=True):
      if not isinstance(rows[row][1], NUMBER):
        most = jnp.inf if relative else units.cost + 1e-6  # A product is cut at 1.
        in_range = (shares[row] >= 0) & (shares[row] <= most)
        kept[name,] = jnp.where(in_range, kept[name,], -1)
    return kept

  return Allocation(allocate, by_shape=True)


def erk() -> Allocation:
  """Density proportional to sum(shape) / prod(shape) (Erdos-Renyi-Kernel; Evci et al., 2020).

  Leaves whose density would pass 1 are dense. The total kept is exact: shares are rounded down, and
  the units left over go, one each, to the first leaves that were rounded.
  """

  def allocate(units, sparsity):
    every_part = units.parts()
    filled = [i for i, part in enumerate(every_part) if part.size]
    parts = [every_part[i] for i in filled]
    if not parts:
      return units.counts(jnp.zeros(len(every_part), jnp.int32)) if every_part else {}
    kept = _erk_counts(parts, counts.kept(total_units(units), unit_sparsity(units, sparsity)))
    return units.counts(jnp.zeros(len(every_part), jnp.int32).at[np.array(filled)].set(kept))

  return Allocation(allocate, by_shape=True)


def unit_sparsity(units: Units, sparsity) -> jax.Array:
  """Returns the share of units to remove, float32: `sparsity` is a share of weights."""
  return jnp.minimum(jnp.asarray(sparsity, jnp.float32) / np.float32(units.cost), 1)


def total_units(units: Units) -> int:
  """Returns the number of units of all leaves together."""
  return sum(score.size for score in units.scores.values())


def class_rows(names, patterns, origin: str) -> list[int]:
  """Returns for each name the row of the first pattern that matches it.

  Raises:
    ValueError: a name that no pattern matches, or a pattern that is the first match of no name.
  """
  rows = []
  for name in names:
    row = first_match(name, patterns)
    if row is None:
      raise ValueError(
        f'{origin}: no class matches {name!r}; the classes are {[p.pattern for p in patterns]}'
      )
    rows.append(row)
  for row, pattern in enumerate(patterns):
    if row not in rows:
      raise ValueError(
        f'{origin}: class {pattern.pattern!r} is the first match of no leaf; the leaves are'
        f' {list(names)[:6]}'
      )
  return rows


def _by_sparsity(units, sparsities):
  """Counts of leaves that compete alone, each at its own sparsity."""
  parts = units.parts()
  if not parts:
    return {}
  asked = jnp.stack([unit_sparsity(units, sparsities[part.name]) for part in parts])
  return units.counts(counts.narrow(counts.kept([part.size for part in parts], asked)))


def _erk_counts(parts, goal: counts.Wide) -> jax.Array:
  """int32 units kept of each part; `goal` is the number of all together."""
  sizes = [part.size for part in parts]
  shares = _erk_shares(parts)
  # Leaves become dense in the order of share / size. With the j first leaves dense, the next one
  # joins them when more than `limits[j]` units are kept.
  order = sorted(range(len(parts)), key=lambda i: (-Fraction(shares[i], max(sizes[i], 1)), i))
  dense = [sum(sizes[i] for i in order[:j]) for j in range(len(order))]
  spread = [sum(shares[i] for i in order[j:]) for j in range(len(order))]
  limits = [dense[j] + sizes[i] * spread[j] // shares[i] for j, i in enumerate(order)]
  passed = ~counts.at_least(counts.wide(limits), goal)
  j = jnp.minimum(jnp.sum(passed, dtype=jnp.int32), len(order) - 1)
  rank = np.argsort(order)
  left = counts.subtract(goal, counts.Wide(*(limb[j] for limb in counts.wide(dense))))
  divisor = jnp.asarray(spread, jnp.int32)[j]
  share = jnp.minimum(jnp.asarray(shares, jnp.int32), divisor)
  quotient, rest = counts.multiply_divide(left, share, divisor)
  is_dense = jnp.asarray(rank) < j
  kept = jnp.where(is_dense, jnp.asarray(sizes, jnp.int32), counts.narrow(quotient))
  rounded = (~is_dense) & (rest > 0)
  missing = counts.narrow(counts.subtract(goal, counts.total(counts.widen(kept))))
  return kept + (rounded & (jnp.cumsum(rounded, dtype=jnp.int32) <= missing)).astype(jnp.int32)


def _erk_shares(parts) -> list[int]:
  """Integers proportional to size * sum(shape) / prod(shape).

  Where every weight is a unit, that is sum(shape).
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
  # A vector of more weights than 2^28 makes `largest` 0.
  scale = min(unit, largest) if largest else Fraction(1 << 28, whole)
  return [max(1, math.floor(share * scale)) for share in exact]

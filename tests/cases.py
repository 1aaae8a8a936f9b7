"""Every public factory of the core beside its numpy twin.

The twins are written from the formulas and share no code with the package.

Counts are Python integers and fractions, ranks are full sorts, sums are float64.
"""

import math
import re
import zlib
from fractions import Fraction
from typing import NamedTuple

import cases_curvature
import cases_dynamic
import cases_layerwise
import cases_proximal
import cases_tied
import numpy as np

from prunejax.pruning import allocations, criteria, schedules, structures
from prunejax.pruning.links import proximal


class Case(NamedTuple):
  """A factory and its numpy twin.

  `extra(params)` returns the arguments by name that a criterion needs beside `grad`; the twin gets
  them too. `rtol` is the tolerance of scores, float32 against float64.
  """

  make: object
  oracle: object
  extra: object = None
  rtol: float = 1e-6


# ---- counts


def kept(size, sparsity) -> int:
  """n - floor(n s + 1/2), with s as the exact decimal."""
  return size - math.floor(size * Fraction(str(sparsity)) + Fraction(1, 2))


# ---- criteria: (params, list of grads, one a step) -> scores


def threefry(key, count):
  """Threefry-2x32, 20 rounds (Salmon et al., 2011): two uint32 words of key, two of counter."""
  left, right = (np.asarray(c, np.uint32) for c in count)
  words = [np.uint32(key[0]), np.uint32(key[1]), np.uint32(key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))]
  with np.errstate(over='ignore'):
    left, right = left + words[0], right + words[1]
    for group in range(5):
      for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
        left = left + right
        right = (right << np.uint32(turn)) | (right >> np.uint32(32 - turn))
        right = left ^ right
      left = left + words[(group + 1) % 3]
      right = right + words[(group + 2) % 3] + np.uint32(group + 1)
  return left, right


def random_scores(params, grads, seed=5):
  out = {}
  for name, w in params.items():
    key = threefry((np.uint32(0), np.uint32(seed)), (0, zlib.crc32(name.encode())))
    place = np.arange(w.size, dtype=np.uint32).reshape(w.shape)
    a, b = threefry(key, (np.zeros_like(place), place))
    out[name] = ((a ^ b) >> np.uint32(9) | np.uint32(0x3F800000)).view(np.float32) - 1
  return out


def movement_scores(params, grads):
  return {name: -sum(np.float64(w) * g[name] for g in grads) for name, w in params.items()}


CRITERIA = {
  'magnitude': Case(
    criteria.magnitude, lambda params, grads: {k: abs(w) for k, w in params.items()}
  ),
  'random': Case(lambda: criteria.random(5), random_scores),
  'taylor': Case(
    criteria.taylor, lambda params, grads: {k: abs(w * grads[-1][k]) for k, w in params.items()}
  ),
  'movement': Case(criteria.movement, movement_scores),
  'soft_movement': cases_dynamic.soft(Case),
}


# ---- structures: shape -> the number of the unit of each weight, units in row-major order


def grid(sizes_of):
  def numbers(shape):
    number = np.zeros(shape, np.int64)
    for axis, (size, length) in enumerate(zip(sizes_of(shape), shape, strict=True)):
      place = np.arange(length) // size
      number = number * -(-length // size) + place.reshape([-1] + [1] * (len(shape) - axis - 1))
    return number

  return numbers


def unit_means(numbers, score):
  return np.array([np.float64(score[numbers == i]).mean() for i in range(numbers.max() + 1)])


def lowest_of_groups(score, n, m):
  """Where n:m along axis -2 prunes: the m - n lowest of every m; of ties the first is kept."""
  rows = np.moveaxis(score, -2, -1)
  groups = rows.reshape(*rows.shape[:-1], -1, m)
  order = np.argsort(-groups, axis=-1, kind='stable')
  gone = np.ones_like(groups, bool)
  np.put_along_axis(gone, order[..., :n], False, axis=-1)
  return np.moveaxis(gone.reshape(rows.shape), -1, -2)


def group_numbers(m):
  return grid(lambda shape: (1,) * (len(shape) - 2) + (m, 1))


STRUCTURES = {
  'unstructured': Case(structures.unstructured, grid(lambda shape: (1,) * len(shape))),
  'n_m': Case(lambda: structures.n_m(2, 4), group_numbers(4)),
  'block': Case(lambda: structures.block(3, 5), grid(lambda s: (1,) * (len(s) - 2) + (3, 5))),
  'rows': Case(structures.rows, grid(lambda s: (*s[:-2], 1, s[-1]))),
  'columns': Case(lambda: structures.columns(3), grid(lambda s: (*s[:-1], 3))),
}


def pooled(name, score):
  numbers = STRUCTURES[name].oracle(score.shape)
  if name != 'n_m':
    return unit_means(numbers, score)
  gone = lowest_of_groups(score, 2, 4)
  return np.array(
    [np.float64(score[(numbers == i) & gone]).mean() for i in range(numbers.max() + 1)]
  )


def opened(name, stays, score):
  mask = stays[STRUCTURES[name].oracle(score.shape)]
  return mask | ~lowest_of_groups(score, 2, 4) if name == 'n_m' else mask


# ---- allocations: (unit scores by leaf, shapes by leaf, unit sparsity) -> units kept by leaf

TABLE = {r'.*attention.*': 0.25, r'.*': 0.4}
CLASSES = (r'.*attention.*', r'.*')


def local(sparsity_of):
  def keep(units, shapes, sparsity):
    return {name: kept(unit.size, sparsity_of(name, sparsity)) for name, unit in units.items()}

  return keep


def first_match(name, patterns):
  return next(pattern for pattern in patterns if re.fullmatch(pattern, name))


def global_keep(units, shapes, sparsity):
  ranked = [
    (-value, leaf, place)
    for leaf, unit in enumerate(units.values())
    for place, value in enumerate(np.ravel(unit).tolist())
  ]
  stays = sorted(ranked)[: kept(len(ranked), sparsity)]
  return {name: sum(leaf == i for _, leaf, _ in stays) for i, name in enumerate(units)}


def class_keep(units, shapes, sparsity):
  gathered = {}
  for name, unit in units.items():
    gathered.setdefault(first_match(name, CLASSES), []).append(np.float64(np.ravel(unit)))
  sigma = {row: np.sqrt(np.mean(np.concatenate(parts) ** 2)) for row, parts in gathered.items()}
  scaled = {name: unit / (sigma[first_match(name, CLASSES)] or 1) for name, unit in units.items()}
  return global_keep(scaled, shapes, sparsity)


def class_uniform_keep(units, shapes, sparsity):
  members = lambda row: {
    name: unit for name, unit in units.items() if first_match(name, CLASSES) == row
  }
  found = [global_keep(members(row), shapes, sparsity) for row in CLASSES]
  return {name: count for one in found for name, count in one.items()}


def erk_keep(units, shapes, sparsity):
  """The loop of the RigL paper: a leaf whose density would exceed 1 becomes dense."""
  sizes = {name: unit.size for name, unit in units.items()}
  raw = {name: Fraction(sum(shapes[name]), math.prod(shapes[name])) for name in units}
  goal, dense = kept(sum(sizes.values()), sparsity), set()
  while True:
    left = goal - sum(sizes[name] for name in dense)
    sparse = [name for name in units if name not in dense]
    epsilon = left / sum((raw[name] * sizes[name] for name in sparse), Fraction(0)) if sparse else 0
    over = [name for name in sparse if epsilon * raw[name] > 1]
    if not over:
      break
    dense.add(max(over, key=lambda name: raw[name]))
  exact = {
    name: sizes[name] if name in dense else epsilon * raw[name] * sizes[name] for name in units
  }
  out = {name: math.floor(value) for name, value in exact.items()}
  for name in [name for name in units if exact[name] > out[name]][: goal - sum(out.values())]:
    out[name] += 1
  return out


def histogram_cut(score, share, bins):
  """The cut-off from the cumulative sums of the bins, as in the first TensorFlow library."""
  score = np.ravel(score).astype(np.float32)
  top = score.max()
  held, _ = np.histogram(score, bins, (0, top if top > 0 else 1))
  shares = np.cumsum(held).astype(np.float32) / np.float32(score.size)
  return float(top) / bins * int(np.sum(shares < np.float32(share)))


ALLOCATIONS = {
  'uniform': Case(allocations.uniform, local(lambda name, sparsity: sparsity)),
  'by_class': Case(
    lambda: allocations.by_class(TABLE, relative=True),
    local(lambda name, s: Fraction(str(TABLE[first_match(name, TABLE)])) * Fraction(str(s))),
  ),
  'global_threshold': Case(allocations.global_threshold, global_keep),
  'class_distribution': Case(lambda: allocations.class_distribution(CLASSES), class_keep),
  'erk': Case(allocations.erk, erk_keep),
  'histogram': Case(
    lambda: allocations.histogram(64, 0.0),
    lambda units, shapes, s: {
      name: int(np.sum(u > histogram_cut(u, s, 64))) for name, u in units.items()
    },
  ),
}


CUTOFFS = {
  'above': Case(
    lambda: allocations.above(TABLE, relative=True),
    cases_dynamic.cut(lambda name, s: np.float32(TABLE[first_match(name, TABLE)]) * np.float32(s)),
  ),
  'class_uniform': Case(lambda: allocations.class_uniform(CLASSES), class_uniform_keep),
}
ALL_ALLOCATIONS = ALLOCATIONS | CUTOFFS


# ---- schedules and predicates: step -> sparsity, step -> bool


def ramp(power, initial):
  def sparsity(t):
    if t < 4:
      return initial
    return 0.8 + (initial - 0.8) * (1 - (t - 4) / 9) ** power if t < 13 else 0.8

  return sparsity


SCHEDULES = {
  'cubic': Case(lambda: schedules.cubic(0.8, begin=4, end=13, initial=0.1), ramp(3, 0.1)),
  'linear': Case(lambda: schedules.linear(0.8, begin=4, end=13), ramp(1, 0.0)),
  'constant': Case(lambda: schedules.constant(0.8), lambda t: 0.8),
  'one_shot': Case(lambda: schedules.one_shot(0.8, at=5), lambda t: 0.8 if t >= 5 else 0.0),
  'staircase': Case(
    lambda: schedules.staircase(0.5, 0.8, steps=3, jumps=4, begin=2),
    lambda t: 0.0 if t < 2 else 0.5 + 0.3 * min(4, (t - 2) // 3) / 4,
  ),
  **cases_dynamic.schedules(Case),
}
PREDICATES = {
  'every': Case(lambda: schedules.every(4, begin=3, until=13), lambda t: t in (3, 7, 11)),
  'until': Case(lambda: schedules.until(6, schedules.every(2)), lambda t: t in (0, 2, 4, 6)),
}
LAYERWISE, PER_OUTPUT = cases_layerwise.tables(Case)
ALL_CRITERIA = {
  **CRITERIA,
  **cases_dynamic.rows(Case),
  **{name: Case(*row) for name, row in cases_curvature.CURVATURE.items()},
  **{name: Case(*row) for name, row in cases_curvature.SURGEON.items()},
  **LAYERWISE,
}
# Every public factory of a package, by name.
TABLES = {
  criteria: ALL_CRITERIA,
  allocations: ALL_ALLOCATIONS | PER_OUTPUT,
  structures: STRUCTURES | cases_tied.TIED,
  schedules: SCHEDULES | PREDICATES,
  proximal: cases_proximal.RUNS,
}

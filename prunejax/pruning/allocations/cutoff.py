"""WHO PAYS by a cut-off, or class by class: allocations beside those of `allocation`."""

import jax.numpy as jnp

from prunejax.pruning.allocations.shares import NUMBER, _classes, global_threshold
from prunejax.pruning.types import Allocation, compiled


def above(cut, *, relative: bool = False) -> Allocation:
  """Every leaf keeps the units whose score is above a cut-off, however many they are, whenever the schedule's sparsity
  is above 0; all of them at 0.

  `cut` is a number, or a table of pairs (regex on the path, number) or a dict, the first match counts. With `relative`
  it is a factor of what the schedule says, which is then no sparsity: `above(1.0, relative=True)` lets `cubic(0.1)`
  raise the cut-off to 0.1, as soft movement pruning does. With `deviations()` it is Han et al.'s (2015) quality times
  sigma. ValueError for a leaf that no regex matches, or a regex that matches no leaf.
  """
  table = dict(cut) if isinstance(cut, (dict, list, tuple)) else {'.*': cut}
  rows = [(compiled(pattern, 'above cut'), value) for pattern, value in table.items()]
  for pattern, value in rows:
    if isinstance(value, str) or (isinstance(value, NUMBER) and value != value):
      raise ValueError(f'above: {pattern.pattern!r} has {value!r}; a number is needed')

  def keep(units, sparsity):
    if not units.scores:
      return {}
    which = _classes(units.scores, [pattern for pattern, _ in rows], 'above')
    sparsity = jnp.asarray(sparsity, jnp.float32)
    kept = {}
    for (name, score), row in zip(units.scores.items(), which, strict=True):
      level = jnp.asarray(rows[row][1], jnp.float32) * (sparsity if relative else 1)
      flags = (score.astype(jnp.float32) > level) | (sparsity <= 0)
      axes = tuple(range(1, score.ndim)) if name in units.again.stacked else None
      kept[name] = jnp.sum(flags, axes, dtype=jnp.int32)
    return kept

  return Allocation(keep)


def class_uniform(classes) -> Allocation:
  """Every class has the same sparsity and one threshold for all its leaves (See et al., 2016, sec. 3.2).

  `classes` are regexes on paths, the first match counts. With every leaf a class this is `uniform`; with all in one,
  `global_threshold`, the paper's class-blind. ValueError as `by_class` raises.
  """
  patterns = [compiled(pattern, 'class_uniform classes') for pattern in classes]
  whole = global_threshold()

  def keep(units, sparsity):
    if not units.scores:
      return {}
    of = _classes(units.scores, patterns, 'class_uniform')
    kept = {}
    for row in dict.fromkeys(of):
      names = [name for name, its in zip(units.scores, of, strict=True) if its == row]
      only = lambda sources, names=names: {name: units.again.read(sources)[name] for name in names}
      again = units.again._replace(read=only, stacked=units.again.stacked.intersection(names))
      scores = {name: units.scores[name] for name in names}
      kept |= whole.keep(units._replace(scores=scores, again=again), sparsity)
    return {name: kept[name] for name in units.scores}

  return Allocation(keep)

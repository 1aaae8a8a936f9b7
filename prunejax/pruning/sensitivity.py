"""How much pruning each layer bears, and the dropout for retraining (Han et al., 2015).

All of it runs outside of compiled programs, on weights in memory.
"""

import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prunejax.pruning import counts
from prunejax.pruning.criteria import deviations
from prunejax.pruning.paths import is_hole, is_prunable, named_leaves, select
from prunejax.pruning.selection import plain
from prunejax.pruning.selection import select as select_highest


def scan(params, measure: Callable, levels, *, by: str = 'quality', where='.*') -> dict:
  """Measures the sensitivity of each leaf by itself.

  Args:
    params: any tree.
    measure: params -> float, such as the loss on held-out data.
    levels: a list of numbers, see `by`.
    by: 'quality': a level q keeps |w| > q sigma of the leaf. 'sparsity': a level is the fraction of
      the leaf that magnitude removes.
    where: as in `prune_transform`.

  Returns:
    {path: [measure of params with this leaf alone pruned, one a level]}.

  Raises:
    ValueError: another `by`, or a level that is out of range.
  """
  if by not in ('quality', 'sparsity'):
    raise ValueError(f"scan: by={by!r}; expected 'quality' or 'sparsity'")
  wrong = [v for v in levels if not (0 <= v < (1 if by == 'sparsity' else math.inf))]
  if wrong:
    accepted = '[0, 1)' if by == 'sparsity' else 'at least 0'
    raise ValueError(f'scan: level {wrong[0]!r} is no {by}; {accepted} is needed')
  leaves, treedef = jax.tree.flatten(params)
  chosen = jax.tree.leaves(select(params, where, origin='scan'), is_leaf=is_hole)
  measures: dict[str, list[float]] = {}
  for index, (name, w) in enumerate(named_leaves(params).items()):
    if is_hole(chosen[index]) or not is_prunable(w):
      continue
    score = deviations().score((), {'w': w})['w']
    measures[name] = []
    for level in levels:
      if by == 'quality':
        mask = (score > level) | (level == 0)
      else:
        kept = counts.narrow(counts.kept(w.size, level))
        mask = select_highest(plain({'w': score}), {('w',): kept}).masks['w']
      pruned = [*leaves[:index], jnp.where(mask, w, jnp.zeros_like(w)), *leaves[index + 1 :]]
      measures[name].append(float(measure(jax.tree.unflatten(treedef, pruned))))
  return measures


def tolerated(table: dict, levels, dense: float, tolerance: float) -> dict:
  """Finds the highest level of each leaf up to which no level costs more than a tolerance.

  Args:
    table: losses as `scan` returns them. For a score that falls with damage, give -score.
    levels: the levels of the scan.
    dense: the loss of the unpruned model.
    tolerance: the accepted rise of the loss.

  Returns:
    {regex of one path: level}, 0.0 where every level costs more. The dict is the table of `above`
    (by quality) or of `by_class` (by sparsity).
  """
  highest = {}
  for name, losses in table.items():
    best = 0.0
    for level, loss in sorted(zip(levels, losses, strict=True)):
      if not loss <= dense + tolerance:
        break
      best = float(level)
    highest[re.escape(name)] = best
  return highest


def adjusted_dropout(rate: float, connections: int, left: int) -> float:
  """Computes D_r = D_o sqrt(C_r / C_o), the dropout for retraining (Han et al., 2015, eq. 2).

  Args:
    rate: D_o, the dropout before pruning, in [0, 1).
    connections: C_o, the number of weights of the layer.
    left: C_r, the number of weights kept.

  Raises:
    ValueError: `rate` is out of range, or `left` is not in 0..`connections`.
  """
  if not 0 <= rate < 1:
    raise ValueError(f'adjusted_dropout: rate={rate!r} is not in [0, 1)')
  if not 0 <= left <= connections or connections == 0:
    raise ValueError(f'adjusted_dropout: left={left!r} is not in 0..connections={connections!r}')
  return rate * math.sqrt(left / connections)

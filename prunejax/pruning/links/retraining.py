"""How much each layer bears, and what changes for retraining: the scan and the dropout of Han et al., 2015.

All of it runs outside of compiled programs, on weights that are at hand.
"""

import math
import re

import jax
import jax.numpy as jnp

from prunejax.pruning.criteria import saliency
from prunejax.pruning.selection import search as selection
from prunejax.pruning.selection.counts import kept, narrow
from prunejax.pruning.types import is_hole, is_prunable, named_leaves, select


def scan(params, measure, levels, *, by='quality', where='.*') -> dict:
  """Sensitivity of each leaf by itself: {path: [measure(params with this leaf alone pruned), one a level]}.

  measure: params -> float, such as the loss on held-out data. by: 'quality', a level q keeps |w| > q sigma of the
  leaf, or 'sparsity', a level is the fraction of the leaf that is removed by magnitude. ValueError for another `by`
  or a level that is none.
  """
  if by not in ('quality', 'sparsity'):
    raise ValueError(f"scan: by={by!r}; expected 'quality' or 'sparsity'")
  wrong = [v for v in levels if not (0 <= v < (1 if by == 'sparsity' else math.inf))]
  if wrong:
    raise ValueError(
      f'scan: level {wrong[0]!r} is no {by}; {"[0, 1)" if by == "sparsity" else "at least 0"} is needed'
    )
  leaves, treedef = jax.tree.flatten(params)
  chosen = treedef.flatten_up_to(select(params, where, origin='scan'))
  found = {}
  for place, (name, w) in enumerate(named_leaves(params).items()):
    if is_hole(chosen[place]) or not is_prunable(w):
      continue
    score = saliency.deviations().score((), {'w': w})['w']
    found[name] = []
    for level in levels:
      if by == 'quality':
        mask = (score > level) | (level == 0)
      else:
        mask = selection.top({'w': score}, {'w': narrow(kept(w.size, level))})['w']
      pruned = [*leaves[:place], jnp.where(mask, w, jnp.zeros_like(w)), *leaves[place + 1 :]]
      found[name].append(float(measure(treedef.unflatten(pruned))))
  return found


def tolerated(table, levels, dense, tolerance) -> dict:
  """{regex of one path: the highest level up to which no level of the leaf costs more than `tolerance`} of a table that
  `scan` made of losses, `dense` being the loss of the unpruned model; 0.0 where every level costs more.

  As it is the table of `above` (quality) or of `by_class` (sparsity). For a score that falls, give -score.
  """
  found = {}
  for name, losses in table.items():
    best = 0.0
    for level, loss in sorted(zip(levels, losses, strict=True)):
      if not loss <= dense + tolerance:
        break
      best = float(level)
    found[re.escape(name)] = best
  return found


def adjusted_dropout(rate, connections, left):
  """D_r = D_o sqrt(C_r / C_o): the dropout for retraining a layer of which `left` of `connections` weights are left
  (Han et al., 2015, eq. 2). ValueError for a rate not in [0, 1) or counts that cannot be.
  """
  if not 0 <= rate < 1:
    raise ValueError(f'adjusted_dropout: rate={rate!r} is not in [0, 1)')
  if not 0 <= left <= connections or connections == 0:
    raise ValueError(f'adjusted_dropout: {left!r} of {connections!r} weights cannot be left')
  return rate * math.sqrt(left / connections)

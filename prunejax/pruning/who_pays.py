"""Who pays: what a recipe would remove from each leaf, before anything is trained."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning import arguments as extra
from prunejax.pruning import mask_update as pipeline
from prunejax.pruning.allocations import shares as allocations
from prunejax.pruning.masks import sparsity as sparsity_of
from prunejax.pruning.placement import on_host
from prunejax.pruning.selection.groups import plain
from prunejax.pruning.structures import local as structures
from prunejax.pruning.types import named_leaves, select

COLLAPSE = 0.99


class Payer(NamedTuple):
  """One leaf of the report, or the total: `asked` and `got` are sparsities, `cutoff` the lowest
  unit score kept (None if none is, or if groups within the leaf have thresholds of their own).
  """

  leaf: str
  weights: int
  kept: int
  asked: float
  got: float
  cutoff: float | None
  warning: str


def who_pays(
  params, criterion, sparsity, allocation=None, structure=None, where='.*', grad=None, **asked
) -> list[Payer]:
  """One row a leaf and a last row 'total' for `params` pruned now at `sparsity` (a number in [0,
  1)); `grad` and the other extra arguments of `tx.update` (`examples`, `activations`, ...) where the criterion
  needs them.
  """
  if not 0 <= sparsity < 1:
    raise ValueError(f'who_pays: sparsity={sparsity} is outside [0, 1)')
  allocation = allocations.uniform() if allocation is None else allocation
  structure = structures.unstructured() if structure is None else structure
  if np.float32(sparsity) > np.float32(structure.cost):
    raise ValueError(
      f'who_pays: sparsity={sparsity} is more than this structure can remove, {structure.cost}'
    )
  chosen = select(params, where, origin='who_pays')
  grad = extra.aligned(grad, chosen)

  @jax.jit
  def plan(chosen, grad, params):
    given = {
      **extra.completed(asked, chosen, params),
      'grad': grad,
      'step': jnp.zeros([], jnp.int32),
    }
    memory = criterion.update(criterion.init(chosen), chosen, **given)
    memory = memory if criterion.prepare is None else criterion.prepare(memory, chosen, **given)
    scores = named_leaves(criterion.score(memory, chosen, **given))
    found = pipeline.select(plain(scores), sparsity, allocation, structure)
    return structure.pool(scores), found.kept, found.masks

  units, kept, masks = plan(chosen, grad, params)
  got = sparsity_of(masks)
  of = (
    structure.members({name: mask.shape for name, mask in masks.items()})
    if structure.members
    else {}
  )
  unit_of = {name: unit for unit, (names, _) in of.items() for name in names}
  rows = []
  for name, mask in masks.items():
    weights, removed = mask.size, got['leaves'][name]
    unit = unit_of.get(name, name)
    values = on_host(units[unit]).astype(np.float32).ravel()
    stays = int(kept[unit])
    asked = (1 - stays / max(values.size, 1)) * structure.cost
    ranked = stays and allocation.choose is None  # one threshold a leaf
    cutoff = (
      float(np.partition(values, values.size - stays)[values.size - stays]) if ranked else None
    )
    bad = int(np.isnan(values).sum())
    rows.append(
      Payer(
        name,
        weights,
        weights - round(removed * weights),
        asked,
        removed,
        cutoff,
        _warning(removed, stays, bad),
      )
    )
  total = sum(row.weights for row in rows)
  warned = sum(bool(row.warning) for row in rows)
  rows.append(
    Payer(
      'total',
      total,
      total - got['removed'],
      float(sparsity),
      got['total'],
      None,
      f'{warned} leaves warned of' if warned else '',
    )
  )
  return rows


def format_report(rows: list[Payer]) -> str:
  """The rows as a text table, one line each."""
  width = max(len(row.leaf) for row in rows)
  lines = [
    f'{"leaf":<{width}}  {"weights":>13}  {"kept":>13}  {"asked":>8}  {"got":>8}  {"cut-off":>10}'
  ]
  for row in rows:
    cutoff = '-' if row.cutoff is None else f'{row.cutoff:.3e}'
    line = f'{row.leaf:<{width}}  {row.weights:>13,}  {row.kept:>13,}'
    line += f'  {row.asked:>8.5f}  {row.got:>8.5f}  {cutoff:>10}'
    lines.append(line + (f'  ! {row.warning}' if row.warning else ''))
  return '\n'.join(lines)


def to_dict(rows: list[Payer]) -> dict:
  """The rows as JSON-able data: {'leaves': [...], 'total': {...}, 'warnings': [...]}; a cut-off
  that is not finite becomes None.
  """
  plain = [
    {
      **row._asdict(),
      'cutoff': row.cutoff if row.cutoff is not None and math.isfinite(row.cutoff) else None,
    }
    for row in rows
  ]
  return {
    'leaves': plain[:-1],
    'total': plain[-1],
    'warnings': [f'{row.leaf}: {row.warning}' for row in rows[:-1] if row.warning],
  }


def _warning(removed, units_kept, bad):
  if bad:
    return f'{bad} scores are NaN'
  if not units_kept:
    return 'nothing is left'
  return f'more than {COLLAPSE:.0%} removed' if removed > COLLAPSE else ''

"""Who pays: what a recipe would remove from each leaf, before anything is trained."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning import kernel_layout, layer_names, scores_to_masks, selection, start
from prunejax.pruning.allocations import uniform
from prunejax.pruning.extra_arguments import aligned, check_needs, completed
from prunejax.pruning.masks import sparsity as sparsity_of
from prunejax.pruning.paths import named_leaves, select
from prunejax.pruning.placement import on_host
from prunejax.pruning.structures import unstructured
from prunejax.pruning.types import Allocation, Criterion, Structure

COLLAPSE = 0.99


class Payer(NamedTuple):
  """One leaf of the report, or the total.

  Attributes:
    leaf: its path.
    weights: the number of its weights.
    kept: the number of weights kept.
    asked: the sparsity that the allocation asks of it.
    got: its sparsity.
    cutoff: the lowest unit score kept; None if no unit is kept, or if groups of units within the
      leaf have thresholds of their own.
    warning: a text, or ''.
    before: the number of weights that are pruned already, see `masks` of `prune_transform`.
  """

  leaf: str
  weights: int
  kept: int
  asked: float
  got: float
  cutoff: float | None
  warning: str
  before: int = 0


def who_pays(
  params,
  criterion: Criterion,
  sparsity: float,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
  where='.*',
  grad=None,
  masks=None,
  hold: bool = False,
  layout: str | Mapping[str, str] = '',
  stacked: str | Mapping[str, str] = '',
  **extra: Any,
) -> list[Payer]:
  """Reports what would be removed from each leaf if `params` were pruned now.

  Args:
    params: the parameters.
    criterion: as in `prune_transform`.
    sparsity: the fraction removed, in [0, 1).
    allocation: as in `prune_transform`.
    structure: as in `prune_transform`.
    where: as in `prune_transform`.
    grad: the raw gradient, where the criterion needs it.
    masks: what is pruned already, as in `prune_transform`.
    hold: as in `prune_transform`.
    layout: as in `prune_transform`.
    stacked: as in `prune_transform`.
    **extra: the other extra arguments of `tx.update` that the criterion needs.

  Returns:
    One row a leaf, and a last row 'total'. `format_report` prints them.

  Raises:
    ValueError: a value is out of range, or an argument that the criterion needs is missing.
  """
  allocation = uniform() if allocation is None else allocation
  structure = unstructured() if structure is None else structure
  scores_to_masks.check_units(criterion, structure, 'who_pays')
  _check(sparsity, structure, allocation.reads_sparsity)
  check_needs(criterion.needs, {**extra, 'grad': grad}, 'who_pays')
  how = {'masks': masks, 'hold': hold, 'layout': layout, 'stacked': stacked}
  plan = planned(params, criterion, allocation, structure, where, **how, **extra)
  return payers(plan, params, sparsity, grad, masks)


class Plan(NamedTuple):
  """What `payers` computes, compiled once for any sparsity.

  Attributes:
    masks: (chosen, grad, params, first masks, sparsity) -> scores of units, masks of units, masks.
    structure: of whole leaves.
    chooses: which leaves are pruned, see `paths.select`.
    layers: the stacked leaves, see `layer_names.layers_of`.
    reads_sparsity: as in `Allocation`; without it the sparsity is a cut-off.
  """

  masks: Callable
  structure: Structure
  chooses: Any
  layers: Mapping
  reads_sparsity: bool


def planned(
  params,
  criterion: Criterion,
  allocation: Allocation,
  structure: Structure,
  where='.*',
  *,
  masks=None,
  hold: bool = False,
  layout: str | Mapping[str, str] = '',
  stacked: str = '',
  **extra: Any,
) -> Plan:
  """Makes the `Plan` of a recipe. Arguments are those of `who_pays`; of params the shapes count."""
  stacked_rows = layer_names.parse(stacked)
  chooses = layer_names.chooser(where, stacked_rows)
  chosen = select(params, chooses, origin='who_pays')
  ranks_below = masks is not None and (hold or not criterion.revives)
  layers = layer_names.layers_of(params, stacked_rows)
  layouts = kernel_layout.layouts(
    params,
    kernel_layout.parse(layout),
    layers.__contains__,
    pruned=named_leaves(chosen),
    names=layer_names.first_names(layers),
  )
  layers = layer_names.layers_of(chosen, stacked_rows, 'who_pays')
  scored = kernel_layout.on_matrices(criterion, layouts)
  layouts, layered = (
    layer_names.split_layouts(layouts, layers),
    layer_names.without_names(layers),
  )
  whole = kernel_layout.of_matrices(structure, layouts)

  @jax.jit
  def masks_of(chosen, grad, params, first, sparsity):
    given = {
      **completed(extra, chosen, params),
      'grad': grad,
      'step': jnp.zeros([], jnp.int32),
      'sparsity': sparsity,
      'due': jnp.array(True),
      **({} if masks is None else {'masks': first}),
      **({'stacked': layers} if layers else {}),
    }
    memory = scored.update(scored.init(chosen), chosen, **given)
    if scored.prepare is not None:
      memory = scored.prepare(memory, chosen, **given)
    scores = layer_names.split(named_leaves(scored.score(memory, chosen, **given)), layers)
    kept = layer_names.split(named_leaves(first), layers)
    selected = scores_to_masks.select(
      selection.plain(scores),
      sparsity,
      allocation,
      structure,
      stacked=layered,
      layouts=layouts,
      before={name: ~mask for name, mask in kept.items()} if ranks_below else None,
    )
    masks_then = selected.masks
    if ranks_below:
      masks_then = {name: mask & kept[name] for name, mask in masks_then.items()}
    return whole.pool(scores), selected.units, masks_then

  return Plan(masks_of, whole, chooses, layers, allocation.reads_sparsity)


def payers(plan: Plan, params, sparsity: float, grad=None, masks=None) -> list[Payer]:
  """Returns the rows of `who_pays` by a `Plan`.

  Args:
    plan: of `planned`.
    params: the parameters.
    sparsity: the fraction removed, in [0, 1).
    grad: as in `who_pays`.
    masks: as in `who_pays`; None where the plan had None.

  Raises:
    ValueError: the sparsity is out of range.
  """
  _check(sparsity, plan.structure, plan.reads_sparsity)
  chosen = select(params, plan.chooses, origin='who_pays')
  first = start.masks_at_start(masks, chosen, 'who_pays')
  unit_scores, unit_masks, masks_then = plan.masks(
    chosen, aligned(grad, chosen), params, first, jnp.float32(sparsity)
  )
  before = sparsity_of(layer_names.split(named_leaves(first), plan.layers))['leaves']
  members = {}
  if plan.structure.members is not None:
    members = plan.structure.members({name: mask.shape for name, mask in masks_then.items()})
  unit_of = {name: unit for unit, (names, _) in members.items() for name in names}
  removed = sparsity_of(masks_then)
  rows = []
  for name, mask in masks_then.items():
    unit = unit_of.get(name, name)
    scores = on_host(unit_scores[unit]).astype(np.float32).ravel()
    kept = on_host(unit_masks[unit]).ravel()
    share = removed['leaves'][name]
    rows.append(
      Payer(
        name,
        mask.size,
        mask.size - round(share * mask.size),
        (1 - int(kept.sum()) / max(kept.size, 1)) * plan.structure.cost,
        share,
        _cutoff(scores, kept),
        _warning(share, int(kept.sum()), int(np.isnan(scores).sum())),
        round(before[name] * mask.size),
      )
    )
  total = sum(row.weights for row in rows)
  warned = sum(bool(row.warning) for row in rows)
  warning = f'warnings on {warned} leaves' if warned else ''
  kept = total - removed['removed']
  before = sum(row.before for row in rows)
  rows.append(Payer('total', total, kept, float(sparsity), removed['total'], None, warning, before))
  return rows


def _check(sparsity, structure, reads_sparsity):
  """Raises ValueError for a sparsity that no weights, or not these units, can have."""
  if not reads_sparsity:
    return
  if not 0 <= sparsity < 1:
    raise ValueError(f'who_pays: sparsity={sparsity} is outside [0, 1)')
  if np.float32(sparsity) > np.float32(structure.cost):
    raise ValueError(
      f'who_pays: sparsity={sparsity} is more than this structure can remove, {structure.cost}'
    )


def format_report(rows: list[Payer]) -> str:
  """Formats the rows of `who_pays` as a text table, one line each.

  Where weights are pruned already, a column says how many.
  """
  is_pruned = any(row.before for row in rows)
  width = max(len(row.leaf) for row in rows)
  heads = f'{"weights":>13}  {"kept":>13}  {"asked":>8}  {"got":>8}  {"cut-off":>10}'
  heads += f'  {"pruned already":>14}' if is_pruned else ''
  lines = [f'{"leaf":<{width}}  {heads}']
  for row in rows:
    cutoff = '-' if row.cutoff is None else f'{row.cutoff:.3e}'
    line = f'{row.leaf:<{width}}  {row.weights:>13,}  {row.kept:>13,}'
    line += f'  {row.asked:>8.5f}  {row.got:>8.5f}  {cutoff:>10}'
    line += f'  {row.before:>14,}' if is_pruned else ''
    lines.append(line + (f'  ! {row.warning}' if row.warning else ''))
  return '\n'.join(lines)


def to_dict(rows: list[Payer]) -> dict:
  """Turns the rows of `who_pays` into data for JSON.

  Returns:
    {'leaves': [...], 'total': {...}, 'warnings': [...]}; a cut-off that is not finite becomes None.
  """
  finite = lambda value: value if value is not None and math.isfinite(value) else None
  as_data = [{**row._asdict(), 'cutoff': finite(row.cutoff)} for row in rows]
  return {
    'leaves': as_data[:-1],
    'total': as_data[-1],
    'warnings': [f'{row.leaf}: {row.warning}' for row in rows[:-1] if row.warning],
  }


def _cutoff(scores, kept) -> float | None:
  """The lowest score kept, unless a unit that is not kept has a higher one."""
  if not kept.any():
    return None
  lowest = np.min(scores[kept])
  highest_removed = np.max(scores[~kept], initial=-np.inf)
  return None if highest_removed > lowest else float(lowest)


def _warning(removed, units_kept, nan_scores):
  if nan_scores:
    return f'{nan_scores} scores are NaN'
  if not units_kept:
    return 'nothing is left'
  return f'more than {COLLAPSE:.0%} removed' if removed > COLLAPSE else ''

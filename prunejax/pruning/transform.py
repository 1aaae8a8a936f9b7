"""`prune_transform`: criterion x schedule x allocation x structure as the last link of an
`optax.chain`, with the masks in its state.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunejax.pruning import mask_update as pipeline
from prunejax.pruning import schedules
from prunejax.pruning.allocations import shares as allocations
from prunejax.pruning.arguments import aligned, completed
from prunejax.pruning.selection.groups import Scores
from prunejax.pruning.state import LatentPruneState, PruneState
from prunejax.pruning.state import check_pruned as check_pruned
from prunejax.pruning.state import get_masks as get_masks
from prunejax.pruning.structures import local as structures
from prunejax.pruning.types import (
  Allocation,
  Criterion,
  Structure,
  compiled,
  is_hole,
  is_prunable,
  named_leaves,
  select,
)


def prune_transform(
  criterion: Criterion,
  schedule,
  when=schedules.every(1),  # noqa: B008 (a pure function)
  *,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
  where='.*',
  stacked: str = '',
  zero_pruned: bool = True,
) -> optax.GradientTransformationExtraArgs:
  """A link that prunes; it must be the last of its chain (`check_pruned` tells), since the update
  it returns is final.

  Step t (counted from 0) scores the weights that come in, if `when(t)`, or if t is the schedule's `end` and comes after
  the first step that `when` names (0 where it names none), and moves the masks to sparsity `schedule(t)`. Then every
  pruned weight p gets the update -p, so that `optax.apply_updates` lands on exactly 0.0.

  `where` is a regex that must match a leaf's whole path ('encoder/layer_0/kernel') or a predicate
  of (path, leaf); only floating-point leaves are pruned. `stacked` is a regex of the leaves that hold
  one layer in each slice of axis 0 (the form of a scan over layers): each slice is then a leaf of its
  own to allocation and threshold. With `zero_pruned=False` updates pass as
  they are, and the mask is for the view (`masks.apply`). A score that is NaN makes the updates of
  its leaf NaN, so that no mask rests on it unseen, and `nan_scores` names the leaf; a weight that is
  itself NaN or infinite cannot be brought to 0 by an update and stays NaN. A change by the criterion's
  `compensate` that is not finite counts as such a score; ValueError for such a criterion with
  `zero_pruned=False`, where it would make up again and again for weights that never went.
  """
  allocation = allocations.uniform() if allocation is None else allocation
  structure = structures.unstructured() if structure is None else structure
  _check_arguments(criterion, schedule, when, allocation, structure)
  if criterion.compensate is not None and not zero_pruned:
    raise ValueError(
      'prune_transform: zero_pruned=False keeps pruned weights alive, and this criterion moves the others to make up '
      'for their loss; use zero_pruned=True, or a criterion that only scores'
    )
  forced = schedules._forced_step('prune_transform', schedule, when)
  State = PruneState if zero_pruned else LatentPruneState

  def init(params):
    chosen = select(params, where, origin='prune_transform')
    layers = _stacked(chosen, stacked)
    abstract = _abstract(chosen)
    jax.eval_shape(
      lambda s: pipeline.kept_units(s, 0.0, allocation, structure, layers)[1], abstract
    )
    return State(
      jnp.zeros([], jnp.int32),
      jax.tree.map(lambda p: jnp.ones_like(p, dtype=bool), chosen),
      criterion.init(chosen),
      jnp.zeros(len(jax.tree.leaves(chosen)), jnp.int32),
      _memory(allocation, structure, abstract, layers),
    )

  def update(updates, state, params=None, **extra):
    if params is None:
      raise ValueError(
        'prune_transform: tx.update needs params, as in tx.update(grads, opt_state, params)'
      )
    treedef = jax.tree.structure(params)
    masks, ups = treedef.flatten_up_to(state.prune_mask), treedef.flatten_up_to(updates)
    weights = jax.tree.leaves(params)
    chosen = treedef.unflatten(
      [mask if is_hole(mask) else p for mask, p in zip(masks, weights, strict=True)]
    )
    step = state.prune_count
    layers = _stacked(chosen, stacked)
    extra = {
      **completed(extra, chosen, params),
      'grad': aligned(extra.get('grad'), chosen),
      'step': step,
    }
    extra |= {'stacked': layers} if layers else {}
    memory = criterion.update(state.prune_criterion, chosen, **extra, masks=state.prune_mask)

    sources = (memory, chosen, {'grad': extra['grad'], 'step': step, 'masks': state.prune_mask})
    read = lambda sources: named_leaves(
      criterion.score(sources[0], sources[1], **{**extra, **sources[2]})
    )

    def move(old, memory):
      # Here and not outside: what is costly is paid for only when masks move.
      ready = (
        sources[0] if criterion.prepare is None else criterion.prepare(sources[0], chosen, **extra)
      )
      scores = Scores(read, (ready, *sources[1:]), layers)
      found = pipeline.select(
        scores, schedule(step), allocation, structure, named_leaves(old), memory
      )
      masks, spoilt = list(found.masks.values()), list(found.nan.values())
      moved = changes(ready, jax.tree.unflatten(jax.tree.structure(old), masks))
      if moved:
        spoilt = [
          nan | ~jnp.all(jnp.isfinite(change)) for nan, change in zip(spoilt, moved, strict=True)
        ]
      return masks, spoilt, found.memory, moved

    def stay(old, memory):
      kept = jax.tree.leaves(old)
      none = (
        []
        if criterion.compensate is None
        else jax.tree.map(jnp.zeros_like, jax.tree.leaves(chosen))
      )
      return kept, [jnp.zeros([], bool)] * len(kept), memory, none

    def changes(ready, masks):
      """What the survivors are moved by, leaf by leaf; nothing where the criterion does not say."""
      if criterion.compensate is None:
        return []
      moved = named_leaves(criterion.compensate(ready, chosen, masks, **extra))
      return [
        jnp.where(mask, moved[name], 0).astype(p.dtype)
        for (name, mask), p in zip(
          named_leaves(masks).items(), jax.tree.leaves(chosen), strict=True
        )
      ]

    # `updates` stay out of the cond: as its operand they would be materialised at every step.
    operands = state.prune_mask, state.prune_allocation
    new_masks, spoilt, remembered, moved = jax.lax.cond(
      _due(when, forced, step), move, stay, *operands
    )
    nan = state.prune_nan
    nan = jnp.where((nan == 0) & jnp.stack(spoilt), step + 1, nan) if spoilt else nan
    new_masks, spoilt, moved = iter(new_masks), iter(spoilt), iter(moved)
    out, kept = [], []
    for mask, update, p in zip(masks, ups, weights, strict=True):
      kept.append(mask if is_hole(mask) else next(new_masks))
      if criterion.compensate is not None and not is_hole(mask):
        update = next(moved) + (0 if update is None else update)
      out.append(
        update if is_hole(mask) else _landing(kept[-1], update, p, next(spoilt), zero_pruned)
      )
    new = State(optax.safe_increment(step), treedef.unflatten(kept), memory, nan, remembered)
    return treedef.unflatten(out), new

  return optax.GradientTransformationExtraArgs(init, update)


def hold_zeros(where='.*') -> optax.GradientTransformationExtraArgs:
  """A last link that keeps weights at zero which are zero at init, under any optimizer: fine-tuning
  of a pruned checkpoint.

  Its mask is in a `PruneState`, so `get_masks` sees it. It cannot tell a pruned weight from one
  that was only initialised to zero: name the pruned leaves with `where`; a leaf that is zero
  throughout gives a UserWarning.
  """

  def init(params):
    chosen = select(params, where, origin='hold_zeros')
    for name, leaf in named_leaves(chosen).items():
      if isinstance(leaf, jax.ShapeDtypeStruct):
        raise ValueError(
          f'hold_zeros: {name!r} has a shape but no values; use jax.eval_shape(tx.init, '
          'params) for the shapes of its state'
        )
      if not isinstance(leaf, jax.core.Tracer) and leaf.size and not np.any(np.asarray(leaf != 0)):
        warnings.warn(
          f'hold_zeros: {name!r} is zero throughout and will stay so; leave it out with where= if it is only new',
          stacklevel=2,
        )
    return PruneState(jnp.zeros([], jnp.int32), jax.tree.map(lambda p: p != 0, chosen), ())

  def update(updates, state, params=None, **extra):
    del extra
    if params is None:
      raise ValueError('hold_zeros: tx.update needs params')
    treedef = jax.tree.structure(params)
    masks = treedef.flatten_up_to(state.prune_mask)
    out = [
      update if is_hole(mask) else _landing(mask, update, p, False, True)
      for mask, update, p in zip(
        masks, treedef.flatten_up_to(updates), jax.tree.leaves(params), strict=True
      )
    ]
    return treedef.unflatten(out), state._replace(
      prune_count=optax.safe_increment(state.prune_count)
    )

  return optax.GradientTransformationExtraArgs(init, update)


def gradient_from_updates(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """`inner` with `grad=` set to the updates that come in: put it inside `optax.MultiSteps`, around
  the whole chain.

  There the incoming updates are the accumulated gradient, while a `grad=` from outside is that of
  the last micro-batch only.
  """
  inner = optax.with_extra_args_support(inner)

  def update(updates, state, params=None, **extra):
    return inner.update(updates, state, params, **{**extra, 'grad': updates})

  return optax.GradientTransformationExtraArgs(inner.init, update)


def _landing(mask, update, p, spoilt, zero_pruned):
  """The update that brings pruned weights to exactly 0.0: -p in p's own dtype, since a rounded -p
  would miss.
  """
  update = jnp.zeros_like(p) if update is None else update
  if zero_pruned:
    dtype = jnp.promote_types(update.dtype, p.dtype)
    update = jnp.where(mask, update.astype(dtype), -p.astype(dtype))
  return (
    update if spoilt is False else jnp.where(spoilt, jnp.asarray(jnp.nan, update.dtype), update)
  )


def _due(when, forced, step):
  due = when(step)
  return due if forced is None else due | (step == forced)


def _check_arguments(criterion, schedule, when, allocation, structure):
  kinds = (
    ('criterion', criterion, Criterion),
    ('allocation', allocation, Allocation),
    ('structure', structure, Structure),
  )
  for name, value, kind in kinds:
    if not isinstance(value, kind):
      raise ValueError(
        f'prune_transform: {name}={value!r} is no {kind.__name__}; is a call missing, as in {name}=...()?'
      )
  for name, value in (('schedule', schedule), ('when', when)):
    if not callable(value):
      raise ValueError(
        f'prune_transform: {name}={value!r} must be a function of the step, as cubic(0.9, end=1000) or every(10) make'
      )
  if getattr(criterion.score, 'single', False) and not structure.single:
    raise ValueError(
      'prune_transform: this criterion says which single weights were kept and which come back, so their scores have no'
      ' mean over a unit; it needs structure=unstructured()'
    )
  most = getattr(schedule, 'final', None)
  if most is not None and np.float32(most) > np.float32(structure.cost):
    raise ValueError(
      f'prune_transform: the schedule asks for sparsity {most}, but this structure can remove at most {structure.cost}'
    )


def _stacked(chosen, pattern) -> frozenset:
  """The names of the chosen leaves that stack layers. Raises ValueError when there is none, or one is no stack."""
  if not pattern:
    return frozenset()
  regex = compiled(pattern, 'stacked')
  leaves = {name: leaf for name, leaf in named_leaves(chosen).items() if is_prunable(leaf)}
  found = frozenset(name for name in leaves if regex.fullmatch(name))
  if leaves and not found:
    raise ValueError(
      f'prune_transform: stacked={pattern!r} matches none of the pruned leaves {list(leaves)[:6]}'
    )
  for name in found:
    if len(leaves[name].shape) < 2:
      raise ValueError(
        f'prune_transform: {name!r} has shape {tuple(leaves[name].shape)} and cannot be stacked layers'
      )
  return found


def _memory(allocation, structure, abstract, layers):
  """What an allocation with a memory starts from."""
  if allocation.init is None:
    return ()
  parts = []
  jax.eval_shape(
    lambda s: parts.extend(pipeline.pooled_units(s, structure, layers).parts()), abstract
  )
  return allocation.init(parts)


def _abstract(tree):
  return {
    name: jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
    for name, leaf in named_leaves(tree).items()
    if is_prunable(leaf)
  }

"""`prune_transform`: criterion x schedule x allocation x structure, as a link of an optax chain.

The masks live in the optimizer state, and a pruned weight p gets the update -p.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prunejax.pruning import (
  faults,
  kernel_layout,
  layer_names,
  placement,
  schedules,
  scores_to_masks,
  start,
)
from prunejax.pruning.allocations import uniform
from prunejax.pruning.dtypes import wider
from prunejax.pruning.extra_arguments import aligned, check_needs, completed
from prunejax.pruning.paths import is_hole, is_prunable, named_leaves, select
from prunejax.pruning.precision import refuse_half
from prunejax.pruning.schedules import Schedule, When
from prunejax.pruning.selection import Scores, sample
from prunejax.pruning.state import LatentPruneState, PruneState
from prunejax.pruning.structures import unstructured
from prunejax.pruning.types import Allocation, Criterion, Structure

EVERY_STEP = schedules.every(1)
# A sparsity is read to seven decimals; a schedule computed in float32 may miss 0 by as much.
ROUNDING = np.float32(1e-6)


def prune_transform(
  criterion: Criterion,
  schedule: Schedule | Callable,
  when: When | Callable = EVERY_STEP,
  *,
  allocation: Allocation | None = None,
  structure: Structure | None = None,
  where: str | Callable = '.*',
  stacked: str | Mapping[str, str] = '',
  layout: str | Mapping[str, str] = '',
  zero_pruned: bool = True,
  masks: Any = None,
  hold: bool = False,
  undivided: str | Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
  r"""Makes a link that prunes. It must be the last link of its chain, since its update is final.

  Step t is counted from 0. Masks are recomputed from the incoming weights at step t when `when(t)`
  is true, and once more at `schedule.end` if that comes after the first step of `when`. They then
  have sparsity `schedule(t)`. Where a schedule that only rises asks for less than they have, they
  keep the sparsity that they have. At every step each pruned weight p gets the update -p, so that
  `optax.apply_updates` lands on exactly 0.0.

  What spoils a mask makes the updates of its leaf NaN, so that no mask rests on it unseen, and
  `faults` names the leaf and the reason. There are four: a score that is NaN, or a change by
  `Criterion.compensate` that is not finite; a sparsity, known only at run time, that is outside of
  what the structure can remove; pruned weights that are not 0 when masks move, because the link is
  not the last or params were changed later; and float64 weights that are 0 or infinite as float32,
  in which all scores are ranked. A weight that is itself NaN or infinite stays NaN.

  Args:
    criterion: SCORE, how much each weight matters: `magnitude()`, `movement()`, ...
    schedule: how sparse at a step: `cubic(0.9, end=10_000)`, any optax schedule, or any function of
      the step.
    when: whether masks move at a step: `every(10)`, or any function of the step.
    allocation: WHO PAYS; default `uniform()`.
    structure: TOGETHER, which weights are removed as one; default `unstructured()`.
    where: a regex that must match a leaf's whole path ('encoder/layer_0/kernel'), or a predicate of
      (path, leaf). Only floating-point leaves are pruned.
    stacked: a regex of the leaves that hold one layer in each slice of axis 0, as models that scan
      over their layers do. Each slice is then a leaf of its own. A dict {regex: name of a layer}
      says what the layers are called in the unrolled model, with groups of the regex and {} for
      the number: {r'(.*)/layers/(.*)': r'\1/layer_{}/\2'}. Then `where`, `layout` and the
      classes of an allocation match these names, and masks are those of the unrolled model.
    layout: which axes of a leaf are inputs and which are outputs: a word for each axis, 'in' or
      'out', such as 'in out out' for an attention kernel [in, heads, width]. It matters to
      `wanda`, `sparsegpt`, `block_fisher`, `n_m`, `rows`, `columns`, `block`, `tied` and
      `per_output` alone. 'out in ...' is that of PyTorch and Equinox; '...' stands for the window
      of a convolution. 'each' is an axis that counts separate matrices, such as experts. A dict
      {regex: words} tells leaves apart. Without it, matrices are [in, out], and dense layers,
      attention and convolutions of Flax are known; of another leaf the layout is asked for.
    zero_pruned: False lets updates pass as they are: pruned weights live on under the mask, and the
      model sees a view (`masks.apply`, `masks.straight_through`).
    masks: what is pruned already at step 0. 'zeros': the weights that are 0 then. Or masks shaped
      like params, True = kept, as `get_masks` returns them. None: nothing. Weights that are pruned
      already count towards the sparsity and rank below all others, whatever the criterion. Under
      a schedule that only rises they stay at 0. A criterion that says which weights come back
      (`regrow`, `rigl`, `sparse_evolution`) starts from these masks and may move them.
    hold: True: weights that `masks` prunes stay at 0 under every schedule and criterion.
    undivided: inside `jax.shard_map` or `jax.pmap`, names of mesh axes along which every device has
      whole leaves, as copies or as models of their own. Leaves that such an axis divides are
      refused, since each device would rank its part alone. Under `jax.jit` nothing is to be said.

  Returns:
    An optax transformation. Its `update` takes the extra arguments that `criterion.needs` names.

  Raises:
    ValueError: an argument is of the wrong kind; the schedule asks for more than the structure can
      remove; or `when` ends before the schedule does. From `init`: `where` matches no leaf, a leaf
      does not fit the structure, the allocation or `masks`, or the schedule returns no single
      number. From `update`: an argument is missing, or leaves may be divided, see `undivided`.
  """
  allocation = uniform() if allocation is None else allocation
  structure = unstructured() if structure is None else structure
  _check_kinds(criterion, schedule, when, allocation, structure)
  if allocation.with_memory is not None:
    criterion, allocation = allocation.with_memory(criterion)
  given_criterion = criterion
  schedule, when = schedules.as_schedule(schedule), schedules.as_when(when)
  _check_product(criterion, schedule, allocation, structure, zero_pruned)
  for name, value in (('zero_pruned', zero_pruned), ('hold', hold)):
    if not isinstance(value, bool):
      raise ValueError(f'prune_transform: {name}={value!r}: expected True or False')
  if hold and masks is None:
    raise ValueError("prune_transform: hold=True holds what masks= prunes; give masks='zeros', say")
  ranks_below = masks is not None and (hold or not criterion.revives)
  never_back = hold or schedule.rises
  most = np.float32(structure.cost) + ROUNDING
  layout_rows, stacked_rows = kernel_layout.parse(layout), layer_names.parse(stacked)
  masks_move = schedules.moves('prune_transform', schedule, when)
  State = PruneState if zero_pruned else LatentPruneState
  origin = 'prune_transform' if where == '.*' else f'prune_transform(where={where!r})'
  where = layer_names.chooser(where, stacked_rows)

  def init(params):
    chosen = select(params, where, origin='prune_transform')
    layered = _layers(chosen, stacked_rows)
    layouts = _layouts(params, layout_rows, stacked_rows, chosen)
    scores_to_masks.check(_shapes(chosen), allocation, structure, layered, layouts)
    jax.eval_shape(lambda step: (_sparsity(schedule, step), _due(when, step)), np.int32(0))
    first = start.masks_at_start(masks, chosen, origin)
    return State(
      jnp.zeros([], jnp.int32),
      first,
      kernel_layout.on_matrices(criterion, layouts).init(chosen),
      jnp.zeros(len(jax.tree.leaves(chosen)), jnp.int32),
      jnp.float32(0) if masks is None or ranks_below else start.sparsity(first),
      jax.tree.map(jnp.logical_not, first) if ranks_below else (),
    )

  def traced_update(updates, state, params, extra):
    layouts = _layouts(params, layout_rows, stacked_rows, getattr(state, 'prune_mask', {}))
    criterion = kernel_layout.on_matrices(given_criterion, layouts)
    _check_state(state, params, where, origin, State)
    _check_recipe(state, params, criterion, where, origin, ranks_below)
    treedef = jax.tree.structure(params)
    weights = jax.tree.leaves(params)
    placement.check_undivided((weights, state.prune_mask), undivided, origin)
    masks, updates = treedef.flatten_up_to(state.prune_mask), treedef.flatten_up_to(updates)
    chosen = treedef.unflatten(
      [mask if is_hole(mask) else p for mask, p in zip(masks, weights, strict=True)]
    )
    step = state.prune_count
    layered, due = _layers(chosen, stacked_rows), masks_move(step)
    sparsity = _sparsity(schedule, step)
    asked = state.prune_sparsity
    if schedule.rises and not isinstance(asked, tuple):
      sparsity = jnp.where(asked > sparsity + _rounding(chosen, layered), asked, sparsity)
    in_range = jnp.isfinite(sparsity)
    if allocation.reads_sparsity:
      in_range = (sparsity >= -ROUNDING) & (sparsity <= most)
    arguments = {
      **completed(extra, chosen, params),
      'grad': aligned(extra.get('grad'), chosen),
      'step': step,
      'sparsity': sparsity,
      'due': due,
      **({'stacked': layered} if layered else {}),
    }
    memory = criterion.update(state.prune_criterion, chosen, **arguments, masks=state.prune_mask)

    # Two branches give one type, also where each device of a manual axis has its own weights.
    varying = functools.partial(placement.varying_as, like=(chosen, state.prune_mask))

    def some_alive(old_masks):
      pairs = zip(jax.tree.leaves(chosen), jax.tree.leaves(old_masks), strict=True)
      return varying(jnp.array([_some_alive(p, mask) for p, mask in pairs], bool))

    alive = jnp.zeros(len(jax.tree.leaves(chosen)), bool)
    if zero_pruned:
      # Before the first update nothing has brought the weights under the first masks to 0. The
      # check has a branch of its own, or XLA would copy the masks at every step.
      none_alive = varying(alive)
      with jax.named_scope(schedules.MASK_STEP):
        alive = jax.lax.cond(
          due & (step > 0), some_alive, lambda old_masks: none_alive, state.prune_mask
        )

    def moved(old_masks, before):
      # Inside the branch, so that costly work is paid for only when masks move.
      ready = (
        memory if criterion.prepare is None else criterion.prepare(memory, chosen, **arguments)
      )
      reread = {'grad': arguments['grad'], 'step': step, 'masks': state.prune_mask}

      def read(sources):
        ready, chosen, reread = sources
        return named_leaves(criterion.score(ready, chosen, **{**arguments, **reread}))

      selected = scores_to_masks.select(
        Scores(read, (ready, chosen, reread)),
        arguments['sparsity'],
        allocation,
        structure,
        old=named_leaves(old_masks),
        stacked=layered,
        before=named_leaves(before) if ranks_below else None,
        layouts=layouts,
      )
      new_masks, nan = list(selected.masks.values()), list(selected.nan.values())
      invalid = [~in_range | flag for flag in selected.invalid.values()]
      before = jax.tree.leaves(before)
      if ranks_below and never_back:
        new_masks = [mask & ~gone for mask, gone in zip(new_masks, before, strict=True)]
      elif ranks_below:
        before = [gone & ~mask for mask, gone in zip(new_masks, before, strict=True)]
      changes = _compensation(criterion, ready, chosen, new_masks, arguments)
      if changes:
        finite = [jnp.all(jnp.isfinite(change)) for change in changes]
        nan = [flag | ~ok for flag, ok in zip(nan, finite, strict=True)]
      rounded = [_loses_order(p) for p in jax.tree.leaves(chosen)]
      found = _faults(nan, invalid, alive, rounded)
      return varying((new_masks, found, changes, before))

    def stayed(old_masks, before):
      old = jax.tree.leaves(old_masks)
      changes = []
      if criterion.compensate is not None:
        changes = [jnp.zeros_like(p) for p in jax.tree.leaves(chosen)]
      fine = jnp.full(len(old), faults.FINE, jnp.int32)
      return varying((old, fine, changes, jax.tree.leaves(before)))

    # `updates` are no operand of the cond: XLA would store them at every step.
    with jax.named_scope(schedules.MASK_STEP):
      new_masks, found, changes, before = jax.lax.cond(
        due, moved, stayed, state.prune_mask, state.prune_before
      )
    spoiled = found != faults.FINE
    first_fault = faults.recorded(state.prune_nan, found, step)
    new_masks, spoiled, changes = iter(new_masks), iter(spoiled), iter(changes)
    landed, kept = [], []
    for mask, update, p in zip(masks, updates, weights, strict=True):
      if is_hole(mask):
        landed.append(update)
        kept.append(mask)
        continue
      kept.append(next(new_masks))
      if criterion.compensate is not None:
        update = next(changes) + (0 if update is None else update)
      landed.append(_masked_update(kept[-1], update, p, next(spoiled), zero_pruned))
    new_state = State(
      optax.safe_increment(step),
      treedef.unflatten(kept),
      memory,
      first_fault,
      () if isinstance(asked, tuple) else jnp.where(due & in_range, sparsity, asked),
      jax.tree.unflatten(jax.tree.structure(state.prune_before), before),
    )
    return treedef.unflatten(landed), new_state

  # Outside of jit, the cond below would be compiled anew at every call.
  compiled_update = jax.jit(traced_update)

  def update(updates, state, params=None, **extra):
    if params is None:
      raise ValueError(
        'prune_transform: tx.update needs params, as in tx.update(grads, opt_state, params)'
      )
    check_needs(criterion.needs, extra, origin)
    is_eager = all(map(_is_concrete, jax.tree.leaves((updates, state, params, extra))))
    return (compiled_update if is_eager else traced_update)(updates, state, params, extra)

  return optax.GradientTransformationExtraArgs(init, update)


def hold_zeros(where: str | Callable = '.*') -> optax.GradientTransformationExtraArgs:
  """Makes a last link that keeps at zero the weights that are zero at init, under any optimizer.

  It serves fine-tuning of a pruned checkpoint. Its mask is in a `PruneState`, so `get_masks` sees
  it. The link cannot tell a pruned weight from one that was initialised to zero: name the pruned
  leaves with `where`. A leaf that is zero throughout gives a UserWarning.

  Args:
    where: as in `prune_transform`.

  Raises:
    ValueError: from `init`, `where` matches no leaf, or a leaf has a shape but no values.
  """

  def init(params):
    chosen = select(params, where, origin='hold_zeros')
    masks = start.from_zeros(chosen, 'hold_zeros')
    return PruneState(jnp.zeros([], jnp.int32), masks, ())

  def update(updates, state, params=None, **extra):
    del extra
    if params is None:
      raise ValueError('hold_zeros: tx.update needs params')
    # Traced: a `where` that looks at values must not see those of today.
    check = lambda params: _check_state(state, params, where, 'hold_zeros', None)
    jax.eval_shape(check, params)
    treedef = jax.tree.structure(params)
    masks, updates = treedef.flatten_up_to(state.prune_mask), treedef.flatten_up_to(updates)
    landed = [
      update if is_hole(mask) else _masked_update(mask, update, p, None, True)
      for mask, update, p in zip(masks, updates, jax.tree.leaves(params), strict=True)
    ]
    step = optax.safe_increment(state.prune_count)
    return treedef.unflatten(landed), state._replace(prune_count=step)

  return optax.GradientTransformationExtraArgs(init, update)


def gradient_from_updates(
  inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
  """Makes `inner` with `grad=` set to the incoming updates.

  Put it inside `optax.MultiSteps`, around the whole chain: the incoming updates are there the
  accumulated gradient, while a `grad=` from outside is that of the last micro-batch only. It also
  serves callers that cannot pass `grad=`, such as Flax's TrainState.

  Args:
    inner: the whole chain, whose first link takes raw gradients. Around a pruning link alone the
      incoming updates would be the steps of the optimizer before it.

  Raises:
    ValueError: from `init`, `inner` is nothing but links that prune.
  """
  inner = optax.with_extra_args_support(inner)

  def init(params):
    state = inner.init(params)
    if _only_prunes(state):
      raise ValueError(
        'gradient_from_updates: the updates that reach a pruning link are steps of the optimizer'
        ' before it, not gradients; put it around the whole chain, as in'
        ' gradient_from_updates(optax.chain(optax.adam(1e-3), prune_transform(...)))'
      )
    return state

  def update(updates, state, params=None, **extra):
    return inner.update(updates, state, params, **{**extra, 'grad': updates})

  return optax.GradientTransformationExtraArgs(init, update)


def _only_prunes(state) -> bool:
  """True for the state of a pruning link, or of a chain of such links alone."""
  if isinstance(state, PruneState):
    return True
  if hasattr(state, 'inner_state'):  # optax.inject_hyperparams, optax.masked
    return _only_prunes(state.inner_state)
  return type(state) is tuple and bool(state) and all(map(_only_prunes, state))


def _sparsity(schedule, step) -> jax.Array:
  """What the schedule asks at a step, a float32 scalar."""
  return _number('schedule', schedule(step)).astype(jnp.float32)


def _due(when, step) -> jax.Array:
  return _number('when', when(step))


def _number(name, value) -> jax.Array:
  """`value` as an array without axes; ValueError for one that has axes or is rounded."""
  if jnp.shape(value):
    raise ValueError(
      f'prune_transform: {name} returns an array of shape {jnp.shape(value)} at a step; a single'
      ' number of shape () is needed'
    )
  refuse_half('prune_transform', f'what {name} returns', value)
  return jnp.asarray(value)


def _rounding(chosen, layered) -> np.float32:
  """How far masks may be above the sparsity asked, since each leaf keeps a whole number."""
  leaves = named_leaves(chosen)
  parts = sum(leaf.shape[0] if name in layered else 1 for name, leaf in leaves.items())
  size = sum(leaf.size for leaf in leaves.values())
  return np.float32(0.5 * parts / max(size, 1)) + ROUNDING


def _some_alive(p, mask) -> jax.Array:
  """True if a pruned weight is not 0, in a sample of the leaf.

  A link that is not the last leaves nearly all of them alive, so the whole leaf tells no more.
  """
  if not placement.explicit_axes(jax.typeof(p).sharding):
    steps = sample.steps_of(p.shape, placement.devices((p, mask)))
    p, mask = sample.thinned(p, steps), sample.thinned(mask, steps)
  return jnp.any(~mask & (p != 0))


def _loses_order(p) -> jax.Array:
  """True if float64 weights that are finite and not 0 are not so as float32."""
  if p.dtype != jnp.float64:
    return jnp.zeros([], bool)
  narrow = p.astype(jnp.float32)
  return jnp.any(((narrow == 0) & (p != 0)) | (jnp.isinf(narrow) & jnp.isfinite(p)))


def _faults(nan, invalid, alive, rounded) -> jax.Array:
  """Reasons by leaf, int32: of flags by leaf the last that is set.

  Weights that are NaN are not 0 either, so NaN comes after that.
  """
  if not nan:
    return jnp.zeros(0, jnp.int32)
  reasons = [
    (alive, faults.NOT_ZERO),
    (jnp.stack(rounded), faults.ROUNDED),
    (jnp.stack(nan), faults.NAN_SCORE),
    (jnp.stack(invalid), faults.SPARSITY),
  ]
  fault = jnp.full(len(nan), faults.FINE, jnp.int32)
  for flags, reason in reasons:
    fault = jnp.where(flags, reason, fault)
  return fault


def _masked_update(mask, update, p, is_nan, zero_pruned):
  """The update that brings a pruned weight to exactly 0.0.

  It is -p in p's own dtype: a rounded -p would miss.
  """
  update = jnp.zeros_like(p) if update is None else update
  if zero_pruned:
    dtype = wider(update.dtype, p.dtype)
    update = jnp.where(mask, update.astype(dtype), -p.astype(dtype))
  if is_nan is None:
    return update
  return jnp.where(is_nan, jnp.asarray(jnp.nan, update.dtype), update)


def _compensation(criterion, ready, chosen, masks, arguments) -> list:
  """What the survivors are moved by, leaf by leaf; nothing where the criterion moves none."""
  if criterion.compensate is None:
    return []
  weights, treedef = jax.tree.flatten(chosen)
  mask_tree = jax.tree.unflatten(treedef, masks)
  changes = criterion.compensate(ready, chosen, mask_tree, **arguments)
  return [
    jnp.where(mask, change, 0).astype(p.dtype)
    for mask, change, p in zip(masks, jax.tree.leaves(changes), weights, strict=True)
  ]


def _is_concrete(leaf) -> bool:
  return isinstance(leaf, (jax.Array, np.ndarray)) and not isinstance(leaf, jax.core.Tracer)


def _check_state(state, params, where, origin, kind):
  """Refuses the state of another link: its types were lost, other leaves, another kind of link.

  `kind` is the class of the state of a `prune_transform`, None for `hold_zeros`.
  """
  if not isinstance(state, PruneState):
    raise ValueError(
      f'{origin}: the state is a {type(state).__name__}, not a PruneState; its types were lost, as'
      ' in a restore without a target: restore it into what tx.init(params) returns'
    )
  chosen = _chosen_again(params, where, origin, state.prune_mask)
  is_masked = lambda tree: {
    name: not is_hole(leaf) for name, leaf in named_leaves(tree, is_leaf=is_hole).items()
  }
  expected, given = is_masked(chosen), is_masked(state.prune_mask)
  for name in sorted(expected.keys() | given.keys()):
    if expected.get(name, False) != given.get(name, False):
      has = 'a mask' if given.get(name) else 'no mask'
      raise ValueError(
        f'{origin}: the state has {has} for {name!r}, unlike where={where!r}; it was made by a link'
        ' with another where=, or for another model'
      )
  shapes = {name: jnp.shape(leaf) for name, leaf in named_leaves(params).items()}
  for name, mask in named_leaves(state.prune_mask).items():
    if jnp.shape(mask) != shapes[name] or mask.dtype != bool:
      raise ValueError(
        f'{origin}: the state has a mask {mask.dtype} {jnp.shape(mask)} for {name!r}: expected bool'
        f' {shapes[name]}; it was made for another model, or its dtypes were lost'
      )
  made_by = None if given and isinstance(state.prune_nan, tuple) else type(state)
  if given and made_by != kind:
    say = lambda kind: 'hold_zeros' if kind is None else _LINKS[kind]
    raise ValueError(f'{origin}: the state was made by {say(made_by)}, and this is {say(kind)}')


_LINKS = {
  PruneState: 'prune_transform(zero_pruned=True)',
  LatentPruneState: 'prune_transform(zero_pruned=False)',
}


def _check_recipe(state, params, criterion, where, origin, ranks_below):
  """Refuses the state of a `prune_transform` of another recipe."""
  chosen = _chosen_again(params, where, origin, state.prune_mask)
  given = named_leaves(state.prune_mask)
  if isinstance(state.prune_before, tuple) == ranks_below and given:
    was = 'without' if ranks_below else 'with'
    raise ValueError(f'{origin}: the state was made by a link {was} masks=, unlike this one')
  try:
    made = jax.eval_shape(criterion.init, chosen)
  except TypeError:  # what JAX raises for an init that computes with numpy
    return
  if jax.tree.map(_shape_of, made) != jax.tree.map(_shape_of, state.prune_criterion):
    raise ValueError(
      f"{origin}: the state of the criterion is {_summary(state.prune_criterion)}, but this link's"
      f' criterion makes {_summary(made)}; the state was made by'
      ' a link with another criterion'
    )


def _chosen_again(params, where, origin, masks):
  """What `where` chooses of traced params; the leaves with masks if it looks at values."""
  try:
    return select(params, where, origin=origin)
  except TypeError:  # what JAX raises for a value that is not known yet
    if not callable(where):
      raise
  treedef = jax.tree.structure(params)
  pairs = zip(treedef.flatten_up_to(masks), jax.tree.leaves(params), strict=True)
  return treedef.unflatten([mask if is_hole(mask) else p for mask, p in pairs])


def _shape_of(leaf):
  return tuple(jnp.shape(leaf))


def _summary(state) -> str:
  """The type of a state and the names of its leaves, for an error."""
  names = list(named_leaves(state))
  shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
  return f'{type(state).__name__}({shown})'


def _check_kinds(criterion, schedule, when, allocation, structure):
  for name, value, kind in (
    ('criterion', criterion, Criterion),
    ('allocation', allocation, Allocation),
    ('structure', structure, Structure),
  ):
    if not isinstance(value, kind):
      raise ValueError(
        f'prune_transform: {name}={value!r} is no {kind.__name__}; is a call missing, as in'
        f' {name}=...()?'
      )
  for name, value in (('schedule', schedule), ('when', when)):
    if not callable(value):
      raise ValueError(
        f'prune_transform: {name}={value!r} must be a function of the step, as cubic(0.9, end=1000)'
        ' or every(10) make'
      )


def _check_product(criterion, schedule, allocation, structure, zero_pruned):
  """Refuses factors that do not go together."""
  scores_to_masks.check_units(criterion, structure, 'prune_transform')
  if criterion.compensate is not None and not zero_pruned:
    raise ValueError(
      'prune_transform: zero_pruned=False keeps pruned weights alive, and this criterion moves the'
      ' others to make up for their loss, again at every move; use zero_pruned=True, or a criterion'
      ' that only scores'
    )
  too_much = schedule.final is not None and np.float32(schedule.final) > np.float32(structure.cost)
  if allocation.reads_sparsity and too_much:
    raise ValueError(
      f'prune_transform: the schedule asks for sparsity {schedule.final}, but this structure can'
      f' remove at most {structure.cost}'
    )


def _layers(chosen, rows) -> layer_names.Layers:
  """The chosen leaves that stack layers; ValueError for none or a vector."""
  layers = layer_names.layers_of(chosen, rows, 'prune_transform')
  leaves = [name for name, leaf in named_leaves(chosen).items() if is_prunable(leaf)]
  nameless = [pattern.pattern for pattern, template in rows if not template]
  if nameless and leaves and not layers:
    raise ValueError(
      f'prune_transform: stacked={nameless[0]!r} matches none of the pruned leaves {leaves[:6]}'
    )
  return layers


def _layouts(params, rows, stacked_rows, pruned):
  """The layout of every leaf of `params`; words have to fit the leaves of the tree `pruned`."""
  layers = layer_names.layers_of(params, stacked_rows)
  names = layer_names.first_names(layers)
  return kernel_layout.layouts(params, rows, layers.__contains__, named_leaves(pruned), names=names)


def _shapes(tree) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    name: jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
    for name, leaf in named_leaves(tree).items()
    if is_prunable(leaf)
  }

"""The state of a pruning link, and what is read from it at any depth of an optimizer state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning import faults as fault_codes
from prunejax.pruning.faults import Fault
from prunejax.pruning.paths import named_leaves, path_name
from prunejax.pruning.placement import on_host


class PruneState(NamedTuple):
  """The state of a pruning link.

  Attributes:
    prune_count: steps taken, int32.
    prune_mask: masks shaped like params: bool, True = kept, `optax.MaskedNode` where nothing is
      pruned.
    prune_criterion: the state of the criterion.
    prune_nan: int32 [pruned leaves]: the first step, counted from 1, in which the leaf was spoiled,
      and why, as `faults` reads it; 0 = never.
    prune_sparsity: float32, the sparsity that was asked when masks last moved; () for a link whose
      masks do not move.
    prune_before: bool, shaped like the masks: True for a weight that was pruned before the link
      started and has not come back since. () where no such weight ranks below all others.
  """

  prune_count: Any
  prune_mask: Any
  prune_criterion: Any
  prune_nan: Any = ()
  prune_sparsity: Any = ()
  prune_before: Any = ()


class LatentPruneState(PruneState):
  """The state of a link with `zero_pruned=False`: pruned weights live on under the mask."""


def get_masks(opt_state, params, *, unpruned: bool = False):
  """Returns the masks of all pruning links in an optimizer state.

  Args:
    opt_state: an optimizer state that has pruning links at any depth.
    params: the parameters.
    unpruned: True: a state without a pruning link, of a run that does not prune, gives masks that
      are True throughout.

  Returns:
    Bool shaped like `params`, True = kept: True throughout for a leaf that nobody prunes. Where
    several links prune one leaf, a weight is kept only if all of them keep it.

  Raises:
    ValueError: a mask is for a leaf that `params` lacks or that has another shape, so the state is
      that of another model. Or the state is None, has no pruning link, or its types were lost, so
      that masks in it cannot be told from other arrays.
  """
  if opt_state is None:
    raise ValueError('get_masks(opt_state, params): opt_state is None')
  _check_types(opt_state, {jnp.shape(leaf) for leaf in jax.tree.leaves(params)})
  if not (unpruned or prune_states(opt_state)):
    raise ValueError(
      'get_masks(opt_state, params): opt_state has no state of a pruning link; give the state of'
      ' the whole optimizer, or get_masks(opt_state, params, unpruned=True) in a run that does not'
      ' prune'
    )
  shapes = {name: jnp.shape(leaf) for name, leaf in named_leaves(params).items()}
  masks: dict[str, Any] = {}
  for state in prune_states(opt_state):
    for name, mask in named_leaves(state.prune_mask).items():
      if shapes.get(name) != jnp.shape(mask):
        raise ValueError(
          f'opt_state has a mask of shape {jnp.shape(mask)} for {name!r}, but params '
          + (
            f'have shape {shapes[name]} there'
            if name in shapes
            else f'have no such leaf (they have {list(shapes)[:6]})'
          )
        )
      masks[name] = masks[name] & mask if name in masks else jnp.asarray(mask)

  def mask_of(path, leaf):
    name = path_name(path)
    return masks[name] if name in masks else jnp.ones(jnp.shape(leaf), bool)

  return jax.tree_util.tree_map_with_path(mask_of, params)


def _check_types(opt_state, shapes=()):
  """Refuses a state with masks outside of any `PruneState`, by name, or bool of these shapes."""
  if prune_states(opt_state):
    return
  for name, leaf in named_leaves(opt_state).items():
    is_bool = isinstance(leaf, (jax.Array, np.ndarray)) and leaf.dtype == np.dtype(bool)
    is_mask = is_bool and leaf.ndim and leaf.shape in shapes
    if is_mask or 'prune_mask' in name.split('/'):
      raise ValueError(
        f'opt_state has what looks like a mask at {name!r}, but no PruneState: its types were lost,'
        ' as in a restore without a target. Restore it into what tx.init(params) returns'
      )


def prune_states(opt_state) -> list[PruneState]:
  """Returns every state of a pruning link inside an optimizer state, in order."""
  is_state = lambda node: isinstance(node, PruneState)
  return [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]


def removed_weights(opt_state) -> dict[str, jax.Array]:
  """Returns {path: bool, True where a weight is removed} of the leaves that links set to zero."""
  removed: dict = {}
  for state in prune_states(opt_state):
    if not isinstance(state, LatentPruneState):
      for name, mask in named_leaves(state.prune_mask).items():
        removed[name] = removed[name] | ~mask if name in removed else ~mask
  return removed


def faults(opt_state, member: int | None = None) -> dict[str, Fault]:
  """Says which leaves were spoiled when masks moved, at which step and why.

  From that step on the weights of the leaf are NaN (see `prune_transform`).

  Args:
    opt_state: an optimizer state that has pruning links at any depth.
    member: the index of one run in a state that stacks several runs on a first axis.

  Returns:
    {path: (step, reason)}: the first such step, counted from 1, and the reason in words.

  Raises:
    ValueError: the types of the state were lost, so that nothing in it can be told.
  """
  _check_types(opt_state)
  first: dict[str, Fault] = {}
  for state in prune_states(opt_state):
    codes = on_host(state.prune_nan)
    codes = codes if member is None or not codes.size else codes[member]
    names = named_leaves(state.prune_mask) if codes.size else ()
    for name, code in zip(names, codes.tolist(), strict=True):
      fault = fault_codes.read(code)
      if fault is not None and (name not in first or fault.step < first[name].step):
        first[name] = fault
  return first


def nan_scores(opt_state, member: int | None = None) -> dict[str, int]:
  """Names every leaf that was spoiled when masks moved; `faults` says why as well.

  Args:
    opt_state: an optimizer state that has pruning links at any depth.
    member: the index of one run in a state that stacks several runs on a first axis.

  Returns:
    {path: first such step, counted from 1}.
  """
  return {name: fault.step for name, fault in faults(opt_state, member).items()}


def check_pruned(params, opt_state) -> None:
  """Checks that every pruned weight is exactly 0.0.

  Args:
    params: the parameters after `optax.apply_updates`.
    opt_state: an optimizer state that has pruning links at any depth.

  Raises:
    ValueError: a pruned weight is not 0.0, so the pruning link was not the last of its chain; the
      error names the first such leaf. Or moving masks spoiled a leaf, see `faults`. Or the state
      has no pruning link.
  """
  _check_types(opt_state, {jnp.shape(leaf) for leaf in jax.tree.leaves(params)})
  weights, states = named_leaves(params), prune_states(opt_state)
  if not states:
    raise ValueError(
      'check_pruned(params, opt_state): the second argument, opt_state, has no state of a pruning'
      ' link'
    )
  spoiled = faults(opt_state)
  for state in states:
    if isinstance(state, LatentPruneState):
      continue
    for name, mask in named_leaves(state.prune_mask).items():
      if name not in weights or jnp.shape(weights[name]) != jnp.shape(mask):
        raise ValueError(
          f'opt_state has a mask of shape {jnp.shape(mask)} for {name!r}, and params have no such'
          ' leaf'
        )
      alive = int(jnp.sum(~mask & (weights[name] != 0), dtype=jnp.int32))
      fault = spoiled.get(name)
      if fault and not (alive and fault.reason == fault_codes.REASONS[fault_codes.NOT_ZERO]):
        raise ValueError(f'{name!r} is NaN since step {fault.step}, when {fault.reason}')
      if alive:
        raise ValueError(
          f'{name!r} has {alive} pruned weights that are not zero: prune_transform must be '
          'the last link of its optax.chain, after the optimizer and weight decay, and nothing may '
          'change params after optax.apply_updates'
        )

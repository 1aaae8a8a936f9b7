"""The state of a pruning link, and what is read from it at any depth of an optimizer state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prunejax.pruning.placement import on_host
from prunejax.pruning.types import named_leaves, path_name


class PruneState(NamedTuple):
  """Steps taken (int32), masks shaped like params (bool, True = kept, `MaskedNode` where nothing is
  pruned), the criterion's own state, for each pruned leaf the first step, counted from 1, in which
  one of its scores was NaN (int32 [leaves], 0 = never), and the memory of an allocation that has one.
  """

  prune_count: Any
  prune_mask: Any
  prune_criterion: Any
  prune_nan: Any = ()
  prune_allocation: Any = ()


class LatentPruneState(PruneState):
  """The state of a link with `zero_pruned=False`: same fields, but pruned weights live on under the
  mask.
  """


def get_masks(opt_state, params):
  """Boolean masks shaped like `params`, True = kept, from every pruning link at any depth of
  `opt_state`.

  True throughout for a leaf nobody prunes; where several links prune one leaf, a weight stays only
  if all keep it. ValueError if a mask is for a leaf that `params` lacks or that has another shape:
  the state of another model.
  """
  shapes = {name: jnp.shape(leaf) for name, leaf in named_leaves(params).items()}
  found = {}
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
      found[name] = found[name] & mask if name in found else jnp.asarray(mask)
  fill = lambda path, leaf: (
    found.get(path_name(path), None)
    if path_name(path) in found
    else jnp.ones(jnp.shape(leaf), bool)
  )
  return jax.tree_util.tree_map_with_path(fill, params)


def prune_states(opt_state) -> list[PruneState]:
  """Every state of a pruning link inside an optimizer state, in order."""
  is_state = lambda node: isinstance(node, PruneState)
  return [node for node in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(node)]


def nan_scores(opt_state, member: int | None = None) -> dict:
  """{path: step} of every leaf that had a NaN among its scores when masks moved; steps count from 1.

  From that step on its weights are NaN (see `prune_transform`): an error, whatever the loss says.
  `member` is the place of a run in a state of several, stacked on a first axis.
  """
  found = {}
  for state in prune_states(opt_state):
    nan = on_host(state.prune_nan)
    nan = nan if member is None or not nan.size else nan[member]
    for name, step in zip(
      named_leaves(state.prune_mask) if nan.size else (), nan.tolist(), strict=True
    ):
      if step:
        found[name] = min(step, found.get(name, step))
  return found


def check_pruned(params, opt_state) -> None:
  """Raises a ValueError that names the first leaf with a pruned weight other than 0.0: the pruning
  link was not the last of its chain; and one where there is no pruning link at all.
  """
  weights, states = named_leaves(params), prune_states(opt_state)
  if not states:
    raise ValueError(
      'check_pruned(params, opt_state): the second argument, opt_state, has no state of a pruning link'
    )
  for state in states:
    if isinstance(state, LatentPruneState):
      continue
    for name, mask in named_leaves(state.prune_mask).items():
      if name not in weights or jnp.shape(weights[name]) != jnp.shape(mask):
        raise ValueError(
          f'opt_state has a mask of shape {jnp.shape(mask)} for {name!r}, and params have no such leaf'
        )
      alive = int(jnp.sum(~mask & (weights[name] != 0), dtype=jnp.int32))
      if alive and name in (spoilt := nan_scores(opt_state)):
        raise ValueError(
          f'{name!r} is NaN since step {spoilt[name]}, when one of its scores was: see nan_scores'
        )
      if alive:
        raise ValueError(
          f'{name!r} has {alive} pruned weights that are not zero: prune_transform must be '
          'the last link of its optax.chain, '
          'after the optimizer and weight decay, and nothing may change params after '
          'optax.apply_updates'
        )

"""Checkpoints by Orbax: asynchronous, atomic, and checked when read; the newest sound one wins.

A checkpoint holds the state ('state': params, opt_state, step, rng), the config as JSON ('config')
and a checksum of every leaf ('sums'). A state that is read back must have the same checksums.
"""

import os
import time
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from prunejax import files
from prunejax.pruning.state import PruneState
from prunejax.train import checksum, distributed


class _PruneState01(NamedTuple):
  """The state of a pruning link in version 0.1, which had a memory of the allocation."""

  prune_count: Any
  prune_mask: Any
  prune_criterion: Any
  prune_nan: Any = ()
  prune_allocation: Any = ()


class Damaged(ValueError):
  """A checkpoint that does not hold what was saved."""


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step):
    """Returns False: the loop asks once a step (preemption.notice), and two counts would differ."""
    return False


def manager(folder, keep: int = 2) -> ocp.CheckpointManager:
  """Makes the checkpoint manager of a run, and removes what a killed save left half written.

  Args:
    folder: of the checkpoints.
    keep: the number of newest checkpoints that stay.
  """
  folder = files.path(folder if files.remote(folder) else os.path.abspath(folder))
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, create=True, cleanup_tmp_directories=True
  )
  items = {'state': ocp.StandardCheckpointHandler(), 'config': ocp.JsonCheckpointHandler()}
  return _Manager(
    folder, options=options, item_handlers={**items, 'sums': ocp.JsonCheckpointHandler()}
  )


def save(manager: ocp.CheckpointManager, state: dict, config):
  """Saves the state under its step; returns before the bytes are on disk.

  Args:
    manager: of `manager`.
    state: the train state.
    config: JSON that stands beside it.
  """
  manager.save(
    int(state['step']),
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      config=ocp.args.JsonSave(config),
      sums=ocp.args.JsonSave(checksum.sums(state)),
    ),
  )


def save_now(open_manager: ocp.CheckpointManager | None, folder, state: dict, config):
  """Saves the state, and returns when it is on disk.

  Args:
    open_manager: the manager of the run; None if it keeps no checkpoints.
    folder: of the checkpoints.
    state: the train state.
    config: JSON that stands beside it.
  """
  writer = open_manager or manager(folder)
  writer.wait_until_finished()
  if int(state['step']) not in writer.all_steps():
    save(writer, state, config)
    writer.wait_until_finished()
  if open_manager is None:
    writer.close()


def restore(
  manager: ocp.CheckpointManager, abstract: dict, shardings: dict
) -> tuple[dict | None, list[tuple[int, str]]]:
  """Reads the newest state that is what was saved.

  Newer ones that cannot be read are moved to `damaged-<step>` beside the folder.

  Args:
    manager: of `manager`.
    abstract: the shapes of the state.
    shardings: its layout.

  Returns:
    The state, or None if there is none; and (step, reason) of every newer one that cannot be read.

  Raises:
    ValueError: there are checkpoints and none can be read.
  """
  target = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )
  damaged = []
  for step in sorted(manager.all_steps(), reverse=True):
    state, why = None, 'another process cannot read its part'
    try:
      state = _read(manager, step, target)
    except (
      Exception
    ) as error:  # Orbax raises many kinds for a torn checkpoint; the caller prints them all
      text = ''.join(str(error).splitlines()[:1])
      why = text if isinstance(error, Damaged) else f'{type(error).__name__}: {text}'
    if distributed.everywhere(state is not None):
      _set_aside(manager, [step for step, _ in damaged])
      return state, damaged
    damaged.append((step, why))
  if damaged:
    raise ValueError(
      f'no checkpoint in {str(manager.directory)!r} can be read: step {damaged[0][0]}'
      f' ({damaged[0][1]}); delete that folder to start again'
    )
  return None, damaged


def of_finished(folder, abstract: dict, shardings: dict) -> dict:
  """Reads the last state of a finished run, for a run that continues it. Changes nothing there.

  Args:
    folder: its checkpoints.
    abstract: the shapes of the state.
    shardings: its layout.

  Raises:
    ValueError: there is no checkpoint, or it cannot be read as such a state.
  """
  if not files.exists(folder):
    raise ValueError(
      f'{str(folder)!r} holds no checkpoint: expected a run with checkpoint.every above 0'
    )
  target = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )
  with manager(folder) as opened:
    step = opened.latest_step()
    try:
      return _read(opened, step, target)
    except Exception as error:  # Orbax raises many kinds for a torn checkpoint
      text = ''.join(str(error).splitlines()[:1])
      raise ValueError(f'checkpoint {step} in {str(folder)!r} cannot be read: {text}') from error


def _read(manager, step, whole):
  """Reads and checks one state. Raises Damaged, and whatever Orbax raises."""
  target = whole
  metadata = manager.item_metadata(step)['state']
  shapes = lambda tree: sorted((tuple(x.shape), str(x.dtype)) for x in jax.tree.leaves(tree))
  # The metadata tell the shapes before any memory is taken for the arrays.
  if metadata is None or shapes(metadata.tree) != shapes(target):
    raise Damaged('its arrays are not those of this run')
  saved_by_01 = _has_key(metadata.tree, 'prune_allocation')
  target = _as_01(target) if saved_by_01 else target
  tries = 3 if files.remote(manager.directory) else 1
  for number in range(tries):
    try:
      items = ocp.args.Composite(
        state=ocp.args.StandardRestore(target), sums=ocp.args.JsonRestore()
      )
      read = manager.restore(step, args=items)
      break
    except Exception:
      if number + 1 == tries:
        raise
      time.sleep(2.0**number)  # a store that fails once is no damage
  state = _from_01(read['state'], whole) if saved_by_01 else read['state']
  sums, saved = checksum.sums(state), read['sums']
  wrong = [path for path in sums if sums[path] != saved.get(path)]
  if wrong:
    raise Damaged(f'{len(wrong)} of {len(sums)} arrays are not what was saved: {wrong[0]}')
  return state


def _is_prune_state(node) -> bool:
  return isinstance(node, (PruneState, _PruneState01))


def _has_key(tree, key) -> bool:
  if isinstance(tree, dict):
    return key in tree or any(_has_key(value, key) for value in tree.values())
  return isinstance(tree, (list, tuple)) and any(_has_key(value, key) for value in tree)


def _as_01(tree):
  """The tree with the states of pruning links as version 0.1 saved them."""
  old = lambda node: _PruneState01(*node) if isinstance(node, PruneState) else node
  return jax.tree.map(old, tree, is_leaf=_is_prune_state)


def _from_01(tree, like):
  """The inverse of `_as_01`; `like` has the classes of the states."""
  new = lambda node, old: type(node)(*old[:4]) if isinstance(node, PruneState) else old
  return jax.tree.map(new, like, tree, is_leaf=_is_prune_state)


def _set_aside(manager, steps):
  folder = files.path(manager.directory)
  distributed.together('read')
  for step in steps if distributed.first() else ():
    name, taken = f'damaged-{step}', files.names(folder.parent)
    while name in taken:
      name += '-again'
    (folder / str(step)).rename(folder.parent / name)
  distributed.together('set aside')
  if steps:
    manager.reload()

"""Checkpoints by Orbax: asynchronous, atomic, and checked when read; the newest sound one wins.

A checkpoint holds the state ('state': params, opt_state, step, rng), the config as JSON
('config'), a checksum of every leaf ('sums'), and the metrics of the steps since the last row of
each log ('unlogged'). A state that is read back must have the same checksums.
"""

import os
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from prunejax import files
from prunejax.pruning.state import PruneState
from prunejax.train import checksum, distributed

# Orbax numbers the saves of a process, and until `save` returns takes the last number for its own.
_ONE_SAVE = threading.Lock()


class _PruneState01(NamedTuple):
  """The state of a pruning link in version 0.1, which had a memory of the allocation."""

  prune_count: Any
  prune_mask: Any
  prune_criterion: Any
  prune_nan: Any = ()
  prune_allocation: Any = ()


class _EarlyPruneState(NamedTuple):
  """The state of a pruning link before it held the sparsity that was asked last."""

  prune_count: Any
  prune_mask: Any
  prune_criterion: Any
  prune_nan: Any = ()


class Damaged(ValueError):
  """A checkpoint that does not hold what was saved."""


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step):
    """Returns False: the loop asks once a step (preemption.notice), and two counts would differ."""
    return False


class _Reader(_Manager):
  """A manager that changes nothing."""


def manager(folder, keep: int = 2) -> ocp.CheckpointManager:
  """Makes the checkpoint manager of a run, and removes what a killed save left half written.

  Args:
    folder: of the checkpoints.
    keep: the number of newest checkpoints that stay.
  """
  return _opened(
    _Manager,
    folder,
    ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True),
  )


def reader(folder) -> ocp.CheckpointManager:
  """Makes a manager that changes nothing: another process may be saving into the folder."""
  return _opened(_Reader, folder, ocp.CheckpointManagerOptions(read_only=True, create=False))


def _opened(kind, folder, options):
  folder = files.path(folder if files.remote(folder) else os.path.abspath(folder))
  plain = {name: ocp.JsonCheckpointHandler() for name in ('config', 'sums', 'unlogged')}
  return kind(
    folder, options=options, item_handlers={'state': ocp.StandardCheckpointHandler(), **plain}
  )


def save(manager: ocp.CheckpointManager, state: dict, config, unlogged: dict | None = None):
  """Saves the state under its step; returns before the bytes are on disk.

  Args:
    manager: of `manager`.
    state: the train state.
    config: JSON that stands beside it.
    unlogged: metrics, JSON that `unlogged` gives back.
  """
  parts = ocp.args.Composite(
    state=ocp.args.StandardSave(state),
    config=ocp.args.JsonSave(config),
    sums=ocp.args.JsonSave(checksum.sums(state)),
    unlogged=ocp.args.JsonSave(unlogged or {}),
  )
  with _ONE_SAVE:
    manager.save(int(state['step']), args=parts)


def save_now(
  open_manager: ocp.CheckpointManager | None,
  folder,
  state: dict,
  config,
  unlogged: dict | None = None,
):
  """Saves the state, and returns when it is on disk.

  Args:
    open_manager: the manager of the run; None if it keeps no checkpoints.
    folder: of the checkpoints.
    state: the train state.
    config: JSON that stands beside it.
    unlogged: metrics, JSON that `unlogged` gives back.
  """
  writer = open_manager or manager(folder)
  writer.wait_until_finished()
  if int(state['step']) not in writer.all_steps():
    save(writer, state, config, unlogged)
    writer.wait_until_finished()
  if open_manager is None:
    writer.close()


def restore(
  manager: ocp.CheckpointManager, abstract: dict, shardings: dict
) -> tuple[dict | None, list[tuple[int, str]]]:
  """Reads the newest state that is what was saved.

  Newer ones that cannot be read are moved to `damaged-<step>` beside the folder, but not by a
  `reader`.

  Args:
    manager: of `manager` or `reader`.
    abstract: the shapes of the state.
    shardings: its layout.

  Returns:
    The state, or None if there is none; and (step, reason) of every newer one that cannot be read.

  Raises:
    ValueError: there are checkpoints and none can be read.
    Exception: as it was raised, where memory does not hold a state.
  """
  target = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )
  damaged = []
  for step in sorted(manager.all_steps(), reverse=True):
    state, why, fatal = None, 'another process cannot read its part', None
    try:
      state = _read(manager, step, target)
    except Exception as error:  # Orbax raises many kinds for a torn checkpoint; all are printed
      fatal = error if _is_no_damage(error) else None
      text = ''.join(str(error).splitlines()[:1])
      why = text if isinstance(error, Damaged) else f'{type(error).__name__}: {text}'
    if not distributed.everywhere(fatal is None):  # all stop, and none waits for one that has
      raise fatal or MemoryError(f'the memory of another process does not hold step {step}')
    if distributed.everywhere(state is not None):
      if not isinstance(manager, _Reader):
        _set_aside(manager, [step for step, _ in damaged])
      return state, damaged
    damaged.append((step, why))
  if damaged and isinstance(manager, _Reader):
    manager.reload()
    if not set(manager.all_steps()) <= {step for step, _ in damaged}:  # the run has saved others
      return restore(manager, abstract, shardings)
  if damaged:
    more = '' if isinstance(manager, _Reader) else '; move that folder away to start again'
    raise ValueError(
      f'no checkpoint in {str(manager.directory)!r} can be read: step {damaged[0][0]}'
      f' ({damaged[0][1]}){more}'
    )
  return None, damaged


def _is_no_damage(error) -> bool:
  """Whether a read failed for want of memory, which says nothing about the checkpoint."""
  return isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)


def of_finished(folder, abstract: dict, shardings: dict, steps: int) -> dict:
  """Reads the last state of a finished run, for a run that continues it. Changes nothing there.

  Args:
    folder: its checkpoints.
    abstract: the shapes of the state.
    shardings: its layout.
    steps: that the run took.

  Raises:
    ValueError: there is no checkpoint of its last step, or it cannot be read as such a state.
  """
  if not files.exists(folder):
    raise ValueError(
      f'{str(folder)!r} holds no checkpoint: expected a run with checkpoint.every above 0'
    )
  target = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )
  with reader(folder) as opened:
    step = opened.latest_step()
    if step != steps:
      raise ValueError(
        f'{str(folder)!r} holds step {step} as its last one, and the run took {steps}: expected a'
        ' run with checkpoint.every above 0, which saves its last step'
      )
    try:
      return _read(opened, step, target)
    except Exception as error:  # Orbax raises many kinds for a torn checkpoint
      if _is_no_damage(error):
        raise
      text = ''.join(str(error).splitlines()[:1])
      raise ValueError(f'checkpoint {step} in {str(folder)!r} cannot be read: {text}') from error


def unlogged(manager: ocp.CheckpointManager, step: int) -> dict:
  """Returns the metrics that were saved with a step; {} for a checkpoint without any."""
  if not files.exists(files.path(manager.directory) / str(step) / 'unlogged'):
    return {}  # saved before checkpoints had metrics
  try:
    items = ocp.args.Composite(unlogged=ocp.args.JsonRestore())
    return manager.restore(step, args=items)['unlogged'] or {}
  except ValueError:
    return {}  # damaged; a row of the log rests on it, and no weight


def _read(manager, step, whole):
  """Reads and checks one state. Raises Damaged, and whatever Orbax raises."""
  metadata = manager.item_metadata(step)['state']
  shapes = lambda tree: sorted((tuple(x.shape), str(x.dtype)) for x in jax.tree.leaves(tree))
  # The metadata tell the shapes before any memory is taken for the arrays.
  early = _early_state(metadata.tree) if metadata else None
  target = _as_early(whole, early) if early else whole
  if metadata is None or shapes(metadata.tree) != shapes(target):
    raise Damaged('its arrays are not those of this run')
  tries = 3 if files.remote(manager.directory) else 2
  for number in range(tries):
    try:
      items = ocp.args.Composite(
        state=ocp.args.StandardRestore(target), sums=ocp.args.JsonRestore()
      )
      read = manager.restore(step, args=items)
      break
    except Exception as error:
      may_pass = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
      if number + 1 == tries or not (may_pass or files.remote(manager.directory)):
        raise
      time.sleep(2.0**number)  # a store or a disk that fails once is no damage
  state = read['state']
  sums, saved = checksum.sums(state), read['sums']
  wrong = [path for path in sums if sums[path] != saved.get(path)]
  if wrong:
    raise Damaged(f'{len(wrong)} of {len(sums)} arrays are not what was saved: {wrong[0]}')
  return _from_early(state, whole) if early else state


def _is_prune_state(node) -> bool:
  return isinstance(node, (PruneState, _PruneState01, _EarlyPruneState))


def _early_state(tree):
  """The class of the pruning states of a saved tree, if an earlier version saved them; or None."""
  if _has_key(tree, 'prune_allocation'):
    return _PruneState01
  if _has_key(tree, 'prune_criterion') and not _has_key(tree, 'prune_sparsity'):
    return _EarlyPruneState
  return None


def _has_key(tree, key) -> bool:
  if isinstance(tree, dict):
    return key in tree or any(_has_key(value, key) for value in tree.values())
  return isinstance(tree, (list, tuple)) and any(_has_key(value, key) for value in tree)


def _as_early(tree, kind):
  """The tree with the states of pruning links as an earlier version saved them."""
  old = lambda node: kind(*node[:4]) if isinstance(node, PruneState) else node
  return jax.tree.map(old, tree, is_leaf=_is_prune_state)


def _as_01(tree):
  """The tree with the states of pruning links as version 0.1 saved them."""
  return _as_early(tree, _PruneState01)


def _from_early(tree, like):
  """The inverse of `_as_early`; `like` has the classes of the states, and what was added since."""

  def blank(leaf):
    return jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)

  def new(node, old):
    if not isinstance(node, PruneState):
      return old
    if jax.tree.leaves(node.prune_before):
      raise Damaged('it was saved before a link knew which weights were pruned when it started')
    return type(node)(*old[:4], jax.tree.map(blank, node.prune_sparsity), node.prune_before)

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

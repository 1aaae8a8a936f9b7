"""Checkpoints by Orbax: asynchronous, atomic, checked when read; the newest sound one wins. One thin layer.

A state is saved with a checksum of every leaf, and what is read back must have the same ones.
"""

import os
import time

import jax
import orbax.checkpoint as ocp

from prunejax import files
from prunejax.train import checksum, distributed


class Damaged(ValueError):
  """A checkpoint that does not hold what was saved."""


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step):
    """Never: the loop asks, once a step (preemption.notice), and two counts of steps would never agree."""
    return False


def manager(folder, keep=2):
  """The checkpoint manager of a run. What a killed save left half written is taken away."""
  folder = files.path(folder if files.remote(folder) else os.path.abspath(folder))
  options = ocp.CheckpointManagerOptions(
    max_to_keep=keep, create=True, cleanup_tmp_directories=True
  )
  items = {'state': ocp.StandardCheckpointHandler(), 'config': ocp.JsonCheckpointHandler()}
  return _Manager(
    folder, options=options, item_handlers={**items, 'sums': ocp.JsonCheckpointHandler()}
  )


def save(manager, state, config):
  """Saves the whole state under its own step; returns before the bytes are on disk."""
  manager.save(
    int(state['step']),
    args=ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      config=ocp.args.JsonSave(config),
      sums=ocp.args.JsonSave(checksum.sums(state)),
    ),
  )


def save_now(kept, folder, state, config):
  """Saves the state, and returns when it is on disk. kept: the run's manager, None where it keeps no checkpoints."""
  own = kept or manager(folder)
  own.wait_until_finished()
  if int(state['step']) not in own.all_steps():
    save(own, state, config)
    own.wait_until_finished()
  if kept is None:
    own.close()


def restore(manager, abstract, shardings):
  """The newest state that can be read and is what was saved, laid out by `shardings`; None when there is none.

  Returns (state, [(step, why) of every newer one that cannot be read]); those are moved out of the way, to
  `damaged-<step>` beside the folder. Raises ValueError when there are checkpoints and none can be read.
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
    ) as error:  # Orbax raises many kinds for a torn checkpoint; the caller names them all
      said = ''.join(str(error).splitlines()[:1])
      why = said if isinstance(error, Damaged) else f'{type(error).__name__}: {said}'
    if distributed.everywhere(state is not None):
      _set_aside(manager, [step for step, _ in damaged])
      return state, damaged
    damaged.append((step, why))
  if damaged:
    raise ValueError(
      f'no checkpoint in {str(manager.directory)!r} can be read: step {damaged[0][0]} ({damaged[0][1]});'
      ' delete that folder to start again'
    )
  return None, damaged


def _read(manager, step, target):
  """One state, checked. Raises Damaged, and whatever Orbax does."""
  held = manager.item_metadata(step)['state']
  kinds = lambda tree: sorted((tuple(x.shape), str(x.dtype)) for x in jax.tree.leaves(tree))
  # By what the files say of themselves, before any memory is taken for it.
  if held is None or kinds(held.tree) != kinds(target):
    raise Damaged('its arrays are not those of this run')
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
      time.sleep(2.0**number)  # a store that hiccups is no damage
  found, saved = checksum.sums(read['state']), read['sums']
  wrong = [path for path in found if found[path] != saved.get(path)]
  if wrong:
    raise Damaged(f'{len(wrong)} of {len(found)} arrays are not what was saved: {wrong[0]}')
  return read['state']


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

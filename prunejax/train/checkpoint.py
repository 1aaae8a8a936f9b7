"""Checkpoints by Orbax: asynchronous, atomic, the newest valid one wins. One thin layer, so that its API may change."""

import os
import pathlib

import jax
import orbax.checkpoint as ocp

from prunejax.train import distributed


class _Manager(ocp.CheckpointManager):
  def reached_preemption(self, step):
    """Never: the loop asks, once a step (preemption.notice), and two counts of steps would never agree."""
    return False


def manager(folder, keep=2):
  """The checkpoint manager of a run."""
  options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
  return _Manager(pathlib.Path(folder).absolute(), options=options)


def save(manager, state, config):
  """Saves the whole state under its own step; returns before the bytes are on disk."""
  manager.save(
    int(state['step']), args=ocp.args.Composite(state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(config))
  )


def save_now(manager, folder, state, config):
  """Saves the state, and returns when it is on disk. manager: None where a run keeps no checkpoints else."""
  own = manager or _Manager(pathlib.Path(folder).absolute())
  own.wait_until_finished()
  if int(state['step']) not in own.all_steps():
    save(own, state, config)
    own.wait_until_finished()
  if manager is None:
    own.close()


def restore(manager, abstract, shardings):
  """The newest state that can be read, laid out by `shardings`; None when there is none.

  Returns (state, [(step, why) of every newer one that cannot be read]); those are moved out of the way, to
  `damaged-<step>` beside the folder. Raises ValueError when there are checkpoints and none can be read.
  """
  target = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
  damaged = []
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      read = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target)))
      _set_aside(manager, [step for step, _ in damaged])
      return read['state'], damaged
    except Exception as error:  # Orbax raises many kinds for a torn checkpoint; the caller names them all
      damaged.append((step, f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'))
  if damaged:
    raise ValueError(
      f'no checkpoint in {str(manager.directory)!r} can be read: step {damaged[0][0]} ({damaged[0][1]});'
      ' delete that folder to start again'
    )
  return None, damaged


def _set_aside(manager, steps):
  folder = pathlib.Path(manager.directory)
  distributed.together('read')
  for step in steps if distributed.first() else ():
    os.replace(folder / str(step), folder.parent / f'damaged-{step}')
  distributed.together('set aside')
  if steps:
    manager.reload()

"""How a killed run goes on, and how the members of a killed population do.

Both save their state now and then, and when SIGTERM comes. The members of a wave save theirs
together: `FOLDER/populations/NAME` of a grid holds its checkpoints and its plan, which says which
member is at which place. When the grid is started again,

1. `under_way` finds the waves that were begun and are not done, and `sweep.population.groups`
   starts each again with its members that have no result yet, at their old places;
2. `restored` reads the newest checkpoint of the run, or of the wave, that can be read, and the
   seconds that each member has cost;
3. `unscored` names the evaluations that were due at that step and were not made;
4. `unlogged` returns the metrics of the steps after the last row of a log, which the next row will
   average.

`train.loop.train_members` does 2 to 4 for a single run and for a wave alike. `save` writes what
they read. `sweep.grid` skips the cells that its ledger holds.
"""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from prunejax import files
from prunejax.train import checkpoint, distributed, metrics_log


class Saves(NamedTuple):
  """Where and when a run, or a wave of members, saves its state."""

  folder: Any  # of the checkpoints
  every: int  # steps, 0: only when SIGTERM comes
  keep: int  # how many of the newest ones
  config: Any  # JSON that stands beside the state
  spent: Any = None  # file for the seconds that members have cost, None: not kept
  apart: float = 0.0  # least seconds from one save to the next, but for that at the end


def home_of(folder, members: Sequence[str]):
  """Returns the folder of a wave, where its plan and its checkpoints lie until it is done.

  Args:
    folder: the work directory of the grid.
    members: the keys of its members, in order of place.
  """
  name = hashlib.sha256(' '.join(members).encode()).hexdigest()[:12]
  return files.path(folder) / 'populations' / name


def under_way(folder) -> dict:
  """Returns {name: plan} of the waves of a grid that were begun and are not done.

  A plan has 'members', the keys in order of place; 'width', the number of places; and 'streams',
  the number of different batches.
  """
  plans, home = {}, files.path(folder) / 'populations'
  for name in files.names(home):
    with contextlib.suppress(FileNotFoundError):  # another worker's, done and removed in between
      plans[name] = files.read_json(home / name / 'config.json')
  return plans


def restored(engine, manager, saves: Saves, live: dict, spent: dict, title: str, say):
  """Returns the state of the newest checkpoint that can be read, or None.

  Args:
    engine: a `loop.Engine`.
    manager: of the checkpoints; None where there are none.
    saves: a `Saves`.
    live: {place: `loop.Run`} of those that are not done.
    spent: {place: seconds that a member has cost so far}. Those at the checkpoint are added.
    title: starts each console line.
    say: prints a line.
  """
  if manager is None:
    return None
  state, damaged = checkpoint.restore(manager, engine.shapes, engine.shardings)
  for step, why in damaged:
    say(f'{title}  checkpoint {step} cannot be read ({why}); using the one before')
  if state is None:
    return None
  if saves.spent and files.exists(saves.spent):
    before = {int(place): seconds for place, seconds in files.read_json(saves.spent).items()}
    spent |= {place: spent[place] + before[place] for place in live if place in before}
  steps = max(run.recipe.steps for run in live.values())
  say(f'{title}  goes on at step {int(state["step"])} of {steps}')
  return state


def unscored(due: dict, start: int) -> list[int]:
  """Returns the places whose evaluation at step `start` was not made before the run stopped.

  Args:
    due: {place: `loop.Run`} of those that have one at that step.
    start: the step at which they go on.
  """
  places = list(due) if start else []
  made = [metrics_log.has(due[place].folder, 'eval', start) for place in places]
  made = distributed.agreed(made) if places else []
  return [place for place, there in zip(places, made, strict=True) if not there]


def unlogged(manager, live: dict, start: int) -> dict[int, list]:
  """Returns the metrics of the steps before `start` that no row of a log is about yet.

  Args:
    manager: of the checkpoints; None where there are none.
    live: {place: `loop.Run`}.
    start: the step at which they go on.

  Returns:
    {place: [{metric: values}]}.
  """
  saved = checkpoint.unlogged(manager, start) if manager is not None and start else {}
  columns = {place: saved.get(str(place)) for place in live}
  return {
    place: [{name: np.array(values, np.float32) for name, values in column.items()}]
    if column
    else []
    for place, column in columns.items()
  }


def save(manager, saves: Saves, state, history: dict, live: dict, spent: dict, now: bool = False):
  """Saves a state, and what `restored` and `unlogged` read beside it.

  Args:
    manager: of the checkpoints.
    saves: a `Saves`.
    state: of the run, or of all members.
    history: {place: [{metric: values}]} of steps that no row of a log is about yet.
    live: {place: `loop.Run`}.
    spent: {place: seconds that a member has cost}.
    now: return only when all is written: SIGTERM has come.
  """
  if saves.spent and distributed.first():
    files.write(saves.spent, json.dumps(spent))
  metrics = _as_json(history, live)
  if now:
    checkpoint.save_now(manager, saves.folder, state, saves.config, metrics)
  else:
    checkpoint.save(manager, state, saves.config, metrics)


def _as_json(history, live):
  """What `unlogged` reads again; a run that writes no rows needs none."""
  return {
    str(place): {
      name: [float(x) for part in history[place] for x in part[name]] for name in history[place][0]
    }
    for place, run in live.items()
    if run.recipe.log.every and history[place]
  }

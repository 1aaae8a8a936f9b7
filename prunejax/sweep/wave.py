"""One wave: the members of one compiled program, from their first weights to their ledger rows."""

import contextlib
import hashlib
import json
import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

import prunejax
from prunejax import files
from prunejax.sweep import stacking
from prunejax.train import (
  checkpoint,
  configs,
  console,
  distributed,
  finite,
  inputs,
  loop,
  metrics_log,
  optimizer,
  preemption,
  sharding,
  workdir,
)

SAVES = 8  # checkpoints of a wave whose runs keep none themselves: killed, it loses an eighth


class Run(NamedTuple):
  """A member before it starts: what it is called, where it lies, and what its config stands for."""

  key: str
  title: str
  config: Any
  folder: Any
  source: Any
  data: Any
  tx: Any


class Engine(NamedTuple):
  """The compiled program of a stacked state, how its members are moved, and what shape and place it has."""

  step: Any
  blank: Any
  put: Any
  take: Any
  removed: Any
  shapes: Any
  shardings: Any
  single: Any  # shardings of the state of one member
  everywhere: Any  # the sharding of what every device has
  mesh: Any
  batching: str
  width: int  # places
  streams: int  # different batches


def stream(run):
  """Equal for two runs exactly when they read the same batches."""
  c = run.config
  words = run.source.tokenizer and run.source.tokenizer.to_str()
  read = [c.seed, c.batch_size, c.data.to_dict(), words, c.distill.teacher]
  return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def train(engine, program, members, plan, folder, *, settle, say, title, cost=0.0):
  """Trains a wave to its end, from its newest checkpoint if there is one.

  Args:
    engine: of as many places as `plan` says; places without a member are stepped for nothing, or skipped.
    program: the `Program` of one run.
    members: {place: Run} of those that are not done.
    plan: {'members': keys in order of place, 'width': places, 'streams': different batches}.
    folder, settle, say, title: as in `population.train`.
    cost: seconds that each member has cost already.
  """
  home = (
    files.path(folder)
    / 'populations'
    / hashlib.sha256(' '.join(plan['members']).encode()).hexdigest()[:12]
  )
  live, writers, history = dict(members), {}, {place: [] for place in members}
  spent, since = dict.fromkeys(members, cost), time.perf_counter()
  facts = {'members': len(plan['members']), 'batching': engine.batching}

  whole = lambda batch: sharding.put_whole(batch, engine.mesh)

  def charge(places):
    nonlocal since
    now, places = time.perf_counter(), list(places)
    for place in places:
      spent[place] += (now - since) / len(places)
    since = now

  def end(place, outcome):
    run = live.pop(place)
    writers.pop(place).close()
    settle(run.key, outcome, spent[place], **facts)

  def finish_those_at(at):
    for place, run in list(live.items()):
      if run.config.steps <= at:
        charge(live)
        writers[place].say = say
        alone = engine.take(state, place)

        def seconds(place=place):
          charge([place])
          return spent[place]

        parts = (run.config, alone, run.data, program, run.source, run.folder, writers[place])
        end(place, loop.finish(*parts, seconds, whole))

  with contextlib.ExitStack() as held:
    if distributed.first():
      for run in live.values():
        workdir.claim(run.folder, configs.identity(run.config))
      workdir.claim(home, plan)
    distributed.together('claimed')
    for folder in (home, *(run.folder for run in live.values())):
      held.enter_context(workdir.held(folder, distributed.first()))
    manager = checkpoint.manager(home / 'checkpoints')
    held.callback(_closed, manager, writers)
    state, start = _begin(engine, program, live, manager, home, spent, say, title)
    for place, run in live.items():
      board, lies = run.config.log.tensorboard, run.folder if distributed.first() else None
      writers[place] = metrics_log.Log(
        lies, run.title, run.config.steps, start=start, tensorboard=board, say=console.silent
      )
    charge(live)
    finish_those_at(start)
    stop = max((run.config.steps for run in live.values()), default=start)
    every = min(
      (run.config.checkpoint.every for run in live.values() if run.config.checkpoint.every),
      default=0,
    )
    every = every or math.ceil(stop / SAVES)
    batches, which = _batches(live, plan['streams'])
    pending, told_at, silence = [], (start, time.perf_counter()), metrics_log.Silence()
    with preemption.notice() as told:
      for step, batch in zip(
        range(start, stop), inputs.prefetch(batches, start, stop), strict=True
      ):
        rows = np.array(
          [which[place] if place in live else -1 for place in range(plan['width'])], np.int32
        )
        rows = sharding.place(rows, engine.everywhere)
        state, metrics = engine.step(state, stacking.put_batches(batch, engine.mesh), rows)
        pending.append(metrics)
        at = step + 1
        if step == start:
          jax.block_until_ready(metrics)
          told_at = (at, time.perf_counter())
          for writer in writers.values():
            writer.start(at)
        leave, save = told(), at % every == 0
        ends = any(run.config.steps == at for run in live.values())
        due = {p for p, run in live.items() if _due(run.config, run.config.log.every, at)}
        scored = {p for p, run in live.items() if _due(run.config, run.config.eval.every, at)}
        if not due and silence.over():
          losses = np.asarray(metrics['loss'])
          shown = {place: {'loss': losses[place]} for place in live}
          say(
            _line(
              f'{title}  train {at}/{stop}',
              shown,
              len(live),
              facts['members'],
              _pace(told_at, at, stop),
            )
          )
        if not (leave or save or ends or due or scored):
          continue
        charge(live)
        for place, error in _failures(pending, live, history, at, state['opt_state']):
          say(f'{live[place].title}  failed: {error}')
          end(place, error)
        pending = []
        if not live:
          break
        if due & live.keys():
          silence.broken()
          shown = _write(engine, state, live, due, writers, history, step)
          say(
            _line(
              f'{title}  train {at}/{stop}',
              shown,
              len(live),
              facts['members'],
              _pace(told_at, at, stop),
            )
          )
        if (save or ends or leave) and distributed.first():
          files.write(home / 'spent.json', json.dumps(spent))
        if leave:
          where = home / 'checkpoints'
          checkpoint.save_now(manager, where, state, plan)
          raise preemption.Preempted(
            f'told to stop by SIGTERM: step {at} of {stop} is saved in {str(where)!r}'
          )
        if save or ends:
          checkpoint.save(manager, state, plan)
        for place in scored & live.keys():
          run = live[place]
          if at < run.config.steps:
            writers[place].write(
              at, 'eval', loop.scores(engine.take(state, place), run.data, program, whole)
            )
            charge([place])
        finish_those_at(at)
        if not live:
          break
  if distributed.first():
    files.remove(home)
  distributed.together('wave')


def _begin(engine, program, live, manager, home, spent, say, title):
  """(stacked state, step): from the newest checkpoint, else every member's own first weights."""
  state, damaged = checkpoint.restore(manager, engine.shapes, engine.shardings)
  for step, why in damaged:
    say(f'{title}  checkpoint {step} cannot be read ({why}); using the one before')
  if state is not None:
    if files.exists(home / 'spent.json'):
      spent.update(
        {
          int(place): s
          for place, s in files.read_json(home / 'spent.json').items()
          if int(place) in spent
        }
      )
    say(f'{title}  goes on at step {int(state["step"])}')
    return state, int(state['step'])
  state = engine.blank()
  for place, run in live.items():
    shapes = jax.eval_shape(program.draw, jax.random.key(0))
    alone = loop.initial_state(
      run.config, program, run.tx, loop.pretrained(run.config, run.source, program, shapes)
    )
    alone = sharding.place(alone, engine.single)
    if run.config.log.who_pays:
      batch = sharding.put_batch(run.data.train(0), engine.mesh)
      loop.who_pays(run.config, program, alone['params'], batch, run.folder, say)
    state = engine.put(state, alone, place)
  return state, 0


def _batches(live, count):
  """(step -> {name: [count, b, ...]}, {place: row}): members that read the same data share one row."""
  rows, sources = {}, {}
  for place, run in live.items():
    rows[place] = sources.setdefault(stream(run), (len(sources), run.data.train))[0]
  readers = [train for _, train in sources.values()]

  def batches(step):
    read = [reader(step) for reader in readers]
    read += read[:1] * (count - len(read))
    return {name: np.stack([one[name] for one in read]) for name in read[0]}

  return batches, rows


def _failures(pending, live, history, at, opt_state):
  """[(place, error)] of members whose loss is not finite; the numbers of the others join their history."""
  table = {
    name: np.stack([np.asarray(m[name]) for m in jax.device_get(pending)]) for name in pending[0]
  }
  failed = []
  for place in live:
    mine = {name: column[:, place] for name, column in table.items()}
    try:
      finite.check_finite(mine, at, prunejax.nan_scores(opt_state, place))
      history[place].append(mine)
    except FloatingPointError as error:
      failed.append((place, error))
  return failed


def _write(engine, state, live, due, writers, history, step):
  """Writes the lines that are due to their runs' own logs; returns {place: its numbers}."""
  prunes = any(optimizer.groups(run.config) or run.config.hold_zeros for run in live.values())
  counts, sizes = jax.device_get(engine.removed(state)) if prunes else (None, None)
  shown = {}
  for place in sorted(due & live.keys()):
    config = live[place].config
    means = {
      k: np.concatenate([part[k] for part in history[place]]).mean(dtype=np.float64)
      for k in history[place][0]
    }
    history[place] = []
    shown[place] = {'loss': means['loss'], 'lr': optimizer.learning_rate(config, step)}
    if prunes:
      shown[place]['sparsity'] = int(counts[:, place].sum(dtype=np.int64)) / int(
        sizes.sum(dtype=np.int64)
      )
    shown[place] |= {k: v for k, v in means.items() if k not in shown[place]}
    writers[place].write(step + 1, 'train', shown[place])
  return shown


def _line(head, shown, alive, members, pace):
  """One line of a whole wave."""
  loss = [row['loss'] for row in shown.values()]
  text = f'{head}  {pace}loss {console.number(np.mean(loss))} (worst {console.number(max(loss))})'
  sparsity = [row['sparsity'] for row in shown.values() if 'sparsity' in row]
  text += f'  sparsity {min(sparsity):.2f} to {max(sparsity):.2f}' if sparsity else ''
  return f'{text}  {alive} of {members} members train'


def _pace(since, at, stop):
  if at <= since[0]:
    return ''
  rate = (at - since[0]) / max(time.perf_counter() - since[1], 1e-9)
  return f'{rate:.1f} steps/s  left {console.clock((stop - at) / rate)}  '


def _due(config, every, at):
  return bool(every) and (at % every == 0 or at == config.steps)


def _closed(manager, writers):
  for writer in writers.values():
    writer.close()
  manager.wait_until_finished()
  manager.close()

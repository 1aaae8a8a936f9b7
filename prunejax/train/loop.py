"""The train loop: one for a single run and for many runs in one program. A killed run resumes."""

import concurrent.futures
import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import prunejax
from prunejax import files, freed
from prunejax.models.hf import folder as hf_folder
from prunejax.pruning import paths, placement
from prunejax.train import (
  checkpoint,
  console,
  distributed,
  evaluate,
  families,
  finite,
  forecast,
  full_disk,
  inputs,
  layers,
  metrics_log,
  optimizer,
  preemption,
  program,
  resume,
  sharding,
  workdir,
)
from prunejax.train.recipe import IN_THE_LOSS, Recipe


class Run(NamedTuple):
  """A run before it starts."""

  key: str  # the hash of a cell, '' for a run by itself
  title: str  # starts each console line
  recipe: Recipe
  folder: Any
  source: inputs.Source
  data: inputs.Data
  tx: Any
  reads: dict = {}  # {name: digest} of the content that it reads, see `content_of`


class Engine(NamedTuple):
  """How the loop steps the state of its members and reads it. A single run is at place 0."""

  members: int  # number of members, those that have ended included
  turn: int  # the most steps of a call
  scored: int  # members that are scored at a time
  step: Callable  # (state, batches, places that train) -> (state, {metric: [] or [turn, places]})
  compile: Callable  # (state, batch) -> None; compiles the step
  batch: Callable  # step number -> batch, numpy, this process's part
  start: Callable  # iterable of (place, its first state) -> state
  member: Callable  # (state, place) -> the state of one
  sparsity: Callable  # state -> [sparsity of each place]
  faults: Callable  # (opt_state, place) -> {leaf: (step, reason)}, see prunejax.faults
  shapes: Any  # of the state
  shardings: Any  # of the state
  alone: Any  # shardings of the state of one
  mesh: Any


def train(
  recipe: Recipe,
  folder,
  *,
  title: str = '',
  compiled: program.Compiled | None = None,
  encoded: inputs.Encoded | None = None,
  say: Callable[[str], None] = console.say,
  say_table: Callable[[str], None] | None = None,
) -> dict:
  """Trains one run and returns its result.

  Args:
    recipe: what `recipe.resolve` made of a config.
    folder: the work directory; one that holds another config is refused.
    title: starts each console line.
    compiled: a `program.Compiled` that several runs of a process share. None to compile anew.
    encoded: an `inputs.Encoded` that they share. None to encode anew.
    say: prints a line.
    say_table: prints the table of who pays; None: `say`.

  Returns:
    A dict with 'metrics' (held-out scores), 'sparsity' (of the leaves the config names),
    'mask_hash', 'bytes' (of the dense parameters), 'seconds', 'steps', 'models' (digests of the
    folders that were written), 'reads' (digests of the content that was read), 'model' (its sizes).
    `folder`/result.json holds the same, `folder`/model the final weights.

  Raises:
    TypeError: `recipe` is no recipe.
    ValueError, FileNotFoundError: wrong input; the message names the key or file.
    FloatingPointError: a loss that is not finite.
    OSError: the disk is full; a later call resumes.
    preemption.Preempted: SIGTERM came, and the step it came in is saved (also when
      `checkpoint.every` is 0).
  """
  if not isinstance(recipe, Recipe):
    raise TypeError(
      f'recipe: expected a Recipe, which prunejax.train.recipe.resolve(config) makes of a config;'
      f' got a {type(recipe).__name__}'
    )
  began = time.perf_counter()
  compiled = program.Compiled.empty() if compiled is None else compiled
  say = say if distributed.first() else console.silent
  say_table = say_table if say_table and distributed.first() else say
  # Wrong input is refused here, before anything is compiled or written.
  folder = workdir.owned(folder, recipe.identity)
  if (done := workdir.result(folder)) is not None:
    with contextlib.suppress(FileNotFoundError):  # a finished run needs no data
      workdir.same_reads(folder, content_of(recipe))
    return done
  before = recipe.continue_from and workdir.finished(recipe.continue_from, recipe.identity)
  mesh = sharding.make_mesh(recipe.mesh.data, recipe.mesh.model, axes=recipe.mesh.axes)
  sharding.check_batch(mesh, recipe.batch_size)
  source, data = program.read_inputs(recipe, sharding.part_of_batch(mesh), encoded)
  reads = content_of(recipe, source)
  workdir.same_reads(folder, reads)
  run = Run('', title, recipe, folder, source, data, optimizer.make(recipe, source.pruned), reads)
  functions = program.build(recipe, source, data, run.tx, compiled)
  abstract = program.abstract_state(recipe, functions, run.tx)
  program.check_step(recipe, functions, abstract, data.train(0))
  engine = single(run, functions, abstract, mesh, compiled.engines)
  lies = engine.shardings['params'] if recipe.mesh.rules else None
  say_titled = lambda line: say(f'{title}  {line}')
  loaded = program.pretrained(
    recipe, source, functions, abstract['params'], say_titled, parts=lies is not None
  )
  if distributed.first():
    workdir.claim(folder, recipe.identity, reads)
  distributed.together('claimed')

  def settle(run, outcome, seconds):
    if isinstance(outcome, FloatingPointError):
      raise outcome
    results.append(outcome)

  c, results = recipe.checkpoint, []
  saves = resume.Saves(folder / 'checkpoints', c.every, c.keep, recipe.saved, folder / 'spent.json')
  with full_disk.one_error(folder) as full, workdir.held(folder, distributed.first()):
    first = lambda run: program.initial_state(run.recipe, functions, run.tx, loaded, lies)
    if before:
      first = lambda run: _continued(before, engine, program.initial_state(*parts))
      parts = recipe, functions, run.tx, loaded
    cost = {0: time.perf_counter() - began}
    how = {'settle': settle, 'say': say, 'say_table': say_table, 'title': title, 'cost': cost}
    train_members(engine, functions, {0: run}, saves, first, full=full, **how)
    if distributed.first():
      files.remove(saves.spent)  # the result has the seconds
  return results[0]


def _continued(folder, engine, fresh):
  """The last state of a finished run, on the host, with the numbers of the config that goes on."""
  steps = workdir.result(folder)['steps']
  state = checkpoint.of_finished(folder / 'checkpoints', engine.shapes, engine.shardings, steps)
  return optimizer.with_numbers_of(jax.tree.map(placement.on_host, state), fresh)


def content_of(recipe: Recipe, source: inputs.Source | None = None) -> dict:
  """Returns `inputs.reads` of a run and, with its source, the fingerprint of its vocabulary."""
  folder = None if source is None else source.folder
  reads = inputs.reads(recipe.data, recipe.init, recipe.distill.teacher, folder)
  return reads | (
    {} if source is None else {'vocabulary': families.fingerprint(source.size, source.tokenizer)}
  )


def single(
  run: Run, functions: program.Program, abstract: dict, mesh: jax.sharding.Mesh, engines: dict
) -> Engine:
  """Makes the engine of one run. Its step is taken from the dict `engines`, or added to it."""
  shardings = sharding.shard(abstract, mesh, run.recipe.mesh.rules)
  key = ('single', program.program_key(run.recipe, run.source), mesh)
  if key not in engines:
    engines[key] = sharding.steady(functions.step, shardings)
  step = engines[key]

  where = layers.where(run.recipe.model, run.recipe.where)

  def sparsity(state):
    masks = prunejax.get_masks(state['opt_state'], state['params'], unpruned=True)
    return [prunejax.masks.sparsity(masks, where)['total']]

  put = lambda batch: sharding.put_batch(batch, mesh)
  return Engine(
    members=1,
    turn=1,
    scored=1,
    step=lambda state, batches, places: step(state, put(batches[0])),
    compile=lambda state, batch: step.lower(state, put(batch)).compile(),
    batch=run.data.train,
    start=lambda first_states: next(first_states)[1],
    member=lambda state, place: state,
    sparsity=sparsity,
    faults=lambda opt_state, place: prunejax.faults(opt_state),
    shapes=abstract,
    shardings=shardings,
    alone=shardings,
    mesh=mesh,
  )


def train_members(
  engine: Engine,
  functions: program.Program,
  runs: dict[int, Run],
  saves: resume.Saves,
  first_state: Callable[[Run], dict],
  *,
  settle: Callable,
  say: Callable[[str], None],
  say_table: Callable[[str], None],
  title: str,
  cost: dict[int, float],
  full: Sequence = (),
  told: Callable[[], bool] | None = None,
  now: Callable[[], float] = time.perf_counter,
):
  """Trains the members of an engine, from the newest checkpoint if there is one.

  Args:
    engine: an `Engine`.
    functions: the `program.Program` of one member.
    runs: {place: Run} of those that are not done. Their folders are claimed.
    saves: a `resume.Saves`.
    first_state: Run -> its state of step 0, on the host or on any device.
    settle: (run, result or FloatingPointError, seconds) is called for each run when it ends.
    say: prints a line.
    say_table: prints the table of who pays.
    title: starts the lines that are about all members.
    cost: {place: seconds that the run has cost already}.
    full: what has told of a full disk so far, see `full_disk.one_error`.
    told: () -> whether to save and stop, of members that train in a thread; None: SIGTERM says so.
    now: () -> seconds on the clock that these members are charged by.

  Raises:
    preemption.Preempted: SIGTERM came; the last step of the call it came in is saved.
  """
  live, together = dict(runs), engine.members > 1
  clock, in_thread = _Clock(cost, now), told or _never
  progress = _Progress(title, engine.members, say)
  with contextlib.ExitStack() as closing:
    manager = None
    if saves.every or files.exists(saves.folder):
      manager = checkpoint.manager(saves.folder, saves.keep)
      closing.callback(_close_manager, manager)
    state = resume.restored(engine, manager, saves, live, clock.spent, title, say)
    if state is None:
      first_states = _first_states(engine, functions, live, first_state, say, say_table, in_thread)
      state = engine.start(first_states)
    freed.give_back()
    start = int(state['step'])
    # Read before a log takes away the rows that are written again.
    unscored = resume.unscored({p: live[p] for p in _due(start, live, saves).score}, start)
    logs = {place: _log(run, start, together, say, full) for place, run in live.items()}
    closing.callback(lambda: [log.close() for log in logs.values()])

    def end(place, outcome):
      logs.pop(place).close()
      settle(live.pop(place), outcome, clock.spent[place])

    def end_failed(at):
      clock.charge(live)
      for place, error in _failures(pending, live, history, at, state['opt_state'], engine):
        end(place, error)
      pending.clear()

    def finish_ended(at, told=_never):
      ended = {place: run for place, run in live.items() if run.recipe.steps <= at}
      clock.charge(live)
      for place, scores in _scores(engine, functions, state, ended, clock.charge, told):
        logs[place].say = say
        seconds = lambda place=place: clock.charge([place])
        member = engine.member(state, place)
        end(place, finish(ended[place], engine, functions, member, scores, logs[place], seconds))

    def score(at, places, told=_never):
      due = {place: live[place] for place in places if place in live}
      due = {place: run for place, run in due.items() if at < run.recipe.steps}
      for place, scores in _scores(engine, functions, state, due, clock.charge, told):
        logs[place].write(at, 'eval', scores)
        clock.charge([place])

    def stopped(at):
      resume.save(manager, saves, state, history, live, clock.spent, now=True)
      return preemption.Preempted(
        f'told to stop by SIGTERM: step {at} of {stop} is saved in {str(saves.folder)!r}'
      )

    clock.charge(live)
    # SIGTERM ends this at once, also in a thread: the step is on disk.
    finish_ended(start, in_thread)
    score(start, unscored, in_thread)
    stop = max((run.recipe.steps for run in live.values()), default=start)
    pending, history = [], resume.unlogged(manager, live, start)
    last_save = time.monotonic()
    batches, at = inputs.prefetch(engine.batch, start, stop), start
    with contextlib.nullcontext(told) if told else preemption.notice() as asked_to_stop:
      # Of several processes each would have to ask at the same calls.
      waits = asked_to_stop if jax.process_count() == 1 else _never
      while at < stop and live:
        # Nothing is due between two steps of a call. The first step is by itself: see below.
        steps = 1 if at == start else _steps(at, stop, engine.turn, saves, live)
        read, at = list(itertools.islice(batches, steps)), at + steps
        if at == start + 1:
          # Apart from its first call, whose arrays would come on top of what the compiler took.
          engine.compile(state, read[0])
          freed.give_back()
        state, metrics = engine.step(state, read, live)
        pending.append((steps, metrics))
        if at == start + 1:
          jax.block_until_ready(metrics)
          progress.start(at, stop)
          for log in logs.values():
            log.start(at)
        due = _due(at, live, saves)
        soon = time.monotonic() < last_save + saves.apart
        saved = bool(saves.every) and (due.save and not soon or due.end)
        if due.log or due.score or due.end or saved:
          end_failed(at)
        logged = [place for place in due.log if place in live]
        if logged:
          progress.wrote(at, _write(engine, state, live, logged, logs, history, at), live)
        else:
          progress.alive(at, functools.partial(_taken, engine, steps, metrics['loss']), live)
        if asked_to_stop():
          end_failed(at)
          if not live:
            break
          raise stopped(at)
        if saved and live:
          resume.save(manager, saves, state, history, live, clock.spent)
          last_save = time.monotonic()
        try:
          score(at, due.score, waits)
          if at < stop:
            finish_ended(at, waits)
        except preemption.Preempted:
          raise stopped(at) from None  # the evaluation is made when the run goes on
    try:
      finish_ended(stop, in_thread)
    except preemption.Preempted:
      if not live:
        raise
      # In the main thread SIGTERM ends this at once. Where checkpoint.every is 0 the last step is
      # not saved yet.
      raise stopped(at) from None


def finish(
  run: Run,
  engine: Engine,
  functions: program.Program,
  state: dict,
  scores: dict,
  log: metrics_log.Log,
  seconds: Callable[[], float],
) -> dict:
  """Writes the model of a trained state and its result.json, and returns the result.

  Args:
    run: its Run.
    engine: as in `train_members`.
    functions: as in `train_members`.
    state: the state of the run.
    scores: its held-out scores.
    log: its `metrics_log.Log`.
    seconds: () -> the seconds that the run has cost so far.
  """
  recipe, source = run.recipe, run.source
  size = families.with_classes(source.size, run.data.task and run.data.task.classes)
  masks = prunejax.get_masks(state['opt_state'], state['params'], unpruned=True)
  log.write(recipe.steps, 'eval', scores)
  whole = lambda tree: layers.unstacked(recipe.model, jax.tree.map(placement.on_host, tree))
  params, masks = whole(functions.view(state['params'], masks)), whole(masks)
  kept = {'model': params} if recipe.keep_model else {}
  if recipe.keep_latent:  # every process has a part of it
    kept['latent'] = whole(state['params'])
  digests = {}
  for name, weights in kept.items() if distributed.first() else ():

    def write(out, weights=weights):
      families.save(out, weights, size, source.tokenizer, carried=source.carried)
      return hf_folder.digest(out)

    digests[name] = files.deliver(run.folder / name, write)
  result = {
    'metrics': scores,
    'sparsity': _zeros(params, recipe.where),
    'mask_hash': prunejax.mask_hash(masks),
    'bytes': sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
    'steps': recipe.steps,
    'seconds': round(seconds(), 2),
    'models': digests,
    'reads': run.reads,
    'model': families.sizes(source.size),
  }
  if distributed.first():
    workdir.finish(run.folder, result)
  distributed.together('finished')
  return result


def _zeros(params, where) -> float:
  """The share of zeros in the leaves that `where` matches; 0.0 where a model has no such leaf."""
  chosen = paths.matches(where)
  if not any(chosen(name, leaf) for name, leaf in paths.named_leaves(params).items()):
    return 0.0
  return prunejax.masks.sparsity(params, where)['total']


def _first_states(engine, functions, live, first_state, say, say_table, told):
  """Yields (place, state of step 0) of each member: memory may not hold all of them unstacked."""
  for place, run in live.items():
    if told():
      raise preemption.Preempted('told to stop by SIGTERM before the first step')
    state = sharding.place(first_state(run), engine.alone)
    for name, share in run.source.pruned.items():
      say(f'{run.title}  prune.{name}: {share:.1%} of its weights are 0 in init: pruned already')
    if run.recipe.log.who_pays:
      batch = sharding.put_batch(run.data.train(0), engine.mesh)
      text = forecast.report(run, functions, state['params'], batch)
      if text:
        say_table(text)
    yield place, state


def _log(run, start, together, say, full):
  """The log of a run. Runs that train together print nothing: one line is about all of them."""
  return metrics_log.Log(
    run.folder if distributed.first() else None,
    run.title,
    run.recipe.steps,
    start=start,
    tensorboard=run.recipe.log.tensorboard,
    say=console.silent if together else say,
    full=full,
  )


def _never() -> bool:
  return False


def _scores(
  engine,
  functions,
  state,
  runs: dict[int, Run],
  charge: Callable,
  told: Callable[[], bool] = _never,
) -> Iterator[tuple[int, dict]]:
  """Yields (place, held-out scores) of members, in their order.

  Those that are scored at a time share the seconds, which `charge` is told. Raises Preempted before
  the next batch once `told` returns True.
  """
  places, stopped = list(runs), threading.Event()

  def laid_out(batch):  # every process has all of it
    if stopped.is_set():
      raise concurrent.futures.CancelledError
    if told():
      raise preemption.Preempted('SIGTERM')
    return sharding.put_whole(batch, engine.mesh)

  def score(place):
    return evaluate.scores(engine.member(state, place), runs[place].data, functions, laid_out)

  for first in range(0, len(places), engine.scored):
    some = places[first : first + engine.scored]
    if len(some) == 1:
      yield some[0], score(some[0])
      continue
    with concurrent.futures.ThreadPoolExecutor(len(some)) as threads:
      try:
        scores = list(threads.map(score, some))
      except BaseException:  # SIGTERM and Ctrl-C wait for a batch, not for all
        stopped.set()
        raise
    charge(some)
    yield from zip(some, scores, strict=True)


class _Due(NamedTuple):
  """What a step is followed by."""

  log: list[int]  # places whose row is due
  score: list[int]  # places that are scored
  end: bool  # a member takes its last step
  save: bool


def _due(at, live, saves) -> _Due:
  """What is due after step `at`."""
  every = lambda count, run: bool(count) and (at % count == 0 or at == run.recipe.steps)
  return _Due(
    [place for place, run in live.items() if every(run.recipe.log.every, run)],
    [place for place, run in live.items() if every(run.recipe.eval.every, run)],
    any(run.recipe.steps == at for run in live.values()),
    bool(saves.every) and at % saves.every == 0,
  )


def _steps(at, stop, most, saves, live) -> int:
  """How many steps follow step `at` until something is due: a row, a score, a save, an end."""
  last = min(at + most, stop)
  return next((step for step in range(at + 1, last) if any(_due(step, live, saves))), last) - at


def _taken(engine, steps, values):
  """A metric of a call, [steps, places], without the steps of the turn that were not taken."""
  return np.asarray(values).reshape(engine.turn, -1)[:steps]


def _failures(pending, live, history, at, opt_state, engine):
  """[(place, error)] of members that are not finite. Appends the metrics of the others."""
  if not pending:
    return []
  fetched = jax.device_get([metrics for _, metrics in pending])
  table = {
    name: np.concatenate(
      [
        _taken(engine, steps, metrics[name])
        for (steps, _), metrics in zip(pending, fetched, strict=True)
      ]
    )
    for name in fetched[0]
  }
  failed = []
  for place in live:
    column = {name: values[:, place] for name, values in table.items()}
    try:
      finite.check_finite(column, at, engine.faults(opt_state, place))
      history[place].append(column)
    except FloatingPointError as error:
      failed.append((place, error))
  return failed


def _write(engine, state, live, logged, logs, history, at):
  """Writes the rows that are due to the logs of their runs; returns them as {place: values}."""
  prunes = any(run.recipe.prune or run.recipe.hold_zeros for run in live.values())
  sparsity = engine.sparsity(state) if prunes else None
  rows = {}
  for place in sorted(logged):
    run, parts = live[place], history[place]
    means = {
      name: np.concatenate([part[name] for part in parts]).mean(dtype=np.float64)
      for name in parts[0]
    }
    history[place] = []
    row = {'loss': means['loss'], 'lr': optimizer.learning_rate(run.recipe, at - 1)}
    if prunes:
      row['sparsity'] = sparsity[place]
    if run.recipe.penalty and run.recipe.penalty.name not in IN_THE_LOSS:
      # A proximal step makes zeros that no mask holds.
      row['zeros'] = _zeros(engine.member(state, place)['params'], run.recipe.penalty.where)
    rows[place] = row | {k: v for k, v in means.items() if k not in row}
    logs[place].write(at, 'train', rows[place])
  return rows


class _Clock:
  """Seconds that each member has cost. Time that passes is divided among the members at work.

  Args:
    cost: {place: seconds so far}.
    now: () -> seconds.
  """

  def __init__(self, cost, now):
    self.spent, self._since, self._now = dict(cost), now(), now

  def charge(self, places):
    """Charges the time since the last charge; returns the seconds of the last of `places`."""
    now, places = self._now(), list(places)
    for place in places:
      self.spent[place] += (now - self._since) / len(places)
    self._since = now
    return self.spent[places[-1]] if places else 0.0


class _Progress:
  """Console lines about all members of a program, and about runs that log nothing for a while."""

  def __init__(self, title, members, say):
    self._title, self._members, self._say = title, members, say
    self._silence, self._pace = console.Silence(), None

  def start(self, at, stop):
    """The clock of the rate starts here, after the first step has compiled."""
    self._pace = console.Pace(at, stop)

  def alive(self, at, losses, live):
    """Prints a line if there has been none for a while; losses() are the last, [steps, places]."""
    if self._silence.over():
      losses = losses()[-1]
      self._line(at, {place: {'loss': losses[place]} for place in live}, live)

  def wrote(self, at, rows, live):
    """Is called after rows were written. The log of a single run has printed them."""
    self._silence.broken()
    if self._members > 1:
      self._line(at, rows, live)

  def _line(self, at, rows, live):
    loss = [row['loss'] for row in rows.values()]
    text = f'{self._title}  train {at}/{self._pace.stop}  {self._pace.words(at)}'
    text += f'loss {console.number(np.mean(loss))}'
    if self._members > 1:
      text += f' (worst {console.number(max(loss))})'
      sparsity = [row['sparsity'] for row in rows.values() if 'sparsity' in row]
      text += f'  sparsity {min(sparsity):.2f} to {max(sparsity):.2f}' if sparsity else ''
      text += f'  {len(live)} of {self._members} members train'
    self._say(text)


def _close_manager(manager):
  manager.wait_until_finished()
  manager.close()

"""Many runs as one program. Each has its own folder, numbers and data, and may fail alone.

A member equals the run by itself. Masks are equal exactly; parameters are equal bit for bit where
the compiler adds in the same order, else nearly. `stacking` holds the states of a wave of members
in one, and `train/resume.py` finds a killed wave again and restores it.
"""

import collections
import contextlib
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import prunejax
from prunejax import files
from prunejax.sweep import dependencies, planning, resources, stacking
from prunejax.sweep.waves import divided, side_by_side
from prunejax.train import (
  console,
  distributed,
  evaluate,
  full_disk,
  inputs,
  layers,
  loop,
  optimizer,
  program,
  resume,
  sharding,
  workdir,
)
from prunejax.train.recipe import Recipe

GIB = 2**30
SHARE = 0.8  # of the memory that is free; evaluation and the next member's weights need the rest
# When members whose checkpoint.every is 0 are saved: after each eighth of their steps. An eighth
# that ends less than half a minute after the last save is passed over.
SAVES = 8
APART = 30.0  # seconds
# Members in turn with small states take up to so many steps a turn. The second step finds the state
# in the cache of a core, and the state is copied out of the stack and back once a turn.
TURN = 4  # steps
SMALL = 2**24  # bytes
# The operations of such members leave cores idle, and so does what is done between their steps.
AT_A_TIME = 2  # waves, on a CPU


class Stacked(NamedTuple):
  """The compiled program of a stacked state, and how members are moved into it and out of it."""

  step: Callable  # (state, batches, row of each place, steps) -> (state, metrics [turn, places])
  blank: Callable  # () -> a state of zeros
  put: Callable  # (state, state of one, place) -> state
  take: Callable  # (state, place) -> state of one
  removed: Callable  # state -> (zeros of masks [leaves, places], sizes of leaves)
  shapes: Any
  shardings: Any
  alone: Any  # shardings of the state of one
  everywhere: Any  # the sharding of what every device has
  mesh: Any
  batching: str
  width: int  # places
  streams: int  # different batches
  turn: int  # the most steps of a call


def prepare(
  key: str, title: str, recipe: Recipe, folder, encoded: inputs.Encoded | None = None
) -> loop.Run:
  """Reads the inputs of a run, before anything is compiled or written.

  Args:
    key: the hash of the cell.
    title: starts each console line.
    recipe: of the run.
    folder: the folder of the cell.
    encoded: an `inputs.Encoded` that several runs of a process share. None to encode anew.

  Raises:
    ValueError, FileNotFoundError: wrong input; the message names the key or file.
  """
  folder = workdir.owned(folder, recipe.identity)
  source, data = program.read_inputs(recipe, encoded=encoded)
  reads = loop.content_of(recipe, source)
  workdir.same_reads(folder, reads)
  tx = optimizer.make(recipe, source.pruned)
  return loop.Run(key, title, recipe, folder, source, data, tx, reads)


def groups(
  left: dict,
  recipes: dict[str, Recipe],
  done: dict,
  folder,
  prepare: Callable[[str], loop.Run],
  one_by_one: bool = False,
) -> Iterator[tuple]:
  """Yields what runs next, stage by stage.

  Args:
    left: {key: `grid.Cell`} in order.
    recipes: {key: recipe of the cell}.
    done: {key: ledger row}, which grows while what is yielded runs.
    folder: the work directory of the grid.
    prepare: key -> what `prepare` of this file returns.
    one_by_one: every cell runs by itself.

  Raises:
    ValueError: `population.waves` is not for these devices. Nothing has run then.

  Yields:
    (runs of one program, more arguments of `train`), or (key of a cell that runs by itself, None).
  """
  if one_by_one:
    yield from ((k, None) for k in left)
    return
  for k in left:
    check_waves(recipes[k], jax.default_backend(), jax.device_count())
  kinds = {k: program.program_key(recipes[k]) for k in left}
  teachers = {k: dependencies.teacher(cell) for k, cell in left.items()}
  stage_of = planning.stages({k: cell.parent for k, cell in left.items()}, kinds, teachers)
  room = collections.Counter()
  for (kind, _), count in collections.Counter((kinds[k], stage_of[k]) for k in left).items():
    room[kind] = max(room[kind], count)
  for stage in range(max(stage_of.values(), default=-1) + 1):
    ready = [k for k in left if stage_of[k] <= stage and k not in done]
    begun = {}
    for name, plan in _by_size(resume.under_way(folder)):
      if all(k in done for k in plan['members']):
        if distributed.first():
          files.remove(files.path(folder) / 'populations' / name)
      elif all(k in left or k in done for k in plan['members']):
        begun |= dict.fromkeys(plan['members'], name)
    by_program = {}
    for k in ready:
      one = recipes[k]
      alone = dependencies.failed(left[k], done) or one.population.members == 1
      # Batches of members that are padded to different lengths cannot be stacked.
      alone = alone or one.continue_from or one.data.buckets
      if alone or workdir.result(files.path(folder) / 'cells' / k):
        yield k, None
      else:
        run = prepare(k)
        group = (k not in begun, program.program_key(run.recipe, run.source))
        by_program.setdefault(group, []).append(run)
    for _, runs in sorted(by_program.items(), key=lambda group: group[0][0]):
      resumes = {run.key: begun[run.key] for run in runs if run.key in begun}
      wide = room[kinds[runs[0].key]] if batching(runs[0].recipe) == 'map' else len(runs)
      yield (
        (runs, {'resumes': resumes, 'room': wide}) if wide > 1 or resumes else (runs[0].key, None)
      )


def _by_size(waves):
  """Waves with their names, large ones first.

  Of a wave that workers divided each began its part anew. Those smaller waves are the later ones.
  """
  return sorted(waves.items(), key=lambda wave: -len(wave[1]['members']))


def batching(recipe: Recipe) -> str:
  """Returns 'map' or 'vmap': what population.batching asks for.

  On a CPU 'auto' means 'map', which is no slower there and nearer to a run by itself.
  """
  asked = recipe.population.batching
  return asked if asked != 'auto' else 'map' if jax.default_backend() == 'cpu' else 'vmap'


def train(
  runs: list[loop.Run],
  folder,
  *,
  settle: Callable,
  say: Callable[[str], None] = console.say,
  say_table: Callable[[str], None] | None = None,
  title: str = '',
  resumes: Mapping[str, str] = MappingProxyType({}),
  room: int = 0,
  compiled: program.Compiled | None = None,
  encoded: inputs.Encoded | None = None,
):
  """Trains runs of one `program_key`, in as many waves as memory asks for.

  Args:
    runs: what `prepare` returned.
    folder: the work directory of the grid. A wave's checkpoints lie in `folder`/populations until
      it is done.
    settle: (key, result or FloatingPointError, seconds, **facts) is called for each run when it
      ends. The seconds are its share; the facts are 'members' and 'batching'.
    say: prints a line.
    say_table: prints the table of who pays; None: `say`.
    title: starts each console line.
    resumes: {key: name of an interrupted wave of this folder}, see train/resume.py; `runs` are the
      unfinished members of these waves. {} for runs that begin.
    room: the most runs of this program that will start together later on. Where an empty place
      costs no time, the program gets a place for each of them.
    compiled: the `program.Compiled` of the command.
    encoded: the `inputs.Encoded` of the command.

  Raises:
    OSError: the disk is full; a later call resumes.
    preemption.Preempted: SIGTERM came; all members that had begun are saved.
  """
  began = time.perf_counter()
  compiled = program.Compiled.empty() if compiled is None else compiled
  runs = sorted(runs, key=lambda run: run.recipe.steps)  # members of a wave end at about one step
  first = runs[0]
  functions = program.build(first.recipe, first.source, first.data, first.tx, compiled)
  alone = program.abstract_state(first.recipe, functions, first.tx)
  at_a_time = waves_at_a_time(first.recipe, alone)
  if resumes:
    begun = _begun(first, functions, alone, resumes, folder, compiled.engines)
  else:
    stacked, plans = fitted(runs, functions, alone, room, compiled.engines, at_a_time)
    begun = [(stacked, plan, plan['members']) for plan in plans]
  by_key = {run.key: run for run in runs}
  cost = (time.perf_counter() - began) / len(runs)
  calls = {'settle': settle, 'say': say, 'say_table': say_table or say}
  with full_disk.one_error(folder) as full:
    waves = []
    for number, (stacked, plan, keys) in enumerate(begun):
      name = f'{title}{f" wave {number + 1}/{len(begun)}" if len(begun) > 1 else ""}'
      members = {place: by_key[key] for place, key in enumerate(keys) if key}
      if (part := stacking.part_of_batch(stacked.mesh)) != (0, 1):
        read = lambda run, part=part: program.read_inputs(run.recipe, part, encoded)[1]
        members = {place: run._replace(data=read(run)) for place, run in members.items()}
      given = stacked, functions, members, plan, folder
      waves.append(functools.partial(_train_wave, *given, title=name, cost=cost, full=full))
    at_a_time = fitting(first.recipe, [stacked for stacked, *_ in begun], at_a_time)
    if at_a_time > 1:
      side_by_side(waves, at_a_time, calls)
    else:
      for wave in waves:
        wave(**calls)


def _begun(first, functions, alone, resumes, folder, engines):
  """[(program, plan, key of each place or None)] of the interrupted waves of `resumes`."""
  begun, plans = [], resume.under_way(folder)
  for name in sorted(set(resumes.values())):
    plan = plans[name]
    mesh = make_mesh(first.recipe, len(plan['members']))
    parts = first, functions, alone, plan['width'], plan['streams'], mesh
    # Of a wave that workers divided, a member is in the part that was begun later as well.
    mine = [key if resumes.get(key) == name else None for key in plan['members']]
    begun.append((stack(*parts, engines), plan, mine))
  return begun


def waves_at_a_time(recipe: Recipe, alone: dict) -> int:
  """Returns how many waves of a program train at a time, each in a thread.

  Args:
    recipe: of a member.
    alone: the shapes of its state.
  """
  small = turn(recipe, alone) > 1 and evaluate.on_one_cpu()
  return recipe.population.waves or (AT_A_TIME if small and _cores() > 1 else 1)


def fitting(recipe: Recipe, programs: Sequence[Stacked], at_a_time: int) -> int:
  """Returns how many of the waves that `programs` are made for train at a time.

  Waves that were begun apart, by several workers, may not fit together, and nor may the smallest
  waves of large members. They train in turn.

  Args:
    recipe: of a member.
    programs: one for each wave.
    at_a_time: of `waves_at_a_time`.
  """
  at_a_time = min(at_a_time, len(programs))
  if at_a_time == 1:
    return 1
  most = sum(sorted(resources.held(one.step) for one in programs)[-at_a_time:])
  return at_a_time if most <= limit(recipe) else 1


def check_waves(recipe: Recipe, platform: str, devices: int):
  """Refuses several waves at a time but on one CPU: an accelerator computes one after the other.

  Args:
    recipe: of a member.
    platform: of the devices, as 'cpu' or 'tpu'.
    devices: how many there are. Several must all compute in one order.

  Raises:
    ValueError: `population.waves` asks for several.
  """
  if recipe.population.waves > 1 and (platform, devices) != ('cpu', 1):
    raise ValueError(
      f'population.waves={recipe.population.waves}: several waves train at a time on one CPU device'
      f' only, and here are {devices} of {platform}: take 0 or 1'
    )


def limit(recipe: Recipe) -> float:
  """Returns the bytes that the programs that train at a time may hold on a device."""
  return recipe.population.memory * GIB or SHARE * resources.free_bytes()


def _cores() -> int:
  """The number of cores that this process may use."""
  # Not every system can pin a process to cores.
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _train_wave(
  stacked,
  functions,
  members,
  plan,
  folder,
  *,
  settle,
  say,
  say_table,
  title,
  cost,
  full,
  told=None,
  now=time.perf_counter,
):
  """Trains the members {place: Run} of one wave, from its newest checkpoint if there is one."""
  home = resume.home_of(folder, plan['members'])
  every = [run.recipe.checkpoint.every for run in members.values() if run.recipe.checkpoint.every]
  # Several processes save together, and their clocks differ.
  apart = 0.0 if every or jax.process_count() > 1 else APART
  every = min(every, default=math.ceil(max(run.recipe.steps for run in members.values()) / SAVES))
  saves = resume.Saves(home / 'checkpoints', every, 2, plan, home / 'spent.json', apart)
  facts = {'members': len(plan['members']), 'batching': stacked.batching}

  said = set()

  def say_once(line):  # the members of a wave often start from one folder
    if line not in said:
      said.add(line)
      say(f'{title}  {line}')

  def first_state(run):
    shapes = jax.eval_shape(functions.draw, jax.random.key(0))
    loaded = program.pretrained(run.recipe, run.source, functions, shapes, say_once)
    return program.initial_state(run.recipe, functions, run.tx, loaded)

  with contextlib.ExitStack() as locks:
    if distributed.first():
      for run in members.values():
        workdir.claim(run.folder, run.recipe.identity, run.reads)
      workdir.claim(home, plan)
    distributed.together('claimed')
    for held in (home, *(run.folder for run in members.values())):
      locks.enter_context(workdir.held(held, distributed.first()))
    loop.train_members(
      engine(stacked, members, plan, 1 if told else None),
      functions,
      members,
      saves,
      first_state,
      settle=lambda run, outcome, seconds: settle(run.key, outcome, seconds, **facts),
      say=say,
      say_table=say_table,
      title=title,
      cost=dict.fromkeys(members, cost),
      full=full,
      told=told,
      now=now,
    )
  if distributed.first():
    files.remove(home)
  distributed.together('wave')


def engine(
  stacked: Stacked, members: dict[int, loop.Run], plan: dict, scored: int | None = None
) -> loop.Engine:
  """A stacked program as the train loop steps it.

  Args:
    stacked: a `Stacked`.
    members: {place: Run} of the members of a plan.
    plan: as in `resume.under_way`.
    scored: members that are scored at a time; None for what this machine does best.
  """
  read, row_of = _batches(members, plan['streams'])

  def step(state, batches, places):
    rows = [row_of[place] if place in places else -1 for place in range(stacked.width)]
    rows = sharding.place(np.array(rows, np.int32), stacked.everywhere)
    steps = sharding.place(np.int32(len(batches)), stacked.everywhere)
    batches = [*batches, *batches[-1:] * (stacked.turn - len(batches))]
    joined = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    return stacked.step(state, stacking.put_batches(joined, stacked.mesh), rows, steps)

  def start(first_states):
    state = stacked.blank()
    for place, alone in first_states:
      state = stacked.put(state, alone, place)
    return state

  def sparsity(state):
    zeros, sizes = jax.device_get(stacked.removed(state))
    total = int(sizes.sum(dtype=np.int64))
    return [int(column.sum(dtype=np.int64)) / total for column in zeros.T]

  return loop.Engine(
    members=len(plan['members']),
    turn=stacked.turn,
    # The operations of a small model leave cores idle, and two of them take little memory. Several
    # devices must compute in one order on every process.
    scored=scored or (2 if stacked.turn > 1 and evaluate.on_one_cpu() else 1),
    step=step,
    compile=lambda state, batch: None,  # it is compiled, see `stack`
    batch=read,
    start=start,
    member=stacked.take,
    sparsity=sparsity,
    faults=prunejax.faults,
    shapes=stacked.shapes,
    shardings=stacked.shardings,
    alone=stacked.alone,
    mesh=stacked.mesh,
  )


def _batches(members, count):
  """(step -> {name: [count, b, ...]}, {place: row}); members that read the same share a row."""
  rows, readers = {}, {}
  for place, run in members.items():
    rows[place] = readers.setdefault(stream(run), (len(readers), run.data.train))[0]
  readers = [train for _, train in readers.values()]

  def read(step):
    batches = [reader(step) for reader in readers]
    batches += batches[:1] * (count - len(batches))
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

  return read, rows


def stream(run: loop.Run) -> str:
  """Returns a hash that is equal for two runs exactly when they read the same batches."""
  c = run.recipe
  words = run.source.tokenizer and run.source.tokenizer.to_str()
  read = [c.seed, c.batch_size, c.data, words, c.distill.teacher]
  return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


def fitted(
  runs: list[loop.Run],
  functions: program.Program,
  alone: dict,
  room: int,
  engines: dict,
  at_a_time: int = 1,
) -> tuple[Stacked, list[dict]]:
  """Returns a program as wide as memory holds, and the plans of the waves that run it.

  Args:
    runs: of one program, in order.
    functions: the `program.Program` of one of them.
    alone: the shapes of its state.
    room: as in `train`.
    engines: the dict of those that are compiled already.
    at_a_time: waves that train at a time.
  """
  config, count = runs[0].recipe, len(runs)
  asked, mesh = config.population, make_mesh(config, len(runs))
  read = [stream(run) for run in runs]
  # All places of `vmap` take time, also those of a wave that is not full.
  dealt = at_a_time if batching(config) == 'map' else 1
  streams = lambda width: max(len(set(wave)) for wave in divided(read, width, dealt))
  bytes_of_one = limit(config) / at_a_time
  fits = lambda one: (
    resources.held(one.step) <= bytes_of_one and (not asked.members or one.width <= asked.members)
  )
  ready = [
    one
    for key, one in engines.items()
    if key[:3] == _family(runs[0], mesh) and one.batching == 'map' and fits(one)
  ]
  ready = [
    one
    for one in ready
    if len(divided(runs, one.width, dealt)) <= at_a_time and one.streams >= streams(one.width)
  ]
  if ready:
    stacked = min(ready, key=lambda one: one.width)  # its empty places are skipped
  else:
    count = max(count, room)
    most = asked.members
    if at_a_time > 1:
      most = min(most or count, math.ceil(count / at_a_time))
    _, stacked = planning.fit(
      count,
      mesh.shape['members'],
      lambda width: _tried(stack, runs[0], functions, alone, width, streams(width), mesh, engines),
      lambda one: resources.held(getattr(one, 'step', one)),
      bytes_of_one,
      most=most,
      least=state_bytes(alone),
    )
    if isinstance(stacked, resources.TooLarge):
      raise MemoryError(
        f'{runs[0].title}: one member on each group of devices takes'
        f' {stacked.bytes / GIB:.1f} GiB of a device, more than it has'
      )
  width, streams = stacked.width, stacked.streams
  waves = divided([run.key for run in runs], width, dealt)
  return stacked, [{'members': keys, 'width': width, 'streams': streams} for keys in waves]


def _tried(build, *args):
  """What `build` returns, or the `resources.TooLarge` of a compiler that refuses the program."""
  try:
    return build(*args)
  except jax.errors.JaxRuntimeError as error:
    if (refused := resources.too_large(error)) is None:
      raise
    return refused


def turn(recipe: Recipe, alone: dict) -> int:
  """Returns the most steps that a member takes at a time; `alone` are the shapes of its state."""
  return TURN if batching(recipe) == 'map' and state_bytes(alone) <= SMALL else 1


def state_bytes(alone: dict) -> int:
  """Returns the bytes of a state, from its shapes."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(alone))


def _family(run, mesh):
  """What engines that differ in their width only have in common."""
  key = program.program_key(run.recipe, run.source)
  return key, batching(run.recipe), tuple(mesh.shape.items())


def stack(
  run: loop.Run,
  functions: program.Program,
  alone: dict,
  width: int,
  streams: int,
  mesh: jax.sharding.Mesh,
  engines: dict,
) -> Stacked:
  """Returns the compiled program of `width` places, taken from the dict `engines` or added to it.

  Args:
    run: one of the members.
    functions: its `program.Program`.
    alone: the shapes of its state.
    width: the number of places.
    streams: the number of different batches.
    mesh: a ('members', 'data', 'model') mesh.
    engines: the dict of those that are compiled already.
  """
  how, rules = batching(run.recipe), run.recipe.mesh.rules
  key = (*_family(run, mesh), width, streams)
  if key in engines:
    return engines[key]
  shapes, shardings = stacking.abstract(alone, width), stacking.shard(alone, mesh, rules)
  single = sharding.shard(alone, mesh, rules)
  everywhere = NamedSharding(mesh, PartitionSpec())
  step = lower(run, functions, alone, width, streams, mesh)
  zeros = lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  where = layers.where(run.recipe.model, run.recipe.where)
  removed = lambda state: stacking.removed(state, where)
  engines[key] = Stacked(
    step=step.compile(),
    blank=jax.jit(zeros, out_shardings=shardings),
    put=jax.jit(stacking.put, donate_argnums=0, out_shardings=shardings),
    take=jax.jit(stacking.take, out_shardings=single),
    removed=jax.jit(removed, out_shardings=everywhere),
    shapes=shapes,
    shardings=shardings,
    alone=single,
    everywhere=everywhere,
    mesh=mesh,
    batching=how,
    width=width,
    streams=streams,
    turn=turn(run.recipe, alone),
  )
  return engines[key]


def lower(
  run: loop.Run,
  functions: program.Program,
  alone: dict,
  width: int,
  streams: int,
  mesh: jax.sharding.Mesh,
) -> jax.stages.Lowered:
  """Returns a turn of `width` places before it is compiled; the arguments are those of `stack`.

  The devices of the mesh need not be here.
  """
  rules = run.recipe.mesh.rules
  shapes, shardings = stacking.abstract(alone, width), stacking.shard(alone, mesh, rules)
  everywhere, examples = (
    NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (None, None, 'data'))
  )
  placed = lambda shape, dtype, where: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
  read = (turn(run.recipe, alone), streams)
  batches = {k: placed((*read, *x.shape), x.dtype, examples) for k, x in _batch(run).items()}
  many = stacking.make_step(functions.step.__wrapped__, batching(run.recipe), mesh)
  return jax.jit(many, donate_argnums=0, out_shardings=(shardings, everywhere)).lower(
    jax.tree.map(lambda x, where: placed(x.shape, x.dtype, where), shapes, shardings),
    batches,
    placed((width,), jnp.int32, everywhere),
    placed((), jnp.int32, everywhere),
  )


def _batch(run):
  """The shapes of one global batch."""
  rows, part = run.recipe.batch_size, run.data.train(0)  # not traced: a teacher may be asked
  narrow = jax.dtypes.canonicalize_dtype
  return {
    name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), narrow(x.dtype)) for name, x in part.items()
  }


def make_mesh(recipe: Recipe, count: int, devices: Sequence | None = None):
  """Makes the mesh of `count` runs of one program; `devices` None for all of this machine.

  Raises:
    ValueError: the axes do not use the devices, or do not divide the batch.
  """
  shape = (recipe.population.mesh, recipe.mesh.data, recipe.mesh.model)
  mesh = stacking.make_mesh(*shape, count=count, batch_size=recipe.batch_size, devices=devices)
  sharding.check_batch(mesh, recipe.batch_size)
  return mesh

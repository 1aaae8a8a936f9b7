"""Many runs as one program: each has its own folder, numbers, data and fate, and equals the run by itself.

Masks are equal exactly; parameters bit for bit where the compiler adds in the same order, else nearly (see README).
"""

import collections
import contextlib
import time

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from prunejax import files
from prunejax.sweep import dependencies, planning, resources, stacking, wave
from prunejax.train import configs, console, loop, optimizer, sharding, workdir

GIB = 2**30
SHARE = 0.8  # of the memory that is free; evaluation and the next member's weights need the rest

_ENGINES = {}


def prepare(key, title, config, folder) -> wave.Run:
  """Reads what a run reads. Whatever can be refused is refused here, before anything is compiled or written."""
  tx = optimizer.make(config)
  loop.check(config)
  folder = workdir.owned(folder, configs.identity(config))
  source, data = loop.read_inputs(config, (0, 1))
  return wave.Run(key, title, config, folder, source, data, tx)


def groups(left, done, folder, prepare, one_by_one=False):
  """What runs next, and next, ...: (runs of one program, more arguments of `train`), or (the key of a cell that runs
  by itself, None).

  Args:
    left: {key: cell} in order; a cell has a `config` and the key of its `parent`.
    done: {key: ledger row}, which grows while what is yielded runs.
    folder: of the grid.
    prepare: key -> what `prepare` returns.
  """
  if one_by_one:
    yield from ((k, None) for k in left)
    return
  kinds = {k: loop.program_key(cell.config) for k, cell in left.items()}
  taught = {
    k: cell.config.distill.teacher.removeprefix('cell:').partition('/')[0]
    for k, cell in left.items()
  }
  at = planning.stages({k: cell.parent for k, cell in left.items()}, kinds, taught)
  room = collections.Counter()
  for (kind, _), count in collections.Counter((kinds[k], at[k]) for k in left).items():
    room[kind] = max(room[kind], count)
  for stage in range(max(at.values(), default=-1) + 1):
    ready = [k for k in left if at[k] <= stage and k not in done]
    by_program, begun = (
      {},
      {k: name for name, plan in under_way(folder).items() for k in plan['members']},
    )
    for k in ready:
      alone = dependencies.failed(left[k], done) or left[k].config.population.members == 1
      if alone or workdir.result(files.path(folder) / 'cells' / k):
        yield k, None
      else:
        run = prepare(k)
        by_program.setdefault((begun.get(k), loop.program_key(run.config, run.source)), []).append(
          run
        )
    for (goes_on, _), runs in sorted(by_program.items(), key=lambda group: group[0][0] is None):
      wide = room[kinds[runs[0].key]] if batching(runs[0].config) == 'map' else len(runs)
      yield (
        (runs, {'goes_on': goes_on, 'room': wide}) if wide > 1 or goes_on else (runs[0].key, None)
      )


def batching(config):
  """'map' or 'vmap': what population.batching asks for. On CPU members in turn are no slower, and nearer."""
  asked = config.population.batching
  return asked if asked != 'auto' else 'map' if jax.default_backend() == 'cpu' else 'vmap'


def train(runs, folder, *, settle, say=console.say, title='', goes_on=None, room=0):
  """Trains runs of one `program_key`, in as many waves as memory asks for.

  Args:
    runs: what `prepare` returned.
    folder: the work directory of the grid; what is under way lies in `folder`/populations until it is done.
    settle: (key, result or FloatingPointError, seconds, **facts) is called for each run when it ends: the seconds are
      its share, the facts 'members' and 'batching'.
    title: starts each console line.
    goes_on: the name of a wave of this folder (see `under_way`) that `runs` are what is left of.
    room: runs of this program that will come at once later on. Where empty places cost nothing, it is made for them.

  Raises:
    preemption.Preempted: SIGTERM came; all members are saved.
  """
  began = time.perf_counter()
  runs = sorted(
    runs, key=lambda run: run.config.steps
  )  # those of a wave end at about the same step
  first = runs[0]
  program = loop.build(first.config, first.source, first.data, first.tx)
  alone = loop.abstract_state(first.config, program, first.tx)
  if goes_on:
    plans = [under_way(folder)[goes_on]]
    mesh = _mesh(first.config, len(plans[0]['members']))
    engine = compiled(first, program, alone, plans[0]['width'], plans[0]['streams'], mesh)
  else:
    engine, plans = fitted(runs, program, alone, room)
  if (part := stacking.part_of_batch(engine.mesh)) != (0, 1):
    runs = [run._replace(data=loop.read_inputs(run.config, part)[1]) for run in runs]
  known = {run.key: run for run in runs}
  cost = (time.perf_counter() - began) / len(runs)
  for number, plan in enumerate(plans):
    name = f'{title}{f" wave {number + 1}/{len(plans)}" if len(plans) > 1 else ""}'
    members = {slot: known[key] for slot, key in enumerate(plan['members']) if key in known}
    wave.train(
      engine, program, members, plan, folder, settle=settle, say=say, title=name, cost=cost
    )


def under_way(folder):
  """{name: plan} of the waves of a grid that were begun and are not done, a plan having 'members': keys, in order."""
  found, home = {}, files.path(folder) / 'populations'
  for name in files.names(home):
    with contextlib.suppress(FileNotFoundError):  # another worker's, done and taken away in between
      found[name] = files.read_json(home / name / 'config.json')
  return found


def fitted(runs, program, alone, room=0):
  """(engine, plans of the waves): as wide as memory holds, every wave the same program."""
  config, count = runs[0].config, len(runs)
  asked, mesh = config.population, _mesh(config, len(runs))
  read = [wave.stream(run) for run in runs]
  streams = lambda width: max(len(set(read[i : i + width])) for i in range(0, count, width))
  limit = asked.memory * GIB or SHARE * resources.free_bytes()
  fits = lambda engine: (
    resources.held(engine.step) <= limit and (not asked.members or engine.width <= asked.members)
  )
  made = [
    e
    for key, e in _ENGINES.items()
    if key[:3] == _family(runs[0], mesh) and e.batching == 'map' and fits(e)
  ]
  made = [e for e in made if e.width >= count and e.streams >= streams(count)]
  if made:
    engine = min(made, key=lambda engine: engine.width)  # its empty places are skipped
  else:
    count = max(count, room)
    build = lambda width: compiled(runs[0], program, alone, width, streams(width), mesh)
    _, engine = planning.fit(
      count,
      mesh.shape['members'],
      build,
      lambda engine: resources.held(engine.step),
      limit,
      most=asked.members,
      least=sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(alone)),
    )
  return engine, [
    {
      'members': [run.key for run in runs[i : i + engine.width]],
      'width': engine.width,
      'streams': engine.streams,
    }
    for i in range(0, len(runs), engine.width)
  ]


def _family(run, mesh):
  """What engines that differ in their width only have in common."""
  return loop.program_key(run.config, run.source), batching(run.config), tuple(mesh.shape.items())


def compiled(run, program, alone, width, streams, mesh):
  """The compiled program of `width` members that read `streams` different batches, and what moves its state."""
  config = run.config
  how, rules = batching(config), tuple(config.mesh.rules)
  key = (*_family(run, mesh), width, streams)
  if key not in _ENGINES:
    shapes, shardings = stacking.abstract(alone, width), stacking.shard(alone, mesh, rules)
    everywhere, examples = (
      NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (None, 'data'))
    )
    placed = lambda shape, dtype, where: jax.ShapeDtypeStruct(shape, dtype, sharding=where)
    step = (
      jax.jit(
        stacking.make_step(program.step.__wrapped__, how, mesh),
        donate_argnums=0,
        out_shardings=(shardings, everywhere),
      )
      .lower(
        jax.tree.map(lambda x, where: placed(x.shape, x.dtype, where), shapes, shardings),
        {k: placed((streams, *x.shape), x.dtype, examples) for k, x in _batch(run).items()},
        placed((width,), jnp.int32, everywhere),
      )
      .compile()
    )
    single = sharding.shard(alone, mesh, rules)
    _ENGINES[key] = wave.Engine(
      step,
      jax.jit(
        lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), out_shardings=shardings
      ),
      jax.jit(stacking.put, donate_argnums=0, out_shardings=shardings),
      jax.jit(stacking.take, out_shardings=single),
      jax.jit(
        lambda state: stacking.removed(state, optimizer.where(config)), out_shardings=everywhere
      ),
      shapes,
      shardings,
      single,
      everywhere,
      mesh,
      how,
      width,
      streams,
    )
  return _ENGINES[key]


def _batch(run):
  """The shapes of one global batch."""
  rows, part = run.config.batch_size, run.data.train(0)  # not traced: a teacher may be asked
  narrow = jax.dtypes.canonicalize_dtype
  return {
    name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), narrow(x.dtype)) for name, x in part.items()
  }


def _mesh(config, count):
  shape = (config.population.mesh, config.mesh.data, config.mesh.model)
  mesh = stacking.make_mesh(*shape, count=count, batch_size=config.batch_size)
  sharding.check_batch(mesh, config.batch_size)
  return mesh

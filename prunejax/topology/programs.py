"""The programs of a grid, each once: which cells it serves, and its step before it is compiled.

Nothing is read but the size of a model, so a plan needs neither data nor weights. An `init` that is
not there counts as `sweep.estimate.size_of` says.
"""

import collections
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from prunejax.data import finetuning, tasks
from prunejax.pruning import schedules
from prunejax.sweep import dependencies, estimate, grid, planning, population
from prunejax.sweep.waves import divided
from prunejax.train import families, inputs, loop, optimizer, program, sharding
from prunejax.train.distillation import PREFIX
from prunejax.train.recipe import Recipe, resolve

COMPILES = {'cpu': 'map'}  # population.batching='auto' by platform; 'vmap' elsewhere


class Request(NamedTuple):
  """A program to compile, in values that go to another process.

  Attributes:
    title: names the program in a table.
    recipe: of one of its runs.
    pruned: the pruning groups that start from a pruned model, see `inputs.Source`.
    streams: the batches that each run of the largest group reads, as text; runs that share data
      have equal ones. One entry: a run by itself.
    steps: the numbers of steps of the runs of each group that starts together.
    due: the share of the steps of a run at which masks move.
    vocabulary: pieces of the vocabulary of a fresh model; 0 for what `size_of` says.
  """

  title: str
  recipe: Recipe
  pruned: tuple[str, ...]
  streams: tuple[str, ...]
  steps: tuple[tuple[int, ...], ...]
  due: float
  vocabulary: int = 0


def of_cells(cells: list[grid.Cell], one_by_one: bool = False) -> list[Request]:
  """Returns the distinct programs of a grid.

  Args:
    cells: `grid.Cell`s, as `grid.run` takes them.
    one_by_one: every cell runs by itself; otherwise runs that differ in numbers only are members of
      one program, as `population.groups` puts them together.
  """
  by_key = {grid.key(cell): cell for cell in cells}
  recipes = {k: resolve(cell.config) for k, cell in by_key.items()}
  pruned = {k: _pruned_groups(cell, recipes[k], by_key, recipes) for k, cell in by_key.items()}
  known = {}
  keys = {k: program.program_key(one, _source(one, pruned[k], known)) for k, one in recipes.items()}
  teachers = {k: dependencies.teacher(cell) for k, cell in by_key.items()}
  stage_of = planning.stages({k: cell.parent for k, cell in by_key.items()}, keys, teachers)
  together = collections.defaultdict(lambda: collections.defaultdict(list))
  for k in by_key:
    one = recipes[k]
    alone = one_by_one or one.population.members == 1 or one.continue_from or one.data.buckets
    together[keys[k]][k if alone else stage_of[k]].append(k)
  requests = []
  for groups in together.values():
    groups = [sorted(group, key=lambda k: recipes[k].steps) for group in groups.values()]
    largest = max(groups, key=len)
    first = largest[0]
    requests.append(
      Request(
        _title([by_key[k] for group in groups for k in group]),
        recipes[first],
        pruned[first],
        tuple(_stream(recipes[k]) for k in largest),
        tuple(tuple(recipes[k].steps for k in group) for group in groups),
        due(recipes[largest[-1]]),
      )
    )
  return requests


def of_run(one: Recipe, title: str) -> Request:
  """Returns the program of one run.

  Args:
    one: its recipe.
    title: names it.
  """
  return Request(title, one, (), ('',), ((one.steps,),), due(one))


def runs(request: Request) -> int:
  """Returns how many runs a program serves."""
  return sum(map(len, request.steps))


def steps(request: Request, width: int) -> int:
  """Returns the steps that a program of `width` places takes for all of its runs.

  Runs of a group are sorted by length and stepped in waves; a wave lasts as long as its longest.
  """
  return sum(
    max(group[first : first + width])
    for group in request.steps
    for first in range(0, len(group), width)
  )


def due(one: Recipe) -> float:
  """Returns the share of the steps of a run at which the masks of some group move."""
  moves = np.zeros(one.steps, bool)
  for group in one.prune:
    move = schedules.moves(f'prune.{group.name}', group.schedule(), group.when())
    moves |= np.asarray(
      jax.vmap(lambda step, move=move: jnp.bool_(move(step)))(jnp.arange(one.steps))
    )
  return float(moves.mean())


class Step(NamedTuple):
  """What lowers the step of a program.

  Attributes:
    lower: places -> jax.stages.Lowered. A run by itself has one place.
    mesh: {axis: devices}.
    count: runs that start together.
    unit: places come in multiples of it.
    least: bytes of the state of one place.
    most: places that a program may have; 0 for any number.
    limit: bytes that a program of several runs may hold on a device; 0 for the usual share.
  """

  lower: Any
  mesh: dict[str, int]
  count: int = 1
  unit: int = 1
  least: int = 0
  most: int = 0
  limit: float = 0.0


def step(request: Request, devices: list) -> Step:
  """Builds the step of a program for devices that need not be here.

  Args:
    request: the program.
    devices: of a slice.

  Raises:
    ValueError: the mesh does not fit the devices, or a pruning group does not fit the model.
  """
  one = request.recipe
  count = len(request.streams)
  if count > 1 and one.population.batching == 'auto':
    how = COMPILES.get(devices[0].platform, 'vmap')
    one = one._replace(population=one.population._replace(batching=how))
  source = _source(one, request.pruned)
  if request.vocabulary and not one.init:
    source.size.vocab_size = request.vocabulary
  data = _blank_data(one, source)
  tx = optimizer.make(one, source.pruned)
  functions = program.build(one, source, data, tx)
  alone = program.abstract_state(one, functions, tx)
  if count == 1:
    mesh = sharding.make_mesh(one.mesh.data, one.mesh.model, devices, one.mesh.axes)
    sharding.check_batch(mesh, one.batch_size)
    return Step(lambda places: _lower_alone(one, functions, alone, data, mesh), dict(mesh.shape))
  population.check_waves(one, devices[0].platform, len(devices))
  mesh = population.make_mesh(one, count, devices)
  run = loop.Run('', request.title, one, None, source, data, tx)
  read = request.streams
  different = lambda width: max(len(set(wave)) for wave in divided(read, width))
  return Step(
    lambda width: population.lower(run, functions, alone, width, different(width), mesh),
    dict(mesh.shape),
    count,
    unit=mesh.shape['members'],
    least=population.state_bytes(alone),
    most=one.population.members,
    limit=one.population.memory * population.GIB,
  )


def _lower_alone(one, functions, alone, data, mesh):
  """The step of a run by itself, as `loop.single` compiles it."""
  shardings = sharding.shard(alone, mesh, one.mesh.rules)
  placed = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
  examples = sharding.batch_sharding(mesh)
  narrow = jax.dtypes.canonicalize_dtype
  batch = {
    name: jax.ShapeDtypeStruct(x.shape, narrow(x.dtype), sharding=examples)
    for name, x in data.train(0).items()
  }
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.jit(
    functions.step.__wrapped__, donate_argnums=0, out_shardings=(shardings, whole)
  ).lower(jax.tree.map(placed, alone, shardings), batch)


def tokens(one: Recipe) -> int:
  """Returns the tokens of one batch of one run."""
  return one.batch_size * one.data.seq_len


def _source(one, pruned, known=None) -> inputs.Source:
  """The size of a model, without its vocabulary and weights."""
  size = estimate.size_of(one, known)
  family = families.of_size(size)
  rate, attention_rate = one.model.dropout, one.model.attention_dropout
  size = families.with_dropout(families.read_only(family, size), rate, attention_rate)
  return inputs.Source(size, None, None, dict.fromkeys(pruned, 1.0))


def _blank_data(one, source) -> inputs.Data:
  """Batches of zeros, in the shapes of the true ones."""
  family = families.of_size(source.size)
  task = tasks.get(one.data.task) if one.data.task else None
  if task:
    regression = not task.classes and not task.spans
    shapes = finetuning.shapes(one.data.seq_len, one.batch_size, regression, task.spans)
  else:
    shapes = family.examples.shapes(family.recipe(one.data), one.batch_size)
  batch = {name: np.zeros(*what) for name, what in shapes.items()}
  if one.distill.teacher:
    batch |= _blank_targets(one, source, task, batch)
  return inputs.Data(lambda step: batch, None, None, task, 0)


def _blank_targets(one, source, task, batch):
  """Zeros in the shapes of a teacher's logits, see distillation.py."""
  family = families.of_size(source.size)
  heads = families.heads(family, task)
  size = source.size.to_json_string(use_diff=False)
  model = families.make(size, heads, len(task.classes) if task and task.classes else 1)
  arguments = [batch[name] for name in ('input_ids', 'segment_ids', 'valid')]
  arguments += [batch['positions']] if 'positions' in batch else []
  params = jax.eval_shape(lambda rng: model.init(rng, *arguments[:3])['params'], jax.random.key(0))
  out = jax.eval_shape(lambda p: model.apply({'params': p}, *arguments, deterministic=True), params)
  return {f'{PREFIX}{head}': np.zeros(out[head].shape, np.float32) for head in heads}


def _pruned_groups(cell, one, by_key, recipes):
  """The pruning groups of a cell that start from the pruned model of another cell."""
  parent = one.init.removeprefix('cell:').partition('/')[0] if one.init.startswith('cell:') else ''
  seen = set()
  while one.pretrained and parent in by_key and parent not in seen:
    seen.add(parent)
    start = recipes[parent]
    if any((group.schedule().final or 0) >= program.PRUNED_SHARE for group in start.prune):
      return tuple(group.name for group in one.prune if group.schedule().final)
    if not start.hold_zeros:  # a model whose zeros are free has few of them left
      return ()
    parent = start.init.removeprefix('cell:').partition('/')[0]
  return ()


def _stream(one):
  """Equal for two runs that read the same batches, as `population.stream` is."""
  return repr((one.seed, one.batch_size, one.data, one.distill.teacher))


def _title(cells):
  """What the cells of a program have in common: 'finetune pruned, random; tfds/glue/cola +3'."""

  def values(name):
    return list(dict.fromkeys(str(cell.labels[name]) for cell in cells if cell.labels.get(name)))

  stage, arms, names = ', '.join(values('stage')), values('arm'), values('task')
  words = [stage, ', '.join(arms)]
  words += [names[0] + (f' +{len(names) - 1}' if len(names) > 1 else '')] if names else []
  return ' '.join(filter(None, words))

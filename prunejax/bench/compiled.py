"""The benches `train`, `selection` and `population` compiled for chips that need not be here.

Rows have the names of the measured ones where they mean the same, so that `bench --compare` puts
them side by side. A compiled time is the least that the program could take.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prunejax.bench import measure, names, results, selection, sizes, suite, table, train_step
from prunejax.report import rounding
from prunejax.sweep import grid
from prunejax.topology import chips, dry_run, programs
from prunejax.topology import report as dry_report
from prunejax.topology import table as dry_table
from prunejax.train import configs, console, objectives
from prunejax.train.recipe import resolve

NAMES = ('train', 'selection', 'population')
MEMBERS = [(s / 10, rate) for s in range(10) for rate in (2e-5, 3e-5, 4e-5, 5e-5)]
# BERT-mini has 4 layers of width 256 and BERT's vocabulary (Turc et al. 2019).
MODELS = {'packaged': {'init': 'nano'}, 'BERT-mini': {'init': ''}}


class MaskUpdate(NamedTuple):
  """One mask update of the leaves of a size, by magnitude."""

  title: str
  size: str
  allocation: str
  precision: str


def run(
  only: Sequence[str] | None,
  size: str,
  topologies: Sequence[str],
  *,
  out: PathLike | str | None = None,
  say: Callable[[str], None] = console.say,
) -> list[pathlib.Path]:
  """Compiles benches for topologies and writes a file of results for each.

  Args:
    only: names of NAMES; None for all.
    size: a name of `names.SIZES`.
    topologies: names that `slices.check` takes.
    out: the JSON file to write; None for runs/bench/<topology>-<size>.json. The name of the
      topology is added where there are several. What it already holds stays until the same bench is
      whole anew.
    say: prints one line.

  Returns:
    The files.

  Raises:
    ValueError: an unknown bench, size or topology; an `out` that does not end in .json, or has
      results of another machine, size or versions.
  """
  only = names.check(only, size, NAMES)
  dry_report.plan_on_cpu(topologies)
  paths = [_path(out, name, size, len(topologies)) for name in topologies]
  opened = [
    results.opened(path, _known(name), size) for path, name in zip(paths, topologies, strict=True)
  ]
  for path, name, kept in zip(paths, topologies, opened, strict=True):
    kept['machine'] = _machine(name, {}) | kept['machine']
    for bench in only:
      command = f'python -m prunejax bench --only={bench} --size={size} --topology={name}'
      part = results.Part(path, kept, bench, command)
      for answer, row in BENCHES[bench](size, name, say):
        _describe(kept, path, name, answer)
        part.add(measure.at_size(row, size, suite.target_sizes(bench)))
        say(f'  {row["name"]}: {table.number(row["value"])} {row["unit"]}')
      part.end()
    say(table.text(kept))
    say(f'written: {path} and {path.with_suffix(".md").name}')
  return paths


def _path(out, name, size, count):
  """The file of one of `count` topologies."""
  path = pathlib.Path(out or f'runs/bench/{_word(name)}-{size}.json')
  return path.with_name(f'{path.stem}-{_word(name)}{path.suffix}') if out and count > 1 else path


def _word(name):
  return name.replace(':', '-')


def _known(name):
  """What is known of the chips before anything is compiled for them."""
  return {'kind': _word(name), 'versions': grid.versions()}


def _describe(kept, path, name, answer):
  """Completes what the file says of the chips; a device that it names has to be the same."""
  machine = _machine(name, answer)
  if kept['machine']['device'] == name:  # no program had compiled yet
    kept['machine'] = machine
  elif machine['device'] != name:
    same = {**_known(name), 'device': machine['device']}
    results.check_conditions(path, kept, same, kept['size'])


def _machine(name, answer):
  """What the file says of the chips; nothing ran on them."""
  peaks = f'; peaks of {chips.words(chips.Chip(**answer["chip"]))}' if 'chip' in answer else ''
  device = f'{answer["device"]} x{answer["chips"]}' if 'device' in answer else name
  return {
    **_known(name),
    'device': device,
    'compiled': f'compiled for and not run{peaks}. {dry_table.HOW}',
  }


def _train(size: str, topology: str, say) -> Iterator[tuple[dict, dict]]:
  """Rows on the train step of `bench --only=train`."""
  dtype, rows = ('float32', 4) if topology == 'cpu' else ('bfloat16', 256)
  of = lambda sparsity: train_step.recipe_of(
    size,
    model__dtype=dtype,
    batch_size=rows,
    data__vocab_size=sizes.SIZES[size][-1],
    prune__weights__schedule=sparsity and f'constant({sparsity})',
    prune__weights__when='every(10)',
  )
  requests = [
    programs.of_run(of(0.9), 'pruned')._replace(vocabulary=sizes.SIZES[size][-1]),
    programs.of_run(of(''), 'dense')._replace(vocabulary=sizes.SIZES[size][-1]),
  ]
  answers = dry_run.compile_all(requests, topology, say=say)
  yield from _refused(requests, answers)
  if any(answer['reason'] for answer in answers):
    return
  pruned, what = answers[0], f'{dtype}, batch {rows} x {train_step.LENGTH}'
  numbers, plain = (dry_table.figures(*pair) for pair in zip(requests, answers, strict=True))
  chip = chips.Chip(**pruned['chip'])
  row = lambda *cells: (pruned, measure.row(*cells))
  peak = chip.flops if dtype == 'bfloat16' else chip.flops_float32
  yield row('matmul rate', pruned['chips'] * peak / 1e9, 'GFLOP/s', '', chip.source)
  yield row(
    'prunejax, off mask steps',
    rows * train_step.LENGTH / numbers['step'],
    'tokens/s',
    '',
    f'{what}: at least {measure.clock(numbers["step"])} a step, bound by {numbers["bound"]}',
  )
  yield row(
    'prune_transform, off mask steps',
    numbers['step'] / plain['step'],
    'x the step without',
    '<= 1.01',
    f'{measure.clock(numbers["step"])} with, {measure.clock(plain["step"])} without',
  )
  yield row(
    'a mask step',
    numbers['mask_step'] / numbers['step'],
    'x a step between',
    '',
    f'at least {measure.clock(numbers["mask_step"])}',
  )
  counted = rows * float(
    objectives.flops(
      sizes.bert(size), train_step.bert_shapes(size), train_step.LENGTH, train_step.PREDICTIONS
    )
  )
  yield row(
    'model FLOPs',
    counted / numbers['step'] / peak / pruned['chips'],
    'of the matmul rate',
    '',
    'at most: the step takes longer than its least time',
  )
  yield row(
    'FLOPs of the program',
    pruned['chips'] * sum(pruned['step']['flops'].values()) / counted,
    'x the model FLOPs',
    '',
    f'{counted / 1e9:.0f} GFLOP a step are the model FLOPs',
  )
  for name in ('arguments', 'temporaries'):
    yield row(
      f'{name} a chip', pruned[name] / measure.GIB, 'GiB', '', f'of {chip.memory / measure.GIB:.3g}'
    )
  for kind, (count, moved) in sorted(pruned['step']['collectives'].items()):
    yield row(f'{kind} a step', count, 'times', '', f'{rounding.short(moved / 1e6)} MB in all')


def _selection(size: str, topology: str, say) -> Iterator[tuple[dict, dict]]:
  """Rows on one mask update, its leaves divided over all chips."""
  requests = [
    MaskUpdate(f'{name}, {precision}', size, name, precision)
    for precision in selection.DTYPES
    for name in selection.ALLOCATIONS
  ]
  answers = dry_run.compile_all(requests, topology, builder=__name__, say=say)
  yield from _refused(requests, answers)
  weights = sum(rows * columns for rows, columns in sizes.shapes(size).values())
  for request, answer in zip(requests, answers, strict=True):
    if answer['reason']:
      continue
    read = weights * selection.DTYPES[request.precision].dtype.itemsize / answer['chips']
    chip, cost = chips.Chip(**answer['chip']), answer['mask_step']
    row = lambda *cells, answer=answer: (answer, measure.row(*cells))
    yield row(
      f'extra memory, {request.title}',
      100 * answer['temporaries'] / read,
      '% of the scores',
      '< 10' if answer['chips'] == 1 else '',
      'temporaries of the compiled update in main memory, with the holes between them',
    )
    yield row(
      f'{request.title}, bytes',
      cost['bytes'] / read,
      'reads',
      '',
      f'of the scores of a chip; {cost["guessed"]:g} searches of unknown length',
    )
    least, bound = dry_table.seconds(cost, chip)
    yield row(f'{request.title}, time', 1e3 * least, 'ms', '', f'at least, bound by {bound}')
    for kind, (count, moved) in sorted(cost['collectives'].items()):
      yield row(
        f'{request.title}, {kind}', count, 'times', '', f'{rounding.short(moved / 1e3)} kB in all'
      )


def _population(size: str, topology: str, say) -> Iterator[tuple[dict, dict]]:
  """Rows on 40 members of the packaged model, and of one of BERT-mini's size, against one."""
  del size
  for model in MODELS:
    requests = [_members(model, count) for count in (1, len(MEMBERS))]
    answers = dry_run.compile_all(requests, topology, say=say)
    yield from _refused(requests, answers)
    if not any(answer['reason'] for answer in answers):
      yield from _together(model, requests, answers)


def _together(model, requests, answers):
  """The rows of one model: one run by itself, and its members as one program."""
  alone, many = answers
  single, together = map(dry_table.figures, requests, answers)
  members, chips_of = together['members'], many['chips']
  row = lambda *cells: (many, measure.row(f'{model}: {cells[0]}', *cells[1:]))
  per = lambda name: _total(many['step'][name]) / members / _total(alone['step'][name])
  mesh = ' x '.join(f'{name} {n}' for name, n in many['mesh'].items())
  recipe, against = requests[0].recipe, 'x one run on the same chips'
  yield row(
    'members of one program',
    members,
    '',
    '',
    f'in {many["places"]} places on {mesh}; batch {recipe.batch_size} x {recipe.data.seq_len}',
  )
  for name, key in (('FLOPs', 'flops'), ('bytes', 'bytes')):
    detail = f'{_total(many["step"][key]) * chips_of / 1e9:.4g} G in all a step of all members'
    yield row(f'{name} a member', per(key), against, '', detail)
  yield row(
    'one program, against one after the other',
    members * single['step'] / together['step'],
    'x as fast',
    '',
    f'least times: {measure.clock(together["step"])} (bound by {together["bound"]}) for a step of'
    f' {members}, {measure.clock(single["step"])} (bound by {single["bound"]}) for one run',
  )
  for name, numbers in (('one program', together), ('one run', single)):
    yield row(f'tokens, {name}', numbers['tokens'] * chips_of, 'tokens/s', '', 'at most')
  yield row(
    'memory of a chip',
    many['held'] / measure.GIB,
    'GiB',
    '',
    f'{alone["held"] / measure.GIB:.3g} GiB for one run',
  )


BENCHES = {'train': _train, 'selection': _selection, 'population': _population}


def _total(value):
  return sum(value.values()) if isinstance(value, dict) else value


def _refused(requests, answers):
  """A row for each program that does not compile."""
  for request, answer in zip(requests, answers, strict=True):
    if answer['reason']:
      detail = f'does not compile: {answer["reason"]}'
      yield answer, measure.row(request.title, None, '', detail=detail)


def _members(model, count):
  """`count` cells of the grid of `bench --only=population` as one program."""
  config, _ = configs.load('configs/finetune.py:nano', train_step.ROOT)
  layers, hidden, heads, intermediate, _ = sizes.SIZES['small']
  changes = {
    'batch_size': 32,
    'data.seq_len': 32,
    'prune.weights.when': 'every(10)',
    'prune.weights.schedule': 'constant(0.5)',
    'model.hidden_size': hidden,
    'model.num_hidden_layers': layers,
    'model.num_attention_heads': heads,
    'model.intermediate_size': intermediate,
    **MODELS[model],
  }
  configs.override(config, changes)
  if count == 1:
    return programs.of_run(resolve(config), f'{model}, one run')
  cells = []
  for sparsity, rate in MEMBERS:
    one = config.copy_and_resolve_references()
    configs.override(
      one,
      {
        'prune.weights.schedule': f'constant({sparsity})',
        'optimizer.learning_rate': rate,
      },
    )
    cells.append(grid.Cell({'stage': model, 'arm': f'{count} members'}, one))
  (request,) = programs.of_cells(cells)
  return request


def step(request: MaskUpdate, devices: Sequence[Any]) -> programs.Step:
  """Builds a mask update for devices that need not be here; see `worker.respond`.

  Args:
    request: what is updated.
    devices: of a slice.
  """
  mesh = Mesh(np.array(devices), ('data',))
  dtype = selection.DTYPES[request.precision]

  def lies(shape):
    divided = shape[0] % mesh.size == 0
    return NamedSharding(mesh, PartitionSpec(*(('data', None) if divided else ())))

  scores = {
    name: jax.ShapeDtypeStruct(shape, dtype, sharding=lies(shape))
    for name, shape in sizes.shapes(request.size).items()
  }
  sparsity = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
  out = {name: leaf.sharding for name, leaf in scores.items()}
  update = selection.update(selection.ALLOCATIONS[request.allocation]())
  lowered = functools.partial(jax.jit(update, out_shardings=out).lower, scores, sparsity)
  return programs.Step(lambda places: lowered(), dict(mesh.shape))

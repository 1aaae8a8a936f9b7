"""Measures a grid as one program against its runs one after the other.

The grid is fine-tuning at ten sparsities and four learning rates.
"""

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from prunejax.bench import measure, sizes, train_step
from prunejax.models.hf import bert as bert_hf
from prunejax.sweep import population, resources, stacking
from prunejax.train import configs, inputs, loop, optimizer, recipe, sharding
from prunejax.train import program as programs

SPARSITIES, RATES = np.arange(10) / 10, (2e-5, 3e-5, 4e-5, 5e-5)
ROWS, LENGTH = 32, 32


def run(size: str, say: Callable[[str], None], **options) -> Iterator[dict]:
  """Times a step of every member, in each way of batching and one run after the other.

  The model is the packaged one; on a GPU, which has room for forty, the one of `size`.

  Args:
    size: a name of `sizes.SIZES`; 'tiny' has fewer cells.
    say: prints one line.
    **options: not used.

  Yields:
    Rows: members' steps a second, the cost of a mask step, memory a member.
  """
  del options
  cells = list(
    itertools.product(
      SPARSITIES[:: 5 if size == 'tiny' else 1], RATES[:: 2 if size == 'tiny' else 1]
    )
  )
  shape = sizes.bert(size) if measure.on_gpu() or size == 'tiny' else bert_hf.read_size(inputs.NANO)
  chosen = population.batching(_cell(shape, 'auto', *cells[0]).recipe)
  ways = (chosen,) if size == 'tiny' else stacking.BATCHING
  calls, single, masked, waves, held, turns, threads = {}, {}, {}, {}, {}, {}, {}
  for way in ways:
    say(f'  compiling {len(cells)} members, {way}')
    stepped, engine, members, at_a_time = _together([_cell(shape, way, *cell) for cell in cells])
    calls[way] = functools.partial(stepped, engine.turn)
    single[way], masked[way] = (functools.partial(stepped, 1, first) for first in (False, True))
    held[way], turns[way] = at_a_time * resources.held(engine.step), engine.turn
    waves[way], threads[way] = len(cells) / members, at_a_time
  say('  compiling one run')
  calls['alone'], compiled = _alone(_cell(shape, 'map', *cells[0]), len(cells))
  times = measure.interleaved(calls, rounds=5, seconds=120)
  rate = lambda way: turns.get(way, 1) * len(cells) / waves.get(way, 1) / times[way].median
  what = f'{len(cells)} members of batch {ROWS} x {LENGTH}'
  words = {
    'vmap': 'one program, all at once',
    'map': 'one program, in turn',
    'alone': 'one after the other',
  }
  for way in (*ways, 'alone'):
    count = waves.get(way, 1) * threads.get(way, 1)
    in_waves = f' in {count:.0f} waves' if count > 1 else ''
    if threads.get(way, 1) > 1:
      in_waves += f', {threads[way]} at a time in threads, as a grid trains them here'
    yield measure.row(
      words[way],
      rate(way),
      "members' steps/s",
      '',
      f'{what}{in_waves}: {times[way]} for {_times(turns.get(way, 1))} of each',
    )
  for way in ways:
    gain = turns[way] * measure.ratio(times['alone'], times[way]) / waves[way]
    default = 'the default here' if way == chosen else 'not the default here'
    yield measure.row(
      f'{words[way]}, against one after the other',
      gain,
      'x as fast',
      '>= 1',
      default,
      where=way == chosen,
    )
  for way in ways:
    both = measure.interleaved({'on': masked[way], 'off': single[way]}, rounds=5, seconds=40)
    yield measure.row(
      f'{words[way]}: a step that moves masks',
      measure.ratio(both['on'], both['off']),
      'x a step between',
      '',
      'no threshold is searched between; if it were, this would be 1',
    )
    yield measure.row(
      f'{words[way]}: memory a member',
      held[way] / (len(cells) / waves[way]) / resources.held(compiled),
      'x that of one run',
      '<= 1.1' if way == chosen else '',
      f'{held[way] / measure.GIB:.2f} GiB in all',
    )


def _cell(shape, way, sparsity, rate):
  """One run of the grid, on a random batch."""
  config, _ = configs.load('configs/finetune.py:nano', train_step.ROOT)
  configs.override(
    config,
    {
      'optimizer.learning_rate': rate,
      'prune.weights.schedule': f'constant({float(sparsity)})',
      'batch_size': ROWS,
      'prune.weights.when': 'every(1000000)',
      'data.seq_len': LENGTH,
      'population.batching': way,
    },
  )
  draw = np.random.default_rng(0).integers
  batch = {
    'input_ids': draw(0, shape.vocab_size, (ROWS, LENGTH), np.int32),
    'segment_ids': np.zeros((ROWS, LENGTH), np.int32),
    'valid': np.ones((ROWS, LENGTH), bool),
    'label': draw(0, 2, ROWS, np.int32),
  }
  run = recipe.resolve(config)
  data = inputs.Data(lambda step: batch, None, None, run.task, 0)
  source = inputs.Source(shape, None, None)
  return loop.Run(f'{sparsity}-{rate}', '', run, None, source, data, optimizer.make(run))


def _together(runs):
  """The waves that train at a time, as `population.train` steps them.

  Returns ((steps, whether masks move first) -> metrics of each wave, engine, members of these
  waves, number of these waves).
  """
  first, by_key = runs[0], {run.key: run for run in runs}
  program = programs.build(first.recipe, first.source, first.data, first.tx)
  alone = programs.abstract_state(first.recipe, program, first.tx)
  at_a_time = population.waves_at_a_time(first.recipe, alone)
  engine, plans = population.fitted(runs, program, alone, 0, {}, at_a_time)
  at_a_time = population.fitting(first.recipe, [engine] * len(plans), at_a_time)
  members = [[by_key[key] for key in plan['members']] for plan in plans[:at_a_time]]
  waves = [_wave(engine, program, runs) for runs in members]
  pool = concurrent.futures.ThreadPoolExecutor(at_a_time, 'wave')

  def stepped(steps, first=False):
    return list(pool.map(lambda wave: wave(steps, first), waves))

  stepped(1, first=True)  # the masks move here; later steps are between mask updates
  return stepped, engine, sum(map(len, members)), at_a_time


def _wave(engine, program, runs):
  """(steps, whether masks move first) -> metrics of one wave."""
  state, number = engine.blank(), itertools.count()
  for i, run in enumerate(runs):
    state = engine.put(state, programs.initial_state(run.recipe, program, run.tx), i)
  current = [state]
  # A place without a member is skipped.
  rows = np.where(np.arange(engine.width) < len(runs), 0, -1).astype(np.int32)

  def stepped(steps, first=False):
    state = current[0]
    if first:  # the step counter is common to all members
      state = jax.tree.map(lambda x: x * 0 if stacking.is_common(x) else x, state)
    read = [runs[0].data.train(next(number)) for _ in range(engine.turn)]
    batch = {name: np.stack([one[name] for one in read])[:, None] for name in read[0]}
    taken = [sharding.place(x, engine.everywhere) for x in (rows, np.int32(steps))]
    current[0], metrics = engine.step(state, stacking.put_batches(batch, engine.mesh), *taken)
    return jax.block_until_ready(metrics)

  return stepped


def _times(steps):
  return 'a step' if steps == 1 else f'{steps} steps'


def _alone(run, count):
  """(function that takes `count` steps of one run as the loop does, the compiled program)."""
  program = programs.build(run.recipe, run.source, run.data, run.tx)
  mesh = sharding.make_mesh()
  shardings = sharding.shard(programs.abstract_state(run.recipe, program, run.tx), mesh)
  current = [sharding.place(programs.initial_state(run.recipe, program, run.tx), shardings)]
  jitted = sharding.steady(program.step, shardings)
  compiled = jitted.lower(current[0], sharding.put_batch(run.data.train(0), mesh)).compile()

  def steps():
    for number in range(count):
      current[0], metrics = jitted(current[0], sharding.put_batch(run.data.train(number), mesh))
    return metrics

  return steps, compiled

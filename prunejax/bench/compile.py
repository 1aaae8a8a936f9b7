"""One compile for any sparsity, counted where XLA is called, for one mask update and for the cells of a grid."""

import contextlib

import jax
import jax.numpy as jnp

import prunejax
from prunejax.bench import measure, sizes, train

EVENT = '/jax/core/compile/backend_compile_duration'
TARGET_SIZES = tuple(sizes.SIZES)  # a count of compiles holds at any size
SPARSITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
CELLS = (
  (0.0, 1e-4, 0),
  (0.5, 1e-4, 0),
  (0.9, 1e-4, 0),
  (0.5, 3e-4, 1),
)  # sparsity, learning rate, seed


@contextlib.contextmanager
def counted():
  """A list that grows by the seconds of every compile of the process while the block runs."""
  taken = []

  def heard(event, seconds, **rest):
    del rest
    if event == EVENT:
      taken.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(heard)
  try:
    yield taken
  finally:
    jax.monitoring.unregister_event_duration_listener(heard)


def run(size, say, **options):
  """Rows: compiles of a mask update at five sparsities, and of the train step of four cells of a grid."""
  del options
  scores = sizes.weights(sizes.shapes('small' if size != 'tiny' else size))
  for name, allocation in (
    ('uniform', prunejax.uniform()),
    ('global', prunejax.global_threshold()),
  ):
    select = jax.jit(lambda s, at, a=allocation: prunejax.select_masks(s, at, allocation=a))
    levels = [jnp.float32(s) for s in SPARSITIES]
    with counted() as taken:
      kept = [jax.block_until_ready(select(scores, level)) for level in levels]
    yield _row(f'select_masks, {name}, {len(levels)} sparsities', taken)
    del kept
  say('  four cells of a grid')
  with counted() as taken:
    steps = [_first_steps(*cell) for cell in CELLS[:1]]
    first = len(taken)
    steps += [_first_steps(*cell) for cell in CELLS[1:]]
  yield measure.row(
    'train steps of 4 cells: sparsities, learning rates, seeds',
    len({id(step) for step in steps}),
    'programs',
    '== 1',
    'a cell takes its program from the cell before it',
  )
  yield measure.row(
    'compiles of the 3 cells after the first',
    len(taken) - first,
    'compiles',
    '== 0',
    f'anything at all; the first cell compiled {first} programs in {measure.clock(sum(taken[:first]))}',
  )


def _row(name, taken):
  return measure.row(name, len(taken), 'compiles', '== 1', f'{measure.clock(sum(taken))} in all')


def _first_steps(sparsity, rate, seed):
  """Takes two steps of a small cell as `loop.train` would, the first a mask step; returns its compiled step."""
  parts = train.ours('tiny', sparsity=sparsity, seed=seed, optimizer__learning_rate=rate)
  batch = train.blank_batch(4, sizes.SIZES['tiny'][-1])
  step, _ = train.stepping(*parts, batch)
  for _ in range(2):
    jax.block_until_ready(step(batch))
  return parts[-1].step

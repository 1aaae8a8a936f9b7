"""Counts compiles: of a mask update at several sparsities, and of the train steps of a grid."""

import contextlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import prunejax
from prunejax.bench import measure, sizes, train_step
from prunejax.train import program as programs

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
  """Yields a list to which every compile of the process adds its seconds, while the block runs."""
  seconds_of = []

  def listen(event, seconds, **rest):
    del rest
    if event == EVENT:
      seconds_of.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield seconds_of
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def run(size: str, say: Callable[[str], None], **options) -> Iterator[dict]:
  """Counts the compiles of a mask update at five sparsities, and of four cells of a grid.

  Args:
    size: a name of `sizes.SIZES`; the scores are those of 'small' or 'tiny'.
    say: prints one line.
    **options: not used.

  Yields:
    Rows.
  """
  del options
  scores = sizes.weights(sizes.shapes('small' if size != 'tiny' else size))
  for name, allocation in (
    ('uniform', prunejax.uniform()),
    ('global', prunejax.global_threshold()),
  ):
    select = jax.jit(lambda s, at, a=allocation: prunejax.select_masks(s, at, allocation=a))
    levels = [jnp.float32(s) for s in SPARSITIES]
    with counted() as compiles:
      masks = [jax.block_until_ready(select(scores, level)) for level in levels]
    yield measure.row(
      f'select_masks, {name}, {len(levels)} sparsities',
      len(compiles),
      'compiles',
      '== 1',
      f'{measure.clock(sum(compiles))} in all',
    )
    del masks
  say('  four cells of a grid')
  shared = programs.Compiled.empty()
  with counted() as compiles:
    steps = [_first_steps(*cell, shared) for cell in CELLS[:1]]
    first = len(compiles)
    steps += [_first_steps(*cell, shared) for cell in CELLS[1:]]
  yield measure.row(
    'train steps of 4 cells: sparsities, learning rates, seeds',
    len({id(step) for step in steps}),
    'programs',
    '== 1',
    'a cell reuses the program of the cell before it',
  )
  yield measure.row(
    'compiles of the 3 cells after the first',
    len(compiles) - first,
    'compiles',
    '== 0',
    f'of any program; the first cell compiled {first} in {measure.clock(sum(compiles[:first]))}',
  )


def _first_steps(sparsity, rate, seed, shared):
  """Takes two steps of a small cell, the first a mask step; returns its compiled step."""
  changes = {'seed': seed, 'optimizer__learning_rate': rate}
  parts = train_step.ours('tiny', sparsity=sparsity, compiled=shared, **changes)
  batch = train_step.blank_batch(4, sizes.SIZES['tiny'][-1])
  step, _ = train_step.stepping(*parts, batch)
  for _ in range(2):
    jax.block_until_ready(step(batch))
  return parts[-1].step

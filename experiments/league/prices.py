"""Measure the cost of each method: seconds of pruning, and bytes of a real file.

Cells of the grid share a machine and a compilation, so pruning is timed apart. The steps of the
method's run are taken one after the other, with dense steps of the same model and batch in between.
Medians are taken of steps in which masks are updated, of the other steps, and of dense ones; they
give what all steps of a run take beyond dense ones.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.league import standing
from prunejax import files
from prunejax.compress import sparse_file
from prunejax.pruning.links import low_rank
from prunejax.report import ledger
from prunejax.sweep import grid
from prunejax.train import (
  configs,
  console,
  export,
  optimizer,
  program,
  recipe,
  saved_model,
  sharding,
)

EVERY = 4  # A dense step follows this many steps of the method.
REPEATS = 4  # Extra times that a mask update is timed where a run has fewer of them.
STAGE = 'price'


def add_rows(cells: list, folder, preset: str, done: dict, say=console.say) -> None:
  """Measure the methods that have no price yet and add rows to the ledger of `folder`.

  Each method is timed at the sparsity nearest to `standing.PRICED`, with its first seed. A model
  that is not in `folder` (a ledger that came alone) has no bytes.

  Args:
    cells: of the plan.
    folder: work directory.
    preset: name, for the rows.
    done: {cell: row} of the ledger.
    say: prints a line of progress.
  """
  distance = lambda cell: (
    abs(cell.labels['sparsity'] - standing.PRICED),
    cell.labels['seed'],
  )
  chosen = {}
  for cell in cells:
    method = cell.labels['method']
    if cell.labels['stage'] == 'pretrain' and method != standing.DENSE:
      if method not in chosen or distance(cell) < distance(chosen[method]):
        chosen[method] = cell
  left = {method: cell for method, cell in chosen.items() if _key(cell) not in done}
  dense = next(cell for cell in cells if cell.labels['method'] == standing.DENSE)
  compiled = program.Compiled.empty()
  for count, (method, cell) in enumerate(left.items(), 1):
    sparsity = cell.labels['sparsity']
    say(f'price {count}/{len(left)} {method} {sparsity:g}')
    began = time.perf_counter()
    metrics = step_seconds(cell.config, dense.config, compiled)
    size = file_bytes(files.path(folder) / 'cells' / grid.key(cell), method, sparsity)
    if size is not None:
      metrics['file_bytes'] = size
    row = {
      'cell': _key(cell),
      'experiment': 'league',
      'preset': preset,
      **cell.labels,
      'stage': STAGE,
    }
    row |= {'metrics': metrics, 'versions': grid.versions(), 'device': grid.device()}
    row['seconds'] = round(time.perf_counter() - began, 2)
    ledger.append(files.path(folder) / 'ledger.jsonl', row)


def step_seconds(config, dense, compiled=None) -> dict:
  """Time the steps of a run beside dense steps.

  Args:
    config: of the method's run.
    dense: config of the dense run.
    compiled: programs that earlier calls compiled, a `program.Compiled`, or None.

  Returns:
    'dense_step', 'still_step' and 'moving_step', medians in seconds (still: no mask is updated);
    'moves', the number of mask updates; 'pruning_seconds', what all steps take beyond dense ones.
  """
  plain = configs.override(
    dense.copy_and_resolve_references(), {'prune.weights.schedule': '', 'seed': config.seed}
  )
  (step, fresh, batch_at), (dense_step, fresh_dense, _) = (
    _runner(run_config, compiled) for run_config in (config, plain)
  )
  for run, first_state in ((step, fresh), (dense_step, fresh_dense)):
    jax.block_until_ready(run(first_state(), batch_at(0)))  # Compiles.
  moving, times = moves(config), {'dense': [], 'still': [], 'moving': []}
  state, dense_state = fresh(), fresh_dense()
  for t in range(config.steps):
    batch, kind = batch_at(t), 'moving' if moving[t] else 'still'
    # With one update the median would rest on a single time.
    for _ in range(REPEATS if moving[t] and moving.sum() < REPEATS else 0):
      _timed(times[kind], step, jax.tree.map(jnp.copy, state), batch)
    state = _timed(times[kind], step, state, batch)
    if t % EVERY == 0:
      dense_state = _timed(times['dense'], dense_step, dense_state, batch)
  median = {kind: float(np.median(seconds)) for kind, seconds in times.items() if seconds}
  count = {'moving': int(moving.sum()), 'still': int((~moving).sum())}
  extra = sum(count[kind] * (median[kind] - median['dense']) for kind in count if count[kind])
  steps = {f'{kind}_step': seconds for kind, seconds in median.items()}
  return {**steps, 'moves': count['moving'], 'pruning_seconds': extra}


def moves(config) -> np.ndarray:
  """Mark the steps in which masks are updated, ranks cut or weights rewound: bool [steps]."""
  run = recipe.resolve(config)
  due = [group.when() for group in run.prune]
  due += [run.low_rank.when()] if run.low_rank else []
  flags = np.zeros(config.steps, bool)
  for when in due:
    flags |= np.asarray(jax.vmap(when)(jnp.arange(config.steps)))
  flags[[step + 1 for step in run.optimizer.rounds]] = True
  return flags


def file_bytes(folder, method: str, sparsity: float) -> int | None:
  """Count the bytes of a cell's model in the smallest form that its structure allows.

  That is the sparse file; for `heads_and_neurons` the model without the removed units, for
  `low_rank` the factors.

  Args:
    folder: of the cell.
    method: its name.
    sparsity: that the method was asked for.

  Returns:
    Bytes, or None where the model is not kept.
  """
  if not files.exists(folder / 'model' / 'config.json'):
    return None
  model = saved_model.load(folder)
  leaves = {name: np.asarray(leaf) for name, leaf in model.leaves.items()}
  if method == 'heads_and_neurons':
    leaves = export.shrunk(model)[0]
  elif method == 'low_rank':
    parts = {}
    for name, leaf in leaves.items():
      if leaf.shape in standing.SHAPES and name.startswith('encoder'):
        rank = int(low_rank.rank_for(leaf.shape, sparsity))
        left, right = low_rank.factors(leaf, rank)
        parts |= {f'{name}.left': left, f'{name}.right': right}
      else:
        parts[name] = leaf
    leaves = parts
  return len(sparse_file.encode(leaves, version=1))  # the sizes of the ledger


def _key(cell):
  return ledger.cell_hash({'price': grid.key(cell), 'method': cell.labels['method']})


def _runner(config, compiled):
  """(step, () -> first state, step number -> batch on the device) of a run."""
  run = recipe.resolve(config)
  tx = optimizer.make(run)
  source, data = program.read_inputs(run)
  functions = program.build(run, source, data, tx, compiled)
  mesh = sharding.make_mesh()
  abstract = program.abstract_state(run, functions, tx)
  loaded = program.pretrained(run, source, functions, abstract['params'])
  shardings = sharding.shard(abstract, mesh)
  first_state = lambda: program.initial_state(run, functions, tx, loaded)
  fresh = lambda: sharding.place(first_state(), shardings)
  return functions.step, fresh, lambda t: sharding.put_batch(data.train(t), mesh)


def _timed(times, step, state, batch):
  """The next state; the step's seconds are appended to `times`."""
  jax.block_until_ready((state, batch))
  start = time.perf_counter()
  state, metrics = step(state, batch)
  jax.block_until_ready((state, metrics))
  times.append(time.perf_counter() - start)
  return state

"""What each method costs beside its score: seconds of pruning, and bytes of a file that was written.

Whole cells share a machine and a compilation with others, so pruning is timed apart: the steps of the method's run one
after the other, dense steps of the same model and batch between them. Medians are kept of steps in which masks move, of
those in which they do not, and of the dense ones; from them, what all steps of a run take beyond dense ones.
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

EVERY = 4  # a dense step after so many of the method
AGAIN = 4  # times more that a move is timed where there are few
STAGE = 'price'


def rows(cells, folder, preset, done, say=console.say):
  """Measures the methods of a league that `done`, {cell: row}, lacks, and adds their rows to the ledger of `folder`.

  cells: of the plan; each method is timed as it runs at the sparsity nearest to `standing.PRICED`, with its first seed.
  A model that is not in `folder` (a ledger that came alone) has no bytes.
  """
  first = {}
  for cell in cells:
    if cell.labels['stage'] == 'pretrain' and cell.labels['method'] != standing.DENSE:
      known = first.setdefault(cell.labels['method'], cell)
      off = lambda c: (abs(c.labels['sparsity'] - standing.PRICED), c.labels['seed'])
      if off(cell) < off(known):
        first[cell.labels['method']] = cell
  left = {name: cell for name, cell in first.items() if _key(cell) not in done}
  dense = next(c for c in cells if c.labels['method'] == standing.DENSE)
  compiled = program.Compiled.empty()
  for count, (name, cell) in enumerate(left.items(), 1):
    say(f'price {count}/{len(left)} {name} {cell.labels["sparsity"]:g}')
    began = time.perf_counter()
    metrics = seconds(cell.config, dense.config, compiled)
    if (
      weight := size(files.path(folder) / 'cells' / grid.key(cell), name, cell.labels['sparsity'])
    ) is not None:
      metrics['file_bytes'] = weight
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


def seconds(config, dense, compiled=None):
  """{'dense_step', 'still_step', 'moving_step': medians in seconds, 'moves': how many, 'pruning_seconds'}."""
  plain = configs.override(
    dense.copy_and_resolve_references(), {'prune.weights.schedule': '', 'seed': config.seed}
  )
  (step, fresh, data), (dense_step, fresh_dense, _) = (
    _runner(one, compiled) for one in (config, plain)
  )
  for run, start in ((step, fresh), (dense_step, fresh_dense)):
    jax.block_until_ready(run(start(), data(0)))  # compiles
  moving, taken = moves(config), {'dense': [], 'still': [], 'moving': []}
  state, dense_state = fresh(), fresh_dense()
  for at in range(config.steps):
    batch, kind = data(at), 'moving' if moving[at] else 'still'
    for _ in range(AGAIN if moving[at] and moving.sum() < AGAIN else 0):
      _timed(
        taken[kind], step, jax.tree.map(jnp.copy, state), batch
      )  # a median of one move would be that of one time
    state = _timed(taken[kind], step, state, batch)
    if at % EVERY == 0:
      dense_state = _timed(taken['dense'], dense_step, dense_state, batch)
  middle = {kind: float(np.median(times)) for kind, times in taken.items() if times}
  often = {'moving': int(moving.sum()), 'still': int((~moving).sum())}
  extra = sum(often[kind] * (middle[kind] - middle['dense']) for kind in often if often[kind])
  steps = {f'{kind}_step': value for kind, value in middle.items()}
  return {**steps, 'moves': often['moving'], 'pruning_seconds': extra}


def moves(config):
  """bool [steps]: the steps in which masks move, ranks are cut or weights go back."""
  run = recipe.resolve(config)
  due = [group.when() for group in run.prune]
  due += [run.low_rank.when()] if run.low_rank else []
  flags = np.zeros(config.steps, bool)
  for when in due:
    flags |= np.asarray(jax.vmap(when)(jnp.arange(config.steps)))
  flags[[step + 1 for step in run.optimizer.rounds]] = True
  return flags


def size(folder, method, sparsity):
  """Bytes of the model of a cell in the smallest form its structure allows: the sparse file; units that are gone cut
  out; the factors of low rank. None where the model is not kept.
  """
  if not files.exists(folder / 'model' / 'config.json'):
    return None
  found = saved_model.load(folder)
  leaves = {name: np.asarray(leaf) for name, leaf in found.leaves.items()}
  if method == 'heads_and_neurons':
    leaves = export.shrunk(found)[0]
  elif method == 'low_rank':
    parts = {}
    for name, leaf in leaves.items():
      if leaf.shape in standing.SHAPES and name.startswith('encoder'):
        rank = int(low_rank.rank_for(leaf.shape, sparsity))
        parts |= dict(
          zip((f'{name}.left', f'{name}.right'), low_rank.factors(leaf, rank), strict=True)
        )
      else:
        parts[name] = leaf
    leaves = parts
  return len(sparse_file.encode(leaves))


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
  places = sharding.shard(abstract, mesh)
  fresh = lambda: sharding.place(program.initial_state(run, functions, tx, loaded), places)
  return functions.step, fresh, lambda at: sharding.put_batch(data.train(at), mesh)


def _timed(times, step, state, batch):
  jax.block_until_ready((state, batch))
  start = time.perf_counter()
  state, metrics = step(state, batch)
  jax.block_until_ready((state, metrics))
  times.append(time.perf_counter() - start)
  return state

"""A grid of runs, one after the other, each once: what the ledger holds is done, what is killed goes on."""

import datetime
import importlib.metadata
import json
import platform
import time
from typing import Any, NamedTuple

import jax

from prunejax import files
from prunejax.analysis import ledger
from prunejax.train import configs, distributed, log, loop, workers

PACKAGES = ('prunejax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')


class Cell(NamedTuple):
  """One run of a grid.

  labels: what sets it apart, the columns of its ledger row (stage, arm, sparsity, task, learning_rate, seed).
  config: its ConfigDict. An `init` of 'cell:<hash>' is the model of another cell.
  parent: the hash of the cell it starts from, or None.
  """

  labels: dict
  config: Any
  parent: str | None = None


def key(cell):
  """The 12 hex digits of a cell's config, without what changes no number: caches, log lines, checkpoints."""
  flat = configs.flat(cell.config)
  quiet = ('log.', 'checkpoint.', 'data.cache', 'data.root', 'keep_model')
  return ledger.cell_hash({k: v for k, v in flat.items() if not k.startswith(quiet)})


def run(cells, folder, *, experiment, preset, say=log.say):
  """Runs every cell that the ledger of `folder` does not hold, in order, and returns all rows of these cells.

  A cell whose loss is not finite is written to the ledger as failed, with its reason; the others go on.
  """
  folder = files.path(folder)
  path = folder / 'ledger.jsonl'
  say = say if distributed.first() else log.silent
  distributed.together('grid')  # all read the same ledger: the first has written what it had to
  done = {row['cell']: row for row in ledger.read(path)}
  keys = [key(cell) for cell in cells]
  left = [(k, cell) for k, cell in zip(keys, cells, strict=True) if k not in done]
  say(f'{experiment} {preset}: {len(cells)} cells, {len(cells) - len(left)} done, {len(left)} left')
  pace = _Pace(left)
  for number, (k, cell) in enumerate(left):
    title = f'[{len(cells) - len(left) + number + 1}/{len(cells)}] {describe(cell.labels)}'
    say(f'{title}  {cell.config.steps} steps{pace.left(number)}')
    row = {'cell': k, 'experiment': experiment, 'preset': preset, **cell.labels, 'config': _public(cell.config)}
    row |= {'parent': cell.parent, 'versions': versions(), 'device': device()}
    started = time.perf_counter()
    where = folder / 'cells' / k
    try:
      if done.get(cell.parent, {}).get('failed'):
        raise FloatingPointError(f'the cell it starts from, {cell.parent}, failed')
      result = loop.train(_resolved(cell.config, folder), where, title=title, say=say)
      row |= {name: result[name] for name in ('metrics', 'mask_hash', 'bytes', 'seconds', 'steps')}
      row['metrics'] = {**row['metrics'], 'sparsity': result['sparsity']}
    except FloatingPointError as error:
      say(f'{title}  failed: {error}')
      row |= {'metrics': {}, 'failed': str(error), 'mask_hash': '', 'bytes': 0, 'seconds': 0.0}
    row['time'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    done[k] = row
    if distributed.first():
      ledger.append(path, row)
      files.remove(where / 'checkpoints')  # the result is in the ledger, the model beside it
    pace.took(cell, time.perf_counter() - started)
  return [done[k] for k in keys]


def missing(cells, folder) -> list:
  """Those of the cells that the ledger of `folder` does not hold."""
  done = ledger.done(ledger.read(files.path(folder) / 'ledger.jsonl'))
  return [cell for cell in cells if key(cell) not in done]


def share(cells, worker):
  """The cells of `worker`, (index, count), in their order; see workers.py."""
  return workers.share(cells, [key(cell) for cell in cells], worker)


def sweep(config, changes, folder, *, name, worker=(0, 1), say=log.say):
  """Runs `config` once for each flat dict of overrides in `changes`, into the ledger of `folder`.

  Of several workers, (index, count), each runs its share; returns the rows of that share.
  """
  if not changes:
    raise ValueError(f'sweep() of {name} yields nothing')
  cells = []
  for change in changes:
    one = configs.override(config.copy_and_resolve_references(), change)
    stage = 'finetune' if one.data.task else 'pretrain'
    labels = {'stage': stage, 'task': one.data.task, 'learning_rate': one.optimizer.learning_rate, 'seed': one.seed}
    cells.append(Cell({**labels, 'overrides': {k: configs.flat(one)[k] for k in change}}, one))
  if len({key(cell) for cell in cells}) < len(cells):
    raise ValueError(f'sweep() of {name} yields the same cell twice')
  mine = share(cells, worker)
  return run(mine, claim(folder, {'sweep': name}), experiment='sweep', preset=name, say=say)


def claim(folder, what):
  """Marks `folder` as the work directory of one grid. Raises ValueError when it is another's."""
  folder = files.path(folder)
  path = folder / 'grid.json'
  if files.exists(path):
    theirs = files.read_json(path)
    if theirs != what:
      raise ValueError(
        f'the work directory {str(folder)!r} belongs to {_words(theirs)}, not to {_words(what)};'
        ' nothing was written: take another --workdir'
      )
    return folder
  try:
    if files.names(folder) and not files.exists(path):  # asked again: another worker may be starting here
      raise ValueError(f'the work directory {str(folder)!r} is not empty and holds no grid: take another --workdir')
    mine = files.create(path, json.dumps(what)) if distributed.first() else True
  except OSError as error:
    raise OSError(f'cannot write to the work directory {str(folder)!r}: {error.strerror or error}') from error
  return folder if mine else claim(folder, what)


def experiment_of(folder):
  """The paper whose grid lies in `folder`. Raises FileNotFoundError, ValueError."""
  path = files.path(folder) / 'grid.json'
  if not files.exists(path):
    raise FileNotFoundError(f'{str(folder)!r} holds no grid: expected the --workdir of a reproduce command')
  what = files.read_json(path)
  if 'paper' not in what:
    raise ValueError(f'{str(folder)!r} belongs to {_words(what)}; only a paper has a report')
  return what['paper']


def describe(labels):
  """'finetune pruned 0.50 pydoc/order seed 0'."""
  words = [labels.get('stage', ''), labels.get('arm', '')]
  words += [f'{labels["sparsity"]:.2f}'] if 'sparsity' in labels else []
  words += [labels.get('task') or '', f'seed {labels.get("seed", 0)}']
  words += [f'{k}={v}' for k, v in labels.get('overrides', {}).items()]
  return ' '.join(word for word in words if word)


def versions():
  """{package: version} and Python's."""
  return {'python': platform.python_version(), **{p: _version(p) for p in PACKAGES}}


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'  # prunejax itself, when it is run from a checkout


def device():
  """'cpu x1', 'NVIDIA H200 x1'."""
  return f'{jax.devices()[0].device_kind} x{jax.device_count()}'


def _public(config):
  """The flat config of a ledger row: a row is shared, and where this machine keeps its files is nobody's business."""
  return {k: v for k, v in configs.flat(config).items() if k not in ('data.root', 'data.cache')}


def _resolved(config, folder):
  """The config with 'cell:<hash>' turned into that cell's model folder."""
  if not config.init.startswith('cell:'):
    return config
  config = config.copy_and_resolve_references()
  config.init = str(folder / 'cells' / config.init.removeprefix('cell:') / 'model')
  return config


def _words(what):
  return ', '.join(f'{k} {v}' for k, v in what.items())


class _Pace:
  """Time left, from the seconds a step took so far at each stage."""

  def __init__(self, left):
    self.work = [(cell.labels['stage'], cell.config.steps) for _, cell in left]
    self.spent = {}

  def took(self, cell, seconds):
    steps, total = self.spent.get(cell.labels['stage'], (0, 0.0))
    self.spent[cell.labels['stage']] = (steps + cell.config.steps, total + seconds)

  def left(self, number):
    if not self.spent:
      return ''
    mean = sum(s for _, s in self.spent.values()) / sum(n for n, _ in self.spent.values())
    rate = {stage: s / n for stage, (n, s) in self.spent.items()}
    seconds = sum(steps * rate.get(stage, mean) for stage, steps in self.work[number:])
    return f'  about {log.clock(seconds)} left in all'

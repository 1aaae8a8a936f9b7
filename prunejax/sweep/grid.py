"""A grid of runs, each once: cells in the ledger are done, and a grid that was killed resumes.

Runs that differ in numbers only are members of one program (population.py). The others run one
after the other.
"""

import contextlib
import datetime
import importlib.metadata
import json
import platform
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from prunejax import files
from prunejax.report import ledger
from prunejax.sweep import dependencies, identity, population, resources, workers
from prunejax.train import configs, console, distributed, inputs, loop, program, recipe

POLL = 30  # seconds between two looks for a model that another worker makes
PACKAGES = ('prunejax', 'jax', 'jaxlib', 'flax', 'optax', 'numpy')
# The columns of a row that were measured; the others say which cell of which grid it is.
MEASURED = (
  'versions',
  'device',
  'metrics',
  'mask_hash',
  'bytes',
  'seconds',
  'steps',
  'device_seconds',
  'members',
  'batching',
  'time',
  'text',
  'vocabulary',
  'models',
  'reads',
)


class Cell(NamedTuple):
  """One run of a grid, or one measurement of a study.

  labels: the columns of its ledger row that set it apart (stage, arm, sparsity, task, seed, ...).
  config: the ConfigDict of a run. An `init` of 'cell:<hash>' is the model of another cell,
    'cell:<hash>/latent' its weights with those under the masks. Of a measurement: a dict of plain
    JSON settings, all that its numbers depend on.
  parent: the hash of the cell it starts from, or None.
  """

  labels: dict
  config: Any
  parent: str | None = None


def key(cell: Cell, known: dict | None = None) -> str:
  """Returns the 12 hex digits that name a cell: the hash of its config.

  Keys that change no number of a run do not count: caches, log lines, checkpoints. With
  `data.identity='content'` the content that the run reads counts, in place of its path.

  Args:
    cell: a `Cell`.
    known: as in `identity.reads`.
  """
  if isinstance(cell.config, dict):
    return ledger.cell_hash(cell.config)
  flat = configs.counted(cell.config)
  ignored = ('log.', 'checkpoint.', 'population.', 'data.cache', 'data.root', 'keep_')
  named = {k: v for k, v in flat.items() if not k.startswith(ignored)}
  if named.get('data.identity') == 'content':
    read = identity.reads(cell.config, known)
    named = {**{k: v for k, v in named.items() if k not in read}, 'reads': read}
  return ledger.cell_hash(named)


def run(
  cells: list[Cell],
  folder,
  *,
  experiment: str,
  preset: str,
  awaited: set[str] = frozenset(),
  others: Sequence[Cell] = (),
  one_by_one: bool = False,
  compiled: program.Compiled | None = None,
  say: Callable[[str], None] = console.say,
) -> list[dict]:
  """Runs every cell that the ledger of `folder` lacks; returns the rows of all cells, in order.

  Cells that share a program run together, stage by stage, each after the cell it starts from. A
  cell whose loss is not finite is written to the ledger as failed, with the reason, and the others
  go on. A file of `folder`/cost says what the command took.

  Args:
    cells: `Cell`s of the grid.
    folder: the work directory.
    experiment: its name, for the rows.
    preset: its name, for the rows.
    awaited: names 'cell:<key>' of models that another worker makes; nothing runs before those are
      there that a cell which is left reads.
    others: cells of the grid that other workers run. A model that they read and that is missing is
      made again.
    one_by_one: every cell runs by itself, in order.
    compiled: a `program.Compiled` of earlier commands of this process; None for a new one.
    say: prints a line.

  Raises:
    ValueError: a model that a cell starts from is damaged, or is not that of its row.
    FileNotFoundError, ImportError: a cell that is left reads what is not there.
    preemption.Preempted: SIGTERM came, and what runs is saved.
  """
  folder = files.path(folder)
  compiled = program.Compiled.empty() if compiled is None else compiled
  encoded = inputs.Encoded.empty()
  say = say if distributed.first() else console.silent
  known = {}  # the cells of a grid read the same text and models
  cells = {key(cell, known): cell for cell in cells}
  done = ledger.done(ledger.read(folder / 'ledger.jsonl'))
  _wait_for(awaited & _models_read(c for k, c in cells.items() if k not in done), folder, say)
  distributed.together('grid')  # all read the same ledger: the first has written what it had to
  rows = ledger.read(folder / 'ledger.jsonl')
  done = {row['cell']: row for row in rows}
  left = {k: cell for k, cell in cells.items() if k not in done}
  say(f'{experiment} {preset}: {len(cells)} cells, {len(cells) - len(left)} done, {len(left)} left')
  readers = [*left.values(), *(cell for cell in others if key(cell, known) not in done)]
  if again := dependencies.without_model(cells, readers, done, folder):
    say(
      f'{len(again)} of the done run again: cells that are left start from their models, which are'
      ' missing'
    )
    left = {k: cell for k, cell in cells.items() if k in left or k in again}
    done = {k: row for k, row in done.items() if k not in again}
    for k in again if distributed.first() else ():
      files.remove(folder / 'cells' / k)  # a result without its model would count as done
    distributed.together('again')
  dependencies.check_models(left, cells, done, folder)
  identity.check_there(left.values(), known)
  for line in identity.check(cells, left, rows, folder, known):
    say(line)
  recipes = {k: dependencies.resolved(cell.config, folder) for k, cell in left.items()}
  title = {k: describe(cell.labels) for k, cell in left.items()}
  begun = len(cells) - len(left)
  pace, tables = _Pace(left), []

  def number(keys):
    """Puts numbers before the titles of cells that begin now, so that the numbers only rise."""
    nonlocal begun
    for k in keys:
      begun += 1
      title[k] = f'[{begun}/{len(cells)}] {title[k]}'

  def say_table(text):
    """Prints who pays for the first cell; every cell has it in its folder."""
    if not tables:
      tables.append(text)
      say(f'{text}\nThe other cells have this table in their folders, who_pays_*.json.')

  def settle(k, outcome, seconds, **facts):
    """Writes the row of a cell that ended, with its result or the reason why it has none."""
    cell = cells[k]
    row = {
      'cell': k,
      'experiment': experiment,
      'preset': preset,
      **cell.labels,
      'config': public(cell.config),
    }
    row |= {'parent': cell.parent, 'versions': versions(), 'device': device()}
    if isinstance(outcome, FloatingPointError):
      say(f'{title[k]}  failed: {outcome}')
      row |= {'metrics': {}, 'failed': str(outcome), 'mask_hash': '', 'bytes': 0, 'seconds': 0.0}
    else:
      row |= {name: outcome[name] for name in ('metrics', 'mask_hash', 'bytes', 'seconds', 'steps')}
      row['metrics'] = {**row['metrics'], 'sparsity': outcome['sparsity']}
      row['models'] = outcome.get('models', {})
      row['config'] |= effective(outcome.get('model', {}))
      # A run that ended under 0.1 does not say what it read.
      data = recipe.data_of(cell.config.data)
      read = dict(outcome.get('reads') or {'text': inputs.text_of(data)})
      row |= {'text': read.pop('text'), 'vocabulary': read.pop('vocabulary', '')}
      row['reads'] = read
    row |= {'device_seconds': round(seconds * jax.device_count(), 2), **facts}
    row['time'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    done[k] = row
    if distributed.first():
      ledger.append(folder / 'ledger.jsonl', row)
      files.remove(
        folder / 'cells' / k / 'checkpoints'
      )  # the result is in the ledger, the model beside it
    pace.took(k, seconds)

  def alone(k):
    number([k])
    say(f'{title[k]}  {recipes[k].steps} steps{pace.left()}')
    began = time.perf_counter()
    try:
      if broken := dependencies.failed(cells[k], done):
        raise FloatingPointError(f'the cell it starts from or is taught by, {broken}, failed')
      outcome = loop.train(
        recipes[k],
        folder / 'cells' / k,
        title=title[k],
        compiled=compiled,
        say=say,
        encoded=encoded,
        say_table=say_table,
      )
    except FloatingPointError as error:
      say(f'{title[k]}  failed: {error}')
      outcome = error
    seconds = time.perf_counter() - began
    if isinstance(outcome, dict):  # of a resumed run those of all its parts
      seconds = outcome['seconds']
    settle(k, outcome, seconds, members=1)

  def prepare(k):
    return population.prepare(k, title[k], recipes[k], folder / 'cells' / k, encoded)

  with _cost(folder, one_by_one) as cost:
    for runs, how in population.groups(left, recipes, done, folder, prepare, one_by_one):
      if isinstance(runs, str):
        alone(runs)
      else:
        runs = sorted(runs, key=lambda run: run.recipe.steps)  # the order in which they end
        number(run.key for run in runs)
        runs = [run._replace(title=title[run.key]) for run in runs]
        most = runs[-1].recipe.steps
        say(f'{runs[0].title} and {len(runs) - 1} more as one program  {most} steps{pace.left()}')
        how |= {
          'compiled': compiled,
          'encoded': encoded,
          'settle': settle,
          'say': say,
          'say_table': say_table,
        }
        population.train(runs, folder, title=f'{len(runs)} cells', **how)
      cost['cells'] += 1 if isinstance(runs, str) else len(runs)
  return [done[k] for k in cells]


def _models_read(cells):
  return {name for cell in cells for _, name in dependencies.reads(cell)}


def _wait_for(awaited, folder, say):
  """Returns when each model 'cell:<key>' of `awaited` is there, or its cell has failed."""
  said = set()
  while left := {name for name in awaited if not _made(name, folder)}:
    for name in sorted(left - said):
      key = name.removeprefix('cell:').partition('/')[0]
      say(f'waiting for cell {key}, which worker 0 runs: this share starts from it')
    said |= left
    time.sleep(POLL)


def _made(name, folder):
  """Whether the model 'cell:<key>' is there, or its cell has failed and will leave none."""
  key = name.removeprefix('cell:').partition('/')[0]
  row = next((row for row in ledger.read(folder / 'ledger.jsonl') if row['cell'] == key), None)
  model = dependencies.model_folder(name, folder) / 'config.json'
  return row is not None and bool(row.get('failed') or files.exists(model))


@contextlib.contextmanager
def _cost(folder, one_by_one):
  """Writes what the runs of a command took to a file of `folder`/cost; the report adds them up."""
  took, began = {'how': 'one by one' if one_by_one else 'together', 'cells': 0}, time.perf_counter()
  with resources.compiles() as compiles:
    try:
      yield took
    finally:
      seconds = time.perf_counter() - began
      took |= {
        'compiles': compiles.count,
        'compile_seconds': round(compiles.seconds, 2),
        'seconds': round(seconds, 2),
      }
      took |= {'device': device(), 'device_seconds': round(seconds * jax.device_count(), 2)}
      if took['cells'] and distributed.first():
        files.write(folder / 'cost' / f'{uuid.uuid4().hex[:12]}.json', json.dumps(took))


def missing(cells: list[Cell], folder) -> list[Cell]:
  """Returns the cells that the ledger of `folder` does not hold."""
  done = ledger.done(ledger.read(files.path(folder) / 'ledger.jsonl'))
  known = {}
  return [cell for cell in cells if key(cell, known) not in done]


def planned(cells: list[Cell]) -> list[tuple[dict, recipe.Recipe]]:
  """Returns pairs (labels, recipe) of cells that have not run, as `estimate.table` takes them."""
  return [(cell.labels, recipe.resolve(cell.config)) for cell in cells]


def share(cells: list[Cell], worker: tuple[int, int]) -> list[Cell]:
  """Returns the cells of `worker`, (index, count), in their order; see workers.py."""
  known = {}
  return workers.share(cells, [key(cell, known) for cell in cells], worker)


def awaited(cells: list[Cell], worker: tuple[int, int]) -> set[str]:
  """Returns the models 'cell:<key>' that `worker` reads and worker 0 makes; see workers.py."""
  if not worker[0]:
    return set()
  known = {}
  return workers.awaited(cells, [key(cell, known) for cell in cells], worker)


def others(cells: list[Cell], own: list[Cell]) -> list[Cell]:
  """Returns the cells of a grid that are not among those of a worker."""
  mine = set(map(id, own))
  return [cell for cell in cells if id(cell) not in mine]


def sweep(
  config,
  changes: list[dict],
  folder,
  *,
  name: str,
  worker: tuple[int, int] = (0, 1),
  one_by_one: bool = False,
  compiled: program.Compiled | None = None,
  say: Callable[[str], None] = console.say,
) -> list[dict]:
  """Runs a config once for each dict of overrides; returns the rows of this worker's cells.

  Args:
    config: a ConfigDict.
    changes: dicts {dotted key: value}.
    folder: the work directory.
    name: of the sweep, for the rows.
    worker: (index, count); of several workers each runs its share.
    one_by_one: every cell runs by itself, in order.
    compiled: as in `run`.
    say: prints a line.

  Raises:
    ValueError: there are no changes, or two of the cells are the same.
  """
  cells = sweep_cells(config, changes, folder, name=name)
  own_cells = share(cells, worker)
  folder = claim(folder, {'sweep': name})
  how = {'one_by_one': one_by_one, 'compiled': compiled, 'say': say}
  how |= {'awaited': awaited(cells, worker), 'others': others(cells, own_cells)}
  return run(own_cells, folder, experiment='sweep', preset=name, **how)


def sweep_cells(config, changes: list[dict], folder, *, name: str) -> list[Cell]:
  """Returns the cells of a sweep; the arguments are those of `sweep`.

  Args:
    config: a ConfigDict.
    changes: dicts {dotted key: value}.
    folder: the work directory; '' for a new one.
    name: of the sweep.

  Raises:
    ValueError: there are no changes, or two of the cells are the same.
  """
  if not changes:
    raise ValueError(f'sweep() of {name} yields nothing')
  cells, content, known, changes_of = [], identity.of_folder(folder), {}, {}
  for change in changes:
    one = configs.override(config.copy_and_resolve_references(), {**content, **change})
    stage = 'finetune' if one.data.task else 'pretrain'
    labels = {
      'stage': stage,
      'task': one.data.task,
      'learning_rate': one.optimizer.learning_rate,
      'seed': one.seed,
    }
    cells.append(Cell({**labels, 'overrides': {k: configs.flat(one)[k] for k in change}}, one))
    name_of_cell = key(cells[-1], known)
    if name_of_cell in changes_of:
      twice = f'{changes_of[name_of_cell]} and {change}'
      raise ValueError(f'sweep() of {name} yields the same cell twice: {twice}')
    changes_of[name_of_cell] = change
  return cells


def claim(folder, what: dict):
  """Marks `folder` as the work directory of one grid, and returns it as a path.

  A folder that holds nothing but a ledger of the same paper and preset is continued.

  Args:
    folder: the work directory.
    what: {'sweep': name} or {'paper': name, 'preset': name}.

  Raises:
    ValueError: the folder belongs to another grid, or holds other files.
    OSError: it cannot be written.
  """
  folder = files.path(folder)
  path = folder / 'grid.json'
  if files.exists(path):
    owner = files.read_json(path)
    if owner != what:
      raise ValueError(
        f'the work directory {str(folder)!r} belongs to {_words(owner)}, not to {_words(what)};'
        ' nothing was written: take another --workdir'
      )
    return folder
  try:
    foreign = files.names(folder) and not _ledger_alone(folder, what)
    if foreign and not files.exists(path):  # asked again: another worker may be starting here
      raise ValueError(
        f'the work directory {str(folder)!r} is not empty and holds no grid: take another'
        f' --workdir, or one with nothing but a ledger.jsonl of {_words(what)}'
      )
    created = files.create(path, json.dumps(what)) if distributed.first() else True
  except OSError as error:
    raise OSError(
      f'cannot write to the work directory {str(folder)!r}: {error.strerror or error}'
    ) from error
  return folder if created else claim(folder, what)


def _ledger_alone(folder, what):
  """Whether `folder` holds a ledger alone, of the paper and preset of `what`."""
  if files.names(folder) != ['ledger.jsonl'] or 'paper' not in what:
    return False
  grids = {
    (row.get('experiment'), row.get('preset')) for row in ledger.read(folder / 'ledger.jsonl')
  }
  return grids == {(what['paper'], what.get('preset'))}


def describe(labels: dict) -> str:
  """Returns the labels of a cell in words, as 'finetune pruned 0.50 pydoc/order seed 0'."""
  words = [labels.get('stage', ''), labels.get('arm', '')]
  words += [f'{labels["sparsity"]:.2f}'] if 'sparsity' in labels else []
  words += [labels.get('task') or '', f'seed {labels.get("seed", 0)}']
  words += [f'{k}={v}' for k, v in labels.get('overrides', {}).items()]
  return ' '.join(word for word in words if word)


def versions() -> dict[str, str]:
  """Returns {package: version} of the packages in use, and of Python."""
  return {'python': platform.python_version(), **{p: _version(p) for p in PACKAGES}}


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'  # prunejax itself, when it is run from a checkout


def device() -> str:
  """Returns the kind and number of devices, as 'cpu x1' or 'NVIDIA H200 x1'."""
  return f'{jax.devices()[0].device_kind} x{jax.device_count()}'


def public(config) -> dict:
  """Returns the flat config of a ledger row, without the paths of this machine: rows are shared."""
  private = ('data.root', 'data.cache', 'population.')
  return {k: v for k, v in configs.flat(config).items() if not k.startswith(private)}


def effective(sizes: dict) -> dict:
  """Returns the sizes of a model as keys of a config: with `init` they are not what it says.

  Args:
    sizes: of `families.sizes`, or {} for a run of 0.1.
  """
  keys = {'vocab_size': 'data.vocab_size'}
  return {keys.get(name, f'model.{name}'): size for name, size in sizes.items()}


def _words(what):
  return ', '.join(f'{k} {v}' for k, v in what.items())


class _Pace:
  """Time left, from the seconds a step took so far in cells like those that are left.

  Cells are alike that have the same stage and batches of the same shape. Nothing is said of the
  time left before one of each kind has run: an estimate from other cells would rise later.
  """

  def __init__(self, left):
    self.work = {k: (_kind(cell), cell.config.steps) for k, cell in left.items()}
    self.spent = {}

  def took(self, k, seconds):
    kind, count = self.work.pop(k)
    steps, total = self.spent.get(kind, (0, 0.0))
    self.spent[kind] = (steps + count, total + seconds)

  def left(self):
    if any(kind not in self.spent for kind, _ in self.work.values()):
      return ''
    rate = {kind: s / n for kind, (n, s) in self.spent.items()}
    seconds = sum(steps * rate[kind] for kind, steps in self.work.values())
    return f'  about {console.clock(seconds)} left in all'


def _kind(cell):
  c = cell.config
  return cell.labels['stage'], bool(c.data.task), c.batch_size, c.data.seq_len

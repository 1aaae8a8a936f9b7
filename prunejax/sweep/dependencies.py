"""Cells whose runs read the models of other cells of their grid: 'cell:<key>' in a config.

A cell reads the model that it starts from (`init`) and that of its teacher (`distill.teacher`).
"""

from prunejax import files
from prunejax.models.hf import folder as hf_folder
from prunejax.train import recipe
from prunejax.train.recipe import Recipe


def reads(cell) -> list[tuple[str, str]]:
  """Returns [(key, 'cell:<key>' and what follows it)] of the cells whose models this one reads.

  Args:
    cell: a `grid.Cell`.
  """
  names = (cell.config.init, cell.config.distill.teacher)
  return [(key, name) for name in names if (key := _key_of(name))]


def _key_of(name):
  """The key in 'cell:<key>' and what follows it; '' for a name of another kind."""
  return name.removeprefix('cell:').partition('/')[0] if name.startswith('cell:') else ''


def teacher(cell) -> str:
  """Returns the key of the cell whose model teaches `cell`; '' for none.

  Args:
    cell: a `grid.Cell`.
  """
  return _key_of(cell.config.distill.teacher)


def with_read(chosen, cells: dict) -> list:
  """Returns the keys `chosen` and those whose models they read, directly or not.

  Args:
    chosen: keys of `cells`.
    cells: {key: cell}, whose order the result has.
  """
  asked = list(chosen)
  needed = set(asked)
  while asked:
    more = {k for k, _ in reads(cells[asked.pop()]) if k in cells} - needed
    needed |= more
    asked += more
  return [k for k in cells if k in needed]


def without_model(cells: dict, left, done: dict, folder) -> set:
  """Returns the done cells whose models are needed and missing: a ledger may come alone.

  Args:
    cells: {key: cell}.
    left: cells that will run, here or by another worker.
    done: {key: ledger row}.
    folder: the work directory of the grid.
  """
  again, asked = set(), [read for cell in left for read in reads(cell)]
  while asked:
    k, model = asked.pop()
    if k in cells and k in done and k not in again and not done[k].get('failed'):
      if not files.exists(model_folder(model, folder) / 'config.json'):
        again.add(k)
        asked += reads(cells[k])
  return again


def check_models(keys, cells: dict, done: dict, folder):
  """Compares the models of done cells that others start from or learn from with their rows.

  Args:
    keys: of the cells that will read them.
    cells: {key: cell}.
    done: {key: ledger row}. A row of 0.1 does not say which model is its own.
    folder: the work directory of the grid.

  Raises:
    ValueError: a model is damaged, or is not that of its row.
  """
  for name in dict.fromkeys(name for k in keys for _, name in reads(cells[k])):
    key, _, which = name.removeprefix('cell:').partition('/')
    if key in done and not done[key].get('failed'):
      check_model(done[key], folder, which or 'model')


def check_model(row: dict, folder, which: str = 'model'):
  """Compares a model of a cell with its ledger row.

  Args:
    row: of the cell.
    folder: the work directory of the grid.
    which: 'model' or 'latent'.

  Raises:
    ValueError: the model is damaged, or is not that of the row.
  """
  where = model_folder(f'cell:{row["cell"]}/{which}', folder)
  expected = row.get('models', {}).get(which)
  local = files.local(where)
  try:
    hf_folder.check(local)
  except hf_folder.CheckpointError as error:
    raise ValueError(
      f'the model of cell {row["cell"]} cannot be read: {error}; or delete {str(where)!r} and the '
      'cell runs again'
    ) from None
  if expected and hf_folder.digest(local) != expected:
    raise ValueError(
      f'{str(where)!r} is not the model of cell {row["cell"]}: its {hf_folder.CHECKSUMS} has the '
      f'digest {hf_folder.digest(local) or "of no file"}, the ledger row says {expected}; put the '
      'right folder there, or delete it and the cell runs again'
    )


def failed(cell, done: dict) -> str | None:
  """Returns the key of a cell whose model `cell` reads and which failed, or None."""
  needed = (cell.parent, *(k for k, _ in reads(cell)))
  return next((k for k in needed if done.get(k, {}).get('failed')), None)


def resolved(config, folder) -> Recipe:
  """Returns the recipe of a cell, each 'cell:<key>' replaced by the folder of that cell's model.

  Args:
    config: of the cell, a ConfigDict.
    folder: the work directory of the grid.

  Raises:
    ValueError: a value that no run can have.
  """
  taught = config.distill.teacher.startswith('cell:')
  if not (config.init.startswith('cell:') or taught):
    return recipe.resolve(config)
  config = config.copy_and_resolve_references()
  if config.init.startswith('cell:'):
    config.init = str(model_folder(config.init, folder))
  if taught:
    config.distill.teacher = str(model_folder(config.distill.teacher, folder))
  return recipe.resolve(config)


def model_folder(name: str, folder):
  """Returns the folder of 'cell:<key>', its model, or of 'cell:<key>/<name>', another one."""
  key, _, which = name.removeprefix('cell:').partition('/')
  return folder / 'cells' / key / (which or 'model')

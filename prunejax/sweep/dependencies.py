"""Cells whose runs read the models of other cells of their grid: 'cell:<key>' in a config.

A cell reads the model that it starts from (`init`) and that of its teacher (`distill.teacher`).
"""

from prunejax import files


def reads(cell) -> list[tuple[str, str]]:
  """Returns [(key, 'cell:<key>' and what follows it)] of the cells whose models this one reads.

  Args:
    cell: a `grid.Cell`.
  """
  names = (cell.config.init, cell.config.distill.teacher)
  return [
    (name.removeprefix('cell:').partition('/')[0], name)
    for name in names
    if name.startswith('cell:')
  ]


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
    left: keys of the cells that will run.
    done: {key: ledger row}.
    folder: the work directory of the grid.
  """
  again, asked = set(), [read for k in left for read in reads(cells[k])]
  while asked:
    k, model = asked.pop()
    if k in cells and k in done and k not in again and not done[k].get('failed'):
      if not files.exists(model_folder(model, folder) / 'config.json'):
        again.add(k)
        asked += reads(cells[k])
  return again


def failed(cell, done: dict) -> str | None:
  """Returns the key of a cell whose model `cell` reads and which failed, or None."""
  needed = (cell.parent, *(k for k, _ in reads(cell)))
  return next((k for k in needed if done.get(k, {}).get('failed')), None)


def resolved(config, folder):
  """Returns the config with each 'cell:<key>' replaced by the folder of that cell's model."""
  taught = config.distill.teacher.startswith('cell:')
  if not (config.init.startswith('cell:') or taught):
    return config
  config = config.copy_and_resolve_references()
  if config.init.startswith('cell:'):
    config.init = str(model_folder(config.init, folder))
  if taught:
    config.distill.teacher = str(model_folder(config.distill.teacher, folder))
  return config


def model_folder(name: str, folder):
  """Returns the folder of 'cell:<key>', its model, or of 'cell:<key>/<name>', another one."""
  key, _, which = name.removeprefix('cell:').partition('/')
  return folder / 'cells' / key / (which or 'model')

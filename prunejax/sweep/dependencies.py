"""Cells whose runs start from, or are taught by, the models of other cells of their grid: 'cell:<key>' in a config."""

from prunejax import files


def reads(cell):
  """[(its key, 'cell:' and what follows)] of each cell whose model this one reads: where it starts, its teacher."""
  named = (cell.config.init, cell.config.distill.teacher)
  return [
    (name.removeprefix('cell:').partition('/')[0], name)
    for name in named
    if name.startswith('cell:')
  ]


def with_read(chosen, cells) -> list:
  """The keys `chosen` of {key: cell} and of those whose models they read, directly or not, in the order of `cells`."""
  asked = list(chosen)
  needed = set(asked)
  while asked:
    more = {k for k, _ in reads(cells[asked.pop()]) if k in cells} - needed
    needed |= more
    asked += more
  return [k for k in cells if k in needed]


def without_model(cells, left, done, folder) -> set:
  """Those done cells whose models are needed and are not in `folder`: a ledger may come alone, from another machine."""
  again, asked = set(), [read for k in left for read in reads(cells[k])]
  while asked:
    k, model = asked.pop()
    if k in cells and k in done and k not in again and not done[k].get('failed'):
      if not files.exists(of_cell(model, folder) / 'config.json'):
        again.add(k)
        asked += reads(cells[k])
  return again


def failed(cell, done):
  """The key of a cell whose model `cell` reads and which failed, or None."""
  return next(
    (k for k in (cell.parent, *(k for k, _ in reads(cell))) if done.get(k, {}).get('failed')), None
  )


def resolved(config, folder):
  """The config with each 'cell:<hash>' turned into that cell's model folder, or another of its folders."""
  taught = config.distill.teacher.startswith('cell:')
  if not (config.init.startswith('cell:') or taught):
    return config
  config = config.copy_and_resolve_references()
  if config.init.startswith('cell:'):
    config.init = str(of_cell(config.init, folder))
  if taught:
    config.distill.teacher = str(of_cell(config.distill.teacher, folder))
  return config


def of_cell(init, folder):
  cell, _, which = init.removeprefix('cell:').partition('/')
  return folder / 'cells' / cell / (which or 'model')

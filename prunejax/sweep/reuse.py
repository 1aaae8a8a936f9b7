"""What `--reuse` does: takes cells that another work directory has run already.

A model that one preset has pre-trained then serves the next one.
"""

from prunejax import files
from prunejax.report import ledger
from prunejax.sweep import dependencies, grid, identity
from prunejax.train import console


def rows(other) -> dict[str, dict]:
  """Returns {key: ledger row} of the finished cells of a work directory.

  Args:
    other: a work directory of sweep or reproduce.

  Raises:
    ValueError: it has no finished cell.
  """
  finished = {
    row['cell']: row
    for row in ledger.read(files.path(other) / 'ledger.jsonl')
    if not row.get('failed')
  }
  if not finished:
    raise ValueError(
      f'--reuse={str(other)!r} holds no finished cell: expected a work directory of reproduce or'
      ' sweep'
    )
  return finished


def take(cells: list, folder, other, *, experiment: str, preset: str, say=console.say) -> int:
  """Copies the rows and models of cells that `folder` lacks and `other` has; returns their number.

  Two cells are the same if their hashes are: a hash covers every number of a config and of the
  configs it starts from. Version 0.1 left the text out of it. So the texts that two cells read (the
  row's 'text') must be equal too. The copied row has this grid's labels, and 'reused' names the
  experiment and preset whose run it was.

  Args:
    cells: the cells of this grid, `grid.Cell`s.
    folder: the work directory of this grid.
    other: the work directory to take from.
    experiment: the name of this experiment.
    preset: the name of this preset.
    say: prints a line.

  Raises:
    ValueError: `other` has no finished cell, or a model that is not that of its row.
  """
  folder, other, finished = files.path(folder), files.path(other), rows(other)
  known = {}
  chosen = {grid.key(cell, known): cell for cell in grid.missing(cells, folder)}
  present = {
    k: cell
    for k, cell in chosen.items()
    if k in finished and _has_models(cell, other / 'cells' / k)
  }
  chosen = {
    k: cell for k, cell in present.items() if identity.same_text(finished[k], cell.config, known)
  }
  for k, cell in chosen.items():
    row = finished[k]
    for which in row.get('models', {}):
      if files.exists(other / 'cells' / k / which / 'config.json'):
        dependencies.check_model(row, other, which)
    _copy(other / 'cells' / k, folder / 'cells' / k)
    origin = row.get('reused') or f'{row.get("experiment")} {row.get("preset")}'
    ours = {
      'experiment': experiment,
      'preset': preset,
      **cell.labels,
      'config': grid.public(cell.config) | _sizes(row['config']),
    }
    measured = {name: value for name, value in row.items() if name in grid.MEASURED}
    ledger.append(
      folder / 'ledger.jsonl',
      {'cell': k, **ours, 'parent': cell.parent, **measured, 'reused': origin},
    )
  skipped = len(present) - len(chosen)
  say(
    f'{len(chosen)} cells are taken from {other}'
    + (f'; {skipped} read another text and are skipped' if skipped else '')
  )
  return len(chosen)


def _sizes(config):
  """The sizes of the model that was trained; the settings of a cell may be others."""
  return {k: v for k, v in config.items() if k.startswith('model.') or k == 'data.vocab_size'}


def _has_models(cell, here):
  """Whether the models that this grid keeps of a cell are there; the other grid may keep fewer."""
  kept = {'model': cell.config.keep_model, 'latent': cell.config.keep_latent}
  return all(files.exists(here / name / 'config.json') for name, wanted in kept.items() if wanted)


def _copy(here, there):
  """Copies a finished cell. config.json marks a model as whole, so it is copied last."""
  for name in files.names(here):
    if name in ('model', 'latent'):
      for part in sorted(files.names(here / name), key=lambda part: part == 'config.json'):
        files.write(there / name / part, files.read(here / name / part, most=2**40))
    elif not (here / name).is_dir():
      files.write(there / name, files.read(here / name))

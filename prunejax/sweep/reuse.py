"""Cells that another work directory has run already: a pre-trained model of one preset serves the next."""

from prunejax import files
from prunejax.report import ledger
from prunejax.sweep import grid
from prunejax.train import console, inputs


def rows(other) -> dict:
  """{key: row} of the finished cells of the work directory `other`. Raises ValueError where it has none."""
  found = {
    row['cell']: row
    for row in ledger.read(files.path(other) / 'ledger.jsonl')
    if not row.get('failed')
  }
  if not found:
    raise ValueError(
      f'--reuse={str(other)!r} holds no finished cell; expected a work directory of reproduce or sweep'
    )
  return found


def take(cells, folder, other, *, experiment, preset, say=console.say):
  """Copies the rows and models of those `cells` that `folder` lacks and `other`, a work directory, has; how many.

  A cell is the same where its hash is, which tells every number of its config and of those it starts from. It does
  not tell the text: a cell that read another one (the row's 'text') is left out. The row says 'reused', the
  experiment and preset whose run it was; the labels are those of this grid. Raises ValueError where `other` has no
  finished cell.
  """
  folder, other, found = files.path(folder), files.path(other), rows(other)
  chosen = {grid.key(cell): cell for cell in grid.missing(cells, folder)}
  there = {
    k: cell for k, cell in chosen.items() if k in found and _whole(cell, other / 'cells' / k)
  }
  chosen = {k: cell for k, cell in there.items() if _same_text(cell, found[k])}
  for k, cell in chosen.items():
    _copy(other / 'cells' / k, folder / 'cells' / k)
    row = found[k]
    whose = row.get('reused') or f'{row.get("experiment")} {row.get("preset")}'
    mine = {
      'experiment': experiment,
      'preset': preset,
      **cell.labels,
      'config': grid.public(cell.config),
    }
    measured = {name: value for name, value in row.items() if name in grid.MEASURED}
    ledger.append(
      folder / 'ledger.jsonl',
      {'cell': k, **mine, 'parent': cell.parent, **measured, 'reused': whose},
    )
  odd = len(there) - len(chosen)
  say(
    f'{len(chosen)} cells are taken from {other}'
    + (f'; {odd} read another text and are not' if odd else '')
  )
  return len(chosen)


def _same_text(cell, row):
  """Whether a row is of the text that the cell would read here; rows of earlier versions do not say."""
  return 'text' not in row or row['text'] == inputs.text_of(cell.config.data)


def _whole(cell, here):
  """Whether the models that this grid keeps of a cell are there: the other one may not have kept them."""
  kept = {'model': cell.config.keep_model, 'latent': cell.config.keep_latent}
  return all(files.exists(here / name / 'config.json') for name, wanted in kept.items() if wanted)


def _copy(here, there):
  """The files of a finished cell and of its models; config.json, which says that a model is whole, comes last."""
  for name in files.names(here):
    if name in ('model', 'latent'):
      for part in sorted(files.names(here / name), key=lambda part: part == 'config.json'):
        files.write(there / name / part, files.read(here / name / part, most=2**40))
    elif not (here / name).is_dir():
      files.write(there / name, files.read(here / name))

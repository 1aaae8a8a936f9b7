"""Reads a ledger that a user names, and lays the verdicts of two ledgers side by side."""

from prunejax import files
from prunejax.report import ledger, tables, verdicts


def find(where):
  """Finds the ledger at `where`, a work directory or a .jsonl file.

  Raises:
    ValueError: `where` is a file of another kind.
    FileNotFoundError: there is no ledger.
  """
  path = files.path(where)
  name = str(where)
  if not name.endswith('.jsonl'):
    if path.is_file():
      raise ValueError(
        f'{name!r} is no ledger: expected a work directory or a .jsonl file of ledger rows'
      )
    path = path / 'ledger.jsonl'
  if not files.exists(path) and not files.names(path.with_suffix('.d')):
    raise FileNotFoundError(
      f'{name!r}: no ledger there; expected a work directory of reproduce, or a .jsonl file'
    )
  return path


def read(where) -> list:
  """Reads the finished rows of the ledger at `where`.

  Raises:
    ValueError: the rows are no cells of an experiment, are of several grids, or there is none.
  """
  rows = [row for row in ledger.read(find(where)) if not row.get('failed')]
  if not rows:
    raise ValueError(f'{str(where)!r} holds no finished cell: nothing to report yet')
  return ledger.one_grid(ledger.checked(rows, find(where)))


def experiment_of(folder) -> str:
  """Returns the name of the paper whose grid lies in `folder`.

  Raises:
    FileNotFoundError: `folder` holds no grid.
    ValueError: the grid is a sweep.
  """
  owner = owner_of(folder)
  if not isinstance(owner.get('paper'), str):
    words = ', '.join(f'{k} {v}' for k, v in owner.items())
    raise ValueError(
      f'{str(folder)!r} belongs to {words[:200]}; expected the work directory of a paper'
    )
  return owner['paper']


def owner_of(folder) -> dict:
  """Returns what a work directory belongs to: {'sweep': name}, or {'paper': name, ...}.

  Raises:
    FileNotFoundError: `folder` holds no grid.
  """
  path = files.path(folder) / 'grid.json'
  if not files.exists(path):
    raise FileNotFoundError(
      f'{str(folder)!r} holds no grid: expected the --workdir of a reproduce or sweep command'
    )
  return files.read_json(path)


def pairs(first, second) -> list[tuple]:
  """(verdict of A, verdict of B) by the names of their claims; None where a ledger has no such."""
  a, b = ({verdict.name: verdict for verdict in side} for side in (first, second))
  return [(a.get(name), b.get(name)) for name in {**a, **b}]


def verdict_table(first, second) -> tables.Table:
  """The verdicts of two ledgers, A and B, one line a claim."""
  lines = []
  for a, b in pairs(first, second):
    words = [verdict.verdict if verdict else '-' for verdict in (a, b)]
    mark = '' if words[0] == words[1] else 'differs'
    numbers = [verdicts.deciding(verdict) if verdict else '-' for verdict in (a, b)]
    lines.append(((a or b).claim, *words, mark, *numbers))
  head = ('claim', 'A', 'B', '', 'decided by, A', 'decided by, B')
  return tables.Table('Verdicts', head, tuple(lines))

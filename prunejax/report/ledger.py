"""The ledger: an append-only JSONL file, one row a cell, which many processes may append to.

On an object store and some network disks a file cannot be appended to or locked. There, each row is
a file of its own in a folder beside the ledger: `ledger.d/<cell>.json` belongs to `ledger.jsonl`.
"""

import concurrent.futures
import hashlib
import json
import math
import os
import warnings

from prunejax import files

try:
  import fcntl
except ImportError:  # no advisory locks on this system; O_APPEND alone keeps lines whole
  fcntl = None

MOST = 2**33  # bytes of a ledger


class LedgerError(ValueError):
  """A ledger or a row that cannot be written or read."""


def cell_hash(config) -> str:
  """The 12 hex digits that name a cell: sha256 of the canonical JSON of its config.

  Raises:
    LedgerError: the config is no plain finite JSON.
  """
  try:
    text = json.dumps(_plain(config), sort_keys=True, separators=(',', ':'), allow_nan=False)
  except (TypeError, ValueError) as error:
    raise LedgerError(
      f'config of a cell must be plain finite JSON values, got {config!r}: {error}'
    ) from None
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def append(path, row: dict) -> None:
  """Adds one row, a dict with a 'cell', as one whole line that is on disk on return.

  A line that cannot be written whole is taken back.

  Raises:
    LedgerError: the row is no cell, or the disk or folder refuses.
  """
  if not isinstance(row, dict) or not isinstance(row.get('cell'), str) or not row['cell']:
    raise LedgerError(f"a ledger row needs its config hash under 'cell', got {row!r:.200}")
  try:
    line = json.dumps(_finite(_plain(row)), allow_nan=False)
  except (TypeError, ValueError) as error:
    raise LedgerError(f'row of cell {row["cell"]} does not fit into JSON: {error}') from None
  path = files.path(path)
  try:
    if files.remote(path) or not _add(path, line.encode() + b'\n'):
      files.write(_beside(path) / f'{_file_name(row["cell"])}.json', line + '\n')
  except OSError as error:
    raise _refused(path, error) from None


def _add(path, line) -> bool:
  """Appends to a local file; False where it cannot be locked."""
  files.mkdir(path.parent)
  file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
  try:
    if fcntl:
      try:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file unlocks it, also after a kill
      except OSError:
        return False
    _mend(file, path)
    _write(file, line)
    return True
  finally:
    os.close(file)


def read(path) -> list:
  """Reads the rows in the order of their cells' first lines; the last row of a cell wins.

  No file is an empty ledger. A torn last line, of a run that was killed while writing, is left out
  with a warning.

  Raises:
    LedgerError: a line before the last is damaged; the error has its number.
  """
  path = files.path(path)
  try:
    data = files.read(path, MOST) if files.exists(path) else b''
    apart = _apart(path)
  except OSError as error:
    raise LedgerError(f'cannot read ledger {path}: {error.strerror or error}') from None
  lines = data.split(b'\n')
  rows = {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    row = _parse(line)
    if row is not None:
      rows[row['cell']] = row
    elif number == len(lines):  # a torn line ends without a newline
      warnings.warn(
        f'{path}:{number}: the last line is torn and left out; its cell runs again', stacklevel=2
      )
    else:
      raise LedgerError(
        f'{path}:{number}: damaged ledger line {line[:60]!r}; expected one JSON object with a '
        f"'cell'; delete that line and its cell runs again"
      )
  return list({**rows, **apart}.values())


def done(rows) -> set:
  """The set of cells that stand in the ledger."""
  return {row['cell'] for row in rows}


def one_grid(rows: list) -> list:
  """The rows, once they are known to be of one experiment and preset.

  Raises:
    ValueError: they are of several.
  """
  grids = {(row.get('experiment'), row.get('preset')) for row in rows}
  if len(grids) > 1:
    raise ValueError(
      f'rows of several grids cannot share a table, got {sorted(map(str, grids))}; '
      'give the rows of one experiment and preset'
    )
  return rows


def _beside(path):
  return path.with_suffix('.d')


def _apart(path):
  """{cell: row} of the rows that are files of their own, in the order of their times."""
  folder = _beside(path)
  names = [name for name in files.names(folder) if name.endswith('.json')]
  with concurrent.futures.ThreadPoolExecutor(
    16
  ) as pool:  # a store answers slowly, but many at once
    rows = list(pool.map(lambda name: _parse(files.read(folder / name)), names))
  for name, row in zip(names, rows, strict=True):
    if row is None:
      raise LedgerError(
        f'{folder / name}: damaged ledger row; delete that file and its cell runs again'
      )
  return {
    row['cell']: row
    for row in sorted(rows, key=lambda row: (str(row.get('time', '')), row['cell']))
  }


def _file_name(cell):
  return ''.join(c if c.isalnum() else '-' for c in cell)


def _parse(line):
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  return row if isinstance(row, dict) and isinstance(row.get('cell'), str) else None


def _mend(file, path):
  # A killed writer leaves a line without its end, which would spoil a row written after it.
  size = os.fstat(file).st_size
  if not size or _slice(file, size - 1, 1) == b'\n':
    return
  start, block = size, b''
  while start and b'\n' not in block:
    start = max(0, start - 65536)
    block = _slice(file, start, size - start)
  tail = block[block.rfind(b'\n') + 1 :]
  if _parse(tail) is not None:
    _write(file, b'\n')
  else:
    warnings.warn(f'{path}: took away a torn last line ({len(tail)} bytes)', stacklevel=3)
    os.ftruncate(file, size - len(tail))


def _slice(file, start, count):
  os.lseek(file, start, os.SEEK_SET)
  return os.read(file, count)


def _write(file, data):
  size = os.fstat(file).st_size
  try:
    count = os.write(file, data)
    if count != len(data):
      raise OSError(28, f'No space left on device ({count} of {len(data)} bytes written)')
    os.fsync(file)
  except OSError:
    try:
      os.ftruncate(file, size)
    except OSError:
      pass  # the first error says what happened; read() and append() know torn lines
    raise


def _refused(path, error):
  return LedgerError(
    f'cannot write ledger {path}: {error.strerror or error}; the folder must be '
    f'writable and the disk must have room'
  )


def _plain(value):
  # A metric may be a numpy or jax scalar.
  if isinstance(value, dict):
    return {str(k): _plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(v) for v in value]
  if hasattr(value, 'tolist'):
    return value.tolist()
  return value


def _finite(value):
  # NaN and infinity are no JSON; null stands for a metric without a value.
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, list):
    return [_finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value

"""The ledger: an append-only JSONL file, one row a cell, which many processes may append to.

On an object store and some network disks a file cannot be appended to or locked. There, each row is
a file of its own in a folder beside the ledger: `ledger.d/<cell>.json` belongs to `ledger.jsonl`.
"""

import collections
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


def _is_text(value):
  return isinstance(value, str)


def _is_number(value):
  return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_whole(value):
  return isinstance(value, int) and not isinstance(value, bool)


def _is_label(value):
  return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_finite(value):
  """Whether JSON of a metric holds no NaN and no infinity; null is a metric without a value."""
  if isinstance(value, dict | list):
    return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
  return _is_label(value)


def _or_null(accepts):
  return lambda value: value is None or accepts(value)


# What every row of a run of the train loop has; a row with settings has labels of its own.
COLUMNS = ('stage', 'arm', 'sparsity', 'seed', 'metrics')
_TEXT = (_is_text, 'text')
_COUNT = (_or_null(lambda x: _is_whole(x) and x >= 0), 'a whole number, at least 0')
_SECONDS = (_or_null(lambda x: _is_number(x) and x >= 0), 'a number, at least 0')
_OBJECT = (lambda x: isinstance(x, dict), 'an object')
_OBJECT_OR_NULL = (_or_null(lambda x: isinstance(x, dict)), 'an object or null')
_LIST = (_or_null(lambda x: isinstance(x, list)), 'a list')
_TEXT_OR_NULL = (_or_null(_is_text), 'text or null')
# {column: (value -> whether it is one, words)}. Other columns are labels: text, a number or null.
KINDS = {
  'cell': _TEXT,
  'experiment': _TEXT_OR_NULL,
  'preset': _TEXT_OR_NULL,
  'stage': _TEXT,
  'arm': _TEXT,
  'task': _TEXT_OR_NULL,
  'sparsity': (lambda x: _is_number(x) and 0 <= x <= 1, 'a number in [0, 1]'),
  'seed': (lambda x: _is_whole(x) and x >= 0, 'a whole number, at least 0'),
  'learning_rate': (_or_null(_is_number), 'a number or null'),
  'metrics': _OBJECT,
  'config': _OBJECT,
  'settings': _OBJECT,
  'overrides': _OBJECT,
  'versions': (lambda x: isinstance(x, dict) and all(map(_is_text, x.values())), 'texts'),
  'device': _TEXT_OR_NULL,
  'mask_hash': _TEXT_OR_NULL,
  'parent': _TEXT_OR_NULL,
  'parents': _LIST,
  'models': _OBJECT_OR_NULL,
  'reads': _OBJECT_OR_NULL,
  'time': _TEXT,
  'steps': _COUNT,
  'bytes': _COUNT,
  'members': _COUNT,
  'seconds': _SECONDS,
  'device_seconds': _SECONDS,
}


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


def checked(rows: list, path) -> list:
  """Returns the rows, once every column that all reports read holds a value of its kind.

  Args:
    rows: finished rows. A row without settings is a run of the train loop and has all of `COLUMNS`.
    path: of the ledger, for the message.

  Raises:
    LedgerError: a row lacks a column, or has a value of another kind; the error names its cell.
  """
  for row in rows:
    where = f'{str(path)!r}, cell {row["cell"][:40]!r}'
    needed = ('metrics',) if 'settings' in row else COLUMNS
    if lacking := [column for column in needed if column not in row]:
      raise LedgerError(f'{where}: a row without {", ".join(lacking)}; expected one of reproduce')
    for column, value in row.items():
      accepts, words = KINDS.get(column, (_is_label, 'text, a number or null'))
      if not accepts(value):
        raise LedgerError(f'{where}: {column}={_short(value)}: expected {words}')
    for name, value in row['metrics'].items():
      if not _is_finite(value):
        raise LedgerError(f'{where}: metrics.{name}={_short(value)}: expected finite numbers')
  return rows


def unlike(rows: list) -> str:
  """Words on the first row that lacks a column or metric which other rows of its stage have.

  A report that fails on a ledger says them. '' where no row stands out.
  """
  groups = {}
  for row in rows:
    shape = {**row, **{f'metrics.{name}': value for name, value in row['metrics'].items()}}
    shape = {(name, _kind_of(value)) for name, value in shape.items()}
    groups.setdefault((row.get('stage'), 'probe' in row), []).append((row['cell'], shape))
  for members in groups.values():
    counts = collections.Counter(item for _, shape in members for item in shape)
    usual = {item for item, count in counts.items() if 1 < count >= 0.8 * len(members)}
    for cell, shape in members:
      for name, kind in sorted(usual - shape):
        return f'the row of cell {cell[:40]!r} has no {name} that is {kind}, as other rows have'
  return ''


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


def _short(value):
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _kind_of(value):
  names = {dict: 'an object', list: 'a list', str: 'text', bool: 'true or false'}
  return 'null' if value is None else names.get(type(value), 'a number')


def _finite(value):
  # NaN and infinity are no JSON; null stands for a metric without a value.
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, list):
    return [_finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value

"""The cost of a grid: compiles and device-seconds, with its runs together or one by one."""

import json
import pathlib

from prunejax import files
from prunejax.report import tables

WAYS = {'together': 'as few programs as it needs', 'one by one': 'one run after the other'}
NUMBER = int | float
KINDS = {
  'how': str,
  'device': str,
  'cells': NUMBER,
  'compiles': NUMBER,
  'compile_seconds': NUMBER,
  'device_seconds': NUMBER,
}


def read(folder) -> list:
  """Reads the cost of each command that ran cells in `folder`, as a dict."""
  home = files.path(folder) / 'cost'
  names = [name for name in files.names(home) if name.endswith('.json')]
  return [_checked(files.read_json(home / name), home / name) for name in names]


def _checked(row, path):
  for key, kind in KINDS.items():
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool) or kind is NUMBER and not value >= 0:
      expected = 'text' if kind is str else 'a number, at least 0'
      raise ValueError(f'{str(path)!r}: {key}={value!r}: expected {expected}')
  if row['how'] not in WAYS or not row['cells']:
    raise ValueError(f'{str(path)!r}: expected how of {", ".join(WAYS)}, and cells above 0')
  return row


def measured(path, preset: str) -> list:
  """Reads the rows of a preset in a JSONL file of earlier measurements; [] without the file."""
  path = pathlib.Path(path)
  lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
  return [row for row in map(json.loads, lines) if row['preset'] == preset]


def table(here, elsewhere=()) -> tables.Table:
  """A table of the cost of this grid (`here`) and of earlier measurements (`elsewhere`)."""
  lines = [_line('here', group) for group in _grouped(here)]
  lines += [_line(row.get('date', 'before'), [row]) for row in elsewhere]
  note = 'Compiles count every program. A command that was killed is not counted.'
  return tables.records('What the grid took', lines, note)


def _grouped(rows):
  groups = {}
  for row in rows:
    groups.setdefault((row['how'], row['device']), []).append(row)
  return groups.values()


def _line(when, rows):
  total = lambda name: sum(row[name] for row in rows)
  seconds = total('device_seconds')
  return {
    'runs': WAYS[rows[0]['how']],
    'measured': when,
    'device': rows[0]['device'],
    'cells': total('cells'),
    'compiles': total('compiles'),
    'seconds of compiling': round(total('compile_seconds'), 1),
    'device-seconds': round(seconds, 1),
    'a cell': round(seconds / total('cells'), 2),
  }

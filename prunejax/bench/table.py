"""Tables of results: on the console, in Markdown, and several machines side by side."""

import json
import pathlib
from collections.abc import Sequence
from os import PathLike

from prunejax.report import rounding

VERDICT = {True: 'ok', False: 'MISS', None: ''}


def number(value: float | None) -> str:
  """Formats a value with three significant digits; None is 'not run'."""
  if value is None:
    return 'not run'
  return rounding.short(value)


def rows(results: dict) -> list[tuple[str, dict]]:
  """Lists (bench, row) of every row of a file of results, in order."""
  return [(bench, row) for bench, part in results['benches'].items() for row in part['rows']]


def text(results: dict) -> str:
  """Formats results for the console: one line a row, with its target and verdict."""
  lines = []
  parts = _titled(results)
  width = max((len(row['name']) for _, part in parts for row in part['rows']), default=0)
  for title, part in parts:
    lines.append(f'{title}  ({part["seconds"]:.0f} s)')
    for row in part['rows']:
      value = f'{number(row["value"])} {row["unit"]}'
      judged = f'{row["target"]:<9} {VERDICT[row["ok"]]:<5}'
      lines.append(f'  {row["name"]:<{width}}  {value:<18} {judged} {row["detail"]}')
  return '\n'.join(lines + [verdict(results)])


def _titled(results):
  """[(bench, part)] of a file, then of what was begun anew; a part that is not whole says so."""
  parts = [*results['benches'].items(), *results.get('unfinished', {}).items()]
  return [
    (f'{bench}, unfinished' if part.get('unfinished') else bench, part) for bench, part in parts
  ]


def verdict(results: dict) -> str:
  """Counts the targets that are met: '11 of 12 targets met; missed: 1 in train'."""
  judged = [(bench, row['ok']) for bench, row in rows(results) if row['ok'] is not None]
  if not judged:
    return 'no row has a target'
  missed = [bench for bench, ok in judged if not ok]
  where = ', '.join(f'{missed.count(bench)} in {bench}' for bench in dict.fromkeys(missed))
  return f'{len(judged) - len(missed)} of {len(judged)} targets met' + (
    f'; missed: {where}' if missed else ''
  )


def markdown(results: dict) -> str:
  """Formats the results of one machine as Markdown."""
  machine = results['machine']
  versions = ', '.join(f'{name} {version}' for name, version in machine['versions'].items())
  hardware = (
    '{device}, {compiled}'
    if 'compiled' in machine
    else '{device}, {processor}, {cores} cores, {ram_gib} GiB'
  ).format(**machine)
  lines = [f'# {machine["kind"]}, size {results["size"]}', '', f'{hardware}. {versions}.', '']
  for bench, part in _titled(results):
    at = f', commit {part["commit"]}' if part.get('commit') else ''
    lines += [
      f'## {bench}',
      '',
      f'`{part["command"]}`, {part["seconds"]:.0f} s, {part["date"]}{at}',
      '',
    ]
    lines += ['| figure | value | target | | how |', '|---|---|---|---|---|']
    for row in part['rows']:
      cells = (
        row['name'],
        f'{number(row["value"])} {row["unit"]}',
        row['target'],
        VERDICT[row['ok']],
        row['detail'],
      )
      lines.append('| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |')
    lines += [''] + [f'![{bench}]({name})\n' for name in part.get('figures', ())]
  return '\n'.join([*lines, verdict(results), ''])


def compare(paths: Sequence[PathLike | str]) -> str:
  """Puts several files of results side by side.

  Args:
    paths: of files that `suite.run` wrote.

  Returns:
    A table in Markdown with one column a file.

  Raises:
    FileNotFoundError: a file is missing. ValueError: a file holds no results.
  """
  files = [read(path) for path in paths]
  heads = [f'{f["machine"]["kind"]}, {f["size"]}' for f in files]
  shown, targets = {}, {}
  for column, results in enumerate(files):
    for bench, row in rows(results):
      name = (bench, row['name'], row['unit'])
      shown.setdefault(name, {})[column] = f'{number(row["value"])} {VERDICT[row["ok"]]}'.strip()
      targets.setdefault(name, {})[row['target']] = None
  lines = [
    '| figure | unit | target | ' + ' | '.join(heads) + ' |',
    '|---' * (3 + len(heads)) + '|',
  ]
  for (bench, name, unit), cells in shown.items():
    target = ' or '.join(filter(None, targets[bench, name, unit]))
    values = ' | '.join(cells.get(column, '') for column in range(len(heads)))
    lines.append(f'| {bench}: {name} | {unit} | {target} | {values} |')
  return '\n'.join(lines)


def read(path: PathLike | str) -> dict:
  """Reads a file that `suite.run` wrote.

  Args:
    path: of the JSON file.

  Returns:
    The results.

  Raises:
    FileNotFoundError: the file is missing. ValueError: it holds no results.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f'no file {str(path)!r}; python -m prunejax bench --out={path} writes one'
    )
  try:
    results = json.loads(path.read_text(encoding='utf-8'))
    verdict(results), results['machine']['kind'], results['size']
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f'{str(path)!r} holds no results of python -m prunejax bench ({error})'
    ) from error
  return results

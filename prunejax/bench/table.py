"""The rows of a bench as a person reads them: on the console, in Markdown, several machines side by side."""

import json
import pathlib

VERDICT = {True: 'ok', False: 'MISS', None: ''}


def number(value) -> str:
  """Three significant digits, or 'not run'."""
  if value is None:
    return 'not run'
  return f'{value:.3g}' if abs(value) < 1000 else f'{value:,.0f}'


def rows(results):
  """(bench, row) of every row of a file of results, in order."""
  return [(bench, row) for bench, part in results['benches'].items() for row in part['rows']]


def text(results) -> str:
  """The console's table: one line a figure, its target and verdict beside it."""
  lines, last = [], None
  width = max((len(row['name']) for _, row in rows(results)), default=0)
  for bench, row in rows(results):
    if bench != last:
      lines.append(f'{bench}  ({results["benches"][bench]["seconds"]:.0f} s)')
    last = bench
    value = f'{number(row["value"])} {row["unit"]}'
    lines.append(
      f'  {row["name"]:<{width}}  {value:<18} {row["target"]:<9} {VERDICT[row["ok"]]:<5} {row["detail"]}'
    )
  return '\n'.join(lines + [verdict(results)])


def verdict(results) -> str:
  """'11 of 12 targets met; missed: 1 in train'."""
  judged = [(bench, row['ok']) for bench, row in rows(results) if row['ok'] is not None]
  if not judged:
    return f'no row has a target at size {results["size"]}'
  missed = [bench for bench, ok in judged if not ok]
  where = ', '.join(f'{missed.count(bench)} in {bench}' for bench in dict.fromkeys(missed))
  return f'{len(judged) - len(missed)} of {len(judged)} targets met' + (
    f'; missed: {where}' if missed else ''
  )


def markdown(results) -> str:
  """The committed table of one machine."""
  m = results['machine']
  versions = ', '.join(f'{name} {version}' for name, version in m['versions'].items())
  lines = [f'# {m["kind"]}, size {results["size"]}', '']
  lines += [
    f'{m["device"]}, {m["processor"]}, {m["cores"]} cores, {m["ram_gib"]} GiB. {versions}.',
    '',
  ]
  for bench, part in results['benches'].items():
    lines += [
      f'## {bench}',
      '',
      f'`{part["command"]}`, {part["seconds"]:.0f} s, {part["date"]}',
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


def compare(paths) -> str:
  """Tables of several machines side by side, one column a file. Raises ValueError, FileNotFoundError by file."""
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


def read(path) -> dict:
  """Results that `run` wrote. Raises FileNotFoundError, ValueError naming the file."""
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

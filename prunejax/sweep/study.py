"""An experiment of small cells: plain settings in, numbers out, each cell once, into a ledger; and its report.

A cell is either a `grid.Cell`, a run of the train loop, or a `Cell` of this file, which a function of the experiment
measures. What is reported is read from the ledger and from nothing else.
"""

import datetime
import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from prunejax import files
from prunejax.report import compare as two
from prunejax.report import document, ledger, tables
from prunejax.train import cost, distributed, grid, log, parents, specs
from prunejax.train import reuse as reusing

COLUMNS = (
  'cell',
  'experiment',
  'preset',
  'settings',
  'versions',
  'device',
  'seconds',
  'time',
  'metrics',
  'failed',
)


class Cell(NamedTuple):
  """One measurement.

  labels: the columns of its ledger row that set it apart ('seed', 'sparsity', 'method', ...).
  settings: plain JSON values, all that its numbers depend on; their hash names the cell.
  """

  labels: dict
  settings: dict


class Study(NamedTuple):
  """What an experiment's run.py declares.

  name: its folder below experiments/. title, source: of the report.
  presets: {name: value}; a value is what `plan` takes, its field `cost` says in words what the preset takes.
  plan(preset value, root) -> cells, root being `--config.data.root` or ''. Raises ValueError for data that is missing.
  measure(settings, root, folder, say) -> metrics {name: number, or short list}; FloatingPointError marks a failed cell.
    None where the cells are runs of the train loop.
  claims(rows) -> list of `verdicts.Verdict`. tables(rows) -> list of `tables.Table`, the first of which is printed.
  figures(rows) -> {name: PNG bytes}.
  captions: {name of a figure: text}.
  after(cells, folder, preset, done {cell: row}, say): adds to the ledger what is measured on the runs of a whole grid,
    none left out by --seeds or --sparsities.
  """

  name: str
  title: str
  source: str
  presets: dict
  plan: Callable
  measure: Callable | None
  claims: Callable
  tables: Callable
  figures: Callable
  captions: dict
  after: Callable | None = None


def verbs(study):
  """(reproduce, write_report, redraw, compare) of a study: the functions that the command line calls."""
  return tuple(functools.partial(f, study) for f in (reproduce, write_report, redraw, compare))


def reproduce(
  study,
  preset,
  workdir,
  *,
  dry_run=False,
  from_scratch=False,
  overrides=None,
  worker=(0, 1),
  one_by_one=False,
  reuse='',
  say=log.say,
  **part,
):
  """Runs what the ledger lacks, then writes the report, see `prunejax reproduce --help`. Raises ValueError."""
  if preset not in study.presets:
    near = specs.suggest(preset, study.presets)
    raise ValueError(
      f'{study.name} has no preset {preset!r}{near}; known: {", ".join(study.presets)}'
    )
  whole = all(value is None for value in part.values())
  cells, root = _cells(study, preset, dict(overrides or {}), from_scratch, part)
  mine = _share(cells, worker)
  if dry_run:
    return say(_plan(study, preset, mine, workdir))
  if reuse and study.measure is not None:
    raise ValueError(
      f'--reuse={reuse}: the cells of {study.name} leave no models that could be taken'
    )
  if reuse:
    reusing.rows(reuse)  # wrong input is told before anything is written
  what = {'paper': study.name, 'preset': preset}
  folder = grid.claim(workdir or f'runs/{study.name}-{preset}', what)
  if study.measure is None:
    if reuse and distributed.first():
      reusing.take(mine, folder, reuse, experiment=study.name, preset=preset, say=say)
    grid.run(mine, folder, experiment=study.name, preset=preset, one_by_one=one_by_one, say=say)
  else:
    run(mine, study.measure, folder, experiment=study.name, preset=preset, root=root, say=say)
  done = ledger.done(ledger.read(folder / 'ledger.jsonl'))
  left = sum(key(cell) not in done for cell in cells)
  if left:
    return say(f'{left} cells are left to other workers; the last one to end writes the report')
  if study.after and whole and distributed.first():
    study.after(
      cells, folder, preset, {row['cell']: row for row in ledger.read(folder / 'ledger.jsonl')}, say
    )
  return write_report(study, folder, say) if distributed.first() else None


def run(cells, measure, folder, *, experiment, preset, root='', say=log.say):
  """Measures every cell that the ledger of `folder` does not hold; returns the rows of these cells, in their order."""
  folder = files.path(folder)
  done = {row['cell']: row for row in ledger.read(folder / 'ledger.jsonl')}
  left = [cell for cell in cells if key(cell) not in done]
  say(f'{experiment} {preset}: {len(cells)} cells, {len(cells) - len(left)} done, {len(left)} left')
  began = time.perf_counter()
  for count, cell in enumerate(left):
    spent = time.perf_counter() - began
    pace = f'  about {log.clock(spent / count * (len(left) - count))} left in all' if count else ''
    title = f'[{len(cells) - len(left) + count + 1}/{len(cells)}] {describe(cell.labels)}'
    say(title + pace)
    row = {
      'cell': key(cell),
      'experiment': experiment,
      'preset': preset,
      **cell.labels,
      'settings': cell.settings,
    }
    row |= {'versions': grid.versions(), 'device': grid.device()}
    start = time.perf_counter()
    try:
      row['metrics'] = measure(cell.settings, root, folder, say)
    except FloatingPointError as error:
      say(f'{title}  failed: {error}')
      row |= {'metrics': {}, 'failed': str(error)}
    row['seconds'] = round(time.perf_counter() - start, 2)
    row['time'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    ledger.append(folder / 'ledger.jsonl', row)
    done[row['cell']] = row
  return [done[key(cell)] for cell in cells]


def kept(folder, settings, make):
  """{path: array} that several cells start from: read from `folder`/parents, or made, once, and written there.

  settings: plain JSON values, all that it depends on. make: () -> {path: array}. A file that is damaged is made again.
  """
  path = files.path(folder) / 'parents' / f'{ledger.cell_hash(settings)}.safetensors'
  if files.exists(path):
    try:
      return safetensors.numpy.load(files.read(path, 2**33))
    except (safetensors.SafetensorError, ValueError):
      pass  # a disk that lost it; nothing rests on this file but time
  made = {name: np.ascontiguousarray(value) for name, value in make().items()}
  files.write(path, safetensors.numpy.save(made))
  return made


def write_report(study, folder, say=log.say):
  """The report of a work directory, from its ledger and nothing else."""
  return redraw(study, files.path(folder) / 'ledger.jsonl', folder, say=say)


def redraw(study, path, out, *, work=None, say=log.say):
  """report.html, report.md and every figure of the ledger at `path`, into the folder `out`. Raises ValueError."""
  del work
  every = ledger.read(path)
  rows = [row for row in every if not row.get('failed')]
  if not rows:
    raise ValueError(f'{str(path)!r} holds no finished cell: nothing to report yet')
  verdicts, shown = study.claims(rows), list(study.tables(rows))
  failed = [
    {'cell': describe(labels_of(row)), 'why': row['failed']} for row in every if row.get('failed')
  ]
  shown += [tables.records('Cells that failed', failed)] if failed else []
  written = document.write(
    out,
    [],
    verdicts,
    title=study.title,
    tables=[*shown, every_cell(rows)],
    figures=study.figures(rows),
    captions=study.captions,
    meta={'paper': study.source, 'preset': rows[-1]['preset'], **facts(rows)},
  )
  for table in shown[:1]:
    say(tables.text(table))
  for verdict in verdicts:
    say(f'{verdict.verdict:<15} {verdict.name}: {verdict.claim}')
  say(f'report: {written["report.html"]}')
  return written


def compare(study, first, second, out, say=log.say):
  """Two ledgers or work directories of one study side by side, as one report in the folder `out`."""
  sides = [[row for row in two.read(where) if not row.get('failed')] for where in (first, second)]
  names = [files.path(where).name for where in (first, second)]
  checks = [study.claims(side) for side in sides]
  written = document.write(
    out,
    [],
    [],
    title=f'{study.title}: two ledgers',
    meta={'paper': study.source, 'A': names[0], 'B': names[1]},
    lists=[('Verdicts', [two.verdicts(*checks)])],
    tables=[
      table._replace(title=f'{name}: {table.title}')
      for name, side in zip('AB', sides, strict=True)
      for table in study.tables(side)
    ],
    figures={
      f'{name} {figure}': png
      for name, side in zip('AB', sides, strict=True)
      for figure, png in study.figures(side).items()
    },
    captions={f'{name} {figure}': text for name in 'AB' for figure, text in study.captions.items()},
  )
  for a, b in zip(*checks, strict=True):
    say(f'{a.verdict:<15} {b.verdict:<15} {a.name}')
  say(f'report: {written["report.html"]}')
  return written


def describe(labels):
  """'method obs, problem monks-1, seed 0'."""
  return ', '.join(f'{k} {v}' for k, v in labels.items() if v != '')


def labels_of(row):
  """What sets a ledger row apart."""
  return {k: v for k, v in row.items() if k not in COLUMNS}


def every_cell(rows):
  """Every row as one line of a table."""
  return tables.records(
    f'The ledger: {len(rows)} cells',
    [
      {
        'cell': row['cell'],
        **{k: v for k, v in labels_of(row).items() if k not in grid_columns(row)},
        **{k: v for k, v in row['metrics'].items() if isinstance(v, int | float)},
        'seconds': row['seconds'],
      }
      for row in rows
    ],
  )


def grid_columns(row):
  """Columns of a run of the train loop that a reader of a report does not need."""
  return ('config', 'parent', 'mask_hash', 'members', 'device_seconds') if 'config' in row else ()


def facts(rows):
  """What the head of a report says of its cells."""
  seeds = sorted({row['seed'] for row in rows if 'seed' in row})
  devices = sorted({row['device'] for row in rows})
  seconds = sum(row['seconds'] for row in rows)
  return {
    'cells': len(rows),
    'seeds': ', '.join(map(str, seeds)) or '-',
    'device': ', '.join(devices),
    'time': log.clock(seconds),
  }


def _cells(study, preset, overrides, from_scratch, part):
  if study.measure is not None:
    root = overrides.pop('data.root', '')
    if overrides:
      name = next(iter(overrides))
      near = specs.suggest(name, ['data.root'])
      raise ValueError(
        f'--config.{name}: {study.name} takes no such key{near}; it takes --config.data.root=FOLDER'
      )
    cells = study.plan(study.presets[preset], root)
  else:
    root, cells = '', study.plan(study.presets[preset], overrides)
  every = cells
  for name, label in (('seeds', 'seed'), ('sparsities', 'sparsity')):
    if (wanted := part.pop(name, None)) is not None:
      known = sorted({cell.labels[label] for cell in cells if label in cell.labels})
      for value in wanted:
        if value not in known:
          raise ValueError(f'--{name}={value}: {study.name} {preset} has {known or "none"}')
      cells = [
        cell for cell in cells if cell.labels.get(label) in wanted or label not in cell.labels
      ]
  if len(cells) < len(every) and all(isinstance(cell, grid.Cell) for cell in every):
    known = {key(cell): cell for cell in every}  # a student's teacher has another sparsity
    cells = [known[k] for k in parents.with_read(map(key, cells), known)]
  flags = {'names': '--tasks', 'scale': '--scale', 'rates': '--rates', 'families': '--arms'}
  for name, value in {**part, 'from_scratch': from_scratch or None}.items():
    if value is not None:
      flag = flags.get(name, '--' + name.replace('_', '-'))
      raise ValueError(f'{flag}: {study.name} has no such part; it takes --seeds and --sparsities')
  if len({key(cell) for cell in cells}) < len(cells):
    raise ValueError(f'{study.name} {preset}: two cells have the same settings')
  return cells, root


def key(cell):
  """The hash that names a cell."""
  return grid.key(cell) if isinstance(cell, grid.Cell) else ledger.cell_hash(cell.settings)


def _share(cells, worker):
  if any(isinstance(cell, grid.Cell) for cell in cells):
    return grid.share(cells, worker)
  index, count = worker
  return cells[index::count] if count > 1 else cells


def _plan(study, preset, cells, workdir):
  took = getattr(study.presets[preset], 'cost', '')
  if any(isinstance(cell, grid.Cell) for cell in cells):
    text = cost.table(
      [(cell.labels, cell.config) for cell in cells], title=f'{study.name} {preset}: {took}'
    )
  else:
    lines = [describe(cell.labels) for cell in cells]
    text = '\n'.join([f'{study.name} {preset}: {len(cells)} cells; {took}', *lines])
  if workdir:
    done = ledger.done(ledger.read(files.path(workdir) / 'ledger.jsonl'))
    text += f'\n{sum(key(cell) not in done for cell in cells)} of {len(cells)} cells are missing from {workdir}'
  return text

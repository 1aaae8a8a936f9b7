"""The framework of an experiment: cells, each run once into a ledger, and the report of the ledger.

A cell is a run of the train loop, whose config is a ConfigDict, or a measurement that a function of
the experiment makes, whose config is a dict of settings. A report is drawn from the ledger alone.
"""

import contextlib
import datetime
import functools
import hashlib
import json
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from prunejax import files
from prunejax.report import compare as comparing
from prunejax.report import cost, document, ledger, rule_dates, tables
from prunejax.sweep import dependencies, estimate, grid, identity
from prunejax.sweep import reuse as reusing
from prunejax.sweep.grid import Cell, key
from prunejax.train import configs, console, distributed, recipe, specs

__all__ = [
  'Cell',
  'Study',
  'cells',
  'compare',
  'kept',
  'key',
  'redraw',
  'reproduce',
  'run',
  'verbs',
  'write_report',
]
# Columns of a ledger row that every cell has; the others are the labels of the cell.
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
  'reads',
)
# What `reproduce` takes of a preset, and the flag of each on the command line.
PARTS = {
  'names': '--tasks',
  'sparsities': '--sparsities',
  'seeds': '--seeds',
  'scale': '--scale',
  'rates': '--rates',
  'families': '--arms',
  'from_scratch': '--from-scratch',
}
# Overrides that change no number of a cell.
QUIET = ('data.root', 'data.cache', 'data.identity', 'population.')


class Study(NamedTuple):
  """What the study.py of an experiment declares.

  name: of its folder below experiments/.
  title, source: of the report.
  presets: {name: preset}, or functions that make one. The field `cost` of a preset says in words
    what it takes.
  plan: (preset, overrides) -> cells where the cells are runs of the train loop, else
    (preset, root) -> cells, root being `--config.data.root` or ''. Raises ValueError for missing
    data.
  measure: (settings, root, folder, say) -> metrics {name: number or short list}; raises
    FloatingPointError for a cell that fails. None where the cells are runs of the train loop.
  claims: (quantities) -> list of `verdicts.Verdict`.
  tables: (quantities) -> list of `tables.Table`; the command line prints the first.
  figures: (quantities) -> {name: bytes of a PNG}; the first is the main figure.
  captions: {name of a figure: text}.
  after: (cells, folder, preset, done {cell: row}, say), called once a whole grid is done; it adds
    to the ledger what is measured on several runs.
  analyse: (rows) -> the quantities that claims, tables and figures read, computed once; the rows
    themselves by default.
  reads: (root, pydoc) -> {name: digest} of the data that a measurement reads; pydoc is
    'installed' or 'packaged'.
  embedded: whether `plan` of a measurement takes the keyword `pydoc`: which text the embedded
    corpus is. A function (preset) -> bool where only some presets read that corpus.
  parts: keys of PARTS that `plan` takes as keywords. Where it takes none, `--seeds` and
    `--sparsities` choose among the cells.
  tables_of_folder: (rows, folder) -> tables of what a work directory holds beside its ledger.
  differences: (quantities A, quantities B) -> (tables, figures, captions) of a comparison; by
    default the tables and figures of both.
  colours: {text of a cell of a table: CSS colour}.
  earlier_costs: a JSONL file of what presets took elsewhere, see `cost.measured`.
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
  analyse: Callable = lambda rows: rows
  reads: Callable = lambda root, pydoc: {}
  embedded: bool | Callable = False
  parts: tuple = ()
  tables_of_folder: Callable | None = None
  differences: Callable | None = None
  colours: dict = {}
  earlier_costs: str = ''


def verbs(study: Study) -> tuple:
  """(reproduce, write_report, redraw, compare) of a study, the functions of the command line."""
  return tuple(functools.partial(f, study) for f in (reproduce, write_report, redraw, compare))


def reproduce(
  study: Study,
  preset: str,
  workdir,
  *,
  dry_run=False,
  overrides=None,
  worker=(0, 1),
  one_by_one=False,
  reuse='',
  say=console.say,
  **part,
):
  """Runs the cells that the ledger lacks, then writes the report.

  Args:
    study: the experiment.
    preset: a name in its presets.
    workdir: where the runs, the ledger and the report go; runs/NAME-PRESET where it is empty.
    dry_run: only print the cells and what they take; or what a function (cells, title) returns.
    overrides: {dotted key: value} for every run. In a new work directory `data.pydoc` is 'packaged'
      if they do not set it.
    worker: (index, count); each of several workers runs its share, and the last to end reports.
    one_by_one: run no cells together in one program.
    reuse: another work directory, whose finished cells are taken where they are the same.
    say: prints a line.
    **part: keys of PARTS, a part of the preset's grid.

  Returns:
    {name: path} of the report's files, None where nothing was written.

  Raises:
    ValueError: an unknown preset, part or key, or data that is missing.
  """
  if reuse and study.measure is not None:
    raise ValueError(
      f'--reuse={reuse}: the cells of {study.name} leave no models that could be taken'
    )
  if reuse:
    reusing.rows(reuse)  # raises for wrong input before anything is written
  folder = workdir or f'runs/{study.name}-{preset}'
  claimed = _identity(study, preset, overrides or {}, part)
  overrides = {**_defaults(study, preset, folder, reuse), **(overrides or {})}
  whole = all(part.get(name) is None for name in ('seeds', 'sparsities')) or bool(study.parts)
  every = cells(study, preset, overrides, **part)
  mine = _share(study, every, worker)
  if callable(dry_run):
    return say(dry_run(mine, f'{study.name} {preset}'))
  if dry_run:
    return say(_plan(study, preset, mine, workdir))
  folder = grid.claim(folder, claimed)
  names = {'experiment': study.name, 'preset': preset}
  if study.measure is None:
    if reuse and distributed.first():
      reusing.take(mine, folder, reuse, **names, say=say)
    of_others = {'awaited': grid.awaited(every, worker), 'others': grid.others(every, mine)}
    grid.run(mine, folder, **names, **of_others, one_by_one=one_by_one, say=say)
  else:
    root = overrides.get('data.root', '')
    reads = study.reads(root, overrides.get('data.pydoc', 'installed'))
    run(mine, study.measure, folder, **names, root=root, reads=reads, say=say)
  if not distributed.first():
    return None
  done = {row['cell']: row for row in ledger.read(folder / 'ledger.jsonl')}
  left = sum(key(cell) not in done for cell in every)
  if left:
    return say(f'{left} cells are left to other workers; the last one to end writes the report')
  if study.after and whole:
    study.after(every, folder, preset, done, say)
  return write_report(study, folder, say)


def cells(study: Study, preset: str, overrides=None, **part) -> list:
  """The cells of a preset, or of a part of it; the arguments are those of `reproduce`."""
  if preset not in study.presets:
    near = specs.suggest(preset, study.presets)
    raise ValueError(
      f'{study.name} has no preset {preset!r}{near}; known: {", ".join(study.presets)}'
    )
  part = {name: value for name, value in part.items() if value is not None and value is not False}
  for name in part:
    if name not in (study.parts or ('seeds', 'sparsities')):
      raise ValueError(
        f'{PARTS.get(name, name)}: {study.name} has no such part; it takes '
        + ' and '.join(PARTS[known] for known in study.parts or ('seeds', 'sparsities'))
      )
  chosen, overrides = _preset(study, preset), dict(overrides or {})
  if study.parts:
    planned = study.plan(chosen, overrides, **part)
  elif study.measure is None:
    planned = _chosen(study, preset, study.plan(chosen, overrides), part)
  else:
    root = overrides.pop('data.root', '')
    by_content = overrides.pop('data.identity', '') == 'content'
    embedded = _embedded(study, chosen)
    pydoc = overrides.pop('data.pydoc', 'installed') if embedded else 'installed'
    if pydoc not in recipe.CHOICES['data.pydoc']:
      accepted = ', '.join(recipe.CHOICES['data.pydoc'])
      raise ValueError(f'--config.data.pydoc={pydoc}: expected one of {accepted}')
    for name in overrides:
      near = specs.suggest(name, ['data.root', 'data.pydoc'][: 1 + embedded])
      whose = f'{study.name} {preset}' if callable(study.embedded) else study.name
      raise ValueError(
        f'--config.{name}: {whose} takes no such key{near}; it takes --config.data.root=FOLDER'
      )
    planned = study.plan(chosen, root, **({'pydoc': pydoc} if embedded else {}))
    planned = _chosen(study, preset, planned, part)
    if by_content and (reads := study.reads(root, pydoc)):
      planned = [cell._replace(config={**cell.config, 'reads': reads}) for cell in planned]
  if study.measure is None:
    _refuse_dropped(study, planned, overrides)
  if len({key(cell) for cell in planned}) < len(planned):
    given = ''.join(f' --config.{name}={value}' for name, value in overrides.items())
    raise ValueError(
      f'{study.name} {preset}: two cells have the same settings' + (given and f' with{given}')
    )
  return planned


def _refuse_dropped(study, planned, overrides):
  """Refuses an override that no stage takes, because its cells set the key for themselves.

  A stage takes an override if all its cells have that value. A cell that starts from another cell
  is not asked about `init`, which names the other one.
  """
  for name, value in overrides.items():
    takes = {}
    for cell in planned:
      own = functools.reduce(lambda node, part: node[part], name.split('.'), cell.config)
      held = own == configs.convert(value, own, name) or str(own).startswith('cell:')
      stage = cell.labels.get('stage')
      takes[stage] = held and takes.get(stage, True)
    if takes and not any(takes.values()):
      flag = '; use --seeds instead' if name == 'seed' else ''
      raise ValueError(
        f'--config.{name}={value}: each cell of {study.name} sets this key itself{flag}'
      )


def run(
  cells, measure, folder, *, experiment, preset, root='', reads=None, say=console.say
) -> list:
  """Measures every cell that the ledger of `folder` lacks.

  Returns:
    The rows of the cells, in the order of the cells.

  Raises:
    ValueError: rows of the ledger have read other data than there is now.
  """
  folder = files.path(folder)
  _same_reads(ledger.read(folder / 'ledger.jsonl'), reads or {}, folder)
  done = {row['cell']: row for row in ledger.read(folder / 'ledger.jsonl')}
  left = [cell for cell in cells if key(cell) not in done]
  say(f'{experiment} {preset}: {len(cells)} cells, {len(cells) - len(left)} done, {len(left)} left')
  took = {}  # {labels without the seed: seconds of a cell}
  for count, cell in enumerate(left):
    kinds = [_but_seed(other.labels) for other in left[count:]]
    known = [np.mean(took[kind]) for kind in kinds if kind in took]
    # Nothing is said before one of each kind has run: an estimate from others would rise later.
    pace = f'  about {console.clock(sum(known))} left in all' if len(known) == len(kinds) else ''
    title = f'[{len(cells) - len(left) + count + 1}/{len(cells)}] {describe(cell.labels)}'
    say(title + pace)
    row = {
      'cell': key(cell),
      'experiment': experiment,
      'preset': preset,
      **cell.labels,
      'settings': cell.config,
      'versions': grid.versions(),
      'device': grid.device(),
      **({'reads': reads} if reads else {}),
    }
    start = time.perf_counter()
    try:
      row['metrics'] = measure(cell.config, root, folder, say)
    except FloatingPointError as error:
      say(f'{title}  failed: {error}')
      row |= {'metrics': {}, 'failed': str(error)}
    row['seconds'] = round(time.perf_counter() - start, 2)
    took.setdefault(kinds[0], []).append(row['seconds'])
    row['time'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    ledger.append(folder / 'ledger.jsonl', row)
    done[row['cell']] = row
  return [done[key(cell)] for cell in cells]


def _same_reads(rows, reads, folder):
  """Raises ValueError if a row has read other data under a name of `reads`."""
  for row in rows:
    for name, digest in row.get('reads', {}).items():
      if reads.get(name, digest) != digest:
        raise ValueError(
          f'the work directory {str(folder)!r} holds cells that read other data than {name} is'
          ' now: data.root is another, or its files have changed; nothing was written: take'
          ' another --workdir, or bring back what was there'
        )


def _but_seed(labels):
  """Labels as text, without the seed: cells that differ in it take equally long."""
  return describe({k: v for k, v in labels.items() if k != 'seed'})


def kept(folder, settings, make) -> dict:
  """{path: array} that several cells start from, made once and kept in `folder`/parents.

  Args:
    folder: a work directory.
    settings: plain JSON values, all that the arrays depend on.
    make: () -> {path: array}. It is called again where the file is damaged or another's.
  """
  key = ledger.cell_hash(settings)
  path = files.path(folder) / 'parents' / f'{key}.safetensors'
  if files.exists(path):
    try:
      content = files.read(path, 2**33)
      header = json.loads(content[8 : _data_start(content)])['__metadata__']
      if header == _mark(key, content):
        return safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
      pass  # damaged; nothing but time rests on this file
  arrays = {name: np.ascontiguousarray(value) for name, value in make().items()}
  header = _mark(key, safetensors.numpy.save(arrays))
  files.write(path, safetensors.numpy.save(arrays, metadata=header))
  return arrays


def _mark(key, content):
  """The metadata of a file of `kept`: whose it is, and the checksum of its arrays."""
  digest = hashlib.sha256(content[_data_start(content) :]).hexdigest()
  return {'checked': f'{key} {digest}'}  # one entry: safetensors writes several in any order


def _data_start(content):
  return 8 + int.from_bytes(content[:8], 'little')


def write_report(study: Study, folder, say=console.say) -> dict:
  """Writes the report of a work directory into it."""
  folder = files.path(folder)
  return redraw(study, folder / 'ledger.jsonl', folder, work=folder, say=say)


def redraw(study: Study, path, out, *, work=None, say=console.say) -> dict:
  """Draws the report of a ledger.

  Args:
    study: the experiment.
    path: of the ledger.
    out: the folder that gets report.html, report.md and every figure.
    work: the work directory, where there is one; then what its grid took is shown too.
    say: prints a line.

  Returns:
    {name: path} of the files.

  Raises:
    ValueError: the ledger holds no finished cell, or rows that are none of this experiment; `out`
      holds a ledger of its own.
  """
  every = ledger.read(path)
  rows = [row for row in every if not row.get('failed')]
  if not rows:
    raise ValueError(f'{str(path)!r} holds no finished cell: nothing to report yet')
  ledger.checked(rows, path)
  copies = _copies_ledger(path, out)
  with _rows_of(study, path, rows):
    quantities = study.analyse(rows)
    checks, shown = study.claims(quantities), list(study.tables(quantities))
    figures = study.figures(quantities)
  printed = shown[:1]
  if fixed := rule_dates.of_ledger(study.claims, checks, rows):
    checks, shown = rule_dates.noted(checks, fixed), [*shown, rule_dates.table(fixed, rows)]
  failed = [
    {'cell': describe(labels_of(row)), 'why': row['failed']} for row in every if row.get('failed')
  ]
  shown += [tables.records('Cells that failed', failed)] if failed else []
  if work is not None:
    shown += study.tables_of_folder(rows, work) if study.tables_of_folder else []
    if parts := cost.read(work):
      earlier = study.earlier_costs
      before = cost.measured(earlier, rows[-1]['preset']) if earlier else []
      shown.append(cost.table(parts, before))
      printed.append(shown[-1])
  written = document.write(
    out,
    checks,
    title=study.title,
    tables=shown,
    figures=figures,
    captions=study.captions,
    meta={'paper': study.source, 'preset': rows[-1]['preset'], **facts(rows)},
    cells=every_cell(rows),
    colours=study.colours,
  )
  if copies:
    lines = ''.join(json.dumps(row) + '\n' for row in every)
    files.write(files.path(out) / 'ledger.jsonl', lines)
  for table in printed:
    say(tables.text(table))
  for verdict in checks:
    say(f'{verdict.verdict:<15} {verdict.name}: {verdict.claim}')
  say(identity.of_ledger(rows))
  say(f'report: {written["report.html"]}')
  return written


def compare(study: Study, first, second, out, say=console.say) -> dict:
  """Writes a report of two ledgers or work directories, A and B, side by side into `out`."""
  sides = [comparing.read(where) for where in (first, second)]
  names = [
    f'{files.path(where).name} ({rows[-1]["preset"]})'
    for where, rows in zip((first, second), sides, strict=True)
  ]
  analysed, checks = [], []
  for where, rows in zip((first, second), sides, strict=True):
    with _rows_of(study, where, rows):
      analysed.append(study.analyse(rows))
      checks.append(study.claims(analysed[-1]))
  with _rows_of(study, second, sides[1]):
    differences = study.differences or functools.partial(_both, study)
    shown, figures, captions = differences(*analysed)
  written = document.write(
    out,
    title=f'{study.title}: two ledgers',
    meta={'paper': study.source, 'A': names[0], 'B': names[1]},
    lists=[('Verdicts', [comparing.verdict_table(*checks)])],
    tables=shown,
    figures=figures,
    captions=captions,
    colours=study.colours,
  )
  for a, b in comparing.pairs(*checks):
    words = [verdict.verdict if verdict else '-' for verdict in (a, b)]
    say(f'{words[0]:<15} {words[1]:<15} {(a or b).name}')
  say(f'report: {written["report.html"]}')
  return written


def describe(labels) -> str:
  """Labels as text: 'method obs, problem monks-1, seed 0'."""
  return ', '.join(f'{k} {v}' for k, v in labels.items() if v not in ('', None))


def labels_of(row) -> dict:
  """The labels of the cell of a ledger row."""
  return {k: v for k, v in row.items() if k not in (*COLUMNS, *grid_columns(row))}


def every_cell(rows) -> tables.Table:
  """Every row as one line of a table."""
  versions = sorted({f'{k} {v}' for row in rows for k, v in (row.get('versions') or {}).items()})
  return tables.records(
    f'The ledger: {len(rows)} cells',
    [
      {
        'cell': row['cell'],
        **labels_of(row),
        **{k: row[k] for k in ('steps', 'bytes', 'mask_hash', 'parent') if row.get(k) is not None},
        **{k: v for k, v in row['metrics'].items() if isinstance(v, int | float)},
        'seconds': row.get('seconds'),
      }
      for row in rows
    ],
    ', '.join(versions),
  )


def grid_columns(row) -> tuple:
  """Columns of a row of the train loop that are neither labels nor metrics."""
  if 'config' not in row and 'parent' not in row:
    return ()
  return ('config', 'parent', 'parents', *grid.MEASURED)


def facts(rows) -> dict:
  """What the head of a report says of its cells."""
  seeds = sorted({row['seed'] for row in rows if 'seed' in row})
  devices = sorted({row['device'] for row in rows if row.get('device')})
  seconds = sum(row.get('seconds') or 0 for row in rows)
  return {
    'cells': len(rows),
    'seeds': ', '.join(map(str, seeds)) or '-',
    'device': ', '.join(devices) or '-',
    'time': console.clock(seconds),
  }


@contextlib.contextmanager
def _rows_of(study, path, rows):
  """Turns the error of an analysis that meets rows of another kind into one that names the row."""
  try:
    yield
  except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
    problem = ledger.unlike(rows) or f'{type(error).__name__}: {error}'
    raise ValueError(
      f'{str(path)!r} cannot be reported as a ledger of {study.name}: {problem}'
    ) from error


def _copies_ledger(path, out):
  """Whether `out` is another folder than that of the ledger; it then gets a copy.

  So the folder of a report can be reported and compared as a work directory can.
  """
  out, home = files.path(out), files.path(path).parent
  if str(out) == str(home) or not files.remote(out) and out.resolve() == home.resolve():
    return False
  names = files.names(out)
  own = [name for name in ('ledger.jsonl', 'ledger.d', 'grid.json') if name in names]
  if own and (own != ['ledger.jsonl'] or 'report.html' not in names):
    raise ValueError(
      f'--out={str(out)!r} holds {own[0]} of another grid: take a folder without a ledger'
    )
  return True


def _preset(study, name):
  preset = study.presets[name]
  return preset() if callable(preset) else preset


def _embedded(study, preset):
  """Whether `plan` takes the keyword `pydoc` for a preset, see `Study.embedded`."""
  return study.embedded(preset) if callable(study.embedded) else study.embedded


def _defaults(study, preset, folder, reuse):
  """What a work directory sets: a new one names cells by content, and reads the packaged text."""
  content = identity.of_folder(folder, reuse)
  known = preset in study.presets  # `cells` refuses another
  embedded = study.measure is None or known and _embedded(study, _preset(study, preset))
  return {**content, **identity.PACKAGED} if content and embedded else content


def _identity(study, preset, overrides, part):
  """What a work directory is claimed for; another part of the same grid may join it."""
  claimed = {'paper': study.name, 'preset': preset}
  if 'from_scratch' in study.parts:
    claimed['from_scratch'] = bool(part.get('from_scratch'))
  if 'scale' in study.parts:
    claimed['scale'] = part.get('scale') or 1.0
  if study.parts:
    claimed |= {k: str(v) for k, v in overrides.items() if not k.startswith(QUIET)}
  return claimed


def _chosen(study, preset, every, part):
  """The cells with the seeds and sparsities of `part`, and the cells that those start from."""
  chosen = every
  for name, label in (('seeds', 'seed'), ('sparsities', 'sparsity')):
    if (wanted := part.get(name)) is None:
      continue
    known = sorted({cell.labels[label] for cell in every if label in cell.labels})
    for value in wanted:
      if value not in known:
        raise ValueError(f'--{name}={value}: {study.name} {preset} has {known or "none"}')
    chosen = [
      cell for cell in chosen if cell.labels.get(label) in wanted or label not in cell.labels
    ]
  if len(chosen) < len(every) and study.measure is None:
    known = {key(cell): cell for cell in every}  # the teacher of a student has another sparsity
    chosen = [known[k] for k in dependencies.with_read(map(key, chosen), known)]
  return chosen


def _share(study, cells, worker):
  if study.measure is None:
    return grid.share(cells, worker)
  index, count = worker
  return cells[index::count] if count > 1 else cells


def _plan(study, preset, cells, workdir):
  """The cells of a preset and what they take, as text."""
  title = f'{study.name} {preset}'
  price = getattr(_preset(study, preset), 'cost', '')
  if study.measure is None:
    text = estimate.table(grid.planned(cells), title=f'{title}: {price}')
  else:
    lines = [describe(cell.labels) for cell in cells]
    text = '\n'.join([f'{title}: {len(cells)} cells; {price}', *lines])
  if workdir:
    done = ledger.done(ledger.read(files.path(workdir) / 'ledger.jsonl'))
    left = [cell.labels for cell in cells if key(cell) not in done]
    text += f'\n{len(left)} of {len(cells)} cells are missing from the ledger of {workdir}'
    text += ''.join(f'\n  {line}' for line in _by_kind(left))
  return text


def _by_kind(labels):
  """Labels of cells in lines, one a kind: 'stage finetune, arm pruned: 0.50 seeds 1, 2; ...'."""
  kinds = {}
  for one in labels:
    kind = describe({k: v for k, v in one.items() if k not in ('seed', 'sparsity')})
    level = f'{one["sparsity"]:.2f}' if 'sparsity' in one else ''
    kinds.setdefault(kind, {}).setdefault(level, []).append(one.get('seed', 0))
  for kind, levels in kinds.items():
    seeds = [
      f'{level} seed{"s" * (len(found) > 1)} {", ".join(map(str, sorted(found)))}'.strip()
      for level, found in sorted(levels.items())
    ]
    yield f'{kind or "cells"}: {"; ".join(seeds)}'


def _both(study, *sides):
  """The tables, figures and captions of both sides, each under the letter of its side."""
  both = list(zip('AB', sides, strict=True))
  shown = [
    table._replace(title=f'{letter}: {table.title}')
    for letter, side in both
    for table in study.tables(side)
  ]
  figures = {
    f'{letter} {name}': png for letter, side in both for name, png in study.figures(side).items()
  }
  captions = {f'{letter} {name}': text for letter in 'AB' for name, text in study.captions.items()}
  return shown, figures, captions

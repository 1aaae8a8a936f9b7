"""Runs benches by name and saves every row as soon as it is measured, as JSON and as a table."""

import datetime
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence
from os import PathLike

from prunejax import files
from prunejax.bench import (
  compile_counts,
  input_pipeline,
  kill,
  link_overhead,
  measure,
  names,
  population_speed,
  scaling,
  selection,
  table,
  train_step,
)
from prunejax.train import console

# A bench is a module with `run(size, say, **options)`, which yields `measure.row`s, and
# TARGET_SIZES, the sizes that its targets are meant for (default: base). Options: `out`, the file
# of results, beside which a figure may be drawn, and `times`, how often `kill` kills.
_BENCHES = (
  selection,
  link_overhead,
  train_step,
  input_pipeline,
  compile_counts,
  scaling,
  population_speed,
  kill,
)
BENCHES = dict(zip(names.NAMES, _BENCHES, strict=True))


def run(
  only: Sequence[str] | None = None,
  size: str = 'base',
  *,
  times: int | None = None,
  out: PathLike | str | None = None,
  say: Callable[[str], None] = console.say,
) -> dict:
  """Runs benches at a size.

  Args:
    only: names of BENCHES; None for all but the longest.
    size: a name of `names.SIZES`.
    times: how often `kill` kills.
    out: the JSON file to write, with a table in Markdown beside it; None for
      runs/bench/<kind of machine>-<size>.json. Other benches that the file already holds stay.
    say: prints one line.

  Returns:
    The results, as in the file.

  Raises:
    ValueError: an unknown bench or size; a file with results of another machine, size or versions;
      at the end, when a bench failed.
  """
  only = names.check(only, size, tuple(BENCHES))
  machine = measure.machine()
  out = pathlib.Path(out or f'runs/bench/{machine["kind"]}-{size}.json')
  results = _saved_results(out, {'machine': machine, 'size': size, 'benches': {}})
  out.parent.mkdir(parents=True, exist_ok=True)
  hardware = '{kind}: {device}, {cores} cores, {ram_gib} GiB'.format(**machine)
  say(f'{hardware}; size {size}')
  failed = {}
  for name in only:
    command = f'python -m prunejax bench --only={name} --size={size}'
    part = {
      'command': f'{command} --times={times}' if times else command,
      'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
      'commit': commit(),
      'seconds': 0.0,
      'rows': [],
      'figures': [],
    }
    results['benches'][name] = part
    began = time.perf_counter()
    say(f'{name} ...')
    try:
      for row in BENCHES[name].run(size, say, times=times, out=out):
        row = measure.at_size(row, size, getattr(BENCHES[name], 'TARGET_SIZES', ('base',)))
        part['rows'].append(row)
        _save(out, results, part, began)
        value = f'{table.number(row["value"])} {row["unit"]}'
        say(f'  {row["name"]}: {value}  {table.VERDICT[row["ok"]]}')
    except Exception as error:  # the other benches run; a row and the end report the failure
      if os.environ.get('PRUNEJAX_TRACEBACK'):
        raise
      failed[name] = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
      part['rows'].append(measure.row('the bench', None, '', detail=f'failed: {failed[name]}'))
    part['figures'] = sorted(p.name for p in out.parent.glob(f'{out.stem}-{name}*.png'))
    _save(out, results, part, began)
    say(f'{name}: {part["seconds"]:.0f} s')
  say(table.text(results))
  say(f'written: {out} and {out.with_suffix(".md").name}')
  if failed:
    raise ValueError('; '.join(f'bench {name} failed: {why}' for name, why in failed.items()))
  return results


def _saved_results(out, fresh):
  """The results in `out`, if it exists and is of this machine and size; otherwise `fresh`."""
  if not out.exists():
    return fresh
  saved = table.read(out)
  before, now = _conditions(saved), _conditions(fresh)
  if different := [key for key in now if before.get(key) != now[key]]:
    values = ', '.join(f'{key} {before.get(key)} and not {now[key]}' for key in different)
    raise ValueError(
      f'{str(out)!r} holds results of other conditions ({values}): name another --out, or delete'
      ' the file'
    )
  return saved


def _conditions(results) -> dict:
  """What rows of one file have in common. Each bench says at which commit of ours it ran."""
  machine = dict(results['machine'])
  versions = {k: v for k, v in machine.pop('versions').items() if k != 'prunejax'}
  return {**machine, **versions, 'size': results['size']}


def _save(out, results, part, began):
  part['seconds'] = round(time.perf_counter() - began, 1)
  files.write(out, json.dumps(results, indent=1) + '\n')
  files.write(out.with_suffix('.md'), table.markdown(results))


def commit() -> str:
  """Returns the commit that is measured, with '+' when files differ; '' outside a checkout."""
  try:
    changed = _git('status', '--porcelain', '.')
    return _git('rev-parse', '--short', 'HEAD') + ('+' if changed else '')
  except (OSError, subprocess.CalledProcessError):
    return ''


def _git(*words):
  folder = pathlib.Path(__file__).parent
  return subprocess.run(
    ['git', *words], cwd=folder, capture_output=True, text=True, check=True
  ).stdout.strip()

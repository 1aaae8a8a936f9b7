"""Runs benches by name, one after the other, and keeps every row as it comes: JSON, and a table beside it."""

import datetime
import json
import os
import pathlib
import subprocess
import time

from prunejax import files
from prunejax.bench import (
  compile,
  data,
  kill,
  measure,
  optimizer,
  population,
  scaling,
  selection,
  sizes,
  table,
  train,
)
from prunejax.train import console, specs

# A bench is a module with `run(size, say, **options)`, a generator (or list) of `measure.row`s. Options: `out`, the
# file of results, beside which a figure may be drawn, and `times`, how often `kill` kills.
BENCHES = {
  'selection': selection,
  'optimizer': optimizer,
  'train': train,
  'data': data,
  'compile': compile,
  'scaling': scaling,
  'population': population,
  'kill': kill,
}
BY_NAME_ONLY = ('kill',)  # hours, not minutes


def run(only=None, size='base', *, times=None, out=None, say=console.say):
  """Runs the benches `only` (default: all but the longest) at a size, and returns the results.

  Args:
    only: names of BENCHES.
    size: a name of `sizes.SIZES`.
    times: for `kill`.
    out: the JSON file to write; a table in Markdown goes beside it. Benches that this machine's file already holds
      and that are not run again are kept. Default: runs/bench/<kind of machine>-<size>.json.

  Raises:
    ValueError: an unknown bench or size; a file of another machine's results; at the end, when a bench failed.
  """
  only = check(only, size)
  machine = measure.machine()
  out = pathlib.Path(out or f'runs/bench/{machine["kind"]}-{size}.json')
  results = _begun(out, {'machine': machine, 'size': size, 'benches': {}})
  out.parent.mkdir(parents=True, exist_ok=True)
  say(
    f'{machine["kind"]}: {machine["device"]}, {machine["cores"]} cores, {machine["ram_gib"]} GiB; size {size}'
  )
  failed = {}
  for name in only:
    began = time.perf_counter()
    command = f'python -m prunejax bench --only={name} --size={size}' + (
      f' --times={times}' if times else ''
    )
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    part = {
      'command': command,
      'date': date,
      'commit': commit(),
      'seconds': 0.0,
      'rows': [],
      'figures': [],
    }
    results['benches'][name] = part
    say(f'{name} ...')
    try:
      for row in BENCHES[name].run(size, say, times=times, out=out):
        part['rows'].append(row)
        _keep(out, results, part, began)
        say(
          f'  {row["name"]}: {table.number(row["value"])} {row["unit"]}  {table.VERDICT[row["ok"]]}'
        )
    except (
      Exception
    ) as error:  # the others go on; what failed is said in its row, and again at the end
      if os.environ.get('PRUNEJAX_TRACEBACK'):
        raise
      failed[name] = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
      part['rows'].append(measure.row('the bench', None, '', detail=f'failed: {failed[name]}'))
    part['figures'] = sorted(p.name for p in out.parent.glob(f'{out.stem}-{name}*.png'))
    _keep(out, results, part, began)
    say(f'{name}: {part["seconds"]:.0f} s')
  say(table.text(results))
  say(f'written: {out} and {out.with_suffix(".md").name}')
  if failed:
    raise ValueError('; '.join(f'bench {name} failed: {why}' for name, why in failed.items()))
  return results


def check(only, size):
  """The names to run. Raises ValueError with the nearest name."""
  if size not in sizes.SIZES:
    raise ValueError(
      f'--size={size}{specs.suggest(size, sizes.SIZES)}: expected one of {", ".join(sizes.SIZES)}'
    )
  for name in only or ():
    if name not in BENCHES:
      raise ValueError(
        f'--only={name}{specs.suggest(name, BENCHES)}: expected some of {", ".join(BENCHES)}'
      )
  return list(only or (name for name in BENCHES if name not in BY_NAME_ONLY))


def _begun(out, fresh):
  """The results that `out` already holds, if they are of this machine and size; else fresh ones."""
  if not out.exists():
    return fresh
  held = table.read(out)
  other = [key for key in ('machine', 'size') if held[key] != fresh[key]]
  if other:
    raise ValueError(
      f'{str(out)!r} holds the results of another {other[0]} ({held["machine"]["kind"]}, size {held["size"]},'
      f' jax {held["machine"]["versions"]["jax"]}): take another --out, or delete it'
    )
  return held


def _keep(out, results, part, began):
  part['seconds'] = round(time.perf_counter() - began, 1)
  files.write(out, json.dumps(results, indent=1) + '\n')
  files.write(out.with_suffix('.md'), table.markdown(results))


def commit():
  """The commit measured, '+' when files differ from it, '' outside a checkout."""
  where = pathlib.Path(__file__).parent
  try:
    ask = lambda *words: (
      subprocess.run(['git', *words], cwd=where, capture_output=True, text=True, check=True).stdout
    )
    return ask('rev-parse', '--short', 'HEAD').strip() + '+' * bool(
      ask('status', '--porcelain', '.').strip()
    )
  except (OSError, subprocess.CalledProcessError):
    return ''

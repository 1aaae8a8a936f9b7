"""Runs benches by name and saves every row as soon as it is measured, as JSON and as a table."""

import os
import pathlib
from collections.abc import Callable, Sequence
from os import PathLike

from prunejax.bench import (
  compile_counts,
  input_pipeline,
  kill,
  link_overhead,
  measure,
  names,
  population_speed,
  results,
  scaling,
  selection,
  table,
  train_step,
)
from prunejax.train import console

# A bench is a module with `run(size, say, **options)`, which yields `measure.row`s, and
# TARGET_SIZES, the sizes that its targets are meant for (default: base). A row replaces an earlier
# one of the same name. Options: `out`, the file of results, beside which a figure may be drawn, and
# `times`, how often `kill` kills.
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
      runs/bench/<kind of machine>-<size>.json. What the file already holds stays until the same
      bench is whole anew.
    say: prints one line.

  Returns:
    The results, as in the file.

  Raises:
    ValueError: an unknown bench or size; an `out` that does not end in .json, or has results of
      another machine, size or versions; at the end, when a bench failed.
  """
  only = names.check(only, size, tuple(BENCHES))
  machine = measure.machine()
  out = pathlib.Path(out or f'runs/bench/{machine["kind"]}-{size}.json')
  kept = results.opened(out, machine, size)
  out.parent.mkdir(parents=True, exist_ok=True)
  hardware = '{kind}: {device}, {cores} cores, {ram_gib} GiB'.format(**machine)
  say(f'{hardware}; size {size}')
  failed = {}
  for name in only:
    command = f'python -m prunejax bench --only={name} --size={size}'
    part = results.Part(
      out, kept, name, f'{command} --times={times}' if times and name == 'kill' else command
    )
    say(f'{name} ...')
    try:
      for row in BENCHES[name].run(size, say, times=times, out=out):
        row = measure.at_size(row, size, target_sizes(name))
        part.add(row)
        value = f'{table.number(row["value"])} {row["unit"]}'
        say(f'  {row["name"]}: {value}  {table.VERDICT[row["ok"]]}')
    except Exception as error:  # the other benches run; a row and the end report the failure
      if os.environ.get('PRUNEJAX_TRACEBACK'):
        raise
      failed[name] = f'{type(error).__name__}: {" ".join(str(error).split())[:300]}'
      part.add(measure.row('the bench', None, '', detail=f'failed: {failed[name]}'))
    else:
      part.end(sorted(p.name for p in out.parent.glob(f'{out.stem}-{name}*.png')))
    say(f'{name}: {part.part["seconds"]:.0f} s')
  say(table.text(kept))
  say(f'written: {out} and {out.with_suffix(".md").name}')
  if failed:
    raise ValueError('; '.join(f'bench {name} failed: {why}' for name, why in failed.items()))
  return kept


def target_sizes(name: str) -> Sequence[str]:
  """Returns the sizes that the targets of a bench are meant for."""
  return getattr(BENCHES[name], 'TARGET_SIZES', ('base',))

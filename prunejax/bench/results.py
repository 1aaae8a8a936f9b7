"""Keeps what a file of results holds until a bench that is measured anew is whole.

Results are {'machine', 'size', 'benches': {name: part}}. A part that runs, was stopped
or failed has the key 'unfinished'. Where the file holds a whole part of the same bench, the new one
is kept under results['unfinished'] until it is whole.
"""

import datetime
import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence
from os import PathLike

from prunejax import files
from prunejax.bench import table


def opened(out: PathLike | str, machine: dict, size: str) -> dict:
  """Returns the results in a file, or empty ones where there is no file.

  Args:
    out: of the JSON file, beside which lies a table in Markdown.
    machine: as in `measure.machine`, or the part of it that is known before anything is measured.
    size: of the benches, or the name of the model.

  Raises:
    ValueError: the name of the file does not end in .json; the file holds no results, or those of
      another machine, size or other versions.
  """
  files.check_ending(out, '.json')
  out = pathlib.Path(out)
  if not out.exists():
    return {'machine': machine, 'size': size, 'benches': {}}
  saved = table.read(out)
  check_conditions(out, saved, machine, size)
  return saved


def check_conditions(out: PathLike | str, saved: dict, machine: dict, size: str):
  """Refuses results of another machine, size or other versions.

  Args:
    out: of the file, for the message.
    saved: the results in it.
    machine: as in `opened`.
    size: as in `opened`.

  Raises:
    ValueError: the conditions differ.
  """
  before, now = _conditions(saved['machine'], saved['size']), _conditions(machine, size)
  if different := [key for key in now if before.get(key) != now[key]]:
    values = ', '.join(f'{key} {before.get(key)} and not {now[key]}' for key in different)
    raise ValueError(
      f'{str(out)!r} holds results of other conditions ({values}): name another --out, or delete'
      ' the file'
    )


def _conditions(machine, size) -> dict:
  """What rows of one file have in common. Each bench says at which commit of ours it ran."""
  machine = dict(machine)
  versions = machine.pop('versions', {})
  versions = {name: version for name, version in versions.items() if name != 'prunejax'}
  return {**machine, **versions, 'size': size}


class Part:
  """One bench that is being measured: each row is saved as it comes.

  Attributes:
    part: what the file holds of it.
  """

  def __init__(
    self,
    out: PathLike | str,
    results: dict,
    name: str,
    command: str,
    clock: Callable[[], float] = time.perf_counter,
  ):
    """Begins a part; nothing is written yet.

    Args:
      out: of the JSON file.
      results: of `opened`, which change.
      name: of the bench.
      command: that measures it.
      clock: () -> seconds.
    """
    self._out, self._results, self._name = pathlib.Path(out), results, name
    self._clock, self._began = clock, clock()
    self.part = {
      'command': command,
      'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
      'commit': commit(),
      'seconds': 0.0,
      'rows': [],
      'figures': [],
      'unfinished': True,
    }

  def add(self, row: dict):
    """Adds a row, in the place of one of the same name, and saves the file."""
    rows = self.part['rows']
    names = [other['name'] for other in rows]
    if row['name'] in names:
      rows[names.index(row['name'])] = row
    else:
      rows.append(row)
    self._save()

  def end(self, figures: Sequence[str] = ()):
    """Says that the part is whole: it takes the place of an older one."""
    self.part.pop('unfinished')
    self.part['figures'] = list(figures)
    self._save()

  def _save(self):
    self.part['seconds'] = round(self._clock() - self._began, 1)
    waiting, benches = self._results.get('unfinished', {}), self._results['benches']
    whole = 'unfinished' not in self.part
    if not whole and 'unfinished' not in benches.get(self._name, {'unfinished': True}):
      waiting = {**waiting, self._name: self.part}
    else:
      waiting = {name: part for name, part in waiting.items() if name != self._name}
      benches[self._name] = self.part
    self._results.pop('unfinished', None)
    if waiting:
      self._results['unfinished'] = waiting
    files.write(self._out, json.dumps(self._results, indent=1) + '\n')
    files.write(self._out.with_suffix('.md'), table.markdown(self._results))


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

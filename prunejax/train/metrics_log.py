"""The metrics of a run: rows of metrics.jsonl, TensorBoard files, and a line on the console."""

import contextlib
import json
import math
import os
import pathlib
import tempfile
import time

from tensorboardX import SummaryWriter

from prunejax import files
from prunejax.train import console, full_disk


class Log:
  """Writes the metrics of one run.

  Args:
    folder: the work directory; None to write nothing, for all processes of a run but the first.
    title: starts each console line.
    steps: of the run.
    start: the step at which the run resumes; rows of later steps are removed.
    tensorboard: write TensorBoard files.
    say: prints a line.
    full: what has told of a full disk so far, see `full_disk.one_error`.
  """

  def __init__(
    self, folder, title: str, steps: int, *, start=0, tensorboard=True, say=print, full=()
  ):
    self.title, self.steps, self.say, self._pace, self._file = title, steps, say, None, None
    self._full = full
    if folder is None:
      return
    folder = files.path(folder)
    self._mirror = _Mirror(folder)
    here = self._mirror.here / 'metrics.jsonl'
    files.write(here, ''.join(_kept(folder / 'metrics.jsonl', start, steps)))
    self._file = open(here, 'a', encoding='utf-8')
    self._board = (
      SummaryWriter(os.fspath(self._mirror.here / 'tensorboard')) if tensorboard else None
    )

  def start(self, step):
    """Starts the clock of the rate, after the first step has compiled."""
    self._pace = console.Pace(step, self.steps)

  def write(self, step, kind, values):
    """Writes a row of numbers to the file and to TensorBoard, and prints it as a line.

    Args:
      step: the number of the step.
      kind: 'train' or 'eval'.
      values: {name: number}.
    """
    if self._file is None:
      return
    full_disk.check(
      self._full
    )  # the thread of TensorBoard may have died of it, and would not read on
    values = {name: float(v) for name, v in values.items()}
    rate = self._pace and self._pace.rate(step)
    row = {'step': step, 'kind': kind, **values, **({'steps_per_second': rate} if rate else {})}
    # NaN is not JSON; null is.
    clean = {
      k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
    }
    self._file.write(json.dumps(clean) + '\n')
    self._file.flush()
    if self._board:
      for name, value in values.items():
        self._board.add_scalar(f'{kind}/{name}', value, step)
    self._mirror.sync()
    shown = '  '.join(f'{name} {console.number(value)}' for name, value in values.items())
    pace = self._pace.words(step) if self._pace else ''
    self.say(f'{self.title}  {kind} {step}/{self.steps}  {pace}{shown}')

  def close(self):
    """Closes the files; what an object store has not yet is sent."""
    if self._file is None:
      return
    self._file.close()
    if self._board and not self._full:  # its thread may have died, and would be waited for
      self._board.close()
    self._mirror.close()


class _Mirror:
  """A local folder that is copied to an object store now and then; for a local folder, itself."""

  def __init__(self, folder):
    self.folder, self._due, self._sent = folder, 0.0, {}
    self._scratch = tempfile.TemporaryDirectory() if files.remote(folder) else None
    self.here = files.path(self._scratch.name) if self._scratch else folder

  def sync(self):
    """Sends what has grown, unless that was done a moment ago. A failed send is tried later."""
    if self._scratch and time.monotonic() >= self._due:
      began = time.monotonic()
      with contextlib.suppress(OSError):
        self._send()
      took = time.monotonic() - began
      self._due = began + took + max(15.0, 20 * took)

  def _send(self):
    for path in sorted(pathlib.Path(self.here).rglob('*')):
      if path.is_file() and self._sent.get(path) != (size := path.stat().st_size):
        files.write(self.folder / path.relative_to(self.here).as_posix(), path.read_bytes())
        self._sent[path] = size

  def close(self):
    if self._scratch:
      self._send()
      self._scratch.cleanup()


def has(folder, kind: str, step: int) -> bool:
  """Returns whether the log of a work directory holds a row.

  Args:
    folder: the work directory.
    kind: 'train' or 'eval'.
    step: the number of the step.
  """
  rows = _rows(files.path(folder) / 'metrics.jsonl')
  return any((row['kind'], row['step']) == (kind, step) for _, row in rows)


def _rows(path):
  """(line, row) of every line that is whole."""
  text = files.read(path).decode(errors='replace') if files.exists(path) else ''
  rows = [(line, _row(line)) for line in text.splitlines(keepends=True)]
  return [(line, row) for line, row in rows if row]


def _kept(path, start, steps):
  """The rows that a run that resumes at step `start` will not write again."""
  rows = _rows(path)
  again = lambda row: row['step'] > start or (row['kind'], row['step']) == ('eval', steps)
  return [line for line, row in rows if not again(row)]


def _row(line):
  """The row in a line, or None for a line that is torn or damaged."""
  try:
    row = json.loads(line) if line.endswith('}\n') else None
  except (ValueError, RecursionError):
    return None
  whole = isinstance(row, dict) and isinstance(row.get('step'), int) and 'kind' in row
  return row if whole else None

"""Lines for a person: how numbers and times are written, how fast a run is, and where a line goes."""

import sys
import time

PATIENCE = 30.0  # seconds of silence after which a run that goes on prints a line


def say(line):
  """Prints a line at once, also into a pipe."""
  print(line, flush=True, file=sys.stdout)


def silent(line):
  """Prints nothing: for the processes of a run that do not print."""


def number(value) -> str:
  """Four significant digits, no noise."""
  return f'{value:.4g}' if abs(value) < 1e4 else f'{value:.3e}'


def clock(seconds) -> str:
  """'1:02:03', '4:05'."""
  seconds = max(int(round(seconds)), 0)
  hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Silence:
  """How long nothing has been printed. `over()` is true after `PATIENCE` seconds, and starts the wait anew."""

  def __init__(self):
    self.broken()

  def broken(self):
    self._since = time.perf_counter()

  def over(self):
    if time.perf_counter() - self._since < PATIENCE:
      return False
    self.broken()
    return True


class Pace:
  """Steps a second since step `since`, at which it was made, and the time left to step `stop`."""

  def __init__(self, since, stop):
    self.since, self.stop, self._began = since, stop, time.perf_counter()

  def rate(self, step) -> float | None:
    """Steps a second up to `step`; None where no step has passed."""
    if step <= self.since:
      return None
    return (step - self.since) / max(time.perf_counter() - self._began, 1e-9)

  def words(self, step) -> str:
    """'31.2 steps/s  left 0:12  ', or '' where no step has passed."""
    rate = self.rate(step)
    return f'{rate:.1f} steps/s  left {clock((self.stop - step) / rate)}  ' if rate else ''

"""Console lines: how numbers, times and rates are written, and how a line is printed."""

import sys
import time

PATIENCE = 30.0  # seconds of silence after which a run that goes on prints a line


def say(line: str):
  """Prints a line at once, also into a pipe."""
  print(line, flush=True, file=sys.stdout)


def silent(line: str):
  """Prints nothing, for the processes of a run that do not print."""


def number(value: float) -> str:
  """Returns a number with four significant digits."""
  return f'{value:.4g}' if abs(value) < 1e4 else f'{value:.3e}'


def clock(seconds: float) -> str:
  """Returns a time as '1:02:03' or '4:05'."""
  seconds = max(int(round(seconds)), 0)
  hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


class Silence:
  """Measures how long nothing has been printed."""

  def __init__(self):
    self.broken()

  def broken(self):
    """Starts the wait anew."""
    self._since = time.perf_counter()

  def over(self) -> bool:
    """Returns whether `PATIENCE` seconds have passed, and then starts the wait anew."""
    if time.perf_counter() - self._since < PATIENCE:
      return False
    self.broken()
    return True


class Pace:
  """Measures steps a second from step `since`, at which it is made, and the time left to `stop`."""

  def __init__(self, since: int, stop: int):
    self.since, self.stop, self._began = since, stop, time.perf_counter()

  def rate(self, step: int) -> float | None:
    """Returns steps a second up to `step`; None if no step has passed."""
    if step <= self.since:
      return None
    return (step - self.since) / max(time.perf_counter() - self._began, 1e-9)

  def words(self, step: int) -> str:
    """Returns '31.2 steps/s  left 0:12  ', or '' if no step has passed."""
    rate = self.rate(step)
    return f'{rate:.1f} steps/s  left {clock((self.stop - step) / rate)}  ' if rate else ''

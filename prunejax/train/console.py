"""Lines for a person: how numbers and times are written, and where a line goes."""

import sys


def clock(seconds) -> str:
  """'1:02:03', '4:05'."""
  seconds = max(int(round(seconds)), 0)
  hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'


def number(value) -> str:
  """Four significant digits, no noise."""
  return f'{value:.4g}' if abs(value) < 1e4 else f'{value:.3e}'


def silent(line):
  """Says nothing: for the processes of a run that do not print."""


def say(line):
  """Prints a line at once, also into a pipe."""
  print(line, flush=True, file=sys.stdout)

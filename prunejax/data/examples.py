"""What a labelled task is, and what its readers return."""

import difflib
from typing import NamedTuple

import numpy as np


class Examples(NamedTuple):
  """Rows of a task: texts a [n], b [n] or None; label [n] int32 (classes) or float32 (scores)."""

  a: list[str]
  b: list[str] | None
  label: np.ndarray


class Task(NamedTuple):
  """What a task is: `classes` in label order (None: a score); `pair` when there are two texts."""

  name: str
  classes: tuple[str, ...] | None
  metrics: tuple[str, ...]
  pair: bool


def nearest(name, accepted):
  """The tail of an error: the nearest accepted name, if there is one, and the whole list."""
  close = difflib.get_close_matches(str(name), accepted, n=1, cutoff=0.5)
  return (f'did you mean {close[0]!r}? ' if close else '') + 'accepted: ' + ', '.join(accepted)

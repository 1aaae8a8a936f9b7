"""What a labelled task is, and what its readers return."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

METRICS = ('accuracy', 'f1', 'matthews', 'pearson', 'spearman')  # train/evaluate.py has them


class Examples(NamedTuple):
  """Rows of a labelled task.

  Attributes:
    a: first texts, [n].
    b: second texts, [n]; None for a task of single texts.
    label: int32 [n], numbers of classes; or float32 [n], scores.
  """

  a: list[str]
  b: list[str] | None
  label: np.ndarray


class Task(NamedTuple):
  """What a task is.

  Attributes:
    name: its name in a config, such as 'glue/sst2'.
    classes: names of the classes in the order of their numbers; None if the label is a score.
    metrics: names of its metrics, the main one first.
    pair: whether an example has two texts.
    spans: whether an answer is a span of the second text, see squad.py.
  """

  name: str
  classes: tuple[str, ...] | None
  metrics: tuple[str, ...]
  pair: bool
  spans: bool = False


def nearest(name: object, accepted: Sequence[str]) -> str:
  """Returns the end of an error message: the nearest accepted name, if any, and all of them."""
  close = difflib.get_close_matches(str(name), accepted, n=1, cutoff=0.5)
  return (f'did you mean {close[0]!r}? ' if close else '') + 'accepted: ' + ', '.join(accepted)

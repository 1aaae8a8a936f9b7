"""Labelled tasks by name: what a task is, and its examples."""

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


def names():
  """Every task name that `get` and `load` know."""
  from prunejax.data import glue, pydoc_tasks

  return (
    *(f'pydoc/{name}' for name in pydoc_tasks.TASKS),
    *(f'glue/{name}' for name in glue.TASKS),
    *(f'tfds/glue/{name}' for name in glue.TASKS),
  )


def get(name):
  """The Task called 'pydoc/order', 'glue/sst2', 'tfds/glue/sst2'...; else ValueError."""
  from prunejax.data import glue, pydoc_tasks

  if name not in names():
    raise ValueError(f'unknown task {name!r}: {nearest(name, names())}')
  source, _, rest = name.partition('/')
  if source == 'pydoc':
    return pydoc_tasks.TASKS[rest]
  row = glue.TASKS[rest.removeprefix('glue/')]
  return Task(name, row.classes, row.metrics, len(row.texts) == 2)


def load(name, split, *, root=None, cache=None):
  """Examples of one split of a task.

  `root`: the data folder of 'glue/...', or TFDS's data_dir of 'tfds/...' (None: its default).
  `cache`: the folder where 'pydoc/...' keeps its corpus. Splits: 'train', 'validation'; also
  'test' of pydoc and 'validation_mismatched' of MNLI, whose 'validation' is the matched one.
  """
  get(name)
  source, _, rest = name.partition('/')
  if source == 'pydoc':
    from prunejax.data import pydoc_tasks

    return pydoc_tasks.load(rest, split, cache)
  if source == 'glue':
    from prunejax.data import glue

    if root is None:
      raise ValueError(f'task {name!r} reads local files: set the folder that holds glue/ (--config.data.root=FOLDER)')
    return glue.read(root, rest, split)
  from prunejax.data import tfds

  return tfds.read_task(rest.removeprefix('glue/'), root, split)

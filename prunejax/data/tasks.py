"""Labelled tasks by name: pydoc's, GLUE's from local files, GLUE's from TFDS."""

from prunejax.data import glue, pydoc_tasks, tfds
from prunejax.data.examples import Task, nearest


def names():
  """Every task name that `get` and `load` know."""
  return (
    *(f'pydoc/{name}' for name in pydoc_tasks.TASKS),
    *(f'glue/{name}' for name in glue.TASKS),
    *(f'tfds/glue/{name}' for name in glue.TASKS),
  )


def get(name):
  """The Task called 'pydoc/order', 'glue/sst2', 'tfds/glue/sst2'...; else ValueError."""
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
    return pydoc_tasks.load(rest, split, cache)
  if source == 'glue':
    if root is None:
      raise ValueError(
        f'task {name!r} reads local files: set the folder that holds glue/ (--config.data.root=FOLDER)'
      )
    return glue.read(root, rest, split)
  return tfds.read_task(rest.removeprefix('glue/'), root, split)

"""Labelled tasks by name: pydoc's, those of the packaged text, GLUE's from files or from TFDS."""

import os

from prunejax.data import content, glue, labelled, prose, pydoc, pydoc_tasks, squad, tfds
from prunejax.data.examples import Examples, Task, nearest


def names() -> tuple[str, ...]:
  """Returns every task name that `get` and `load` accept."""
  return (
    *(f'pydoc/{name}' for name in pydoc_tasks.TASKS),
    *(f'prose/{name}' for name in pydoc_tasks.TASKS),
    *(f'glue/{name}' for name in glue.TASKS),
    *(f'tfds/glue/{name}' for name in glue.TASKS),
    squad.PREFIX,
  )


def get(name: str) -> Task:
  """Returns the task called 'pydoc/order', 'glue/sst2', 'tfds/glue/sst2' and so on.

  "labelled('train.tsv', 'dev.tsv', ...)" is a task in files of one's own, see labelled.py; so is
  "squad('train.json', 'dev.json')", see squad.py.

  Raises:
    ValueError: an unknown name, with the nearest one.
  """
  if labelled.is_name(name):
    return labelled.task_of(name)
  if squad.is_name(name):
    return squad.task_of(name)
  if name not in names():
    known = (
      *names(),
      "labelled('FILE.tsv', 'FILE.tsv', ...)",
      "squad('FILE.json', 'FILE.json')",
    )
    raise ValueError(f'unknown task {name!r}: {nearest(name, known)}')
  source, _, rest = name.partition('/')
  if source in ('pydoc', 'prose'):
    return pydoc_tasks.TASKS[rest]._replace(name=name)
  row = glue.TASKS[rest.removeprefix('glue/')]
  return Task(name, row.classes, row.metrics, len(row.texts) == 2)


def other_splits(name: str, root: str | os.PathLike | None = None) -> dict[str, str]:
  """Returns {prefix of a metric: split} of the splits that are scored beside 'validation'.

  MNLI has a mismatched dev set; where its file is missing, the matched one is scored alone.
  """
  if name == 'tfds/glue/mnli':
    return {'mismatched': 'validation_mismatched'}
  if name != 'glue/mnli' or root is None:
    return {}
  try:
    glue.path_of(root, 'mnli', 'validation_mismatched')
  except FileNotFoundError:
    return {}
  return {'mismatched': 'validation_mismatched'}


def load(
  name: str,
  split: str,
  *,
  root: str | os.PathLike | None = None,
  cache: str | os.PathLike | None = None,
) -> Examples:
  """Reads one split of a task.

  Args:
    name: one of `names`.
    split: 'train' or 'validation'; pydoc and prose also have 'test', and MNLI
      'validation_mismatched' beside its 'validation', which is the matched one.
    root: the folder that holds glue/, for 'glue/...'; TFDS's data_dir, for 'tfds/...', or None for
      TFDS's default.
    cache: folder of the cached corpus, for 'pydoc/...'.

  Returns:
    The examples; of a task of spans a list of `squad.Question`s.

  Raises:
    ValueError: an unknown task or split; 'glue/...' without a root; damaged files.
    FileNotFoundError: files that are missing.
  """
  get(name)
  if labelled.is_name(name):
    return labelled.read(name, split, root)
  if squad.is_name(name):
    return squad.read(name, split, root)
  source, _, rest = name.partition('/')
  if source in ('pydoc', 'prose'):
    return pydoc_tasks.load(rest, split, cache, packaged=source == 'prose')
  if source == 'glue':
    if root is None:
      raise ValueError(_without_root(name))
    return glue.read(root, rest, split)
  return tfds.read_task(rest.removeprefix('glue/'), root, split)


def fingerprint(
  name: str,
  *,
  root: str | os.PathLike | None = None,
  cache: str | os.PathLike | None = None,
) -> str:
  """Returns 12 hex digits that change with the content of the splits that a run reads.

  The arguments are those of `load`.

  Raises:
    ValueError: an unknown task.
    FileNotFoundError: files that are missing; 'glue/...' without a root.
  """
  get(name)
  source, _, rest = name.partition('/')
  if labelled.is_name(name):
    paths = [labelled.path_of(name, split, root) for split in ('train', 'validation')]
  elif squad.is_name(name):
    paths = [squad.path_of(name, split, root) for split in ('train', 'validation')]
  elif source == 'pydoc':
    return content.of(pydoc.fingerprint(cache))
  elif source == 'prose':
    return content.of(prose.SHA256)
  elif source == 'tfds':
    return content.of(tfds.fingerprint(rest, root))
  elif root is None:
    raise FileNotFoundError(_without_root(name))
  else:
    splits = ('train', 'validation', *other_splits(name, root).values())
    paths = [glue.path_of(root, rest, split) for split in splits]
  return content.of([content.of_file(path) for path in paths])


def _without_root(name):
  return (
    f'task {name!r} reads local files: name the folder that holds glue/'
    ' (--config.data.root=FOLDER, of evaluate --data=FOLDER)'
  )

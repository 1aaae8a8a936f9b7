"""The GLUE tasks (Wang et al. 2019, arXiv:1804.07461): one table row each, read from TSV files."""

import os
import pathlib
import warnings
from typing import NamedTuple

import numpy as np

from prunejax.data.examples import Examples, nearest

MAX_BYTES = 2**31  # of one table; GLUE's largest has 80 million


class Row(NamedTuple):
  """One task: its files, its columns, its classes and its metrics.

  A column is a name in the header of the file. In a file without a header it is a number, from 0.

  Attributes:
    folder: the folder of the task below glue/.
    texts: the columns of the one or two texts.
    classes: names of the classes in the order of their numbers, as in TFDS and Hugging Face; None
      if the label is a score from 0 to 5.
    metrics: names of the metrics, the main one first.
    features: TFDS's names of the texts.
    label: the column of the label.
    digits: whether the files write labels as numbers, and not as names of classes.
    columns: number of columns; set if the files have no header.
    ragged: whether the published file has a few incomplete rows, which are left out by convention.
    files: (split, file name) pairs.
  """

  folder: str
  texts: tuple[str | int, ...]
  classes: tuple[str, ...] | None
  metrics: tuple[str, ...]
  features: tuple[str, ...]
  label: str | int = 'label'
  digits: bool = True
  columns: int | None = None
  ragged: bool = False
  files: tuple[tuple[str, str], ...] = (('train', 'train.tsv'), ('validation', 'dev.tsv'))


class Submission(NamedTuple):
  """One test set of a task: its file, and the file of predictions that the benchmark expects.

  The labels of test sets are not public.

  Attributes:
    source: the file, whose first column numbers the rows.
    name: the file of predictions.
  """

  source: str
  name: str


_NLI = ('entailment', 'not_entailment')
_SENTENCES = ('sentence1', 'sentence2')
_BY_GENRE = (
  ('train', 'train.tsv'),
  ('validation', 'dev_matched.tsv'),
  ('validation_matched', 'dev_matched.tsv'),
  ('validation_mismatched', 'dev_mismatched.tsv'),
)
TASKS = {
  'cola': Row(
    'CoLA',
    (3,),
    ('unacceptable', 'acceptable'),
    ('matthews', 'accuracy'),
    ('sentence',),
    label=1,
    columns=4,
  ),
  'sst2': Row('SST-2', ('sentence',), ('negative', 'positive'), ('accuracy',), ('sentence',)),
  'mrpc': Row(
    'MRPC',
    ('#1 String', '#2 String'),
    ('not_equivalent', 'equivalent'),
    ('accuracy', 'f1'),
    _SENTENCES,
    label='Quality',
  ),
  'stsb': Row('STS-B', _SENTENCES, None, ('pearson', 'spearman'), _SENTENCES, label='score'),
  'qqp': Row(
    'QQP',
    ('question1', 'question2'),
    ('not_duplicate', 'duplicate'),
    ('accuracy', 'f1'),
    ('question1', 'question2'),
    label='is_duplicate',
    ragged=True,
  ),
  'mnli': Row(
    'MNLI',
    _SENTENCES,
    ('entailment', 'neutral', 'contradiction'),
    ('accuracy',),
    ('premise', 'hypothesis'),
    label='gold_label',
    digits=False,
    files=_BY_GENRE,
  ),
  'qnli': Row(
    'QNLI', ('question', 'sentence'), _NLI, ('accuracy',), ('question', 'sentence'), digits=False
  ),
  'rte': Row('RTE', _SENTENCES, _NLI, ('accuracy',), _SENTENCES, digits=False),
  'wnli': Row('WNLI', _SENTENCES, ('not_entailment', 'entailment'), ('accuracy',), _SENTENCES),
}


_SPLIT_TESTS = (
  Submission('test_matched.tsv', 'MNLI-m.tsv'),
  Submission('test_mismatched.tsv', 'MNLI-mm.tsv'),
)


def submissions(task: str) -> tuple[Submission, ...]:
  """Returns the test sets of a task. Raises ValueError for an unknown task."""
  folder = row(task).folder
  return _SPLIT_TESTS if task == 'mnli' else (Submission('test.tsv', f'{folder}.tsv'),)


def spelled(task: str) -> tuple[str, ...] | None:
  """Returns the classes as a submission spells them, in the order of their numbers.

  They are names for MNLI, QNLI and RTE, numbers for the others, and None for the scores of STS-B.
  """
  task_row = row(task)
  if task_row.classes is None or not task_row.digits:
    return task_row.classes
  return tuple(map(str, range(len(task_row.classes))))


def read_test(
  root: str | os.PathLike, task: str, source: str
) -> tuple[list[str], list[str], list[str] | None]:
  """Reads a test set.

  Args:
    root: the folder that holds glue/, or glue/ itself.
    task: a name in `TASKS`.
    source: the file of a `Submission`. Unlike the other files of CoLA, its test file has a header.

  Returns:
    The numbers of the rows, the first texts, and the second texts or None.

  Raises:
    FileNotFoundError: a folder or file that is missing.
    ValueError: an unknown task; a damaged file, with its line.
  """
  task_row = row(task)
  folder = path_of(root, task, 'train', file=False)
  path = folder / source
  if not path.is_file():
    raise FileNotFoundError(f'GLUE task {task!r}: no file {path}, its test set')
  if path.stat().st_size > MAX_BYTES:
    raise ValueError(f'{path}: {path.stat().st_size} bytes; expected at most {MAX_BYTES}')
  try:
    lines = path.read_bytes().decode('utf-8-sig').rstrip('\r\n').split('\n')
  except UnicodeDecodeError as e:
    raise ValueError(f'{path}: not UTF-8 text (byte {e.start})') from None
  header, *rows = (line.removesuffix('\r').split('\t') for line in lines)
  columns = [c if isinstance(c, str) else task_row.features[0] for c in task_row.texts]
  missing = [column for column in columns if column not in header]
  if missing or not rows:
    raise ValueError(f'{path}: no column {missing[:1]} or no rows; the header is {header}')
  for line, fields in enumerate(rows, 2):
    if len(fields) != len(header):
      raise ValueError(f'{path}, line {line}: {len(fields)} columns, expected {len(header)}')
  a, *b = ([fields[header.index(column)].strip() for fields in rows] for column in columns)
  return [fields[0] for fields in rows], a, b[0] if b else None


def row(task: str) -> Row:
  """Returns the row of a task. Raises ValueError, with the nearest name, for an unknown task."""
  if task not in TASKS:
    raise ValueError(f'unknown GLUE task {task!r}: {nearest(task, tuple(TASKS))}')
  return TASKS[task]


def path_of(root: str | os.PathLike, task: str, split: str, *, file: bool = True) -> pathlib.Path:
  """Returns the file of one split.

  Args:
    root: the folder that holds glue/, or glue/ itself.
    task: a name in `TASKS`.
    split: a split of the task.
    file: False for the folder around it.

  Raises:
    ValueError: an unknown task or split.
    FileNotFoundError: a folder or file that is missing.
  """
  task_row = row(task)
  files = dict(task_row.files)
  if split not in files:
    raise ValueError(f'GLUE task {task!r} has no split {split!r}: {nearest(split, tuple(files))}')
  root = pathlib.Path(root).expanduser()
  folders = (root / 'glue' / task_row.folder, root / task_row.folder)
  folder = next((f for f in folders if f.is_dir()), None)
  if folder is None:
    raise FileNotFoundError(
      f'GLUE task {task!r}: neither {folders[0]} nor {folders[1]} is a folder'
      f' (data.root={str(root)!r})'
    )
  if not file:
    return folder
  path = folder / files[split]
  if not path.is_file():
    raise FileNotFoundError(
      f'GLUE task {task!r}, split {split!r}: no file {path}; the folder holds '
      f'{sorted(p.name for p in folder.iterdir()) or "nothing"}'
    )
  return path


def read(root: str | os.PathLike, task: str, split: str) -> Examples:
  """Reads one split from its TSV file.

  Args:
    root: the folder that holds glue/, or glue/ itself.
    task: a name in `TASKS`.
    split: a split of the task.

  Returns:
    Examples with label int32 [n] (numbers of classes) or float32 [n] (scores).

  Raises:
    FileNotFoundError: a folder or file that is missing.
    ValueError: an unknown task or split; a damaged file, with its line.
  """
  task_row, path = row(task), path_of(root, task, split)
  try:
    if path.stat().st_size > MAX_BYTES:
      raise ValueError(f'{path}: {path.stat().st_size} bytes; expected at most {MAX_BYTES}')
    lines = path.read_bytes().decode('utf-8-sig').rstrip('\r\n').split('\n')
  except UnicodeDecodeError as e:
    raise ValueError(f'{path}: not UTF-8 text (byte {e.start})') from None
  # Quotes are ordinary characters here: a field is all that stands between two tabs.
  rows = [line.removesuffix('\r').split('\t') for line in lines]
  first_line, header, width = 1, None, task_row.columns
  if width is None:
    header, width, rows, first_line = rows[0], len(rows[0]), rows[1:], 2
    missing = [c for c in (*task_row.texts, task_row.label) if c not in header]
    if missing and lines != ['']:
      raise ValueError(f'{path}, line 1: no column {missing[0]!r} in the header; found {header}')
  if not rows or lines == ['']:
    raise ValueError(f'{path}: empty, no examples of GLUE task {task!r}')
  texts = [header.index(c) if header else c for c in task_row.texts]
  label = header.index(task_row.label) if header else task_row.label

  numbers = range(first_line, first_line + len(rows))
  broken = [n for n, fields in zip(numbers, rows, strict=True) if len(fields) != width]
  if broken and not (task_row.ragged and len(broken) <= max(1, len(rows) // 1000)):
    raise ValueError(
      f'{path}, line {broken[0]}: {len(rows[broken[0] - first_line])} columns, expected {width}'
      + (f' ({header})' if header else '')
    )
  if broken:
    warnings.warn(
      f'{path}: {len(broken)} incomplete rows left out, the first at line {broken[0]}',
      stacklevel=2,
    )
  complete = [(n, fields) for n, fields in zip(numbers, rows, strict=True) if len(fields) == width]
  labels = _labels(task_row, path, [(n, fields[label]) for n, fields in complete])
  a, *b = ([fields[c].strip() for _, fields in complete] for c in texts)
  return Examples(a, b[0] if b else None, labels)


def _labels(task_row, path, cells):
  """Numbers of the labels in (line, text) `cells`; a label outside the task raises ValueError."""
  if task_row.classes is None:
    scores = np.full(len(cells), np.nan, np.float32)
    for i, (line, text) in enumerate(cells):
      try:
        scores[i] = float(text)
      except ValueError:
        pass
      if not 0 <= scores[i] <= 5:
        raise ValueError(f'{path}, line {line}: score {text!r}; accepted: a number from 0 to 5')
    return scores
  classes = task_row.classes
  accepted = [str(i) for i in range(len(classes))] if task_row.digits else list(classes)
  number = {text: i for i, text in enumerate(accepted)}
  for line, text in cells:
    if text not in number:
      raise ValueError(f'{path}, line {line}: label {text!r}; accepted: {", ".join(accepted)}')
  return np.array([number[text] for _, text in cells], np.int32)

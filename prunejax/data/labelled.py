"""A labelled .tsv or .csv file of one's own as a task, whose name says its files and columns.

The name is a call of literals, such as

    labelled('train.tsv', 'dev.tsv', texts=('question', 'answer'), label='y', classes=('no', 'yes'))

Files are below the root of the data and have a header.
"""

import ast
import csv
import io
import math
import os
import pathlib
from typing import NamedTuple

import numpy as np

from prunejax.data.examples import METRICS, Examples, Task, nearest

MAX_BYTES = 2**31  # of one file
MAX_NAME = 4096  # characters of a name
PREFIX = 'labelled('
SPLITS = ('train', 'validation', 'test')


class Labelled(NamedTuple):
  """A task in files of one's own.

  Attributes:
    train: the file of the training set, .tsv or .csv.
    validation: the file of the held-out set.
    test: the file of a set without labels, for predictions; '' for none.
    texts: columns of the one or two texts.
    label: column of the label.
    classes: names of the classes, as the files have them, in the order of their numbers; () if the
      label is a number, for a regression.
    metrics: names of metrics, the main one first; () for accuracy, or pearson of a regression.
  """

  train: str
  validation: str
  test: str = ''
  texts: tuple[str, ...] = ('sentence',)
  label: str = 'label'
  classes: tuple[str, ...] = ()
  metrics: tuple[str, ...] = ()


def is_name(name: str) -> bool:
  """Returns whether the name of a task is a call of `labelled`."""
  return name.startswith(PREFIX)


def parse(name: str) -> Labelled:
  """Reads the name of a task.

  Raises:
    ValueError: no such call, or arguments that do not fit; the message says what is accepted.
  """
  shape = "labelled('train.tsv', 'dev.tsv', texts=('sentence',), label='label', classes=('a', 'b'))"
  try:
    if len(name) > MAX_NAME:
      raise ValueError(f'more than {MAX_NAME} characters')
    node = ast.parse(name, mode='eval').body
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
      raise ValueError('no call')
    values = [ast.literal_eval(value) for value in node.args]
    named = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
    for key in named:
      if key not in Labelled._fields:
        raise ValueError(f'no argument {key!r}: {nearest(key, Labelled._fields)}')
    task = Labelled(*values, **named)
  except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
    raise ValueError(f'task {name[:200]!r}: {error}; expected {shape}') from None
  words = lambda value: isinstance(value, tuple) and all(isinstance(x, str) and x for x in value)
  for key in ('train', 'validation', 'test', 'label'):
    if not isinstance(getattr(task, key), str) or not (getattr(task, key) or key == 'test'):
      raise ValueError(f'task labelled: {key}={getattr(task, key)!r}: expected text')
  for key in ('texts', 'classes', 'metrics'):
    value = getattr(task, key)
    if not words(value) or len(set(value)) < len(value):
      raise ValueError(
        f"task labelled: {key}={value!r}: expected a tuple of different texts, such as ('a', 'b')"
      )
  if len(task.texts) not in (1, 2):
    raise ValueError(f'task labelled: texts={task.texts!r}: expected one or two columns')
  if len(task.classes) == 1:
    raise ValueError(f'task labelled: classes={task.classes!r}: expected two or more, or ()')
  return task._replace(metrics=_metrics(task))


def _metrics(task):
  accepted = ('pearson', 'spearman') if not task.classes else ('accuracy', 'f1', 'matthews')
  for metric in task.metrics:
    if metric not in METRICS or metric not in accepted:
      raise ValueError(f'task labelled: metrics={task.metrics!r}: {nearest(metric, accepted)}')
    if metric == 'f1' and len(task.classes) != 2:
      raise ValueError(
        'task labelled: f1 is of the second of two classes; take accuracy or matthews'
      )
  return task.metrics or accepted[:1]


def task_of(name: str) -> Task:
  """Returns the task of a name. Raises ValueError as `parse` does."""
  task = parse(name)
  return Task(name, task.classes or None, task.metrics, len(task.texts) == 2)


def path_of(name: str, split: str, root: str | os.PathLike | None) -> pathlib.Path:
  """Returns the file of one split.

  Raises:
    ValueError: an unknown split; a file that is not below the root; another suffix.
    FileNotFoundError: a file that is missing.
  """
  task = parse(name)
  if split not in SPLITS:
    raise ValueError(f'task labelled has no split {split!r}: {nearest(split, SPLITS)}')
  file = getattr(task, split)
  if not file:
    raise ValueError(f"task labelled has no {split} file: name it, {split}='FILE.tsv'")
  folder = pathlib.Path(root or '.').expanduser()
  path = folder / file
  if not path.resolve().is_relative_to(folder.resolve()):
    raise ValueError(f'task labelled: {split}={file!r} is not below {str(folder)!r}')
  if path.suffix.lower() not in ('.tsv', '.csv'):
    raise ValueError(f'task labelled: {split}={file!r}: expected a .tsv or .csv file')
  if not path.is_file():
    raise FileNotFoundError(f'task labelled: no file {path} (looked below root {str(folder)!r})')
  return path


def read(name: str, split: str, root: str | os.PathLike | None) -> Examples:
  """Reads one split. Labels of the split 'test' are 0 where the file has none.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: an unknown split; a damaged file, with its line.
  """
  task, path = parse(name), path_of(name, split, root)
  header, rows = _table(path)
  labelled = split != 'test'
  for column in (*task.texts, *([task.label] if labelled else [])):
    if column not in header:
      raise ValueError(f'{path}, line 1: no column {column!r} in the header; found {header}')
    if header.count(column) > 1:
      raise ValueError(f'{path}, line 1: {header.count(column)} columns are named {column!r}')
  a, *b = ([row[header.index(column)].strip() for _, row in rows] for column in task.texts)
  if labelled:
    cells = [(line, row[header.index(task.label)].strip()) for line, row in rows]
    label = _numbers(task, path, cells)
  else:
    label = np.zeros(len(rows), np.int32 if task.classes else np.float32)
  return Examples(a, b[0] if b else None, label)


def _table(path):
  """The header, and (line, fields) of every row. Raises ValueError with the line of damage."""
  if path.stat().st_size > MAX_BYTES:
    raise ValueError(f'{path}: {path.stat().st_size} bytes; expected at most {MAX_BYTES}')
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path}: not UTF-8 text (byte {error.start})') from None
  if path.suffix.lower() == '.csv':
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    try:
      rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
      raise ValueError(f'{path}, line {reader.line_num}: {error}') from None
  else:  # a field is all that stands between two tabs; quotes are ordinary characters
    lines = enumerate(text.rstrip('\r\n').split('\n'), 1)
    rows = [(n, line.removesuffix('\r').split('\t')) for n, line in lines if line.strip('\r')]
  if len(rows) < 2:
    raise ValueError(f'{path}: expected a header and rows, found {len(rows)} lines')
  (_, header), *rows = rows
  for line, row in rows:
    if len(row) != len(header):
      raise ValueError(
        f'{path}, line {line}: {len(row)} columns, expected {len(header)} ({header})'
      )
  return header, rows


def _numbers(task, path, cells):
  """Numbers of the labels in (line, text) cells."""
  if not task.classes:
    scores = np.empty(len(cells), np.float32)
    for i, (line, text) in enumerate(cells):
      try:
        scores[i] = float(text)
      except ValueError:
        scores[i] = math.nan
      if not math.isfinite(scores[i]):
        raise ValueError(f'{path}, line {line}: label {text[:60]!r}; expected a finite number')
    return scores
  number = {name: i for i, name in enumerate(task.classes)}
  for line, text in cells:
    if text not in number:
      raise ValueError(
        f'{path}, line {line}: label {text[:60]!r}; accepted: {", ".join(task.classes)}'
      )
  return np.array([number[text] for _, text in cells], np.int32)

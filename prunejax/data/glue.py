"""The GLUE tasks (Wang et al. 2019, arXiv:1804.07461) as rows of one table, read from TSV folders."""

import pathlib
import warnings
from typing import NamedTuple

import numpy as np

from prunejax.data.examples import Examples, nearest

MOST = 2**31  # bytes of a table; GLUE's largest has 80 million


class Row(NamedTuple):
  """One task: its files, the columns that hold texts and label, its classes, its metrics.

  A column is a name in the file's header, or a number (from 0) in a file without one, which
  then has `columns` of them. `classes` are in the order of their numbers (as in TFDS and
  Hugging Face); None: the label is a score from 0 to 5.
  """

  folder: str
  texts: tuple[str | int, ...]
  classes: tuple[str, ...] | None
  metrics: tuple[str, ...]
  features: tuple[str, ...]  # TFDS's names of the same texts
  label: str | int = 'label'
  digits: bool = True  # the files say 0, 1 and not the classes' names
  columns: int | None = None  # set where the files have no header
  ragged: bool = False  # the published file has a few rows cut short, which everybody leaves out
  files: tuple[tuple[str, str], ...] = (('train', 'train.tsv'), ('validation', 'dev.tsv'))


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


def row(task):
  """The table's row of a task; ValueError names the nearest task for any other name."""
  if task not in TASKS:
    raise ValueError(f'unknown GLUE task {task!r}: {nearest(task, tuple(TASKS))}')
  return TASKS[task]


def path_of(root, task, split):
  """The file of one split. `root` is the folder that holds glue/, or that folder itself."""
  this = row(task)
  files = dict(this.files)
  if split not in files:
    raise ValueError(f'GLUE task {task!r} has no split {split!r}: {nearest(split, tuple(files))}')
  root = pathlib.Path(root).expanduser()
  folders = (root / 'glue' / this.folder, root / this.folder)
  folder = next((f for f in folders if f.is_dir()), None)
  if folder is None:
    raise FileNotFoundError(
      f'GLUE task {task!r}: no folder {folders[0]} and none {folders[1]} (looked below root {str(root)!r})'
    )
  path = folder / files[split]
  if not path.is_file():
    raise FileNotFoundError(
      f'GLUE task {task!r}, split {split!r}: no file {path}; the folder holds '
      f'{sorted(p.name for p in folder.iterdir()) or "nothing"}'
    )
  return path


def read(root, task, split):
  """Examples of one split: label int32 [n] (class numbers) or float32 [n] (scores).

  Raises FileNotFoundError for a missing folder or file, ValueError (file, line, what was found
  and expected) for what is wrong in it.
  """
  this, path = row(task), path_of(root, task, split)
  try:
    if path.stat().st_size > MOST:
      raise ValueError(f'{path}: {path.stat().st_size} bytes; expected at most {MOST}')
    lines = path.read_bytes().decode('utf-8-sig').rstrip('\r\n').split('\n')
  except UnicodeDecodeError as e:
    raise ValueError(f'{path}: not UTF-8 text (byte {e.start})') from None
  # Quotes are letters here: a field is whatever stands between two tabs.
  rows = [line.removesuffix('\r').split('\t') for line in lines]
  first, names, width = 1, None, this.columns
  if width is None:
    names, width, rows, first = rows[0], len(rows[0]), rows[1:], 2
    lacking = [c for c in (*this.texts, this.label) if c not in names]
    if lacking and lines != ['']:
      raise ValueError(f'{path}, line 1: no column {lacking[0]!r} in the header; found {names}')
  if not rows or lines == ['']:
    raise ValueError(f'{path}: empty, no examples of GLUE task {task!r}')
  texts = [names.index(c) if names else c for c in this.texts]
  label = names.index(this.label) if names else this.label

  numbers = range(first, first + len(rows))
  broken = [n for n, fields in zip(numbers, rows, strict=True) if len(fields) != width]
  if broken and not (this.ragged and len(broken) <= max(1, len(rows) // 1000)):
    raise ValueError(
      f'{path}, line {broken[0]}: {len(rows[broken[0] - first])} columns, expected {width}'
      + (f' ({names})' if names else '')
    )
  if broken:
    warnings.warn(
      f'{path}: {len(broken)} cut rows left out, the first at line {broken[0]}', stacklevel=2
    )
  kept = [(n, fields) for n, fields in zip(numbers, rows, strict=True) if len(fields) == width]
  labels = _labels(this, path, [(n, fields[label]) for n, fields in kept])
  a, *b = ([fields[c].strip() for _, fields in kept] for c in texts)
  return Examples(a, b[0] if b else None, labels)


def _labels(this, path, written):
  """Numbers for what the label column says; one outside the task is an error with its line."""
  if this.classes is None:
    scores = np.full(len(written), np.nan, np.float32)
    for i, (line, text) in enumerate(written):
      try:
        scores[i] = float(text)
      except ValueError:
        pass
      if not 0 <= scores[i] <= 5:
        raise ValueError(f'{path}, line {line}: score {text!r}; accepted: a number from 0 to 5')
    return scores
  accepted = [str(i) for i in range(len(this.classes))] if this.digits else list(this.classes)
  number = {text: i for i, text in enumerate(accepted)}
  for line, text in written:
    if text not in number:
      raise ValueError(f'{path}, line {line}: label {text!r}; accepted: {", ".join(accepted)}')
  return np.array([number[text] for _, text in written], np.int32)

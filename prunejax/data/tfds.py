"""Wikipedia, LM1B and GLUE through tensorflow_datasets, without TensorFlow.

Only datasets stored as array_record can be read.
"""

import importlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from prunejax.data import glue
from prunejax.data.examples import Examples, nearest

# A builder registers when its module is imported. Without TensorFlow no other code imports it.
_MODULES = {
  'wikipedia': 'tensorflow_datasets.text.wikipedia',
  'lm1b': 'tensorflow_datasets.text.lm1b',
  'glue': 'tensorflow_datasets.text.glue',
}
CORPORA = ('wikipedia', 'lm1b')
_RECORDS_AT_ONCE = 1024


def _builder(name, data_dir):
  """A builder of prepared data: 'wikipedia', 'wikipedia/20230601.en', 'lm1b' or 'glue/sst2'."""
  base = name.partition('/')[0]
  if base not in _MODULES:
    raise ValueError(f'unknown TFDS dataset {name!r}: {nearest(base, tuple(_MODULES))}')
  try:
    tensorflow_datasets = importlib.import_module('tensorflow_datasets')
    importlib.import_module(_MODULES[base])
  except ImportError as e:
    raise ImportError(
      f"TFDS dataset {name!r}: {e}; install it with: python -m pip install 'prunejax[train]'"
    ) from e
  place = (
    f'data_dir={str(data_dir)!r}' if data_dir else 'the default data_dir (~/tensorflow_datasets)'
  )
  edition = 'wikipedia/20230601.en' if name == 'wikipedia' else name
  prepare = (
    f'prepare it once, on a machine with a network: python -c "import {_MODULES[base]}, '
    f'tensorflow_datasets as t; '
    f"t.builder('{edition}', data_dir={str(data_dir) if data_dir else None!r}, "
    "file_format='array_record')"
    f'.download_and_prepare()"'
  )
  try:
    builder = tensorflow_datasets.builder(name, data_dir=data_dir or None)
  except (tensorflow_datasets.core.DatasetNotFoundError, ValueError) as e:
    raise ValueError(f'TFDS has no dataset {name!r}: {str(e).splitlines()[0]}') from None
  if not builder.info.splits:
    raise FileNotFoundError(f'TFDS dataset {name!r} is not prepared in {place}; {prepare}')
  file_format = builder.info.file_format
  file_format = getattr(file_format, 'value', file_format)
  if file_format != 'array_record':
    raise ValueError(
      f'TFDS dataset {name!r} in {place} is stored as {file_format}, '
      f'which needs TensorFlow or loses rows; {prepare}'
    )
  return builder


def source(name: str, data_dir: str | os.PathLike | None, split: str) -> Any:
  """Opens one split for random access.

  Args:
    name: 'wikipedia', 'wikipedia/20230601.en', 'lm1b', 'glue/sst2' and so on.
    data_dir: the folder of TFDS; None for its default.
    split: a split, or a slice of one such as 'train[:10%]'.

  Returns:
    A sequence of records: dicts in which a text is bytes.

  Raises:
    ImportError: tensorflow_datasets is not installed.
    FileNotFoundError: a dataset that is not prepared, with the command that prepares it.
    ValueError: an unknown dataset or split; files in another format, or fewer than they should be.
  """
  builder = _builder(name, data_dir)
  from array_record.python import array_record_module  # comes with tensorflow_datasets

  splits = builder.info.splits
  try:
    splits[split]
  except (KeyError, ValueError):
    raise ValueError(
      f'TFDS dataset {name!r} has no split {split!r}: {nearest(split, tuple(splits))}'
    ) from None
  for part in set(re.findall(r'\w+', split)) & set(splits):
    # A data source trusts the count in dataset_info; the files may hold fewer records.
    stored = sum(
      array_record_module.ArrayRecordReader(str(path)).num_records()
      for path in splits[part].filepaths
    )
    if stored != splits[part].num_examples:
      raise ValueError(
        f'TFDS dataset {name!r}, split {part!r}: {stored} records on disk, '
        f'dataset_info says {splits[part].num_examples}; prepare the dataset again'
      )
  return builder.as_data_source(split=split)


def fingerprint(name: str, data_dir: str | os.PathLike | None) -> list:
  """Returns what identifies prepared data: its description, and the names and sizes of its files.

  Args:
    name: as in `source`.
    data_dir: the folder of TFDS; None for its default.
  """
  folder = pathlib.Path(_builder(name, data_dir).data_path)
  description = (folder / 'dataset_info.json').read_text(encoding='utf-8')
  return [description, sorted([path.name, path.stat().st_size] for path in folder.iterdir())]


def _text(value):
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)


def _records(records):
  for first in range(0, len(records), _RECORDS_AT_ONCE):
    last = min(first + _RECORDS_AT_ONCE, len(records))
    yield from records.__getitems__(range(first, last))


def documents(
  name: str, data_dir: str | os.PathLike | None = None, split: str = 'train'
) -> Iterator[str]:
  """Returns an iterator over the texts of a corpus, in the order of its files.

  Args:
    name: 'wikipedia', with or without a TFDS config such as '/20230601.en', or 'lm1b'.
    data_dir: the folder of TFDS; None for its default.
    split: a split, or a slice of one.

  Raises:
    ValueError: another dataset; see also `source`.
  """
  if name.partition('/')[0] not in CORPORA:
    raise ValueError(
      f'TFDS dataset {name!r} is not a corpus: {nearest(name.partition("/")[0], CORPORA)}'
    )
  # Opened here, so that a missing dataset is an error of this call and not of the first text.
  records = source(name, data_dir, split)
  return (_text(record['text']) for record in _records(records))


def read_task(
  task: str, data_dir: str | os.PathLike | None = None, split: str = 'train'
) -> Examples:
  """Reads one split of a GLUE task. MNLI's 'validation' is the matched one, as in local files.

  Args:
    task: a name in `glue.TASKS`.
    data_dir: the folder of TFDS; None for its default.
    split: a split of the task.

  Returns:
    The examples.

  Raises:
    ValueError: an unknown task or split; a label outside the task; see also `source`.
  """
  row = glue.row(task)
  accepted = tuple(s for s, _ in row.files)
  if split not in accepted:
    raise ValueError(f'GLUE task {task!r} has no split {split!r}: {nearest(split, accepted)}')
  stored = 'validation_matched' if (task, split) == ('mnli', 'validation') else split
  rows = list(_records(source(f'glue/{task}', data_dir, stored)))
  a, *b = ([_text(r[feature]) for r in rows] for feature in row.features)
  label = np.array([r['label'] for r in rows], np.float32 if row.classes is None else np.int32)
  if row.classes and len(label) and not 0 <= label.min() <= label.max() < len(row.classes):
    raise ValueError(
      f'TFDS glue/{task}, split {split!r}: labels from {label.min()} to {label.max()}; '
      f'accepted: 0 to {len(row.classes) - 1} ({", ".join(row.classes)})'
    )
  return Examples(a, b[0] if b else None, label)

"""Wikipedia, LM1B and GLUE through tensorflow_datasets without TensorFlow: array_record only."""

import importlib
import re

import numpy as np

from prunejax.data import glue
from prunejax.data.examples import Examples, nearest

# Builders register when their module is imported; without TensorFlow nobody else imports them.
_MODULES = {
  'wikipedia': 'tensorflow_datasets.text.wikipedia',
  'lm1b': 'tensorflow_datasets.text.lm1b',
  'glue': 'tensorflow_datasets.text.glue',
}
CORPORA = ('wikipedia', 'lm1b')
_AT_ONCE = 1024


def _builder(name, data_dir):
  """A prepared builder for 'wikipedia', 'wikipedia/20230601.en', 'lm1b' or 'glue/sst2'."""
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
  shown = (
    f'data_dir={str(data_dir)!r}' if data_dir else 'the default data_dir (~/tensorflow_datasets)'
  )
  edition = 'wikipedia/20230601.en' if name == 'wikipedia' else name
  prepare = (
    f'prepare it once, with a network: python -c "import {_MODULES[base]}, '
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
    raise FileNotFoundError(f'TFDS dataset {name!r} is not prepared in {shown}; {prepare}')
  found = builder.info.file_format
  if getattr(found, 'value', found) != 'array_record':
    raise ValueError(
      f'TFDS dataset {name!r} in {shown} is stored as '
      f'{getattr(found, "value", found)}, which needs TensorFlow '
      f'(or loses rows); {prepare}'
    )
  return builder


def source(name, data_dir, split):
  """Random access to one split, or a slice such as 'train[:10%]': dicts, text as bytes."""
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
    # dataset_info counts what was made, the files hold what arrived; a data source believes
    # the former.
    stored = sum(
      array_record_module.ArrayRecordReader(str(path)).num_records()
      for path in splits[part].filepaths
    )
    if stored != splits[part].num_examples:
      raise ValueError(
        f'TFDS dataset {name!r}, split {part!r}: {stored} records on disk, '
        f'dataset_info says {splits[part].num_examples}; prepare it again'
      )
  return builder.as_data_source(split=split)


def _text(value):
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)


def _records(records):
  for first in range(0, len(records), _AT_ONCE):
    yield from records.__getitems__(range(first, min(first + _AT_ONCE, len(records))))


def documents(name, data_dir=None, split='train'):
  """Iterator of the texts of 'wikipedia[/config]' or 'lm1b', in the order of the files."""
  if name.partition('/')[0] not in CORPORA:
    raise ValueError(
      f'TFDS dataset {name!r} is not a corpus: {nearest(name.partition("/")[0], CORPORA)}'
    )
  records = source(
    name, data_dir, split
  )  # here, so that a missing dataset is an error of this call, not of the first text
  return (_text(record['text']) for record in _records(records))


def read_task(task, data_dir=None, split='train'):
  """Examples of a GLUE task through TFDS; MNLI's 'validation' is matched, as in local files."""
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

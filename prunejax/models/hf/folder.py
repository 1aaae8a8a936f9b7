"""The files of a Hugging Face directory, whatever model they hold: read with care, written whole.

Nothing in a checkpoint is ever unpickled, so a stranger's file can be wrong but cannot run code.
"""

import json
import os
import pathlib
import re
import shutil
import uuid

import numpy as np
import safetensors
import safetensors.numpy

WEIGHTS = 'model.safetensors'
VOCABULARIES = ('vocab.txt', 'vocab.json', 'tokenizer.json')
MOST = 2**28  # bytes of a file of text; what is larger is none


class CheckpointError(ValueError):
  """A Hugging Face directory that is not the model asked for, or a tree that cannot become one."""


def read_config(directory):
  """config.json as a dict. Raises CheckpointError where it is missing or is no JSON object."""
  path = pathlib.Path(directory) / 'config.json'
  if not path.is_file():
    raise CheckpointError(f'{path} is missing: expected a Hugging Face directory')
  try:
    config = json.loads(_read(path))
  except (OSError, ValueError, RecursionError) as error:
    raise CheckpointError(f'{path} cannot be read as JSON: {error}') from error
  if not isinstance(config, dict):
    raise CheckpointError(f'{path} holds a {type(config).__name__}: expected a JSON object')
  return config


def read_tensors(directory, *, ignore=r'(?!)'):
  """{name: numpy array} of model.safetensors, less the names that `ignore` matches in full.

  Raises CheckpointError where the file is missing, damaged, or holds anything but F32, F16 or BF16.
  """
  directory = pathlib.Path(directory)
  path = directory / WEIGHTS
  if not path.is_file():
    why = f'expected one of {WEIGHTS}'
    if (directory / f'{WEIGHTS}.index.json').is_file():
      why = 'the checkpoint is split over several files; save it as one'
    elif (directory / 'pytorch_model.bin').is_file():
      why = 'pytorch_model.bin is a pickle, which could run code; convert it to safetensors'
    raise CheckpointError(f'{path} is missing: {why}')
  arrays, odd = {}, []
  try:
    with safetensors.safe_open(path, framework='np') as file:
      for name in file.keys():  # noqa: SIM118, the file is no mapping
        if re.fullmatch(ignore, name):
          continue
        kind = file.get_slice(name).get_dtype()
        if kind in ('F32', 'F16', 'BF16'):
          arrays[name] = file.get_tensor(name)
        else:
          odd.append(f'{name} ({kind})')
  except (safetensors.SafetensorError, OSError) as error:
    raise CheckpointError(f'{path} is damaged or no safetensors file: {error}') from error
  if odd:
    raise CheckpointError(f'{path}: expected F32, F16 or BF16, found {listed(odd)}')
  return arrays


def read_vocab(source):
  """The pieces in the order of their ids, from a list, a vocab.txt, a vocab.json, a tokenizer.json or a folder.

  Returns None for a folder that has none of them. Raises CheckpointError for a file that cannot be
  read as one, or for ids in a JSON file that are not 0, 1, 2, ...
  """
  if not isinstance(source, str | os.PathLike):
    return list(source)
  path = pathlib.Path(source)
  if path.is_dir():
    here = [path / name for name in VOCABULARIES if (path / name).is_file()]
    return read_vocab(here[0]) if here else None
  try:
    text = _read(path)
    if path.suffix != '.json':
      # Not splitlines(): a piece may itself be one of Unicode's other line ends.
      return text.replace('\r\n', '\n').removesuffix('\n').split('\n') if text else []
    raw = json.loads(text)
    ids = dict(raw if path.name == 'vocab.json' else raw['model']['vocab'])
    ids |= (
      {}
      if path.name == 'vocab.json'
      else {token['content']: token['id'] for token in raw.get('added_tokens', ())}
    )
    pieces = sorted(ids, key=ids.get)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
      raise ValueError('its ids are not 0, 1, 2, ...')
    return pieces
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise CheckpointError(f'{path} cannot be read as a vocabulary: {error!r}') from error


def _read(path):
  """A text file, its size looked at before its bytes."""
  size = path.stat().st_size
  if size > MOST:
    raise ValueError(f'it has {size} bytes, expected at most {MOST}')
  return path.read_bytes().decode('utf-8')


def write(directory, texts, tensors):
  """Writes {file name: text} and model.safetensors. Raises CheckpointError where it cannot.

  A new directory appears complete or not at all; in one that exists each file is replaced whole,
  after all of them have been written.
  """
  directory = pathlib.Path(directory).absolute()
  staged = directory.parent / f'.{directory.name}.{uuid.uuid4().hex}.part'
  try:
    staged.mkdir(parents=True)
    for name, text in texts.items():
      (staged / name).write_text(text, encoding='utf-8', newline='\n')
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    safetensors.numpy.save_file(arrays, staged / WEIGHTS, metadata={'format': 'pt'})
    (staged / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner only
    for name in [*texts, WEIGHTS]:  # on disk before the ledger says that the run is done
      with open(staged / name, 'rb') as file:
        os.fsync(file.fileno())
    if directory.exists():
      for name in [*texts, WEIGHTS]:
        os.replace(staged / name, directory / name)
    else:
      os.rename(staged, directory)
  except (OSError, safetensors.SafetensorError) as error:
    raise CheckpointError(f'{directory} cannot be written: {error}') from error
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def listed(names, most=12):
  """The first names, and how many there are more."""
  names = list(names)
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if names[most:] else '')

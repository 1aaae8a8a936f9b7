"""The files of a Hugging Face folder, for any model: checked when read, written as a whole.

No pickle is ever read, so a file from a stranger can be wrong but cannot run code.
"""

import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

WEIGHTS = 'model.safetensors'
CHECKSUMS = 'checksums.json'
VOCABULARIES = ('vocab.txt', 'vocab.json', 'tokenizer.json')
MAX_BYTES = 2**28  # of a text file


class CheckpointError(ValueError):
  """A folder without the model that was asked for, or a tree that cannot be written as one."""


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
  """Reads config.json.

  Raises:
    CheckpointError: the file is missing or not a JSON object; its model_type is not a string.
  """
  path = pathlib.Path(folder) / 'config.json'
  if not path.is_file():
    raise CheckpointError(f'{path} is missing: expected a Hugging Face folder')
  try:
    config = json.loads(_read_text(path))
  except (OSError, ValueError, RecursionError) as error:
    raise CheckpointError(f'{path} cannot be read as JSON: {error}') from error
  if not isinstance(config, dict):
    raise CheckpointError(f'{path} holds a {type(config).__name__}: expected a JSON object')
  model_type = config.get('model_type')
  if not isinstance(model_type, str | None):
    raise CheckpointError(f'{path} has model_type={model_type!r}: expected a string')
  return config


def read_tensors(folder: str | os.PathLike, *, ignore: str = r'(?!)') -> dict[str, np.ndarray]:
  """Reads model.safetensors.

  Args:
    folder: the folder that holds it.
    ignore: a regular expression; tensors whose whole name matches are left out.

  Returns:
    {name: array}, float32, float16 or bfloat16.

  Raises:
    CheckpointError: a file that is missing or damaged, or that has tensors of another dtype; a file
      of the folder is not what `checksums.json` says.
  """
  folder = pathlib.Path(folder)
  check(folder)
  path = folder / WEIGHTS
  if not path.is_file():
    why = f'expected one of {WEIGHTS}'
    if (folder / f'{WEIGHTS}.index.json').is_file():
      why = 'the checkpoint is split over several files; save it as one'
    elif (folder / 'pytorch_model.bin').is_file():
      why = 'pytorch_model.bin is a pickle, which could run code; convert it to safetensors'
    raise CheckpointError(f'{path} is missing: {why}')
  arrays, unsupported = {}, []
  try:
    with safetensors.safe_open(path, framework='np') as file:
      for name in file.keys():  # noqa: SIM118, the file is not a mapping
        if re.fullmatch(ignore, name):
          continue
        dtype = file.get_slice(name).get_dtype()
        if dtype in ('F32', 'F16', 'BF16'):
          arrays[name] = file.get_tensor(name)
        else:
          unsupported.append(f'{name} ({dtype})')
  except (safetensors.SafetensorError, OSError) as error:
    raise CheckpointError(f'{path} is damaged or not a safetensors file: {error}') from error
  if unsupported:
    raise CheckpointError(f'{path}: expected F32, F16 or BF16, found {listed(unsupported)}')
  return arrays


def check(folder: str | os.PathLike) -> None:
  """Compares the files of a folder with its `checksums.json`, which folders of ours have.

  safetensors has no checksums: it reads a flipped bit as another weight.

  Raises:
    CheckpointError: a file is missing, damaged or another one.
  """
  path = pathlib.Path(folder) / CHECKSUMS
  if not path.is_file():
    return
  try:
    sums = dict(json.loads(_read_text(path))['sha256'])
    if any(pathlib.PurePath(name).name != name for name in sums):
      raise ValueError('a name is no file of this folder')
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise CheckpointError(f'{path} is damaged: {error!r}') from None
  for name, expected in sums.items():
    file = path.with_name(name)
    if not file.is_file():
      raise CheckpointError(f'{file} is missing: {CHECKSUMS} names it')
    if _sha256(file) != expected:
      raise CheckpointError(
        f'{file} is not the file that was written: its sha256 differs from that in {CHECKSUMS}; '
        f'take a sound copy, or delete {CHECKSUMS} if the change is meant'
      )


def digest(folder: str | os.PathLike) -> str:
  """Returns 16 hex digits of `checksums.json`, which identify a model; '' for a folder without."""
  path = pathlib.Path(folder) / CHECKSUMS
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ''


def _sha256(path):
  status = path.stat()
  # The time of the last change of a file cannot be set, so what it identifies is the content.
  return _sha256_of(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@functools.lru_cache(maxsize=1024)
def _sha256_of(path, *status):
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def read_vocab(source: str | os.PathLike | Sequence[str]) -> list[str] | None:
  """Reads the pieces of a vocabulary in the order of their ids.

  Args:
    source: a vocab.txt, vocab.json or tokenizer.json; a folder with one of them; or the pieces.

  Returns:
    The pieces; None for a folder without a vocabulary.

  Raises:
    CheckpointError: a file that cannot be read, or whose ids are not 0, 1, 2, ...
  """
  if not isinstance(source, str | os.PathLike):
    return list(source)
  path = pathlib.Path(source)
  if path.is_dir():
    files = [path / name for name in VOCABULARIES if (path / name).is_file()]
    return read_vocab(files[0]) if files else None
  try:
    text = _read_text(path)
    if path.suffix != '.json':
      # Not splitlines(): a piece may itself be one of Unicode's other line ends.
      return text.replace('\r\n', '\n').removesuffix('\n').split('\n') if text else []
    content = json.loads(text)
    if path.name == 'vocab.json':
      ids = dict(content)
    else:
      added = {token['content']: token['id'] for token in content.get('added_tokens', ())}
      ids = dict(content['model']['vocab']) | added
    pieces = sorted(ids, key=ids.get)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
      raise ValueError('the ids are not 0, 1, 2, ...')
    return pieces
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise CheckpointError(f'{path} cannot be read as a vocabulary: {error!r}') from error


def _read_text(path):
  """A UTF-8 file; its size is checked before its bytes are read."""
  size = path.stat().st_size
  if size > MAX_BYTES:
    raise ValueError(f'it has {size} bytes, expected at most {MAX_BYTES}')
  return path.read_bytes().decode('utf-8')


def write(
  folder: str | os.PathLike, texts: Mapping[str, str], tensors: Mapping[str, np.ndarray]
) -> None:
  """Writes text files, model.safetensors, and checksums.json with the sha256 of each.

  A new folder appears complete or not at all. In a folder that exists, each file is replaced as a
  whole, after all files have been written.

  Args:
    folder: the folder; it is made if it does not exist.
    texts: {file name: content}.
    tensors: {name: array} of model.safetensors.

  Raises:
    CheckpointError: the folder cannot be written.
  """
  folder = pathlib.Path(folder).absolute()
  staged = folder.parent / f'.{folder.name}.{uuid.uuid4().hex}.part'
  try:
    staged.mkdir(parents=True)
    for name, text in texts.items():
      (staged / name).write_text(text, encoding='utf-8', newline='\n')
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    safetensors.numpy.save_file(arrays, staged / WEIGHTS, metadata={'format': 'pt'})
    (staged / WEIGHTS).chmod(0o644)  # safetensors gives no rights to others than the owner
    names = [*texts, WEIGHTS]
    sums = {'sha256': {name: _sha256(staged / name) for name in sorted(names)}}
    (staged / CHECKSUMS).write_text(json.dumps(sums, indent=1) + '\n', encoding='utf-8')
    names.append(CHECKSUMS)
    for name in names:  # on disk before a ledger says that the run is done
      with open(staged / name, 'rb') as file:
        os.fsync(file.fileno())
    if folder.exists():
      for name in names:
        os.replace(staged / name, folder / name)
    else:
      os.rename(staged, folder)
  except (OSError, safetensors.SafetensorError) as error:
    raise CheckpointError(f'{folder} cannot be written: {error}') from error
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def listed(names: Iterable[str], most: int = 12) -> str:
  """Joins the first `most` names, and says how many more there are."""
  names = list(names)
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if names[most:] else '')

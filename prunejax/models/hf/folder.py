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

from prunejax.data import vocabulary

WEIGHTS = 'model.safetensors'
INDEX = f'{WEIGHTS}.index.json'
CHECKSUMS = 'checksums.json'
SHARD_NAME = 'model-00001-of-00002.safetensors'
SHARD_BYTES = 5 * 10**9  # of one file of weights, as transformers divides them
SHARD = re.compile(r'model-\d{5}-of-\d{5}\.safetensors')
_CONVERT = 'load the model in transformers and save_pretrained it, which writes safetensors'
OTHER_WEIGHTS = {
  'pytorch_model.bin': f'a pickle, which could run code; {_CONVERT}',
  'pytorch_model.bin.index.json': f'the index of pickles, which could run code; {_CONVERT}',
  'tf_model.h5': f'a TensorFlow file; {_CONVERT}',
  'model.ckpt.index': f'a TensorFlow checkpoint; {_CONVERT}',
  'flax_model.msgpack': f'a Flax file; {_CONVERT}',
}


class CheckpointError(ValueError):
  """A folder without the model that was asked for, or a tree that cannot be written as one."""


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
  """Reads config.json.

  Raises:
    CheckpointError: the file is missing or not a JSON object; its model_type is not a string, or
      its architectures no list of strings.
  """
  path = pathlib.Path(folder) / 'config.json'
  if not path.is_file():
    raise CheckpointError(f'{path} is missing: expected a Hugging Face folder')
  config = read_json(path)
  model_type, classes = config.get('model_type'), config.get('architectures')
  if not isinstance(model_type, str | None):
    raise CheckpointError(f'{path} has model_type={model_type!r:.200}: expected a string')
  named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
  if classes is not None and not named:
    raise CheckpointError(f'{path} has architectures={classes!r:.200}: expected a list of names')
  return config


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    CheckpointError: the file is too large, no regular file, no JSON, or holds something else.
  """
  try:
    return vocabulary.read_json(path, vocabulary.MAX_JSON)
  except (OSError, ValueError) as error:
    raise CheckpointError(str(error)) from error


def read_tensors(folder: str | os.PathLike, *, ignore: str = r'(?!)') -> dict[str, np.ndarray]:
  """Reads model.safetensors, or the shards that model.safetensors.index.json lists.

  Args:
    folder: the folder that holds them.
    ignore: a regular expression; tensors whose whole name matches are left out.

  Returns:
    {name: array}, float32, float16 or bfloat16. All numbers are finite.

  Raises:
    CheckpointError: a file that is missing or damaged, that has tensors of another dtype, or
      numbers that are not finite; shards that do not hold what the index says; a file of the folder
      is not what `checksums.json` says.
  """
  folder = pathlib.Path(folder)
  check(folder)
  path, index = folder / WEIGHTS, folder / INDEX
  if path.is_file():
    return _read_file(path, ignore)
  if index.is_file():
    return _read_shards(index, ignore)
  others = [f'{name} is {what}' for name, what in OTHER_WEIGHTS.items() if (folder / name).exists()]
  raise CheckpointError(f'{path} is missing: ' + ('; '.join(others) or f'expected {WEIGHTS}'))


def _read_shards(index, ignore):
  """The tensors of all files that an index lists."""
  shard_of = read_json(index).get('weight_map')
  valid = isinstance(shard_of, dict) and all(
    isinstance(shard, str) and SHARD.fullmatch(shard) for shard in shard_of.values()
  )
  if not valid:
    raise CheckpointError(
      f'{index} lacks a weight_map of {{tensor: file}}, whose files are named {SHARD_NAME} and lie'
      ' beside it'
    )
  tensors = {}
  for shard in sorted(set(shard_of.values())):
    path = index.parent / shard
    if not path.is_file():
      raise CheckpointError(f'{path} is missing: {index.name} lists it')
    arrays = _read_file(path, ignore)
    listed_here = {
      name for name, at in shard_of.items() if at == shard and not re.fullmatch(ignore, name)
    }
    if arrays.keys() != listed_here:
      raise CheckpointError(
        f'{path} does not hold the tensors that {index.name} lists:'
        f' {listed(sorted(arrays.keys() ^ listed_here))}'
      )
    tensors |= arrays
  return tensors


def _read_file(path, ignore):
  """The tensors of one safetensors file."""
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
  wrong = [
    f'{name} ({count:,} of {array.size:,})'
    for name, array in arrays.items()
    if (count := array.size - np.count_nonzero(np.isfinite(array)))
  ]
  if wrong:
    raise CheckpointError(f'{path} holds NaN or infinite numbers in {listed(wrong)}')
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
    sums = dict(read_json(path)['sha256'])
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
  """Reads the pieces of a vocabulary, added tokens included, in the order of their ids.

  Args:
    source: a vocab.txt, vocab.json or tokenizer.json; a folder with one of them; or the pieces.

  Returns:
    The pieces; None for a folder without a vocabulary.

  Raises:
    CheckpointError: a file that cannot be read, or whose ids are not 0, 1, 2, ...
  """
  if not isinstance(source, str | os.PathLike):
    return list(source)
  try:
    stored = vocabulary.read(source)
  except (OSError, ValueError) as error:
    raise CheckpointError(str(error)) from error
  return stored and stored.every_piece


def check_free(folder: str | os.PathLike, name: str) -> None:
  """Raises CheckpointError if a tokenizer.json would be read before a new file `name`."""
  path = pathlib.Path(folder).absolute() / 'tokenizer.json'
  if path.exists():
    raise CheckpointError(f'{path} would be read before the new {name}: remove it first')


def with_added(added: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns what tokenizer_config.json says of added tokens, see data/vocabulary.py."""
  decoder = {str(token['id']): {k: v for k, v in token.items() if k != 'id'} for token in added}
  return {'added_tokens_decoder': decoder} if decoder else {}


def write(
  folder: str | os.PathLike,
  texts: Mapping[str, str],
  tensors: Mapping[str, np.ndarray],
  most: int = SHARD_BYTES,
) -> None:
  """Writes text files, model.safetensors or its shards, and checksums.json with sha256 sums.

  A new folder appears complete or not at all. In a folder that exists, each file is replaced as a
  whole, after all files have been written.

  Args:
    folder: the folder; it is made if it does not exist.
    texts: {file name: content}.
    tensors: {name: array} of model.safetensors.
    most: bytes of one file of weights. More are divided among files that
      model.safetensors.index.json lists; a tensor is never divided.

  Raises:
    CheckpointError: the folder cannot be written.
  """
  folder = pathlib.Path(folder).absolute()
  staged = folder.parent / f'.{folder.name}.{uuid.uuid4().hex}.part'
  try:
    staged.mkdir(parents=True)
    for name, text in texts.items():
      (staged / name).write_text(text, encoding='utf-8', newline='\n')
    shards = _divided(tensors, most)
    for name, shard in shards.items():
      arrays = {tensor: np.ascontiguousarray(tensors[tensor]) for tensor in shard}
      safetensors.numpy.save_file(arrays, staged / name, metadata={'format': 'pt'})
      (staged / name).chmod(0o644)  # safetensors gives no rights to others than the owner
    names = [*texts, *shards]
    if WEIGHTS not in shards:
      index = {
        'metadata': {'total_size': sum(tensor.nbytes for tensor in tensors.values())},
        'weight_map': {tensor: name for name, shard in shards.items() for tensor in shard},
      }
      (staged / INDEX).write_text(json.dumps(index, indent=2) + '\n', encoding='utf-8')
      names.append(INDEX)
    sums = {'sha256': {name: _sha256(staged / name) for name in sorted(names)}}
    (staged / CHECKSUMS).write_text(json.dumps(sums, indent=1) + '\n', encoding='utf-8')
    names.append(CHECKSUMS)
    for name in names:  # on disk before a ledger says that the run is done
      with open(staged / name, 'rb') as file:
        os.fsync(file.fileno())
    if folder.exists():
      for name in names:
        os.replace(staged / name, folder / name)
      # Weights that were there before and are not among the new files would be read in their place.
      for stale in {WEIGHTS, INDEX} - set(names):
        (folder / stale).unlink(missing_ok=True)
    else:
      os.rename(staged, folder)
  except (OSError, safetensors.SafetensorError) as error:
    raise CheckpointError(f'{folder} cannot be written: {error}') from error
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def _divided(tensors, most):
  """{file name: names of its tensors}, in order."""
  groups, size = [[]], 0
  for name, tensor in tensors.items():
    if groups[-1] and size + tensor.nbytes > most:
      groups.append([])
      size = 0
    groups[-1].append(name)
    size += tensor.nbytes
  if len(groups) == 1:
    return {WEIGHTS: groups[0]}
  last = len(groups)
  return {f'model-{i:05}-of-{last:05}.safetensors': group for i, group in enumerate(groups, 1)}


def listed(names: Iterable[str], most: int = 12) -> str:
  """Joins the first `most` names, and says how many more there are."""
  names = list(names)
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if names[most:] else '')

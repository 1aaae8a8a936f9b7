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

from prunejax.data import content, vocabulary
from prunejax.models.hf import safetensors_file, stored
from prunejax.models.hf.stored import Stored

WEIGHTS = 'model.safetensors'
INDEX = f'{WEIGHTS}.index.json'
CHECKSUMS = 'checksums.json'
SHARD_NAME = 'model-00001-of-00002.safetensors'
SHARD_BYTES = 5 * 10**9  # of one file of weights, as transformers divides them
SHARD = re.compile(r'model-(\d{5})-of-(\d{5})\.safetensors')
GENERATION = 'generation_config.json'
TEMPLATE = 'chat_template.jinja'
MORE_TEMPLATES = 'additional_chat_templates'  # the folder of named templates, as in transformers
# What is carried from the folder that a model comes from, see carried_texts.py.
CARRIED = rf'{GENERATION}|{re.escape(TEMPLATE)}|{MORE_TEMPLATES}/[^/\\\0]+\.jinja'
# What `prune` writes beside a model, see stored_masks.py.
MASKS, RECORD = 'masks.safetensors', 'pruning.json'
OF_MASKS = f'{re.escape(MASKS)}|{re.escape(RECORD)}'
SHARDS = r'model(-\d{5}-of-\d{5})?\.safetensors'
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
      its architectures no list of strings; a number is NaN or infinite, which JSON does not have.
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
  for key, value in config.items():
    try:
      json.dumps(value, allow_nan=False)
    except ValueError:
      raise CheckpointError(f'{path} has {key}={value!r:.200}: expected a finite number') from None
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


def read_tensors(
  folder: str | os.PathLike, *, ignore: str = r'(?!)', parts: bool = False
) -> dict[str, np.ndarray | Stored]:
  """Reads model.safetensors, or the shards that model.safetensors.index.json lists.

  Args:
    folder: the folder that holds them.
    ignore: a regular expression; tensors whose whole name matches are left out.
    parts: leave the tensors in their files, to be read part by part. `checksums.json` is then not
      compared with the bytes of the weights.

  Returns:
    {name: array}, float32, float16 or bfloat16, or `stored.Stored`. All numbers are finite.

  Raises:
    CheckpointError: a file that is missing or damaged, that has tensors of another dtype, or
      numbers that are not finite; shards that do not hold what the index says; a file of the folder
      is not what `checksums.json` says.
  """
  folder = pathlib.Path(folder)
  check(folder, *([SHARDS] if parts else []))
  path, index = folder / WEIGHTS, folder / INDEX
  if path.is_file():
    return _read_file(path, ignore, parts)
  if index.is_file():
    return _read_shards(index, ignore, parts)
  others = [f'{name} is {what}' for name, what in OTHER_WEIGHTS.items() if (folder / name).exists()]
  raise CheckpointError(f'{path} is missing: ' + ('; '.join(others) or f'expected {WEIGHTS}'))


def _read_shards(index, ignore, parts):
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
  shards = sorted(set(shard_of.values()))
  counts = {int(SHARD.fullmatch(shard)[2]) for shard in shards}
  expected = {f'{WEIGHTS[:-12]}-{i + 1:05}-of-{n:05}.safetensors' for n in counts for i in range(n)}
  if unlisted := sorted(expected - set(shards)):
    raise CheckpointError(
      f'{index} lists no tensor of {listed(unlisted, 3)}: expected every shard, as in a whole'
      ' download'
    )
  tensors = {}
  for shard in shards:
    path = index.parent / shard
    if not path.is_file():
      raise CheckpointError(f'{path} is missing: {index.name} lists it')
    arrays = _read_file(path, ignore, parts)
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


def _read_file(path, ignore, parts):
  """The tensors of one safetensors file."""
  arrays, unsupported = {}, []
  try:
    with safetensors.safe_open(path, framework='np') as file:
      for name in file.keys():  # noqa: SIM118, the file is not a mapping
        if re.fullmatch(ignore, name):
          continue
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
        if dtype not in stored.DTYPES:
          unsupported.append(f'{name} ({dtype})')
        elif parts:
          arrays[name] = Stored(path, name, shape, 0, shape[-1] if shape else 0)
        else:
          arrays[name] = file.get_tensor(name)
  except (safetensors.SafetensorError, OSError) as error:
    raise CheckpointError(f'{path} is damaged or not a safetensors file: {error}') from error
  if unsupported:
    raise CheckpointError(f'{path}: expected F32, F16 or BF16, found {listed(unsupported)}')
  wrong = [
    f'{name} ({count:,} of {array.size:,})'
    for name, array in (() if parts else arrays.items())
    if (count := array.size - np.count_nonzero(np.isfinite(array)))
  ]
  if wrong:
    raise CheckpointError(f'{path} holds NaN or infinite numbers in {listed(wrong)}')
  return arrays


def check(folder: str | os.PathLike, but: str = r'(?!)') -> None:
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
    if any(not _is_file_name(name) for name in sums):
      raise ValueError('a name is no file of this folder')
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise CheckpointError(f'{path} is damaged: {error!r}') from None
  for name, expected in sums.items():
    file = path.parent / name
    if not file.is_file():
      raise CheckpointError(f'{file} is missing: {CHECKSUMS} names it')
    if not re.fullmatch(but, name) and _sha256(file) != expected:
      raise CheckpointError(
        f'{file} is not the file that was written: its sha256 differs from that in {CHECKSUMS}; '
        f'take a sound copy, or delete {CHECKSUMS} if the change is meant'
      )


def _is_file_name(name):
  return pathlib.PurePath(name).name == name or bool(re.fullmatch(CARRIED, name))


def digest(folder: str | os.PathLike) -> str:
  """Returns 16 hex digits of `checksums.json`, which identify a model; '' for a folder without."""
  path = pathlib.Path(folder) / CHECKSUMS
  return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ''


def _sha256(path):
  return _sha256_of(path, *content.state_of(path))


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
  tensors: Mapping[str, np.ndarray | stored.Leaf],
  most: int | str = SHARD_BYTES,
) -> None:
  """Writes text files, the weights, and checksums.json with the sha256 of each.

  The weights are in model.safetensors. Above `most` they are in shards, which
  model.safetensors.index.json lists. A new folder appears complete or not at all. In a folder that
  exists, each file is replaced as a whole, after all files have been written.

  Args:
    folder: the folder; it is made if it does not exist.
    texts: {path in the folder: content}.
    tensors: {name: array or `stored.Leaf`}; a leaf is read when its turn comes.
    most: bytes of weights in a file, or such as '5GB'; a tensor is never divided.

  Raises:
    CheckpointError: the folder cannot be written, weights of another dtype, or another size.
  """
  wrong = [f'{n} ({x.dtype})' for n, x in tensors.items() if x.dtype not in safetensors_file.NAMES]
  if wrong:
    known = ', '.join(map(str, safetensors_file.NAMES))
    raise CheckpointError(f'{folder}: expected weights of {known}, got {listed(wrong)}')
  shards, index = _shards(tensors, bytes_of(most))
  texts = {**texts, **index}
  folder = pathlib.Path(folder).absolute()
  staged = folder.parent / f'.{folder.name}.{uuid.uuid4().hex}.part'
  try:
    staged.mkdir(parents=True)
    for name, text in texts.items():
      (staged / name).parent.mkdir(exist_ok=True)
      (staged / name).write_bytes(text.encode('utf-8'))
    for file, names in shards.items():
      of_file = {name: tensors[name] for name in names}
      safetensors_file.write(staged / file, of_file, {'format': 'pt'})
    names = [*texts, *shards]
    sums = {'sha256': {name: _sha256(staged / name) for name in sorted(names)}}
    (staged / CHECKSUMS).write_text(json.dumps(sums, indent=1) + '\n', encoding='utf-8')
    names.append(CHECKSUMS)
    for name in names:  # on disk before a ledger says that the run is done
      with open(staged / name, 'rb') as file:
        os.fsync(file.fileno())
    if folder.exists():
      for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(staged / name, folder / name)
      for name in _replaceable(folder).difference(names):  # of the model that was there
        (folder / name).unlink()
    else:
      os.rename(staged, folder)
  except (OSError, stored.Damaged) as error:
    raise CheckpointError(f'{folder} cannot be written: {error}') from error
  finally:
    shutil.rmtree(staged, ignore_errors=True)


def _replaceable(folder) -> set[str]:
  """Paths in a folder of weights, of their masks, and of texts that belong to them."""
  files = [*folder.iterdir(), *(folder / MORE_TEMPLATES).glob('*.jinja')]
  names = {path.relative_to(folder).as_posix() for path in files if path.is_file()}
  return {n for n in names if re.fullmatch(f'{SHARDS}|{re.escape(INDEX)}|{OF_MASKS}|{CARRIED}', n)}


def bytes_of(size: int | str) -> int:
  """Returns a number of bytes, given as such or as '5GB', '200MB' or '1GiB'.

  Raises:
    CheckpointError: it is neither, or 0.
  """
  units = {'': 1, 'KB': 10**3, 'MB': 10**6, 'GB': 10**9, 'KIB': 2**10, 'MIB': 2**20, 'GIB': 2**30}
  match = re.fullmatch(r'(\d+) ?([KMG]I?B)?', str(size).upper())
  number = int(match[1]) * units[match[2] or ''] if match else 0
  if number < 1:
    raise CheckpointError(f"a shard of {size!r}: expected bytes, or such as '5GB'")
  return number


def _shards(tensors, most) -> tuple[dict[str, list[str]], dict[str, str]]:
  """{file: names of its tensors}, and {file: text} of the index if there are several."""
  groups: list[list[str]] = [[]]
  room = most
  for name, array in tensors.items():
    if groups[-1] and array.nbytes > room:
      groups.append([])
      room = most
    groups[-1].append(name)
    room -= array.nbytes
  if len(groups) == 1:
    return {WEIGHTS: groups[0]}, {}
  files = {f'model-{i:05}-of-{len(groups):05}.safetensors': g for i, g in enumerate(groups, 1)}
  total = sum(array.nbytes for array in tensors.values())
  weight_map = {name: file for file, names in files.items() for name in names}
  index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
  return files, {INDEX: json.dumps(index, indent=2) + '\n'}


def listed(names: Iterable[str], most: int = 12) -> str:
  """Joins the first `most` names, and says how many more there are."""
  names = list(names)
  return ', '.join(names[:most]) + (f' and {len(names) - most} more' if names[most:] else '')

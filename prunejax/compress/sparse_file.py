"""The project's sparse file: safetensors with the positions and values of kept weights.

Each leaf NAME takes the form that needs the fewest bytes:

* dense: the tensor NAME itself, '' among its parts;
* mask: NAME.mask, one bit a weight, eight to a byte, the first weight in the highest bit, and
  NAME.values, the kept weights in order;
* gaps: NAME.gaps, one byte an entry, its distance from the entry before less one, and NAME.values.
  An entry whose value is zero is a filler.

A form that is 'scaled' has int8 values and NAME.scale, which multiplies them: one number for each
column of the last axis. The metadata hold 'prunejax', a JSON text: {'version': 2, 'leaves': {NAME:
[form, shape, checksum]}, 'texts': {file name: text}}. The texts, if any, are those of a Hugging
Face folder: config.json and the vocabulary. Version 1 has {NAME: [form, shape]} alone, and does not
say which forms are scaled. `read_sparse` reads both with numpy alone.
"""

import json
import math
import os
import pathlib
import uuid
import warnings
import zlib
from collections.abc import Mapping
from os import PathLike
from typing import Any

import ml_dtypes
import numpy as np

from prunejax.compress import read_sparse, relative_index
from prunejax.pruning import paths

VALUES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'int8': np.int8}
FLOATS = ('float16', 'bfloat16', 'float32', 'float64')
INTEGERS = ('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'bool')
NAMES = {np.dtype(kind).name: name for name, kind in read_sparse.TYPES.items() if name != 'BF16'}
NAMES |= {'bfloat16': 'BF16'}  # {numpy's name of a type: safetensors' name}
MOST = read_sparse.MOST


def save_sparse(path: PathLike | str, params: Any, dtype: str = 'float32') -> None:
  """Writes the leaves of any pytree as one file; zeros are what was pruned.

  Args:
    path: of the file, local or in an object store. A file that is there is replaced as a whole.
    params: a pytree of arrays.
    dtype: of stored values, 'float32', 'bfloat16' or 'int8', see `encode`.

  Warns:
    UserWarning: how many weights that are not 0 are 0 as `dtype`.

  Raises:
    ValueError: see `encode`. OSError: the file cannot be written.
  """
  data, lost = _encode(params, dtype)
  if lost:
    warnings.warn(f'{str(path)!r}: {lost:,} weights that are not 0 are 0 as {dtype}', stacklevel=2)
  _write(path, data)


def load_sparse(path: PathLike | str, like: Any = None, *, most: int = MOST) -> Any:
  """Reads a file that `save_sparse` wrote.

  Args:
    path: of the file, local or in an object store.
    like: a pytree of arrays or `jax.ShapeDtypeStruct`, whose structure and dtypes the result gets.
      None: nested dicts, whose keys are the levels of each path.
    most: largest number of bytes that the file, or all arrays together, may take.

  Returns:
    The tree, of numpy arrays. Without `like`, whatever was floating is float32.

  Raises:
    ValueError: the file is damaged or too large; its leaves are not those of `like`, or a dtype of
      `like` would change which weights are zero.
  """
  leaves = read(path, most)
  if like is None:
    return _nested(leaves, path)
  wanted = paths.named_leaves(like)
  if leaves.keys() != wanted.keys():
    missing, unknown = sorted(wanted.keys() - leaves.keys()), sorted(leaves.keys() - wanted.keys())
    raise ValueError(
      f'{str(path)!r} does not hold the leaves of `like`: missing {missing[:4]}, unknown'
      f' {unknown[:4]}'
    )
  return paths.with_leaves(
    like, {name: _like(path, name, leaves[name], leaf) for name, leaf in wanted.items()}
  )


def write(path: PathLike | str, tree: Mapping[str, np.ndarray], dtype: str = 'float32') -> None:
  """Writes a tree {path of a leaf: array} as one file; otherwise as `save_sparse`."""
  save_sparse(path, tree, dtype)


def read(path: PathLike | str, most: int = MOST) -> dict[str, np.ndarray]:
  """Reads a file that `save_sparse` wrote.

  Args:
    path: of the file, local or in an object store.
    most: largest number of bytes that the file, or all arrays together, may take.

  Returns:
    {path of a leaf: array}; float32 for floats, integers as they are.

  Raises:
    ValueError: the file is damaged or too large.
  """
  if '://' not in str(path):
    return _naming(path, read_sparse.load, path, most)
  from prunejax import files  # for object stores alone: it needs more than numpy

  return _naming(path, lambda: read_sparse.decode(files.read(path, most), most))


def encode(
  tree: Any,
  dtype: str = 'float32',
  *,
  texts: Mapping[str, str] | None = None,
  version: int = 2,
) -> bytes:
  """Encodes the leaves of any pytree as the bytes of a file.

  Args:
    tree: a pytree of arrays, such as {path of a leaf: array}. Zeros are what was pruned.
    dtype: of stored values. 'int8' holds leaves of two axes or more, scaled by column; other
      leaves stay float32. A bfloat16 leaf stays bfloat16 as 'float32'.
    texts: {file name: text} to put beside the leaves.
    version: of the format; 1 has no checksums and no texts.

  Returns:
    The bytes.

  Raises:
    ValueError: an unknown dtype; a value that is not finite, or float64 values that are 0 in
      float32; two leaves, or two parts, of the same name.
  """
  return _encode(tree, dtype, texts, version)[0]


def read_texts(data: bytes) -> dict[str, str]:
  """Returns the texts in the bytes of a file: {file name: text}, {} where there are none.

  Raises:
    ValueError: the file is damaged.
  """
  try:
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
    texts, crc = json.loads(head['__metadata__']['prunejax']).get('texts', ({}, None))
    valid = isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())
    if not valid or (texts and crc != _text_checksum(texts)):
      raise ValueError('its texts do not have their checksum')
    return texts
  except read_sparse.DAMAGE as error:
    raise ValueError(f'not a sparse file of prunejax, or a damaged one: {error!r:.300}') from None


def _encode(tree, dtype, texts=None, version=2):
  """(bytes, number of weights that are not 0 and are 0 in the file)."""
  if dtype not in VALUES:
    raise ValueError(f'sparse_file: dtype={dtype!r}; accepted: {", ".join(VALUES)}')
  tree, tensors, rows, lost = _leaves(tree), {}, {}, 0
  for name, leaf in tree.items():
    form, parts = 'dense', {'': leaf}
    if leaf.dtype.name in FLOATS:
      form, parts = _smallest(_float32(name, leaf), dtype, leaf.dtype.name == 'bfloat16')
      values = parts.get('.values', parts.get(''))
      lost += int(np.count_nonzero(leaf) - np.count_nonzero(values))
    elif leaf.dtype.name not in INTEGERS:
      raise ValueError(
        f'sparse_file: {name!r} is {leaf.dtype}; accepted: floats up to 64 bits and integers'
      )
    rows[name] = [form, list(leaf.shape)]
    for part, array in parts.items():
      if name + part in tensors or part and name + part in tree:
        raise ValueError(
          f'sparse_file: a part of {name!r} and another leaf are both named {name + part!r}'
        )
      tensors[name + part] = array
  head, body = _laid_out(tensors)
  if version == 1:
    metadata = {name: [form.removeprefix('scaled '), shape] for name, (form, shape) in rows.items()}
  else:
    for name, row in rows.items():
      row.append(read_sparse.checksum(head, body, name, *row))
    metadata = {'version': 2, 'leaves': rows}
    metadata |= {'texts': [dict(texts), _text_checksum(texts)]} if texts else {}
  metadata = {'__metadata__': {'prunejax': _json(metadata)}}
  text = json.dumps(metadata | head, separators=(',', ':'), ensure_ascii=False).encode()
  text += b' ' * (-len(text) % 8)
  return len(text).to_bytes(8, 'little') + text + body, lost


def _leaves(tree):
  """{path: numpy array} of any pytree."""
  paths.check_distinct(tree, 'sparse_file')
  leaves, named = {}, paths.named_leaves(tree)
  if isinstance(tree, Mapping) and tree.keys() == named.keys():
    named = tree  # {path: array} keeps its order
  for name, leaf in named.items():
    is_key = str(getattr(leaf, 'dtype', '')).startswith('key<')  # a random key, refused later
    array = leaf if is_key else np.asarray(leaf)
    leaves[name] = np.ascontiguousarray(array) if array.ndim and not is_key else array
  return leaves


def _float32(name, leaf):
  with np.errstate(over='ignore'):
    narrow = leaf.astype(np.float32)
  if not np.isfinite(narrow).all():
    raise ValueError(f'sparse_file: {name!r} holds values that are not finite in float32')
  if lost := np.count_nonzero(leaf) - np.count_nonzero(narrow):
    raise ValueError(
      f'sparse_file: {name!r} holds {lost:,} values that are not 0 and would be 0 in float32'
    )
  return narrow


def _smallest(leaf, dtype, is_bfloat16):
  """(form, {part: array}) of the form that takes the fewest bytes."""
  scale, prefix = {}, ''
  if dtype == 'int8' and leaf.ndim >= 2 and leaf.size:
    columns = np.abs(leaf).reshape(-1, leaf.shape[-1]).max(0).astype(np.float32) / 127
    scale, prefix = {'.scale': columns}, 'scaled '
    dense = np.rint(leaf / np.where(columns > 0, columns, 1)).astype(np.int8)
  else:
    dense = leaf.astype(VALUES['bfloat16' if is_bfloat16 or dtype == 'bfloat16' else 'float32'])
  flat = dense.ravel()
  positions = np.flatnonzero(flat != 0)
  forms = {'dense': {'': dense}}
  if math.prod(leaf.shape):
    gaps, is_filler = relative_index.encode(positions, 8)
    values = np.zeros(gaps.size, dense.dtype)
    values[~is_filler] = flat[positions]
    forms |= {
      'mask': {'.mask': np.packbits(flat != 0), '.values': flat[positions]},
      'gaps': {'.gaps': gaps.astype(np.uint8), '.values': values},
    }
  form = min(forms, key=lambda form: sum(array.nbytes for array in forms[form].values()))
  return prefix + form, forms[form] | scale


def _laid_out(tensors):
  """({tensor: entry}, bytes), wide numbers first, so that every tensor is aligned."""
  head, parts, end = {}, [], 0
  for name in sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name)):
    array, start = tensors[name], end
    parts.append(array.tobytes())
    end += array.nbytes
    kind = NAMES[array.dtype.name]
    head[name] = {'dtype': kind, 'shape': list(array.shape), 'data_offsets': [start, end]}
  return head, b''.join(parts)


def _nested(leaves, path):
  """A tree of dicts from {path: array}."""
  tree = {}
  for name, leaf in leaves.items():
    *above, last = name.split('/')
    node = tree
    for level in above:
      node = node.setdefault(level, {})
      if not isinstance(node, dict):
        break
    if not isinstance(node, dict) or last in node:
      raise ValueError(
        f'{str(path)!r} holds {name!r} beside a leaf above or below it: name the tree with like='
      )
    node[last] = leaf
  return tree


def _like(path, name, leaf, wanted):
  """`leaf` with the shape and dtype of `wanted`."""
  shape = tuple(np.shape(wanted))
  if leaf.shape != shape:
    raise ValueError(f'{str(path)!r}: {name!r} is {leaf.shape}, in `like` it is {shape}')
  dtype = getattr(wanted, 'dtype', None) or np.asarray(wanted).dtype
  with np.errstate(all='ignore'):
    cast = leaf.astype(dtype)
  floats = leaf.dtype.kind == 'f'
  if (cast != 0).sum() != (leaf != 0).sum() or not (floats or (cast == leaf).all()):
    raise ValueError(f'{str(path)!r}: {name!r} loses values as {dtype}, which `like` asks for')
  return cast


def _text_checksum(texts):
  return zlib.crc32(json.dumps(dict(texts), sort_keys=True).encode())


def _json(value):
  return json.dumps(value, separators=(',', ':'))


def _naming(path, function, *args):
  """Calls a function; its ValueError gets the path in front."""
  try:
    return function(*args)
  except ValueError as error:
    message = str(error)
    raise ValueError(
      message if repr(str(path)) in message else f'{str(path)!r}: {message}'
    ) from None


def _write(path, data):
  """Writes a file whole or not at all."""
  if '://' in str(path):
    from prunejax import files  # for object stores alone: it needs more than numpy

    files.write(path, data)
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'.{path.name}.{uuid.uuid4().hex[:12]}.part')
  try:
    with open(part, 'xb') as stream:
      stream.write(data)
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)

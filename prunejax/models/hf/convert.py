"""Steps between a Hugging Face folder and a tree of parameters that all models share."""

import copy
import functools
import json
import math
import os
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from prunejax.models.bert import OWN
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError, listed
from prunejax.models.hf.stored import Cast, is_stored, pieces, whole

MAX_COUNT = 2**31  # of anything that a config counts
MAX_LAYERS = 1000
MAX_LABELS = 2**16  # transformers makes two dicts of so many entries
FLOATS = {'float32': np.float32, 'bfloat16': jax.dtypes.bfloat16, 'float16': np.float16}


def size_class(name: str) -> type:
  """Returns a config class of transformers, which takes most of a second to import."""
  import transformers

  return getattr(transformers, name)


def read_size(
  folder: str | os.PathLike,
  model_type: str,
  config: str,
  required: Mapping[str, Any],
  classes: Collection[str],
) -> Any:
  """Reads config.json as a config of transformers.

  Args:
    folder: the folder that holds config.json.
    model_type: the model that it must be of; a file without a model_type is taken to be.
    config: the name of the config class of transformers.
    required: {key: the only value that our model computes}.
    classes: names of the classes of transformers that our model computes; a file may name none.

  Returns:
    The config.

  Raises:
    CheckpointError: another model or class; a value that our model or the class does not accept.
  """
  path = pathlib.Path(folder) / 'config.json'
  raw = hf_folder.read_config(folder)
  if raw.get('model_type', model_type) != model_type:
    raise CheckpointError(
      f'{path} is of model_type {raw["model_type"]!r:.200}: expected "{model_type}"'
    )
  if raw.get('architectures') and not set(raw['architectures']) & set(classes):
    raise CheckpointError(
      f'{path} is of a {raw["architectures"][0]}: expected one of {", ".join(sorted(classes))}'
    )
  labels = raw.get('num_labels')
  if labels is not None and not (type(labels) is int and 0 <= labels <= MAX_LABELS):
    raise CheckpointError(
      f'{path} has num_labels={labels!r:.200}: expected an integer from 0 to {MAX_LABELS}'
    )
  _check_labels(raw, path)
  for key, value in required.items():
    if raw.get(key, value) != value:
      raise CheckpointError(f'{path} has {key}={raw[key]!r:.200}: expected {value!r}')
  kinds, depth = raw.get('layer_types'), raw.get('num_hidden_layers')
  if isinstance(kinds, list) and isinstance(depth, int) and len(kinds) != depth:
    raise CheckpointError(
      f'{path} has {len(kinds)} layer_types: expected one for each of the num_hidden_layers={depth}'
    )
  try:
    return size_class(config).from_dict(raw)
  except Exception as error:  # its validators raise exceptions of their own, without a common base
    why = ' '.join(str(error).split())[:300]
    raise CheckpointError(f'{path} is not a configuration of {model_type}: {why}') from error


def _check_labels(raw, path):
  """Checks the names of classes in a config.json."""
  names = raw.get('id2label')
  if names is None:
    return
  valid = (
    isinstance(names, dict)
    and len(names) <= MAX_LABELS
    and set(map(str, names)) == set(map(str, range(len(names))))
    and all(isinstance(name, str) for name in names.values())
  )
  if not valid:
    raise CheckpointError(
      f'{path} has id2label={names!r:.200}: expected names of classes 0, 1, ..., at most'
      f' {MAX_LABELS}'
    )


def check_size(
  size: Any,
  where: object,
  counts: Sequence[str],
  scales: Sequence[str],
  rates: Sequence[str],
  optional: Sequence[str] = (),
) -> None:
  """Checks the numbers of a config, before anything is allocated.

  Args:
    size: a config of transformers.
    where: the file, for errors.
    counts: keys of integers from 1 on.
    scales: keys of finite numbers from 0 on.
    rates: keys of dropout rates, from 0 to below 1.
    optional: those of them that may be None.

  Raises:
    CheckpointError: a number that no model has.
  """
  for key in (*counts, *scales, *rates):
    value = getattr(size, key)
    number = type(value) in (int, float) and abs(value) < math.inf
    if value is None and key in optional:
      continue
    if key in counts:
      most = MAX_LAYERS if key == 'num_hidden_layers' else MAX_COUNT
      valid, expected = type(value) is int and 1 <= value <= most, f'an integer from 1 to {most}'
    elif key in scales:
      valid, expected = number and value >= 0, 'a finite number from 0 on'
    else:
      valid, expected = number and 0 <= value < 1, 'a number from 0 to below 1'
    if not valid:
      raise CheckpointError(f'{where} has {key}={value!r:.200}: expected {expected}')


def check_dtype(dtype: str) -> None:
  """Raises CheckpointError for a dtype that a file cannot have."""
  if dtype not in FLOATS:
    raise CheckpointError(f'dtype={dtype!r}: expected one of {list(FLOATS)}')


def check_vocab(
  source: str | os.PathLike | Sequence[str], size: Any, padding: int = 127
) -> list[str] | None:
  """Reads a vocabulary and compares it with the rows of the word embeddings.

  Args:
    source: see `folder.read_vocab`.
    size: a config of transformers.
    padding: rows that the table may have beyond the pieces, if the number of its rows divides by 8.

  Returns:
    The pieces; None for a folder without a vocabulary.

  Raises:
    CheckpointError: a vocabulary that cannot be read or does not fit.
  """
  pieces = hf_folder.read_vocab(source)
  rows = size.vocab_size
  # Tables are often padded to a width that suits the hardware; every id still has its row.
  padded = rows % 8 == 0 and pieces is not None and len(pieces) < rows <= len(pieces) + padding
  if pieces is not None and len(pieces) != rows and not padded:
    raise CheckpointError(
      f'a vocabulary of {len(pieces)} pieces does not fit the {rows} rows of the word embeddings'
      + (f' ({source})' if isinstance(source, str | pathlib.Path) else '')
    )
  return pieces


def shapes(
  module: type, size: Any, heads: Sequence[str], widths: Sequence[tuple[int, int, int]]
) -> dict[str, tuple[int, ...]]:
  """Returns {path: shape} of a Flax model. Only one layer is traced, and given its widths.

  Args:
    module: the Flax class, called with (size, heads, labels).
    size: a config of transformers.
    heads: names of heads.
    widths: (heads, width of a head, inner neurons) of each layer.
  """
  plain = copy.deepcopy(size)
  for field in OWN:
    if getattr(plain, field, None) is not None:
      setattr(plain, field, None)
  one_layer = _one_layer_shapes(
    module, type(size), plain.to_json_string(), tuple(heads), size.num_labels
  )
  of_all = {
    path.replace('layer_0', f'layer_{i}'): shape
    for path, shape in one_layer.items()
    for i in range(size.num_hidden_layers if 'layer_0' in path else 1)
  }
  for i, (count, width, inner) in enumerate(widths):
    layer, mixed, hidden = f'encoder/layer_{i}', count * width, size.hidden_size
    for name in ('query', 'key', 'value'):
      of_all[f'{layer}/attention/{name}/kernel'] = (hidden, mixed)
      of_all[f'{layer}/attention/{name}/bias'] = (mixed,)
    of_all[f'{layer}/attention/output/kernel'] = (mixed, hidden)
    of_all[f'{layer}/ffn/intermediate/kernel'] = (hidden, inner)
    of_all[f'{layer}/ffn/intermediate/bias'] = (inner,)
    of_all[f'{layer}/ffn/output/kernel'] = (inner, hidden)
  return of_all


# Cached: the models of a grid have one size, and a trace takes longer than reading a small file.
@functools.lru_cache(maxsize=64)
def _one_layer_shapes(module, config, size, heads, labels):
  one_layer = config.from_dict(json.loads(size))
  one_layer.num_hidden_layers = 1
  ids, valid = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (np.int32, bool))
  init = module(one_layer, heads, labels).init
  tree = jax.eval_shape(init, jax.random.key(0), ids, ids, valid)['params']
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep='/').items()}


def respell(
  stored: Mapping[str, np.ndarray], where: object, spellings: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
  """Renames tensors to the names that transformers writes today.

  Args:
    stored: {name: array} of a file.
    where: the file, for errors.
    spellings: (regular expression, replacement) pairs, applied in order.

  Returns:
    {name: array}; copies of one tensor become one.

  Raises:
    CheckpointError: copies of one tensor that differ.
  """
  renamed, spelled = {}, {}
  for name, array in stored.items():
    today = name
    for old, new in spellings:
      today = re.sub(old, new, today)
    if today in renamed and not np.array_equal(whole(renamed[today]), whole(array)):
      raise CheckpointError(
        f'{where}: {spelled[today]} and {name} differ, but are one tensor in this model'
      )
    renamed[today], spelled[today] = array, name
  return renamed


def compare(
  arrays: Mapping[str, Any],
  expected: Mapping[str, tuple[int, ...]],
  where: object,
  heads: Mapping[str, str],
) -> None:
  """Compares arrays with the shapes of a model.

  Args:
    arrays: {name: array}.
    expected: {name: shape}.
    where: the file or tree, for errors.
    heads: {prefix of names: head that they belong to}.

  Raises:
    CheckpointError: one message with every missing, unknown and wrongly shaped array.
  """
  missing = [name for name in expected if name not in arrays]
  absent = {
    head for prefix, head in heads.items() if any(name.startswith(prefix) for name in missing)
  }
  faults = [f'missing: {listed(missing)}'] if missing else []
  faults += [f'the head {head!r} was asked for and is not there' for head in sorted(absent)]
  unknown = [name for name in arrays if name not in expected]
  faults += [f'unknown: {listed(unknown)}'] if unknown else []
  faults += [
    f'{name}: expected shape {tuple(expected[name])}, found {tuple(arrays[name].shape)}'
    for name in expected
    if name in arrays and tuple(arrays[name].shape) != tuple(expected[name])
  ]
  if faults:
    raise CheckpointError(f'{where} does not hold the model of its config: ' + '; '.join(faults))


def cast(leaves: Mapping[str, Any], dtype: str) -> tuple[dict[str, Any], int]:
  """Returns leaves in another dtype.

  Args:
    leaves: {path: array or `stored.Leaf`}.
    dtype: a key of `FLOATS`.

  Returns:
    {path: numpy array, or a `stored.Leaf` where a leaf is one}, and the number of weights that are
    not 0 and have become 0.

  Raises:
    CheckpointError: finite weights that would become infinite.
  """
  converted, lost = {}, 0
  for path, leaf in leaves.items():
    if is_stored(leaf) and leaf.dtype == FLOATS[dtype]:
      converted[path] = leaf
      continue
    for piece in pieces(leaf if is_stored(leaf) else jax.device_get(leaf)):
      with np.errstate(over='ignore', under='ignore'):
        narrow = piece.astype(FLOATS[dtype], copy=False)
      if not np.isfinite(narrow.astype(np.float32, copy=False)).all() and np.isfinite(piece).all():
        raise CheckpointError(f'{path} holds weights too large for dtype={dtype!r}')
      lost += int(np.count_nonzero(piece) - np.count_nonzero(narrow))
    converted[path] = Cast(leaf, np.dtype(FLOATS[dtype])) if is_stored(leaf) else narrow
  return converted, lost


def write(
  folder: str | os.PathLike,
  texts: Mapping[str, str],
  tensors: Mapping[str, Any],
  size: Any,
  vocabulary: str,
  most: int | str = hf_folder.SHARD_BYTES,
) -> None:
  """Writes a model into a folder, unless it would not fit the vocabulary that is or stays there.

  Args:
    folder: the folder; it is made if it does not exist.
    texts: {file name: content}.
    tensors: {name: array or `stored.Leaf`} of model.safetensors.
    size: a config of transformers.
    vocabulary: the file of a vocabulary, if `texts` has one.
    most: bytes of one file of weights, see `folder.write`.

  Raises:
    CheckpointError: the vocabulary does not fit; the folder cannot be written.
  """
  if vocabulary in texts:
    hf_folder.check_free(folder, vocabulary)
  elif pathlib.Path(folder).is_dir():
    check_vocab(folder, size)
  hf_folder.write(folder, texts, tensors, most)


def transfer(params: Mapping, fresh: Mapping) -> tuple[dict, tuple[str, ...]]:
  """Copies pre-trained leaves into a fresh tree, whose heads may differ.

  Args:
    params: the pre-trained tree; leaves that `fresh` lacks are left out.
    fresh: a tree of new parameters.

  Returns:
    (`fresh` with the leaves of `params`, in the dtypes of `fresh`; paths of leaves that stayed
    fresh).

  Raises:
    CheckpointError: no leaf in common; a leaf with two shapes.
  """
  pretrained = traverse_util.flatten_dict(params, sep='/')
  new = traverse_util.flatten_dict(fresh, sep='/')
  if not pretrained.keys() & new.keys():
    raise CheckpointError(
      f'no leaf to transfer: pre-trained {listed(pretrained)}; fresh {listed(new)}'
    )
  wrong = [
    f'{path} is {tuple(pretrained[path].shape)} pre-trained and {tuple(leaf.shape)} fresh'
    for path, leaf in new.items()
    if path in pretrained and pretrained[path].shape != leaf.shape
  ]
  if wrong:
    raise CheckpointError(
      f'cannot transfer: {listed(wrong)}; remove a head from the pre-trained tree to draw it anew'
    )
  merged = {
    path: _in_dtype(pretrained[path], leaf.dtype) if path in pretrained else leaf
    for path, leaf in new.items()
  }
  stayed = tuple(path for path in new if path not in pretrained)
  return traverse_util.unflatten_dict(merged, sep='/'), stayed


def _in_dtype(array, dtype):
  """An array in another dtype; what is stored as float32 stays in its file."""
  if is_stored(array):
    return array if dtype == array.dtype else array.read().astype(dtype)
  return array.astype(dtype)


def tensor_name(path: str, modules: dict[str, str], leaves: dict[str, str]) -> str:
  """Returns the name of the tensor in the file that holds a leaf.

  Args:
    path: of the leaf, such as 'encoder/layer_3/ffn/output/kernel'.
    modules: {path of a module, with layer_{} for a layer's number: template of its name}.
    leaves: {last level of a path: its name}.
  """
  module, leaf = path.rsplit('/', 1)
  layer = re.search(r'layer_(\d+)', module)
  template = modules[re.sub(r'layer_\d+', 'layer_{}', module)]
  return f'{template.format(layer and layer[1])}.{leaves[leaf]}'

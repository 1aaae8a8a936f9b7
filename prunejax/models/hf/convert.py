"""What the formats of Hugging Face's models share: sizes read, trees compared and moved, leaves cast."""

import functools
import json
import pathlib
import re

import jax
import numpy as np
from flax import traverse_util

from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError, listed

FLOATS = {'float32': np.float32, 'bfloat16': jax.dtypes.bfloat16, 'float16': np.float16}


def read_size(directory, model_type, config, only):
  """config.json as a `config`, a class of transformers.

  Args:
    directory: holds config.json; without a model_type it is taken for this one.
    model_type: which model it has to be.
    config: the class.
    only: {key: the one value that our model computes}.

  Raises:
    CheckpointError: another model's, or one that the class refuses.
  """
  path = pathlib.Path(directory) / 'config.json'
  raw = hf_folder.read_config(directory)
  if raw.get('model_type', model_type) != model_type:
    raise CheckpointError(f'{path} is of model_type {raw["model_type"]!r}: expected "{model_type}"')
  for key, value in only.items():
    if raw.get(key, value) != value:
      raise CheckpointError(f'{path} has {key}={raw[key]!r}: expected {value!r}')
  try:
    return config.from_dict(raw)
  except Exception as error:  # its validation raises exceptions of its own, under no common base
    why = ' '.join(str(error).split())
    raise CheckpointError(f'{path} is no configuration of {model_type}: {why}') from error


def check_size(size, where, model):
  """Raises CheckpointError for numbers that no model has, before anything is made of them."""
  for key in ('vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads'):
    if not 1 <= getattr(size, key) <= (1000 if key == 'num_hidden_layers' else 2**31):
      raise CheckpointError(f'{where} has {key}={getattr(size, key)}: no {model} is of that size')


def check_dtype(dtype):
  """Raises CheckpointError for what a file's weights cannot be."""
  if dtype not in FLOATS:
    raise CheckpointError(f'dtype={dtype!r}: expected one of {list(FLOATS)}')


def check_vocab(source, size):
  """The pieces of `source`, or None; raises CheckpointError where they do not fit `size`."""
  pieces = hf_folder.read_vocab(source)
  rows = size.vocab_size
  # Tables are often rounded up so that their width suits the hardware; ids still all fall inside.
  rounded = rows % 8 == 0 and pieces is not None and len(pieces) < rows < len(pieces) + 128
  if pieces is not None and len(pieces) != rows and not rounded:
    raise CheckpointError(
      f'a vocabulary of {len(pieces)} pieces does not fit the {rows} rows of the word embeddings'
      + (f' ({source})' if isinstance(source, str | pathlib.Path) else '')
    )
  return pieces


def shapes(module, size, heads):
  """{path: shape} of a Flax module of (size, heads, labels); one layer is traced, since all are alike."""
  found = {}
  for path, shape in _of_one_layer(
    module, type(size), size.to_json_string(), tuple(heads), size.num_labels
  ).items():
    for i in range(size.num_hidden_layers if 'layer_0' in path else 1):
      found[path.replace('layer_0', f'layer_{i}')] = shape
  return found


@functools.lru_cache(
  maxsize=64
)  # the models of a grid are of one size, and a trace takes longer than a small file
def _of_one_layer(module, config, size, heads, labels):
  one = config.from_dict(json.loads(size))
  one.num_hidden_layers = 1
  ids, valid = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (np.int32, bool))
  tree = jax.eval_shape(module(one, heads, labels).init, jax.random.key(0), ids, ids, valid)[
    'params'
  ]
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep='/').items()}


def respell(stored, where, spellings):
  """{today's name: array}; copies of one tensor under several names must agree. spellings: ((regex, today's), ...)."""
  found, spelled = {}, {}
  for name, array in stored.items():
    today = name
    for old, new in spellings:
      today = re.sub(old, new, today)
    if today in found and not np.array_equal(found[today], array):
      raise CheckpointError(
        f'{where}: {spelled[today]} and {name} differ, but are one tensor in this model'
      )
    found[today], spelled[today] = array, name
  return found


def compare(found, asked, where, heads):
  """Raises one CheckpointError with all that sets {name: array} apart from {name: shape}.

  heads: {how the names of its tensors start: head}.
  """
  missing = [name for name in asked if name not in found]
  lost = {head for start, head in heads.items() if any(n.startswith(start) for n in missing)}
  faults = [f'missing: {listed(missing)}'] if missing else []
  faults += [f'the head {head!r} was asked for and is not there' for head in sorted(lost)]
  extra = [name for name in found if name not in asked]
  faults += [f'not understood: {listed(extra)}'] if extra else []
  faults += [
    f'{name}: expected shape {tuple(asked[name])}, found {tuple(found[name].shape)}'
    for name in asked
    if name in found and tuple(found[name].shape) != tuple(asked[name])
  ]
  if faults:
    raise CheckpointError(f'{where} does not hold the model of its config: ' + '; '.join(faults))


def cast(path, leaf, dtype):
  """One leaf as numpy, in the dtype asked for. Raises CheckpointError where that is too small for it."""
  leaf = np.asarray(jax.device_get(leaf))
  with np.errstate(over='ignore'):
    found = leaf.astype(FLOATS[dtype])
  if np.isinf(found.astype(np.float32)).any() and np.isfinite(leaf.astype(np.float32)).all():
    raise CheckpointError(f'{path} holds weights too large for dtype={dtype!r}')
  return found


def transfer(params, fresh):
  """(tree, stayed): `fresh` with every leaf that `params` has too, and the paths that stayed fresh.

  Leaves of `params` without a place in `fresh` (another head's) are left out. Raises
  CheckpointError where the trees share no leaf or shared ones differ in shape (paths, both shapes).
  """
  had = traverse_util.flatten_dict(params, sep='/')
  new = traverse_util.flatten_dict(fresh, sep='/')
  if not had.keys() & new.keys():
    raise CheckpointError(f'no leaf to transfer: pre-trained {listed(had)}; fresh {listed(new)}')
  wrong = [
    f'{path} is {tuple(had[path].shape)} pre-trained and {tuple(leaf.shape)} fresh'
    for path, leaf in new.items()
    if path in had and had[path].shape != leaf.shape
  ]
  if wrong:
    raise CheckpointError(
      f'cannot transfer: {listed(wrong)}; drop a head from the pre-trained tree to start it afresh'
    )
  merged = {path: had[path].astype(new[path].dtype) if path in had else new[path] for path in new}
  return traverse_util.unflatten_dict(merged, sep='/'), tuple(p for p in new if p not in had)

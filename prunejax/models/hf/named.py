"""Reads and writes a model whose Hugging Face folder a table of names describes.

A `Layout` is the whole table of a family, for both directions. A tensor of theirs may hold several
of our leaves, one after the other along its first axis. There is no table of shapes: a file must
hold the leaves that our module has at the size in config.json.
"""

import collections
import copy
import functools
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError


class Layout(NamedTuple):
  """What sets one family apart.

  Attributes:
    model_type: of transformers.
    module: the Flax class, called with (size, heads, outputs).
    config: the name of the config class of transformers.
    check: (size, heads) -> None, or ValueError for a size that the module does not compute.
    heads: names of all heads.
    names: {our leaf, with layer_{} for the number of a layer: template of their tensor}.
    joined: leaves that one tensor holds, in their order: ((leaf, leaf, ...), ...).
    theirs: (leaf, array or shape of ours, size) -> the array, or a shape, as their tensor holds it.
    ours: (leaf, array of theirs, size) -> our array.
    prefixes: {prefix of their names: head that they belong to}.
    architectures: {heads: name of their class}; the first is written where no other fits.
    spellings: (regular expression, replacement) pairs of other names, see `convert.respell`.
    buffers: a regular expression of tensors that hold no parameter.
    required: {key of the config: the only value that the module computes}.
    counts, scales, rates, optional: keys of the config, see `convert.check_size`.
    tokenizer: (vocabulary, size) -> {file name: text}; it may set ids in the size.
    also: other classes of transformers that can be read.
    shared: prefixes of our leaves that are read wherever the file has them, for heads to come.
  """

  model_type: str
  module: type
  config: str
  check: Callable
  heads: tuple
  names: dict
  joined: tuple
  theirs: Callable
  ours: Callable
  prefixes: dict
  architectures: dict
  spellings: tuple
  buffers: str
  required: dict
  counts: tuple
  scales: tuple
  rates: tuple
  optional: tuple
  tokenizer: Callable
  also: tuple = ()
  shared: tuple = ()


def functions(layout: Layout) -> tuple:
  """Returns the functions (load, save, parts, read_size, hf_name) of a family."""
  return tuple(functools.partial(f, layout) for f in (load, save, parts, read_size, hf_name))


def load(
  layout: Layout,
  folder: str | os.PathLike,
  *,
  heads: Sequence[str] | None = None,
  optional: Sequence[str] = (),
  vocab: str | os.PathLike | Sequence[str] | None = None,
) -> tuple[dict, Any]:
  """Reads a model.

  Args:
    layout: of its family.
    folder: holds config.json, and model.safetensors or its shards.
    heads: those that are needed; others are not read. None: those of pre-training.
    optional: those of `heads` that params lack if the file has no tensor of them.
    vocab: the vocabulary that the model will be used with: pieces or a path, see
      `folder.read_vocab`. None checks the vocabulary in the folder, if there is one.

  Returns:
    (params, size): a nested dict of float32 numpy arrays, and the config.

  Raises:
    CheckpointError: a file that is missing or damaged; another model; missing, unknown or wrongly
      shaped tensors, all in one message; a vocabulary that does not fit the word embeddings.
  """
  folder = pathlib.Path(folder)
  heads = layout.heads[:1] if heads is None else tuple(heads)
  size = read_size(layout, folder, heads=heads)
  every = _shapes(layout, size, layout.heads)
  wanted = _shapes(layout, size, heads)
  stored = hf_folder.read_tensors(folder, ignore=layout.buffers)
  tensors = convert.respell(stored, folder, layout.spellings)
  wanted |= {
    path: shape
    for path, shape in every.items()
    if path.startswith(layout.shared or '\0') and hf_name(layout, path) in tensors
  }
  known, expected = _tensors(layout, every, size), _tensors(layout, wanted, size)
  tensors = {name: x for name, x in tensors.items() if name in expected or name not in known}
  for prefix, head in layout.prefixes.items():
    if head in optional and not any(name.startswith(prefix) for name in tensors):
      expected = {name: shape for name, shape in expected.items() if not name.startswith(prefix)}
  convert.compare(tensors, expected, folder, layout.prefixes)
  convert.check_vocab(folder if vocab is None else vocab, size)
  leaves = {}
  for name, paths in _holders(layout, wanted).items():
    if name not in expected:
      continue
    rows = [layout.theirs(path, wanted[path], size)[0] for path in paths]
    held = np.split(tensors[name], np.cumsum(rows)[:-1]) if len(paths) > 1 else [tensors[name]]
    for path, array in zip(paths, held, strict=True):
      leaves[path] = np.array(layout.ours(path, array, size), np.float32, order='C')
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def save(
  layout: Layout,
  folder: str | os.PathLike,
  params: Mapping,
  size: Any,
  *,
  vocab: Any = None,
  dtype: str = 'float32',
  most: int | str = hf_folder.SHARD_BYTES,
  carried: Mapping[str, str] = MappingProxyType({}),
) -> int:
  """Writes a folder that `load` and PyTorch's `from_pretrained` read.

  Nothing is left half-written, see `folder.write`.

  Args:
    layout: of the family.
    folder: the folder; it is made if it does not exist.
    params: the tree of the module, with any heads.
    size: its config; the number of labels is taken from the classifier in params.
    vocab: the vocabulary to write, as `layout.tokenizer` takes it. None writes no vocabulary.
    dtype: 'float32', 'bfloat16' or 'float16', of the file.
    most: bytes of one file of weights, see `folder.write`.
    carried: texts to write beside the model, see `carried_texts.read`.

  Returns:
    The number of weights that are not 0 and are 0 as `dtype`.

  Raises:
    CheckpointError: leaves that are missing, unknown or wrongly shaped for `size`; weights too
      large for `dtype`; a vocabulary that does not fit; a folder that cannot be written.
  """
  texts, tensors, lost = parts(layout, params, size, vocab=vocab, dtype=dtype)
  if vocab is None and pathlib.Path(folder).is_dir():
    convert.check_vocab(folder, size)
  hf_folder.write(folder, {**texts, **carried}, tensors, most)
  return lost


def parts(
  layout: Layout, params: Mapping, size: Any, *, vocab: Any = None, dtype: str = 'float32'
) -> tuple[dict[str, str], dict[str, np.ndarray], int]:
  """Returns what `save` writes, whose arguments it takes.

  Returns:
    {file name: text}, {name: array} of model.safetensors, and the number of weights that `dtype`
    makes 0.
  """
  convert.check_dtype(dtype)
  leaves = traverse_util.flatten_dict(params, sep='/')
  heads = tuple(head for head in layout.heads if any(path.split('/')[0] == head for path in leaves))
  if not heads and layout.shared and any(path.startswith(layout.shared) for path in leaves):
    first = layout.heads[:1]  # a head may have no leaves but those that it shares
    heads = first if _shapes(layout, size, first).keys() <= leaves.keys() else heads
  size = copy.deepcopy(size)
  if 'classifier/kernel' in leaves and np.ndim(leaves['classifier/kernel']) == 2:
    outputs = leaves['classifier/kernel'].shape[1]
    if size.num_labels != outputs:
      size.num_labels = outputs
  size.architectures = [
    layout.architectures.get(heads) or next(iter(layout.architectures.values()))
  ]
  size.dtype = dtype
  _check_size(layout, size, 'size', heads)
  shapes = _shapes(layout, size, heads)
  convert.compare(leaves, shapes, 'params', {head: head for head in layout.heads})
  texts = {}
  if vocab is not None:
    texts |= layout.tokenizer(vocab, size)
  texts['config.json'] = size.to_json_string()
  converted, lost = convert.cast(leaves, dtype)
  tensors = {
    name: np.concatenate([layout.theirs(path, converted[path], size) for path in paths])
    for name, paths in _holders(layout, shapes).items()
  }
  return texts, tensors, lost


def read_size(layout: Layout, folder: str | os.PathLike, *, heads: Sequence[str] = ()) -> Any:
  """Reads config.json.

  Args:
    layout: of the family.
    folder: the folder that holds it.
    heads: names of heads, which are checked.

  Raises:
    CheckpointError: a config that is missing, damaged, of another model or not possible.
  """
  classes = (*layout.architectures.values(), *layout.also)
  size = convert.read_size(folder, layout.model_type, layout.config, layout.required, classes)
  _check_size(layout, size, pathlib.Path(folder) / 'config.json', heads)
  return size


def hf_name(layout: Layout, path: str) -> str:
  """Returns the name of the tensor that holds a leaf."""
  layer = re.search(r'layer_(\d+)', path)
  template = layout.names[re.sub(r'layer_\d+', 'layer_{}', path)]
  return template.format(layer and layer[1])


def _holders(layout, paths):
  """{their tensor: our leaves that it holds, in order}."""
  order = {leaf: i for group in layout.joined for i, leaf in enumerate(group)}
  plain = lambda path: re.sub(r'layer_\d+', 'layer_{}', path)
  held = collections.defaultdict(list)
  for path in sorted(paths, key=lambda path: order.get(plain(path), 0)):
    held[hf_name(layout, path)].append(path)
  return held


def _tensors(layout, shapes, size):
  """{their tensor: its shape} of our leaves {path: shape}."""
  out = {}
  for name, paths in _holders(layout, shapes).items():
    each = [layout.theirs(path, shapes[path], size) for path in paths]
    out[name] = (sum(shape[0] for shape in each), *each[0][1:])
  return out


def _shapes(layout, size, heads):
  """{path: shape} of our module. Two layers are traced: the first may lack what the others have."""
  depth = size.num_hidden_layers
  traced = _traced(
    layout.module, layout.config, json.dumps(_shallow(size)), tuple(heads), size.num_labels
  )
  shapes = {}
  for path, shape in traced.items():
    if 'layer_1/' in path:
      shapes |= {path.replace('layer_1/', f'layer_{i}/'): shape for i in range(1, depth)}
    else:
      shapes[path] = shape
  return shapes


def _shallow(size):
  """The size as a dict, with at most two layers."""
  shallow = copy.deepcopy(size)
  shallow.num_hidden_layers = min(size.num_hidden_layers, 2)
  if getattr(shallow, 'layer_types', None):
    shallow.layer_types = shallow.layer_types[: shallow.num_hidden_layers]
  return shallow.to_dict()


# Cached: the models of a grid have one size, and a trace takes longer than reading a small file.
@functools.lru_cache(maxsize=64)
def _traced(module, config, size, heads, outputs):
  shallow = convert.size_class(config).from_dict(json.loads(size))
  ids, valid = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (np.int32, bool))
  init = module(shallow, heads, outputs).init
  tree = jax.eval_shape(init, jax.random.key(0), ids, ids, valid)['params']
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep='/').items()}


def _check_size(layout, size, where, heads):
  convert.check_size(
    size, where, layout.counts, layout.scales, layout.rates, optional=layout.optional
  )
  try:
    layout.check(size, heads)
  except (ValueError, TypeError) as error:
    raise CheckpointError(f'{where}: {error}') from error

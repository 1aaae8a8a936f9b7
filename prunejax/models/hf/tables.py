"""Reads and writes decoders whose leaves are the tensors of a Hugging Face folder, one to one.

A family is a `Table`: the names of its tensors and what its config may say. Kernels are transposed,
since PyTorch's are [out, in]. No number is scaled, that of a query's kernel neither.
"""

import copy
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers
from flax import traverse_util

from prunejax.data import tokenizer_file
from prunejax.models import gguf_file
from prunejax.models.bert import OWN
from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError
from prunejax.models.hf.stored import as_leaf

LEAVES = {'kernel': 'weight', 'bias': 'bias', 'scale': 'weight', 'embedding': 'weight'}
HEADS = {'score.': 'classifier', 'lm_head.': 'lm'}  # {prefix of a tensor: its head}
HEAD = 'lm_head.weight'


class Table(NamedTuple):
  """How the folder of one family is read and written.

  Attributes:
    module: the Flax class.
    configs: {model_type: name of the config class of transformers}.
    classes: {model_type: {heads: class of transformers}}, the bare model under ().
    check: (size, heads), raises ValueError for a size that the module would compute wrongly.
    widths: see `bert.widths`.
    modules: {our module: theirs}; {} is the number of the layer.
    spellings: see `convert.respell`.
    buffers: a regular expression of tensors that are not read.
    words: the name of the word table.
    required: {key of the config: the only value that the module computes}.
    counts: keys of the config, see `convert.check_size`.
    scales: as `counts`.
    rates: as `counts`.
    optional: those of `counts` that may be None.
  """

  module: Any
  configs: Mapping[str, str]
  classes: Mapping[str, Mapping[tuple[str, ...], str]]
  check: Callable[..., None]
  widths: Callable[[Any], list]
  modules: Mapping[str, str]
  spellings: tuple[tuple[str, str], ...]
  buffers: str
  words: str
  required: Mapping[str, Any]
  counts: tuple[str, ...]
  scales: tuple[str, ...]
  rates: tuple[str, ...]
  optional: tuple[str, ...]


def read_size(table: Table, source: str | os.PathLike, *, heads: Sequence[str] = ()) -> Any:
  """Reads the config of a folder, or of a GGUF file.

  Args:
    table: the family.
    source: the folder that holds config.json, or the file.
    heads: names of heads, which are checked.

  Raises:
    CheckpointError: a config that is missing, damaged, of another model or not possible.
  """
  path = pathlib.Path(source)
  if gguf_file.is_gguf(path):
    size = _of_gguf(path, lambda file: file.size)
    check_size(table, size, path, heads)
    return size
  path = path / 'config.json'
  kind = hf_folder.read_config(source).get('model_type', next(iter(table.configs)))
  if kind not in table.configs:
    raise CheckpointError(f'{path} is of model_type {kind!r:.200}: expected {[*table.configs]}')
  classes = table.classes[kind].values()
  size = convert.read_size(source, kind, table.configs[kind], table.required, classes)
  check_size(table, size, path, heads)
  return size


def check_size(table: Table, size: Any, where: object, heads: Sequence[str] = ()) -> None:
  """Raises CheckpointError for a size that is not possible or that our module does not compute."""
  convert.check_size(size, where, table.counts, table.scales, table.rates, table.optional)
  try:
    table.check(size, tuple(heads))
  except (ValueError, TypeError) as error:
    raise CheckpointError(f'{where}: {error}') from error


def load(
  table: Table,
  source: str | os.PathLike,
  *,
  heads: Sequence[str] = ('lm',),
  optional: Sequence[str] = (),
  vocab: str | os.PathLike | Sequence[str] | None = None,
  parts: bool = False,
) -> tuple[dict, Any]:
  """Reads a model.

  Args:
    table: the family.
    source: a folder that holds config.json, and model.safetensors or its shards; or a GGUF file.
    heads: those of 'lm' and 'classifier' that are needed; others are not read.
    optional: those of `heads` that the file may lack; params then lack them too.
    vocab: the vocabulary that the model will be used with: pieces or a path, see
      `folder.read_vocab`. None checks the vocabulary in the folder, if there is one.
    parts: leaves stay in their files, as `stored.Leaf`s, in the place of arrays.

  Returns:
    (params, size): a nested dict of float32 numpy arrays, and the config.

  Raises:
    CheckpointError: a file that is missing or damaged; another model; missing, unknown or wrongly
      shaped tensors, all in one message; a vocabulary that does not fit the word embeddings.
  """
  source, heads = pathlib.Path(source), tuple(heads)
  size = read_size(table, source, heads=heads)
  if gguf_file.is_gguf(source):
    stored = _of_gguf(source, lambda file: file.tensors(parts=parts))
  else:
    stored = hf_folder.read_tensors(source, ignore=table.buffers, parts=parts)
    if vocab is None and source.is_dir():
      convert.check_vocab(source, size, tokenizer_file.PADDING)
  if vocab is not None:
    convert.check_vocab(vocab, size, tokenizer_file.PADDING)
  if 'lm' not in heads:
    stored.pop(HEAD, None)  # nobody reads this copy, so it may differ from the word table
  tied = ((r'^lm_head\.weight$', table.words),) if size.tie_word_embeddings else ()
  tensors = convert.respell(stored, source, (*table.spellings, *tied))
  stored.clear()
  every = shapes(table, size, ('lm', 'classifier'))
  wanted = {
    path: shape
    for path, shape in every.items()
    if (head := path.split('/')[0]) not in ('lm', 'classifier')
    or (head in heads and not (head in optional and hf_name(table, path) not in tensors))
  }
  names = {hf_name(table, path) for path in every} - {hf_name(table, path) for path in wanted}
  tensors = {name: x for name, x in tensors.items() if name not in names}
  expected = {hf_name(table, path): _turned(path, shape) for path, shape in wanted.items()}
  convert.compare(tensors, expected, source, HEADS)
  leaves = {}
  for path in wanted:
    tensor = tensors.pop(hf_name(table, path))  # so that only one copy of a tensor is held
    is_kernel = path.endswith('/kernel')
    leaves[path] = as_leaf(tensor.T if is_kernel else tensor)
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def parts(
  table: Table,
  params: Mapping,
  size: Any,
  *,
  tokenizer: tokenizers.Tokenizer | None = None,
  dtype: str = 'float32',
) -> tuple[dict[str, str], dict[str, np.ndarray], int]:
  """Returns what a folder holds. Beside a classifier the head 'lm' is left out, as by transformers.

  Args:
    table: the family.
    params: the tree of its module.
    size: its config; the number of labels is taken from the classifier in params.
    tokenizer: its tokenizer; None writes none.
    dtype: 'float32', 'bfloat16' or 'float16'.

  Returns:
    {file name: text}, {name: array or `stored.Leaf`} of the weights, and the number of weights that
    `dtype` makes 0.

  Raises:
    CheckpointError: leaves that are missing, unknown or wrongly shaped for `size`; weights too
      large for `dtype`; a vocabulary that does not fit.
  """
  convert.check_dtype(dtype)
  leaves = traverse_util.flatten_dict(params, sep='/')
  heads = ('classifier',) if 'classifier' in params else ('lm',)
  size = copy.deepcopy(size)
  if heads == ('classifier',):
    if size.num_labels != leaves['classifier/kernel'].shape[-1]:
      size.num_labels = leaves['classifier/kernel'].shape[-1]
    leaves = {path: leaf for path, leaf in leaves.items() if not path.startswith('lm/')}
  size.architectures = [table.classes[size.model_type][heads]]
  size.dtype = dtype
  check_size(table, size, 'size', heads)
  prefixes = {f'{head}/': head for head in HEADS.values()}
  convert.compare(leaves, shapes(table, size, heads), 'params', prefixes)
  texts = {}
  if tokenizer is not None:
    convert.check_vocab(tokenizer_file.pieces(tokenizer), size, tokenizer_file.PADDING)
    if size.pad_token_id is None and heads == ('classifier',):
      # transformers finds the last token of a text by pad_token_id, so it needs one.
      size.pad_token_id = tokenizer.token_to_id(tokenizer_file.end(tokenizer))
    texts = tokenizer_file.texts(tokenizer, size)
  texts['config.json'] = size.to_json_string()
  converted, lost = convert.cast(leaves, dtype)
  tensors = {
    hf_name(table, path): leaf.T if path.endswith('/kernel') else leaf
    for path, leaf in converted.items()
  }
  return texts, tensors, lost


def save(
  table: Table,
  folder: str | os.PathLike,
  params: Mapping,
  size: Any,
  *,
  tokenizer: tokenizers.Tokenizer | None = None,
  dtype: str = 'float32',
  most: int | str = hf_folder.SHARD_BYTES,
  carried: Mapping[str, str] = MappingProxyType({}),
) -> int:
  """Writes a folder that `load` and PyTorch's `from_pretrained` read; see `parts`.

  Nothing is left half-written, see `folder.write`.

  Args:
    table: the family.
    folder: the folder; it is made if it does not exist.
    params: see `parts`.
    size: see `parts`.
    tokenizer: see `parts`.
    dtype: see `parts`.
    most: bytes of one file of weights; more are divided among several.
    carried: texts to write beside the model, see `carried_texts.read`.

  Returns:
    The number of weights that are not 0 and are 0 as `dtype`.

  Raises:
    CheckpointError: see `parts`; a folder that cannot be written.
  """
  texts, tensors, lost = parts(table, params, size, tokenizer=tokenizer, dtype=dtype)
  if tokenizer is None and pathlib.Path(folder).is_dir():
    convert.check_vocab(folder, size, tokenizer_file.PADDING)
  hf_folder.write(folder, {**texts, **carried}, tensors, most)
  return lost


def hf_name(table: Table, path: str) -> str:
  """Returns the name of the tensor that holds a leaf."""
  return convert.tensor_name(path, table.modules, LEAVES)


def shapes(table: Table, size: Any, heads: Sequence[str]) -> dict[str, tuple[int, ...]]:
  """Returns {path: shape} of a model. One layer of each width is traced."""
  text, of_all = size.to_json_string(use_diff=False), {}
  for i, widths in enumerate(table.widths(size)):
    one = _one_layer(table.module, type(size), text, tuple(heads), size.num_labels, widths)
    of_all |= {path.replace('layer_0/', f'layer_{i}/'): shape for path, shape in one.items()}
  return of_all


# Cached: the models of a grid have one size, and a trace takes longer than reading a small file.
@functools.lru_cache(maxsize=64)
def _one_layer(module, config, text, heads, labels, widths):
  fields = json.loads(text)
  fields |= {'num_hidden_layers': 1, OWN[0]: [widths[0]], OWN[1]: [widths[2]]}
  if fields.get('layer_types'):
    fields['layer_types'] = fields['layer_types'][:1]
  ids, valid = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (np.int32, bool))
  init = module(config.from_dict(fields), heads, labels).init
  tree = jax.eval_shape(init, jax.random.key(0), ids, ids, valid)['params']
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree, sep='/').items()}


def _turned(path, shape):
  return shape[::-1] if path.endswith('/kernel') else shape


def _of_gguf(path, read):
  try:
    return read(gguf_file.read(path))
  except gguf_file.GgufError as error:
    raise CheckpointError(str(error)) from error

"""Reads and writes GPT-2 as a Hugging Face folder: config.json, model.safetensors, the vocabulary.

A shrunk model (`gpt2.widths`) is read and written too, but other programs cannot read its tensors.

`MODULES` is the whole table of names, for both directions. Their `c_attn` is our query, key and
value side by side. Their kernels are `[in, out]` as ours, except the classifier's. There is no
table of shapes: a file must hold the leaves that `gpt2.Gpt2` has at the size in config.json.
"""

import collections
import copy
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import traverse_util

from prunejax.models import gpt2
from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError, listed
from prunejax.models.hf.stored import as_leaf, columns, whole

if TYPE_CHECKING:
  import transformers

# {our module: theirs}; {} is the number of the layer. `LEAVES` names the leaves within a module.
MODULES = {
  'embeddings/word': 'transformer.wte',
  'embeddings/position': 'transformer.wpe',
  'encoder/layer_{}/attention/norm': 'transformer.h.{}.ln_1',
  'encoder/layer_{}/attention/query': 'transformer.h.{}.attn.c_attn',
  'encoder/layer_{}/attention/key': 'transformer.h.{}.attn.c_attn',
  'encoder/layer_{}/attention/value': 'transformer.h.{}.attn.c_attn',
  'encoder/layer_{}/attention/output': 'transformer.h.{}.attn.c_proj',
  'encoder/layer_{}/ffn/norm': 'transformer.h.{}.ln_2',
  'encoder/layer_{}/ffn/intermediate': 'transformer.h.{}.mlp.c_fc',
  'encoder/layer_{}/ffn/output': 'transformer.h.{}.mlp.c_proj',
  'norm': 'transformer.ln_f',
  'classifier': 'score',
}
SIZE = 'GPT2Config'  # the class of transformers that holds a size
LEAVES = {'kernel': 'weight', 'bias': 'bias', 'scale': 'weight', 'embedding': 'weight'}
JOINED = ('query', 'key', 'value')  # in the order in which c_attn holds them
# Other spellings, replaced in this order: those of a bare GPT2Model, the tied copy.
SPELLINGS = (
  (r'^(wte|wpe|h|ln_f)\.', r'transformer.\1.'),
  (r'^lm_head\.weight$', 'transformer.wte.weight'),
)
BUFFERS = r'(transformer\.)?h\.\d+\.attn\.(masked_)?bias'
HEADS = {'score.': 'classifier'}
ARCHITECTURES = {('lm',): 'GPT2LMHeadModel', ('classifier',): 'GPT2ForSequenceClassification'}
CLASSES = (*ARCHITECTURES.values(), 'GPT2Model')
# Numbers of the config, see `convert.check_size`.
COUNTS = (
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'n_positions',
  'n_inner',
)
SCALES = ('layer_norm_epsilon', 'initializer_range')
RATES = ('resid_pdrop', 'embd_pdrop', 'attn_pdrop')
# Options of the config, with the only value that `gpt2.Gpt2` computes.
REQUIRED = {
  'scale_attn_weights': True,
  'scale_attn_by_inverse_layer_idx': False,
  'add_cross_attention': False,
  'tie_word_embeddings': True,
}
END = '<|endoftext|>'


def load(
  folder: str | os.PathLike,
  *,
  heads: Sequence[str] = ('lm',),
  optional: Sequence[str] = (),
  vocab: str | os.PathLike | Sequence[str] | None = None,
  parts: bool = False,
) -> tuple[dict, 'transformers.GPT2Config']:
  """Reads a model.

  Args:
    folder: holds config.json, and model.safetensors or its shards.
    heads: those of 'lm' and 'classifier' that are needed; others are not read.
    optional: those of `heads` that params lack if the file has no tensor of them.
    vocab: the vocabulary that the model will be used with: pieces or a path, see
      `folder.read_vocab`. None checks the vocabulary in the folder, if there is one.
    parts: leaves stay in their files, as `stored.Leaf`s, in the place of arrays.

  Returns:
    (params, size): a nested dict of float32 numpy arrays, and the config.

  Raises:
    CheckpointError: a file that is missing or damaged; another model; missing, unknown or wrongly
      shaped tensors, all in one message; a vocabulary that does not fit the word embeddings.
  """
  folder, heads = pathlib.Path(folder), tuple(heads)
  size = read_size(folder, heads=heads)
  shapes = _shapes(size, gpt2.HEADS)
  stored = hf_folder.read_tensors(folder, ignore=BUFFERS, parts=parts)
  if 'lm' not in heads:
    stored.pop('lm_head.weight', None)  # a copy that is not needed may differ
  tensors = convert.respell(stored, folder, SPELLINGS)
  absent = 'classifier' in optional and 'score.weight' not in tensors
  paths = {
    path: shape
    for path, shape in shapes.items()
    if not path.startswith('classifier') or ('classifier' in heads and not absent)
  }
  expected, known = _hf_shapes(paths), _hf_shapes(shapes)
  tensors = {name: x for name, x in tensors.items() if name in expected or name not in known}
  convert.compare(tensors, expected, folder, HEADS)
  convert.check_vocab(folder if vocab is None else vocab, size)
  leaves = {path: as_leaf(_leaf(path, tensors[hf_name(path)])) for path in paths}
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def save(
  folder: str | os.PathLike,
  params: Mapping,
  size: 'transformers.GPT2Config',
  *,
  vocab: tuple[Sequence[str], Sequence[tuple[str, str]]] | None = None,
  dtype: str = 'float32',
  most: int | str = hf_folder.SHARD_BYTES,
  carried: Mapping[str, str] = MappingProxyType({}),
  added: Sequence[Mapping[str, Any]] = (),
) -> int:
  """Writes a folder that `load` and PyTorch's `from_pretrained` read.

  It holds a GPT2LMHeadModel, or a GPT2ForSequenceClassification if there is a classifier. Nothing
  is left half-written, see `folder.write`.

  Args:
    folder: the folder; it is made if it does not exist.
    params: the tree of `gpt2.Gpt2`.
    size: its config; the number of labels is taken from the classifier in params.
    vocab: the vocabulary to write: (pieces in the order of their ids, merges [(left, right), ...]
      in the order of their rank). The config then names <|endoftext|> as first, last and padding
      token. None writes no vocabulary.
    dtype: 'float32', 'bfloat16' or 'float16', of the file.
    most: bytes of one file of weights, or such as '5GB', see `folder.write`.
    carried: texts to write beside the model, see `carried_texts.read`.
    added: tokens that the tokenizer cuts out of a text first, see data/vocabulary.py.

  Returns:
    The number of weights that are not 0 and are 0 as `dtype`.

  Raises:
    CheckpointError: leaves that are missing, unknown or wrongly shaped for `size`; weights too
      large for `dtype`; a vocabulary that does not fit; a folder that cannot be written.
  """
  texts, tensors, lost = parts(params, size, vocab=vocab, dtype=dtype, added=added)
  convert.write(folder, {**texts, **carried}, tensors, size, 'vocab.json', most)
  return lost


def parts(
  params: Mapping,
  size: 'transformers.GPT2Config',
  *,
  vocab: tuple[Sequence[str], Sequence[tuple[str, str]]] | None = None,
  dtype: str = 'float32',
  added: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, str], dict[str, np.ndarray], int]:
  """Returns what `save` writes, whose arguments it takes.

  Returns:
    {file name: text}, {name: array or `stored.Leaf`} of model.safetensors, and the number of
    weights that `dtype` makes 0.
  """
  convert.check_dtype(dtype)
  leaves = traverse_util.flatten_dict(params, sep='/')
  heads = ('classifier',) if 'classifier' in params else ('lm',)
  size = copy.deepcopy(size)
  if 'classifier/kernel' in leaves and np.ndim(leaves['classifier/kernel']) == 2:
    if size.num_labels != leaves['classifier/kernel'].shape[1]:
      size.num_labels = leaves['classifier/kernel'].shape[1]
  size.architectures = [ARCHITECTURES[heads]]
  size.dtype = dtype
  _check_size(size, 'size', heads)
  convert.compare(leaves, _shapes(size, heads), 'params', HEADS)
  texts = {} if vocab is None else _tokenizer_files(*vocab, size, added)
  texts['config.json'] = size.to_json_string()
  converted, lost = convert.cast(leaves, dtype)
  thirds = collections.defaultdict(list)
  for path in sorted(converted, key=lambda path: _third(path) or 0):
    leaf = converted[path]
    thirds[hf_name(path)].append(leaf.T if path == 'classifier/kernel' else leaf)
  tensors = {name: _joined(arrays) for name, arrays in thirds.items()}
  return texts, tensors, lost


def _joined(arrays):
  """One leaf, or the three that a tensor holds."""
  return arrays[0] if len(arrays) == 1 else np.concatenate([*map(whole, arrays)], axis=-1)


def read_size(folder: str | os.PathLike, *, heads: Sequence[str] = ()) -> 'transformers.GPT2Config':
  """Reads config.json.

  Args:
    folder: the folder that holds it.
    heads: names of heads, which are checked.

  Raises:
    CheckpointError: a config that is missing, damaged, of another model or not possible.
  """
  size = convert.read_size(folder, 'gpt2', SIZE, REQUIRED, CLASSES)
  _check_size(size, pathlib.Path(folder) / 'config.json', heads)
  return size


def hf_name(path: str) -> str:
  """Returns the name of the tensor that holds a leaf.

  'encoder/layer_3/ffn/output/kernel' -> 'transformer.h.3.mlp.c_proj.weight'.
  """
  return convert.tensor_name(path, MODULES, LEAVES)


def _shapes(size, heads):
  return convert.shapes(gpt2.Gpt2, size, heads, gpt2.widths(size))


def _third(path):
  """Which third of c_attn a leaf is, or None if it is a tensor of its own."""
  module = path.rsplit('/', 2)[-2]
  return JOINED.index(module) if module in JOINED else None


def _hf_shapes(shapes):
  """{name: shape} of their tensors, from {path: shape} of our leaves."""
  theirs = {}
  for path, shape in shapes.items():
    joined = (*shape[:-1], len(JOINED) * shape[-1]) if _third(path) is not None else shape
    theirs[hf_name(path)] = joined[::-1] if path == 'classifier/kernel' else joined
  return theirs


def _leaf(path, array):
  """The leaf in a tensor."""
  third = _third(path)
  if third is not None:
    width = array.shape[-1] // len(JOINED)
    return columns(array, third * width, (third + 1) * width)
  return array.T if path == 'classifier/kernel' else array


def _check_size(size, where, heads):
  convert.check_size(size, where, COUNTS, SCALES, RATES, optional=('n_inner',))
  try:
    gpt2.check(size, heads)
  except ValueError as error:
    raise CheckpointError(f'{where}: {error}') from error


def _tokenizer_files(pieces, merges, size, added):
  """{file name: text} of a tokenizer. Sets the ids of <|endoftext|> in `size`."""
  beyond = [token['content'] for token in added if token['id'] >= len(pieces)]
  ids = {piece: i for i, piece in enumerate(convert.check_vocab([*pieces, *beyond], size))}
  if END not in ids:
    raise CheckpointError(
      f'a vocabulary of {len(pieces)} pieces lacks {END}: expected a byte-level one of GPT-2'
    )
  repeated = [piece for piece, times in collections.Counter(pieces).items() if times > 1]
  broken = [
    f'{a!r} {b!r}'
    for a, b in merges
    if not a or not b or re.search(r'\s', a + b) or a + b not in ids
  ]
  if repeated or broken:
    raise CheckpointError(
      f'a vocab.json cannot hold a piece twice, and merges.txt only merges pieces into a piece: '
      f'{listed(repeated + broken)}'
    )
  size.bos_token_id = size.eos_token_id = size.pad_token_id = ids[END]
  config = {
    'tokenizer_class': 'GPT2Tokenizer',
    'bos_token': END,
    'eos_token': END,
    'unk_token': END,
    'pad_token': END,
    'model_max_length': size.n_positions,
  }
  return {
    'vocab.json': json.dumps({piece: ids[piece] for piece in pieces}, ensure_ascii=False) + '\n',
    'merges.txt': '#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges),
    'tokenizer_config.json': json.dumps(config | hf_folder.with_added(added), indent=2) + '\n',
  }

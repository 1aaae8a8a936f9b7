"""Reads and writes BERT as a Hugging Face folder: config.json, model.safetensors, the vocabulary.

A shrunk model (`bert.widths`) is read and written too, but other programs cannot read its tensors.

`MODULES` is the whole table of names, for both directions. There is no table of shapes: a file must
hold the leaves that `bert.Bert` has at the size in config.json.
"""

import collections
import copy
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import traverse_util

from prunejax.models import bert
from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError, listed
from prunejax.models.hf.stored import as_leaf

if TYPE_CHECKING:
  import transformers

# {our module: theirs}; {} is the number of the layer. `LEAVES` names the leaves within a module.
MODULES = {
  'embeddings/word': 'bert.embeddings.word_embeddings',
  'embeddings/position': 'bert.embeddings.position_embeddings',
  'embeddings/segment': 'bert.embeddings.token_type_embeddings',
  'embeddings/norm': 'bert.embeddings.LayerNorm',
  'encoder/layer_{}/attention/query': 'bert.encoder.layer.{}.attention.self.query',
  'encoder/layer_{}/attention/key': 'bert.encoder.layer.{}.attention.self.key',
  'encoder/layer_{}/attention/value': 'bert.encoder.layer.{}.attention.self.value',
  'encoder/layer_{}/attention/output': 'bert.encoder.layer.{}.attention.output.dense',
  'encoder/layer_{}/attention/norm': 'bert.encoder.layer.{}.attention.output.LayerNorm',
  'encoder/layer_{}/ffn/intermediate': 'bert.encoder.layer.{}.intermediate.dense',
  'encoder/layer_{}/ffn/output': 'bert.encoder.layer.{}.output.dense',
  'encoder/layer_{}/ffn/norm': 'bert.encoder.layer.{}.output.LayerNorm',
  'pooler': 'bert.pooler.dense',
  'mlm/transform': 'cls.predictions.transform.dense',
  'mlm/norm': 'cls.predictions.transform.LayerNorm',
  'mlm': 'cls.predictions',
  'nsp': 'cls.seq_relationship',
  'classifier': 'classifier',
  'spans': 'qa_outputs',
}
SIZE = 'BertConfig'  # the class of transformers that holds a size
LEAVES = {'kernel': 'weight', 'bias': 'bias', 'scale': 'weight', 'embedding': 'weight'}
# Other spellings, replaced in this order: TensorFlow's, those of a bare BertModel, the tied copies.
SPELLINGS = (
  (r'LayerNorm\.gamma$', 'LayerNorm.weight'),
  (r'LayerNorm\.beta$', 'LayerNorm.bias'),
  (r'^(embeddings|encoder|pooler)\.', r'bert.\1.'),
  (r'^cls\.predictions\.decoder\.weight$', 'bert.embeddings.word_embeddings.weight'),
  (r'^cls\.predictions\.decoder\.bias$', 'cls.predictions.bias'),
)
BUFFERS = r'(bert\.)?embeddings\.(position_ids|token_type_ids)'
ARCHITECTURES = {
  (): 'BertModel',
  ('mlm',): 'BertForMaskedLM',
  ('nsp',): 'BertForNextSentencePrediction',
  ('classifier',): 'BertForSequenceClassification',
  ('spans',): 'BertForQuestionAnswering',
}
CLASSES = (*ARCHITECTURES.values(), 'BertForPreTraining')
HEADS = {
  'bert.pooler.': 'pooler',
  'cls.predictions.': 'mlm',
  'cls.seq_relationship.': 'nsp',
  'classifier.': 'classifier',
  'qa_outputs.': 'spans',
}
# Numbers of the config, see `convert.check_size`.
COUNTS = (
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'max_position_embeddings',
  'type_vocab_size',
)
SCALES = ('layer_norm_eps', 'initializer_range')
RATES = ('hidden_dropout_prob', 'attention_probs_dropout_prob', 'classifier_dropout')
# Options of the config, with the only value that `bert.Bert` computes.
REQUIRED = {
  'position_embedding_type': 'absolute',
  'is_decoder': False,
  'add_cross_attention': False,
  'tie_word_embeddings': True,
  'pruned_heads': {},
}


def load(
  folder: str | os.PathLike,
  *,
  heads: Sequence[str] = ('mlm', 'nsp'),
  optional: Sequence[str] = (),
  vocab: str | os.PathLike | Sequence[str] | None = None,
  parts: bool = False,
) -> tuple[dict, 'transformers.BertConfig']:
  """Reads a model.

  Args:
    folder: holds config.json, and model.safetensors or its shards.
    heads: those of 'mlm', 'nsp', 'classifier' and 'spans' that are needed; others are not read.
    optional: those of `heads`, or 'pooler', that params lack if the file has no tensor of them.
    vocab: the vocabulary that the model will be used with: pieces or a path, see
      `folder.read_vocab`. None checks the vocabulary in the folder, if there is one.
    parts: leaves stay in their files, as `stored.Leaf`s, in the place of arrays.

  Returns:
    (params, size): a nested dict of float32 numpy arrays [in, out], and the config.

  Raises:
    CheckpointError: a file that is missing or damaged; another model; missing, unknown or wrongly
      shaped tensors, all in one message; a vocabulary that does not fit the word embeddings.
  """
  folder, heads = pathlib.Path(folder), tuple(heads)
  size = read_size(folder, heads=heads)
  shapes = _shapes(size, bert.HEADS)
  unneeded = tuple(f'{head}/' for head in bert.HEADS if head not in heads)
  if heads == ('spans',):  # as in `bert.Bert`, it has no pooler
    unneeded += ('pooler/',)
  paths = {hf_name(path): path for path in shapes if not path.startswith(unneeded)}
  expected = {name: _hf_shape(path, shapes[path]) for name, path in paths.items()}
  known = {hf_name(path) for path in shapes}
  stored = hf_folder.read_tensors(folder, ignore=BUFFERS, parts=parts)
  if 'mlm' not in heads:  # copies that are not needed may differ
    stored = {
      name: array
      for name, array in stored.items()
      if not name.startswith('cls.predictions.decoder.')
    }
  tensors = convert.respell(stored, folder, SPELLINGS)
  tensors = {name: x for name, x in tensors.items() if name in expected or name not in known}
  for prefix, part in HEADS.items():
    if part in optional and not any(name.startswith(prefix) for name in tensors):
      paths = {name: path for name, path in paths.items() if not name.startswith(prefix)}
  expected = {name: shape for name, shape in expected.items() if name in paths}
  convert.compare(tensors, expected, folder, HEADS)
  convert.check_vocab(folder if vocab is None else vocab, size)
  leaves = {path: as_leaf(_transposed(path, tensors[name])) for name, path in paths.items()}
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def save(
  folder: str | os.PathLike,
  params: Mapping,
  size: 'transformers.BertConfig',
  *,
  vocab: str | os.PathLike | Sequence[str] | None = None,
  dtype: str = 'float32',
  most: int | str = hf_folder.SHARD_BYTES,
  carried: Mapping[str, str] = MappingProxyType({}),
  lowercase: bool = True,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
  added: Sequence[Mapping[str, Any]] = (),
) -> int:
  """Writes a folder that `load` and PyTorch's `from_pretrained` read.

  Nothing is left half-written, see `folder.write`.

  Args:
    folder: the folder; it is made if it does not exist.
    params: the tree of `bert.Bert`, with any heads; the pooler may be missing beside no head,
      the MLM head alone or the span head alone.
    size: its config; the number of labels is taken from the classifier in params.
    vocab: the vocabulary to write: pieces in the order of their ids or a path, see
      `folder.read_vocab`. None writes no vocabulary.
    dtype: 'float32', 'bfloat16' or 'float16', of the file.
    most: bytes of one file of weights, or such as '5GB', see `folder.write`.
    carried: texts to write beside the model, see `carried_texts.read`.
    lowercase: whether the tokenizer lower-cases its text.
    strip_accents: whether it removes accents; None: if it lower-cases.
    handle_chinese_chars: whether it takes each Chinese character for a word.
    added: tokens that it cuts out of a text first, see data/vocabulary.py.

  Returns:
    The number of weights that are not 0 and are 0 as `dtype`.

  Raises:
    CheckpointError: leaves that are missing, unknown or wrongly shaped for `size`; weights too
      large for `dtype`; a vocabulary that does not fit; a folder that cannot be written.
  """
  texts, tensors, lost = parts(
    params,
    size,
    vocab=vocab,
    dtype=dtype,
    lowercase=lowercase,
    strip_accents=strip_accents,
    handle_chinese_chars=handle_chinese_chars,
    added=added,
  )
  convert.write(folder, {**texts, **carried}, tensors, size, 'vocab.txt', most)
  return lost


def parts(
  params: Mapping,
  size: 'transformers.BertConfig',
  *,
  vocab: str | os.PathLike | Sequence[str] | None = None,
  dtype: str = 'float32',
  **tokenizer: Any,
) -> tuple[dict[str, str], dict[str, np.ndarray], int]:
  """Returns what `save` writes, whose arguments it takes.

  Returns:
    {file name: text}, {name: array} of model.safetensors, and the number of weights that `dtype`
    makes 0.
  """
  convert.check_dtype(dtype)
  leaves = traverse_util.flatten_dict(params, sep='/')
  heads = tuple(head for head in bert.HEADS if head in params)
  size = copy.deepcopy(size)
  if 'classifier/bias' in leaves and size.num_labels != leaves['classifier/bias'].size:
    size.num_labels = leaves['classifier/bias'].size
  size.architectures = [ARCHITECTURES.get(heads, 'BertForPreTraining')]
  size.dtype = dtype
  _check_size(size, 'size', heads)
  shapes = _shapes(size, heads)
  if 'pooler' not in params and heads in ((), ('mlm',), ('spans',)):
    shapes = {path: shape for path, shape in shapes.items() if not path.startswith('pooler/')}
  convert.compare(leaves, shapes, 'params', HEADS)
  texts = {'config.json': size.to_json_string()}
  if vocab is not None:
    texts |= _tokenizer_files(vocab, size, **tokenizer)
  converted, lost = convert.cast(leaves, dtype)
  tensors = {hf_name(path): _transposed(path, leaf) for path, leaf in converted.items()}
  return texts, tensors, lost


def read_size(folder: str | os.PathLike, *, heads: Sequence[str] = ()) -> 'transformers.BertConfig':
  """Reads config.json.

  Args:
    folder: the folder that holds it.
    heads: names of heads, which are checked.

  Raises:
    CheckpointError: a config that is missing, damaged, of another model or not possible.
  """
  path = pathlib.Path(folder) / 'config.json'
  size = convert.read_size(folder, 'bert', SIZE, REQUIRED, CLASSES)
  _check_size(size, path, heads)
  return size


def hf_name(path: str) -> str:
  """Returns the name of a leaf in the file.

  'encoder/layer_3/ffn/output/kernel' -> 'bert.encoder.layer.3.output.dense.weight'.
  """
  return convert.tensor_name(path, MODULES, LEAVES)


def _shapes(size, heads):
  """{path: shape}; in a shrunk model each layer has its own."""
  return convert.shapes(bert.Bert, size, heads, bert.widths(size))


def _hf_shape(path, shape):
  return shape[::-1] if path.endswith('/kernel') else shape


def _transposed(path, array):
  """PyTorch's kernels are [out, in]."""
  return array.T if path.endswith('/kernel') else array


def _check_size(size, where, heads):
  convert.check_size(size, where, COUNTS, SCALES, RATES, optional=('classifier_dropout',))
  try:
    bert.check(size, heads)
  except ValueError as error:
    raise CheckpointError(f'{where}: {error}') from error


def _tokenizer_files(
  vocab, size, lowercase=True, strip_accents=None, handle_chinese_chars=True, added=()
):
  """{file name: text} of a tokenizer."""
  pieces = hf_folder.read_vocab(vocab)
  beyond = [token['content'] for token in added if token['id'] >= len(pieces)]
  convert.check_vocab(pieces + beyond, size)
  repeated = [piece for piece, times in collections.Counter(pieces).items() if times > 1]
  broken = [repr(piece) for piece in pieces if piece != piece.strip('\r\n') or '\n' in piece]
  if repeated or broken:
    raise CheckpointError(
      f'a vocab.txt cannot hold a piece twice or a piece with a line end: '
      f'{listed(repeated + broken)}'
    )
  config = {
    'tokenizer_class': 'BertTokenizer',
    'do_lower_case': bool(lowercase),
    'model_max_length': size.max_position_embeddings,
  }
  if strip_accents is not None:
    config['strip_accents'] = strip_accents
  if not handle_chinese_chars:
    config['tokenize_chinese_chars'] = False
  return {
    'vocab.txt': ''.join(f'{piece}\n' for piece in pieces),
    'tokenizer_config.json': json.dumps(config | hf_folder.with_added(added), indent=2) + '\n',
  }

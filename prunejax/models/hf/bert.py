"""BERT in and out of a Hugging Face directory: config.json, model.safetensors and the vocabulary.

A model that was shrunk (`bert.widths`) is read and written too; its two fields in config.json are ours alone, so that
no other program can read its tensors.

`MODULES` is the whole correspondence of names, read in both directions. Shapes are never written
down here: what a checkpoint must hold is what `bert.Bert` would make at the size in config.json.
"""

import collections
import copy
import json
import pathlib
import re

import numpy as np
import transformers
from flax import traverse_util

from prunejax.models import bert
from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError, listed

# Ours, theirs; {} is the number of the layer. The leaves within them are `LEAVES`.
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
}
LEAVES = {'kernel': 'weight', 'bias': 'bias', 'scale': 'weight', 'embedding': 'weight'}
# Other spellings of a name, tried in this order: TensorFlow's, a bare BertModel's, the tied copies.
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
}
HEADS = {'cls.predictions.': 'mlm', 'cls.seq_relationship.': 'nsp', 'classifier.': 'classifier'}
# What other descendants of the class compute and `bert.Bert` does not.
ONLY = {'position_embedding_type': 'absolute', 'is_decoder': False, 'add_cross_attention': False}


def load(directory, *, heads=('mlm', 'nsp'), vocab=None):
  """Reads (params, size): a plain dict of float32 numpy arrays and a `transformers.BertConfig`.

  Args:
    directory: holds config.json and model.safetensors; names with or without the prefix 'bert.'.
    heads: which of 'mlm', 'nsp', 'classifier' must be there; others in the file are left out.
    vocab: the vocabulary it will be used with, a list of pieces or a path (see
      `hf_folder.read_vocab`); None checks the directory's own, where it has one.

  Raises:
    CheckpointError: one message with every missing, extra and wrongly shaped tensor; a file that is
      missing or damaged; another model; a vocabulary that does not fit the word embeddings.
  """
  directory, heads = pathlib.Path(directory), tuple(heads)
  size = read_size(directory, heads=heads)
  shapes = _shapes(size, bert.HEADS)
  left_out = tuple(f'{head}/' for head in bert.HEADS if head not in heads)
  paths = {hf_name(path): path for path in shapes if not path.startswith(left_out)}
  asked = {name: _turned(path, shapes[path]) for name, path in paths.items()}
  known = {hf_name(path) for path in shapes}
  stored = hf_folder.read_tensors(directory, ignore=BUFFERS)
  if 'mlm' not in heads:  # copies that nothing reads may differ
    stored = {
      name: array
      for name, array in stored.items()
      if not name.startswith('cls.predictions.decoder.')
    }
  found = convert.respell(stored, directory, SPELLINGS)
  found = {name: array for name, array in found.items() if name in asked or name not in known}
  convert.compare(found, asked, directory, HEADS)
  convert.check_vocab(directory if vocab is None else vocab, size)
  turn = lambda path, array: array.T if path.endswith('/kernel') else array
  leaves = {
    path: np.array(turn(path, found[name]), np.float32, order='C') for name, path in paths.items()
  }
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def save(directory, params, size, *, vocab=None, dtype='float32', lowercase=True):
  """Writes what `load` and PyTorch's `from_pretrained` read.

  Nothing is left half-written, see `hf_folder.write`.

  Args:
    directory: made where it is not there yet.
    params: the tree of `bert.Bert`, with whichever heads it has.
    size: its `transformers.BertConfig`; the number of labels follows the classifier in params.
    vocab: the pieces in the order of their ids, or a path (see `hf_folder.read_vocab`); writes
      vocab.txt and tokenizer_config.json.
    dtype: 'float32', 'bfloat16' or 'float16', of the file.
    lowercase: whether the tokenizer of `vocab` lowers its text.

  Raises:
    CheckpointError: leaves missing, extra or wrongly shaped for `size`; weights too large for
      `dtype`; a vocabulary that does not fit; a directory that cannot be written.
  """
  directory = pathlib.Path(directory).absolute()
  convert.check_dtype(dtype)
  leaves = traverse_util.flatten_dict(params, sep='/')
  heads = tuple(head for head in bert.HEADS if head in params)
  size = copy.deepcopy(size)
  if 'classifier/bias' in leaves and size.num_labels != leaves['classifier/bias'].size:
    size.num_labels = leaves['classifier/bias'].size
  size.architectures = [ARCHITECTURES.get(heads, 'BertForPreTraining')]
  size.dtype = dtype
  _check_size(size, 'size', heads)
  convert.compare(leaves, _shapes(size, heads), 'params', HEADS)
  texts = {'config.json': size.to_json_string()}
  if vocab is not None:
    texts |= _tokenizer(vocab, directory, size, lowercase)
  elif directory.is_dir():
    convert.check_vocab(directory, size)
  cast = lambda path, leaf: convert.cast(path, leaf, dtype)
  turn = lambda path, array: array.T if path.endswith('/kernel') else array
  tensors = {hf_name(path): turn(path, cast(path, leaf)) for path, leaf in leaves.items()}
  hf_folder.write(directory, texts, tensors)


def read_size(directory, *, heads=()):
  """config.json as a `transformers.BertConfig`; raises CheckpointError for another model's."""
  path = pathlib.Path(directory) / 'config.json'
  size = convert.read_size(directory, 'bert', transformers.BertConfig, ONLY)
  _check_size(size, path, heads)
  return size


def hf_name(path):
  """'encoder/layer_3/ffn/output/kernel' -> 'bert.encoder.layer.3.output.dense.weight'."""
  module, leaf = path.rsplit('/', 1)
  layer = re.search(r'layer_(\d+)', module)
  template = MODULES[re.sub(r'layer_\d+', 'layer_{}', module)]
  return f'{template.format(layer and layer[1])}.{LEAVES[leaf]}'


def _shapes(size, heads):
  own = [field for field in bert.OWN if getattr(size, field, None) is not None]
  if not own:
    return convert.shapes(bert.Bert, size, heads)
  plain = copy.deepcopy(size)
  for field in own:
    setattr(plain, field, None)
  found = convert.shapes(bert.Bert, plain, heads)
  for i, (number, width, inner) in enumerate(bert.widths(size)):
    at, mixed, hidden = f'encoder/layer_{i}', number * width, size.hidden_size
    for name in ('query', 'key', 'value'):
      found |= {
        f'{at}/attention/{name}/kernel': (hidden, mixed),
        f'{at}/attention/{name}/bias': (mixed,),
      }
    found |= {
      f'{at}/ffn/intermediate/kernel': (hidden, inner),
      f'{at}/ffn/intermediate/bias': (inner,),
    }
    found |= {
      f'{at}/attention/output/kernel': (mixed, hidden),
      f'{at}/ffn/output/kernel': (inner, hidden),
    }
  return found


def _turned(path, shape):
  return shape[::-1] if path.endswith('/kernel') else shape


def _check_size(size, where, heads):
  convert.check_size(size, where, 'BERT')
  try:
    bert.check(size, heads)
  except ValueError as error:
    raise CheckpointError(f'{where}: {error}') from error


def _tokenizer(vocab, directory, size, lowercase):
  """{file name: text} of the tokenizer over `vocab`."""
  pieces = convert.check_vocab(vocab, size)
  repeated = [piece for piece, times in collections.Counter(pieces).items() if times > 1]
  broken = [repr(piece) for piece in pieces if piece != piece.strip('\r\n') or '\n' in piece]
  if repeated or broken:
    raise CheckpointError(
      f'a vocab.txt cannot hold a piece twice, nor a line end in one: {listed(repeated + broken)}'
    )
  if (directory / 'tokenizer.json').exists():
    raise CheckpointError(
      f'{directory / "tokenizer.json"} would be read before the new vocab.txt: remove it first'
    )
  config = {
    'tokenizer_class': 'BertTokenizer',
    'do_lower_case': bool(lowercase),
    'model_max_length': size.max_position_embeddings,
  }
  return {
    'vocab.txt': ''.join(f'{piece}\n' for piece in pieces),
    'tokenizer_config.json': json.dumps(config, indent=2) + '\n',
  }

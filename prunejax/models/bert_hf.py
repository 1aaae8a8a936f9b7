"""BERT in and out of a Hugging Face directory: config.json, model.safetensors and the vocabulary.

`MODULES` is the whole correspondence of names, read in both directions. Shapes are never written
down here: what a checkpoint must hold is what `bert.Bert` would make at the size in config.json.
"""

import collections
import copy
import json
import pathlib
import re

import jax
import numpy as np
import transformers
from flax import traverse_util

from prunejax.models import bert, hf_directory
from prunejax.models.hf_directory import CheckpointError, listed

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
FLOATS = {'float32': np.float32, 'bfloat16': jax.dtypes.bfloat16, 'float16': np.float16}
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
      `hf_directory.read_vocab`); None checks the directory's own, where it has one.

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
  found = _respell(hf_directory.read_tensors(directory, ignore=BUFFERS), directory, heads)
  found = {name: array for name, array in found.items() if name in asked or name not in known}
  _compare(found, asked, directory)
  _check_vocab(directory if vocab is None else vocab, size)
  turn = lambda path, array: array.T if path.endswith('/kernel') else array
  leaves = {
    path: np.array(turn(path, found[name]), np.float32, order='C') for name, path in paths.items()
  }
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def save(directory, params, size, *, vocab=None, dtype='float32', lowercase=True):
  """Writes what `load` and PyTorch's `from_pretrained` read.

  Nothing is left half-written, see `hf_directory.write`.

  Args:
    directory: made where it is not there yet.
    params: the tree of `bert.Bert`, with whichever heads it has.
    size: its `transformers.BertConfig`; the number of labels follows the classifier in params.
    vocab: the pieces in the order of their ids, or a path (see `hf_directory.read_vocab`); writes
      vocab.txt and tokenizer_config.json.
    dtype: 'float32', 'bfloat16' or 'float16', of the file.
    lowercase: whether the tokenizer of `vocab` lowers its text.

  Raises:
    CheckpointError: leaves missing, extra or wrongly shaped for `size`; weights too large for
      `dtype`; a vocabulary that does not fit; a directory that cannot be written.
  """
  directory = pathlib.Path(directory).absolute()
  if dtype not in FLOATS:
    raise CheckpointError(f'dtype={dtype!r}: expected one of {list(FLOATS)}')
  leaves = traverse_util.flatten_dict(params, sep='/')
  heads = tuple(head for head in bert.HEADS if head in params)
  size = copy.deepcopy(size)
  if 'classifier/bias' in leaves and size.num_labels != leaves['classifier/bias'].size:
    size.num_labels = leaves['classifier/bias'].size
  size.architectures = [ARCHITECTURES.get(heads, 'BertForPreTraining')]
  size.dtype = dtype
  _check_size(size, 'size', heads)
  _compare(leaves, _shapes(size, heads), 'params')
  texts = {'config.json': size.to_json_string()}
  if vocab is not None:
    texts |= _tokenizer(vocab, directory, size, lowercase)
  elif directory.is_dir():
    _check_vocab(directory, size)
  tensors = {hf_name(path): _cast(path, leaf, dtype) for path, leaf in leaves.items()}
  hf_directory.write(directory, texts, tensors)


def read_size(directory, *, heads=()):
  """config.json as a `transformers.BertConfig`; raises CheckpointError for another model's."""
  path = pathlib.Path(directory) / 'config.json'
  raw = hf_directory.read_config(directory)
  if raw.get('model_type', 'bert') != 'bert':
    raise CheckpointError(f'{path} is of model_type {raw["model_type"]!r}: expected "bert"')
  for key, only in ONLY.items():
    if raw.get(key, only) != only:
      raise CheckpointError(f'{path} has {key}={raw[key]!r}: expected {only!r}')
  try:
    size = transformers.BertConfig.from_dict(raw)
  except Exception as error:  # its validation raises exceptions of its own, under no common base
    why = ' '.join(str(error).split())
    raise CheckpointError(f'{path} is no configuration of BERT: {why}') from error
  _check_size(size, path, heads)
  return size


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


def hf_name(path):
  """'encoder/layer_3/ffn/output/kernel' -> 'bert.encoder.layer.3.output.dense.weight'."""
  module, leaf = path.rsplit('/', 1)
  layer = re.search(r'layer_(\d+)', module)
  template = MODULES[re.sub(r'layer_\d+', 'layer_{}', module)]
  return f'{template.format(layer and layer[1])}.{LEAVES[leaf]}'


def _shapes(size, heads):
  """{path: shape} of the model; one layer is traced, since all are alike."""
  one = copy.deepcopy(size)
  one.num_hidden_layers = 1
  ids, valid = (jax.ShapeDtypeStruct((1, 1), dtype) for dtype in (np.int32, bool))
  model = bert.Bert(one, heads, size.num_labels)
  tree = jax.eval_shape(model.init, jax.random.key(0), ids, ids, valid)['params']
  shapes = {}
  for path, leaf in traverse_util.flatten_dict(tree, sep='/').items():
    for i in range(size.num_hidden_layers if 'layer_0' in path else 1):
      shapes[path.replace('layer_0', f'layer_{i}')] = leaf.shape
  return shapes


def _turned(path, shape):
  return shape[::-1] if path.endswith('/kernel') else shape


def _compare(found, asked, where):
  """Raises one CheckpointError with all that sets {name: array} apart from {name: shape}."""
  missing = [name for name in asked if name not in found]
  heads = {'cls.predictions.': 'mlm', 'cls.seq_relationship.': 'nsp', 'classifier.': 'classifier'}
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


def _respell(stored, where, heads):
  """{today's name: array}; copies of one tensor under several names must agree."""
  found, spelled = {}, {}
  for name, array in stored.items():
    if name.startswith('cls.predictions.decoder.') and 'mlm' not in heads:
      continue
    today = name
    for old, new in SPELLINGS:
      today = re.sub(old, new, today)
    if today in found and not np.array_equal(found[today], array):
      raise CheckpointError(
        f'{where}: {spelled[today]} and {name} differ, but are one tensor in this model'
      )
    found[today], spelled[today] = array, name
  return found


def _check_size(size, where, heads):
  for key in ('vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads'):
    if not 1 <= getattr(size, key) <= (1000 if key == 'num_hidden_layers' else 2**31):
      raise CheckpointError(f'{where} has {key}={getattr(size, key)}: no BERT is of that size')
  try:
    bert.check(size, heads)
  except ValueError as error:
    raise CheckpointError(f'{where}: {error}') from error


def _check_vocab(source, size):
  """The pieces of `source`, or None; raises CheckpointError where they do not fit `size`."""
  pieces = hf_directory.read_vocab(source)
  rows = size.vocab_size
  # Tables are often rounded up so that their width suits the hardware; ids still all fall inside.
  rounded = rows % 8 == 0 and pieces is not None and len(pieces) < rows < len(pieces) + 128
  if pieces is not None and len(pieces) != rows and not rounded:
    raise CheckpointError(
      f'a vocabulary of {len(pieces)} pieces does not fit the {rows} rows of the word embeddings'
      + (f' ({source})' if isinstance(source, str | pathlib.Path) else '')
    )
  return pieces


def _tokenizer(vocab, directory, size, lowercase):
  """{file name: text} of the tokenizer over `vocab`."""
  pieces = _check_vocab(vocab, size)
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


def _cast(path, leaf, dtype):
  """One leaf as it lies in the file: turned, in the dtype asked for."""
  leaf = np.asarray(jax.device_get(leaf))
  with np.errstate(over='ignore'):
    cast = leaf.astype(FLOATS[dtype])
  if np.isinf(cast.astype(np.float32)).any() and np.isfinite(leaf.astype(np.float32)).all():
    raise CheckpointError(f'{path} holds weights too large for dtype={dtype!r}')
  return cast.T if path.endswith('/kernel') else cast

"""GPT-2 in and out of a Hugging Face directory: config.json, model.safetensors, vocab.json and merges.txt.

`MODULES` is the whole correspondence of names, read in both directions. Their `c_attn` is our query, key and value side
by side; their kernels lie `[in, out]` as ours do, but for the classifier's. Shapes are never written down here: what a
checkpoint must hold is what `gpt2.Gpt2` would make at the size in config.json.
"""

import collections
import copy
import json
import pathlib
import re

import numpy as np
import transformers
from flax import traverse_util

from prunejax.models import gpt2
from prunejax.models.hf import convert
from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError, listed

# Ours, theirs; {} is the number of the layer.
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
LEAVES = {'kernel': 'weight', 'bias': 'bias', 'scale': 'weight', 'embedding': 'weight'}
JOINED = ('query', 'key', 'value')  # in the order in which c_attn holds them
# Other spellings of a name: a bare GPT2Model's, the tied copy.
SPELLINGS = (
  (r'^(wte|wpe|h|ln_f)\.', r'transformer.\1.'),
  (r'^lm_head\.weight$', 'transformer.wte.weight'),
)
BUFFERS = r'(transformer\.)?h\.\d+\.attn\.(masked_)?bias'
HEADS = {'score.': 'classifier'}
ARCHITECTURES = {('lm',): 'GPT2LMHeadModel', ('classifier',): 'GPT2ForSequenceClassification'}
# What other descendants of the class compute and `gpt2.Gpt2` does not.
ONLY = {
  'scale_attn_weights': True,
  'scale_attn_by_inverse_layer_idx': False,
  'add_cross_attention': False,
  'tie_word_embeddings': True,
}
END = '<|endoftext|>'


def load(directory, *, heads=('lm',), vocab=None):
  """Reads (params, size): a plain dict of float32 numpy arrays and a `transformers.GPT2Config`.

  Args:
    directory: holds config.json and model.safetensors; names with or without the prefix 'transformer.'.
    heads: which of 'lm', 'classifier' must be there; others in the file are left out.
    vocab: the pieces it will be used with, in the order of their ids, or a path (see `hf_folder.read_vocab`); None
      checks the directory's own, where it has one.

  Raises:
    CheckpointError: one message with every missing, extra and wrongly shaped tensor; a file that is missing or damaged;
      another model; a vocabulary that does not fit the word embeddings.
  """
  directory, heads = pathlib.Path(directory), tuple(heads)
  size = read_size(directory, heads=heads)
  shapes = _shapes(size, gpt2.HEADS)
  paths = {
    path: shape
    for path, shape in shapes.items()
    if 'classifier' in heads or not path.startswith('classifier')
  }
  stored = hf_folder.read_tensors(directory, ignore=BUFFERS)
  if 'lm' not in heads:
    stored.pop('lm_head.weight', None)  # a copy that nothing reads may differ
  found = convert.respell(stored, directory, SPELLINGS)
  asked, known = _theirs(paths), _theirs(shapes)
  found = {name: array for name, array in found.items() if name in asked or name not in known}
  convert.compare(found, asked, directory, HEADS)
  convert.check_vocab(directory if vocab is None else vocab, size)
  leaves = {
    path: np.array(_ours(path, found[hf_name(path)]), np.float32, order='C') for path in paths
  }
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def save(directory, params, size, *, vocab=None, dtype='float32'):
  """Writes what `load` and PyTorch's `from_pretrained` read: a GPT2LMHeadModel, or GPT2ForSequenceClassification.

  Nothing is left half-written, see `hf_folder.write`.

  Args:
    directory: made where it is not there yet.
    params: the tree of `gpt2.Gpt2`.
    size: its `transformers.GPT2Config`; the number of labels follows the classifier in params.
    vocab: (pieces in the order of their ids, merges [(left, right), ...] in the order of their rank); writes
      vocab.json, merges.txt and tokenizer_config.json, and <|endoftext|> as the config's first, last and padding token.
    dtype: 'float32', 'bfloat16' or 'float16', of the file.

  Raises:
    CheckpointError: leaves missing, extra or wrongly shaped for `size`; weights too large for `dtype`; a vocabulary
      that does not fit; a directory that cannot be written.
  """
  directory = pathlib.Path(directory).absolute()
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
  texts = {}
  if vocab is not None:
    texts = _tokenizer(*vocab, directory, size)
  elif directory.is_dir():
    convert.check_vocab(directory, size)
  texts['config.json'] = size.to_json_string()
  parts = collections.defaultdict(list)
  for path in sorted(leaves, key=lambda path: _place(path) or 0):
    leaf = convert.cast(path, leaves[path], dtype)
    parts[hf_name(path)].append(leaf.T if path == 'classifier/kernel' else leaf)
  hf_folder.write(
    directory, texts, {name: np.concatenate(found, axis=-1) for name, found in parts.items()}
  )


def read_size(directory, *, heads=()):
  """config.json as a `transformers.GPT2Config`; raises CheckpointError for another model's."""
  size = convert.read_size(directory, 'gpt2', transformers.GPT2Config, ONLY)
  _check_size(size, pathlib.Path(directory) / 'config.json', heads)
  return size


def hf_name(path):
  """'encoder/layer_3/ffn/output/kernel' -> 'transformer.h.3.mlp.c_proj.weight'."""
  module, leaf = path.rsplit('/', 1)
  layer = re.search(r'layer_(\d+)', module)
  template = MODULES[re.sub(r'layer_\d+', 'layer_{}', module)]
  return f'{template.format(layer and layer[1])}.{LEAVES[leaf]}'


def _shapes(size, heads):
  return convert.shapes(gpt2.Gpt2, size, heads)


def _place(path):
  """Which third of c_attn a leaf is, or None."""
  module = path.rsplit('/', 2)[-2]
  return JOINED.index(module) if module in JOINED else None


def _theirs(shapes):
  """{their name: shape} of {our path: shape}."""
  theirs = {}
  for path, shape in shapes.items():
    joined = (*shape[:-1], len(JOINED) * shape[-1]) if _place(path) is not None else shape
    theirs[hf_name(path)] = joined[::-1] if path == 'classifier/kernel' else joined
  return theirs


def _ours(path, array):
  """A leaf from the tensor that holds it."""
  place = _place(path)
  if place is not None:
    return np.split(array, len(JOINED), axis=-1)[place]
  return array.T if path == 'classifier/kernel' else array


def _check_size(size, where, heads):
  convert.check_size(size, where, 'GPT-2')
  for key in ('n_positions', 'n_inner'):
    value = getattr(size, key)
    if value is not None and not 1 <= value <= 2**31:
      raise CheckpointError(f'{where} has {key}={value}: no GPT-2 is of that size')
  try:
    gpt2.check(size, heads)
  except ValueError as error:
    raise CheckpointError(f'{where}: {error}') from error


def _tokenizer(pieces, merges, directory, size):
  """{file name: text} of the tokenizer; sets the ids of <|endoftext|> in `size`."""
  pieces = convert.check_vocab(list(pieces), size)
  ids = {piece: i for i, piece in enumerate(pieces)}
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
      f'a vocab.json cannot hold a piece twice, nor a merges.txt what is no piece: {listed(repeated + broken)}'
    )
  if (directory / 'tokenizer.json').exists():
    raise CheckpointError(
      f'{directory / "tokenizer.json"} would be read before the new vocab.json: remove it first'
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
    'vocab.json': json.dumps(ids, ensure_ascii=False) + '\n',
    'merges.txt': '#version: 0.2\n' + ''.join(f'{a} {b}\n' for a, b in merges),
    'tokenizer_config.json': json.dumps(config, indent=2) + '\n',
  }

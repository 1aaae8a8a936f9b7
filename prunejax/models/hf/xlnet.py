"""Reads and writes XLNet as a Hugging Face folder, see named.py.

Their projections of attention are raw tensors [hidden, heads, width of a head]; ours are kernels
[hidden, heads x width], and the output's [heads x width, hidden].
"""

import re

from prunejax.data import unigram
from prunejax.models import xlnet
from prunejax.models.hf import named

_LAYER, _THEIRS = 'encoder/layer_{}/', 'transformer.layer.{}.'
_PROJECTIONS = {'query': 'q', 'key': 'k', 'value': 'v', 'output': 'o', 'position': 'r'}
_BIASES = {'content_bias': 'r_w_bias', 'position_bias': 'r_r_bias', 'segment_bias': 'r_s_bias'}
_DENSE = {
  f'{_LAYER}ffn/intermediate': f'{_THEIRS}ff.layer_1',
  f'{_LAYER}ffn/output': f'{_THEIRS}ff.layer_2',
  'summary': 'sequence_summary.summary',
  'classifier': 'logits_proj',
}
_NORMS = {
  f'{_LAYER}attention/norm': f'{_THEIRS}rel_attn.layer_norm',
  f'{_LAYER}ffn/norm': f'{_THEIRS}ff.layer_norm',
}
NAMES = {
  'embeddings/word/embedding': 'transformer.word_embedding.weight',
  'embeddings/mask': 'transformer.mask_emb',
  **{
    f'{_LAYER}attention/{ours}/kernel': f'{_THEIRS}rel_attn.{name}'
    for ours, name in _PROJECTIONS.items()
  },
  **{f'{_LAYER}attention/{ours}': f'{_THEIRS}rel_attn.{name}' for ours, name in _BIASES.items()},
  f'{_LAYER}attention/segment': f'{_THEIRS}rel_attn.seg_embed',
  **{f'{ours}/kernel': f'{name}.weight' for ours, name in _DENSE.items()},
  **{f'{ours}/bias': f'{name}.bias' for ours, name in _DENSE.items()},
  **{f'{ours}/scale': f'{name}.weight' for ours, name in _NORMS.items()},
  **{f'{ours}/bias': f'{name}.bias' for ours, name in _NORMS.items()},
  'lm/bias': 'lm_loss.bias',
}


def _theirs(path, array, size):
  """An array, or a shape, of ours as their tensor holds it."""
  raw = size.d_model, size.n_head, size.d_model // size.n_head
  shape = isinstance(array, tuple)
  if path == 'embeddings/mask':
    return (1, 1, size.d_model) if shape else array.reshape(1, 1, -1)
  if re.search(r'attention/\w+/kernel$', path):
    if shape:
      return raw
    return (array.T if path.endswith('output/kernel') else array).reshape(raw)
  if path.endswith('/kernel'):
    return array[::-1] if shape else array.T
  return array


def _ours(path, array, size):
  if path == 'embeddings/mask':
    return array.reshape(-1)
  if re.search(r'attention/\w+/kernel$', path):
    flat = array.reshape(size.d_model, -1)
    return flat.T if path.endswith('output/kernel') else flat
  return array.T if path.endswith('/kernel') else array


LAYOUT = named.Layout(
  model_type='xlnet',
  module=xlnet.Xlnet,
  config='XLNetConfig',
  check=xlnet.check,
  heads=xlnet.HEADS,
  names=NAMES,
  joined=(),
  theirs=_theirs,
  ours=_ours,
  prefixes={
    'lm_loss.': 'lm',
    'sequence_summary.': 'classifier',
    'logits_proj.': 'classifier',
  },
  architectures={
    ('lm',): 'XLNetLMHeadModel',
    ('classifier',): 'XLNetForSequenceClassification',
    (): 'XLNetModel',
  },
  spellings=(
    (r'^(word_embedding|mask_emb|layer)\b', r'transformer.\1'),
    (r'^lm_loss\.weight$', 'transformer.word_embedding.weight'),
  ),
  buffers=r'(?!)',
  required={
    'attn_type': 'bi',
    'bi_data': False,
    'same_length': False,
    'untie_r': True,
    'tie_word_embeddings': True,
    'summary_type': 'last',
    'summary_use_proj': True,
    'summary_activation': 'tanh',
  },
  counts=('vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'd_inner'),
  scales=('layer_norm_eps', 'initializer_range'),
  rates=('dropout', 'summary_last_dropout'),
  optional=(),
  tokenizer=lambda vocab, size: unigram.files(vocab),
)
ARCHITECTURES = LAYOUT.architectures
load, save, parts, read_size, hf_name = named.functions(LAYOUT)

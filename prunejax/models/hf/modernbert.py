"""Reads and writes ModernBERT as a Hugging Face folder, see named.py.

Their `Wqkv` holds our query, key and value one after the other, their `Wi` what is activated and
then the gate.
"""

from prunejax.data import encoder_bpe
from prunejax.models import modernbert
from prunejax.models.hf import named
from prunejax.models.hf.roberta import transposed

_LAYER = 'encoder/layer_{}/'
_DENSE = {
  **{f'{_LAYER}attention/{name}': 'attn.Wqkv' for name in ('query', 'key', 'value')},
  f'{_LAYER}attention/output': 'attn.Wo',
  f'{_LAYER}ffn/intermediate': 'mlp.Wi',
  f'{_LAYER}ffn/gate': 'mlp.Wi',
  f'{_LAYER}ffn/output': 'mlp.Wo',
}
_NORMS = {
  'embeddings/norm': 'model.embeddings.norm',
  f'{_LAYER}attention/norm': 'model.layers.{}.attn_norm',
  f'{_LAYER}ffn/norm': 'model.layers.{}.mlp_norm',
  'norm': 'model.final_norm',
  'head/norm': 'head.norm',
}
NAMES = {
  'embeddings/word/embedding': 'model.embeddings.tok_embeddings.weight',
  **{f'{ours}/kernel': f'model.layers.{{}}.{name}.weight' for ours, name in _DENSE.items()},
  **{f'{ours}/bias': f'model.layers.{{}}.{name}.bias' for ours, name in _DENSE.items()},
  **{f'{ours}/scale': f'{name}.weight' for ours, name in _NORMS.items()},
  **{f'{ours}/bias': f'{name}.bias' for ours, name in _NORMS.items()},
  'head/kernel': 'head.dense.weight',
  'head/bias': 'head.dense.bias',
  'mlm/bias': 'decoder.bias',
  'classifier/kernel': 'classifier.weight',
  'classifier/bias': 'classifier.bias',
}
_JOINED = tuple(
  tuple(f'{_LAYER}{part}/{leaf}' for part in parts)
  for parts in (
    ('attention/query', 'attention/key', 'attention/value'),
    ('ffn/intermediate', 'ffn/gate'),
  )
  for leaf in ('kernel', 'bias')
)
LAYOUT = named.Layout(
  model_type='modernbert',
  module=modernbert.ModernBert,
  config='ModernBertConfig',
  check=modernbert.check,
  heads=modernbert.HEADS,
  names=NAMES,
  joined=_JOINED,
  theirs=transposed,
  ours=transposed,
  prefixes={'decoder.': 'mlm', 'classifier.': 'classifier'},
  architectures={
    ('mlm',): 'ModernBertForMaskedLM',
    ('classifier',): 'ModernBertForSequenceClassification',
    (): 'ModernBertModel',
  },
  spellings=(
    (r'^(embeddings|layers|final_norm)\.', r'model.\1.'),
    (r'^decoder\.weight$', 'model.embeddings.tok_embeddings.weight'),
  ),
  buffers=r'(?!)',
  required={'tie_word_embeddings': True},
  counts=(
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
    'max_position_embeddings',
  ),
  scales=('norm_eps', 'initializer_range', 'initializer_cutoff_factor'),
  rates=('attention_dropout', 'embedding_dropout', 'mlp_dropout', 'classifier_dropout'),
  optional=(),
  shared=('head/',),
  tokenizer=lambda vocab, size: encoder_bpe.files(vocab, size.max_position_embeddings),
)
ARCHITECTURES = LAYOUT.architectures
load, save, parts, read_size, hf_name = named.functions(LAYOUT)

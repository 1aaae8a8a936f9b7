"""Reads and writes RoBERTa as a Hugging Face folder, see named.py."""

from prunejax.data import encoder_bpe
from prunejax.models import roberta
from prunejax.models.hf import named

_LAYER = {
  'attention/query': 'attention.self.query',
  'attention/key': 'attention.self.key',
  'attention/value': 'attention.self.value',
  'attention/output': 'attention.output.dense',
  'ffn/intermediate': 'intermediate.dense',
  'ffn/output': 'output.dense',
}
_NORMS = {'attention/norm': 'attention.output.LayerNorm', 'ffn/norm': 'output.LayerNorm'}
_DENSE = {
  **{f'encoder/layer_{{}}/{ours}': f'encoder.layer.{{}}.{name}' for ours, name in _LAYER.items()},
}
NAMES = {
  'embeddings/word/embedding': 'roberta.embeddings.word_embeddings.weight',
  'embeddings/position/embedding': 'roberta.embeddings.position_embeddings.weight',
  'embeddings/segment/embedding': 'roberta.embeddings.token_type_embeddings.weight',
  'embeddings/norm/scale': 'roberta.embeddings.LayerNorm.weight',
  'embeddings/norm/bias': 'roberta.embeddings.LayerNorm.bias',
  **{f'{ours}/kernel': f'roberta.{name}.weight' for ours, name in _DENSE.items()},
  **{f'{ours}/bias': f'roberta.{name}.bias' for ours, name in _DENSE.items()},
  **{
    f'encoder/layer_{{}}/{ours}/{leaf}': f'roberta.encoder.layer.{{}}.{name}.{theirs}'
    for ours, name in _NORMS.items()
    for leaf, theirs in (('scale', 'weight'), ('bias', 'bias'))
  },
  'mlm/transform/kernel': 'lm_head.dense.weight',
  'mlm/transform/bias': 'lm_head.dense.bias',
  'mlm/norm/scale': 'lm_head.layer_norm.weight',
  'mlm/norm/bias': 'lm_head.layer_norm.bias',
  'mlm/bias': 'lm_head.bias',
  'classifier/transform/kernel': 'classifier.dense.weight',
  'classifier/transform/bias': 'classifier.dense.bias',
  'classifier/kernel': 'classifier.out_proj.weight',
  'classifier/bias': 'classifier.out_proj.bias',
}


def transposed(path, array, size):
  """PyTorch's kernels are [out, in]; takes arrays and shapes, in both directions."""
  del size
  if not path.endswith('/kernel'):
    return array
  return array[::-1] if isinstance(array, tuple) else array.T


LAYOUT = named.Layout(
  model_type='roberta',
  module=roberta.Roberta,
  config='RobertaConfig',
  check=roberta.check,
  heads=roberta.HEADS,
  names=NAMES,
  joined=(),
  theirs=transposed,
  ours=transposed,
  prefixes={'lm_head.': 'mlm', 'classifier.': 'classifier'},
  architectures={
    ('mlm',): 'RobertaForMaskedLM',
    ('classifier',): 'RobertaForSequenceClassification',
    (): 'RobertaModel',
  },
  spellings=(
    (r'^(embeddings|encoder)\.', r'roberta.\1.'),
    (r'^lm_head\.decoder\.weight$', 'roberta.embeddings.word_embeddings.weight'),
    (r'^lm_head\.decoder\.bias$', 'lm_head.bias'),
  ),
  # A bare RobertaModel may have a pooler, which no head of RoBERTa reads.
  buffers=r'(roberta\.)?(embeddings\.(position_ids|token_type_ids)|pooler\..*)',
  required={
    'position_embedding_type': 'absolute',
    'is_decoder': False,
    'add_cross_attention': False,
    'tie_word_embeddings': True,
  },
  counts=(
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'intermediate_size',
    'max_position_embeddings',
    'type_vocab_size',
  ),
  scales=('layer_norm_eps', 'initializer_range'),
  rates=('hidden_dropout_prob', 'attention_probs_dropout_prob', 'classifier_dropout'),
  optional=('classifier_dropout',),
  tokenizer=lambda vocab, size: encoder_bpe.files(vocab, roberta.longest(size)),
)
ARCHITECTURES = LAYOUT.architectures
load, save, parts, read_size, hf_name = named.functions(LAYOUT)

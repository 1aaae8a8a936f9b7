"""Reads and writes Llama, Mistral, Qwen2 and Qwen3 as a Hugging Face folder; reads GGUF files.

A shrunk model (`llama.widths`) is read and written too, but other programs cannot read its tensors.
"""

import functools

from prunejax.models import llama
from prunejax.models.hf import tables

# {our module: theirs}; {} is the number of the layer.
MODULES = {
  'embeddings/word': 'model.embed_tokens',
  'encoder/layer_{}/attention/norm': 'model.layers.{}.input_layernorm',
  'encoder/layer_{}/attention/query': 'model.layers.{}.self_attn.q_proj',
  'encoder/layer_{}/attention/key': 'model.layers.{}.self_attn.k_proj',
  'encoder/layer_{}/attention/value': 'model.layers.{}.self_attn.v_proj',
  'encoder/layer_{}/attention/output': 'model.layers.{}.self_attn.o_proj',
  'encoder/layer_{}/attention/query_norm': 'model.layers.{}.self_attn.q_norm',
  'encoder/layer_{}/attention/key_norm': 'model.layers.{}.self_attn.k_norm',
  'encoder/layer_{}/ffn/norm': 'model.layers.{}.post_attention_layernorm',
  'encoder/layer_{}/ffn/gate': 'model.layers.{}.mlp.gate_proj',
  'encoder/layer_{}/ffn/intermediate': 'model.layers.{}.mlp.up_proj',
  'encoder/layer_{}/ffn/output': 'model.layers.{}.mlp.down_proj',
  'norm': 'model.norm',
  'lm': 'lm_head',
  'classifier': 'score',
}
CONFIGS = {
  'llama': 'LlamaConfig',
  'mistral': 'MistralConfig',
  'qwen2': 'Qwen2Config',
  'qwen3': 'Qwen3Config',
}
_NAMES = {'llama': 'Llama', 'mistral': 'Mistral', 'qwen2': 'Qwen2', 'qwen3': 'Qwen3'}
CLASSES = {
  kind: {
    ('lm',): f'{name}ForCausalLM',
    ('classifier',): f'{name}ForSequenceClassification',
    (): f'{name}Model',
  }
  for kind, name in _NAMES.items()
}
# {heads: class} of every family, which says what a folder holds.
ARCHITECTURES = {heads: [CLASSES[kind][heads] for kind in CLASSES] for heads in CLASSES['llama']}
TABLE = tables.Table(
  llama.Llama,
  CONFIGS,
  CLASSES,
  llama.check,
  llama.widths,
  MODULES,
  # Names of a bare model.
  spellings=((r'^(embed_tokens|layers|norm)\.', r'model.\1.'),),
  buffers=r'(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq',
  words='model.embed_tokens.weight',
  required={'is_causal': True, 'add_cross_attention': False, 'quantization_config': None},
  counts=(
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_key_value_heads',
    'intermediate_size',
    'max_position_embeddings',
  ),
  scales=('rms_norm_eps', 'initializer_range'),
  rates=('attention_dropout',),
  optional=(),
)

# What a family offers; each function is explained in tables.py.
load = functools.partial(tables.load, TABLE)
save = functools.partial(tables.save, TABLE)
parts = functools.partial(tables.parts, TABLE)
read_size = functools.partial(tables.read_size, TABLE)
hf_name = functools.partial(tables.hf_name, TABLE)

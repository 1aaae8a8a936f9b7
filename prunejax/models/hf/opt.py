"""Reads and writes OPT as a Hugging Face folder.

A shrunk model (`opt.widths`) is read and written too, but other programs cannot read its tensors.
"""

import functools

from prunejax.models import opt
from prunejax.models.hf import tables

# {our module: theirs}; {} is the number of the layer.
MODULES = {
  'embeddings/word': 'model.decoder.embed_tokens',
  'embeddings/position': 'model.decoder.embed_positions',
  'embeddings/project': 'model.decoder.project_in',
  'encoder/layer_{}/attention/norm': 'model.decoder.layers.{}.self_attn_layer_norm',
  'encoder/layer_{}/attention/query': 'model.decoder.layers.{}.self_attn.q_proj',
  'encoder/layer_{}/attention/key': 'model.decoder.layers.{}.self_attn.k_proj',
  'encoder/layer_{}/attention/value': 'model.decoder.layers.{}.self_attn.v_proj',
  'encoder/layer_{}/attention/output': 'model.decoder.layers.{}.self_attn.out_proj',
  'encoder/layer_{}/ffn/norm': 'model.decoder.layers.{}.final_layer_norm',
  'encoder/layer_{}/ffn/intermediate': 'model.decoder.layers.{}.fc1',
  'encoder/layer_{}/ffn/output': 'model.decoder.layers.{}.fc2',
  'norm': 'model.decoder.final_layer_norm',
  'project': 'model.decoder.project_out',
  'classifier': 'score',
}
SIZE = 'OPTConfig'  # the class of transformers that holds a size
ARCHITECTURES = {
  ('lm',): 'OPTForCausalLM',
  ('classifier',): 'OPTForSequenceClassification',
  (): 'OPTModel',
}
TABLE = tables.Table(
  opt.Opt,
  {'opt': SIZE},
  {'opt': ARCHITECTURES},
  opt.check,
  opt.widths,
  MODULES,
  # Names of a bare OPTModel, and of the files that were published first.
  spellings=((r'^(?:model\.)?decoder\.', 'model.decoder.'),),
  buffers=r'(model\.)?decoder\.version',
  words='model.decoder.embed_tokens.weight',
  required={
    'tie_word_embeddings': True,
    'layer_norm_elementwise_affine': True,
    '_remove_final_layer_norm': False,
    'layerdrop': 0.0,
    'add_cross_attention': False,
    'quantization_config': None,
  },
  counts=(
    'vocab_size',
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'ffn_dim',
    'max_position_embeddings',
    'word_embed_proj_dim',
  ),
  scales=('init_std',),
  rates=('dropout', 'attention_dropout'),
  optional=(),
)

# What a family offers; each function is explained in tables.py.
load = functools.partial(tables.load, TABLE)
save = functools.partial(tables.save, TABLE)
parts = functools.partial(tables.parts, TABLE)
read_size = functools.partial(tables.read_size, TABLE)
hf_name = functools.partial(tables.hf_name, TABLE)

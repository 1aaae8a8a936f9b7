"""Reads and writes Llama, Mistral, Qwen2 and Qwen3 as a Hugging Face folder; reads GGUF files.

A shrunk model (`llama.widths`) is read and written too, but other programs cannot read its tensors.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from prunejax.models import llama
from prunejax.models.hf import folder as hf_folder
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


def load(
  folder: str | os.PathLike,
  *,
  heads: Sequence[str] = ('lm',),
  optional: Sequence[str] = (),
  vocab: str | os.PathLike | Sequence[str] | None = None,
  parts: bool = False,
) -> tuple[dict, Any]:
  """Reads a model.

  Args:
    folder: holds config.json, and model.safetensors or its shards; or a GGUF file.
    heads: those of 'lm' and 'classifier' that are needed; others are not read.
    optional: those of `heads` that params lack if the file has no tensor of them.
    vocab: the vocabulary that the model will be used with: pieces or a path, see
      `folder.read_vocab`. None checks the vocabulary in the folder, if there is one.
    parts: of a folder, leaves are `stored.Stored`, as in bert.py.

  Returns:
    (params, size): a nested dict of float32 numpy arrays, and the config.

  Raises:
    CheckpointError: a file that is missing or damaged; another model; missing, unknown or wrongly
      shaped tensors, all in one message; a vocabulary that does not fit the word embeddings.
  """
  return tables.load(TABLE, folder, heads, optional, vocab, parts)


def save(
  folder: str | os.PathLike,
  params: Mapping,
  size: Any,
  *,
  tokenizer: tokenizers.Tokenizer | None = None,
  dtype: str = 'float32',
  most: int | str = hf_folder.SHARD_BYTES,
) -> int:
  """Writes a folder that `load` and PyTorch's `from_pretrained` read, see `tables.save`."""
  return tables.save(TABLE, folder, params, size, tokenizer, dtype, most)


def parts(
  params: Mapping,
  size: Any,
  *,
  tokenizer: tokenizers.Tokenizer | None = None,
  dtype: str = 'float32',
) -> tuple[dict[str, str], dict[str, np.ndarray], int]:
  """Returns what `save` writes, see `tables.parts`."""
  return tables.parts(TABLE, params, size, tokenizer, dtype)


def read_size(folder: str | os.PathLike, *, heads: Sequence[str] = ()) -> Any:
  """Reads the config of a folder or of a GGUF file, see `tables.read_size`."""
  return tables.read_size(TABLE, folder, heads)


def hf_name(path: str) -> str:
  """Returns the name of the tensor that holds a leaf."""
  return tables.hf_name(TABLE, path)

"""Reads and writes OPT as a Hugging Face folder.

A shrunk model (`opt.widths`) is read and written too, but other programs cannot read its tensors.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers

from prunejax.models import opt
from prunejax.models.hf import folder as hf_folder
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
    folder: holds config.json, and model.safetensors or its shards.
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
  """Reads the config of a folder, see `tables.read_size`."""
  return tables.read_size(TABLE, folder, heads)


def hf_name(path: str) -> str:
  """Returns the name of the tensor that holds a leaf."""
  return tables.hf_name(TABLE, path)

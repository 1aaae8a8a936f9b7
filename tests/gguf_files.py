"""Writes a tiny Llama as a GGUF file, as llama.cpp's converter does."""

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from prunejax.models import gguf_file

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
PIECES = ['<|endoftext|>', '<|im_start|>', *LETTERS, 'th', 'the', 'Ġthe', '19']
MERGES = ['t h', 'th e', 'Ġ the', '1 9']
Types = gguf.GGMLQuantizationType
HEADS, GROUPS, WIDTH, HIDDEN, INNER = 4, 2, 16, 64, 96


def tensors(layers=1, rng=None):
  """{name in transformers: array} of a Llama whose rows divide into blocks of 32."""
  rng = rng or np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  out = {'model.embed_tokens.weight': draw(len(PIECES), HIDDEN), 'model.norm.weight': draw(HIDDEN)}
  for i in range(layers):
    at = f'model.layers.{i}'
    out |= {
      f'{at}.input_layernorm.weight': draw(HIDDEN),
      f'{at}.post_attention_layernorm.weight': draw(HIDDEN),
      f'{at}.self_attn.q_proj.weight': draw(HEADS * WIDTH, HIDDEN),
      f'{at}.self_attn.k_proj.weight': draw(GROUPS * WIDTH, HIDDEN),
      f'{at}.self_attn.v_proj.weight': draw(GROUPS * WIDTH, HIDDEN),
      f'{at}.self_attn.o_proj.weight': draw(HIDDEN, HEADS * WIDTH),
      f'{at}.mlp.gate_proj.weight': draw(INNER, HIDDEN),
      f'{at}.mlp.up_proj.weight': draw(INNER, HIDDEN),
      f'{at}.mlp.down_proj.weight': draw(HIDDEN, INNER),
    }
  return out


def permuted(array, heads):
  """llama.cpp's order of the rows of queries and keys: the two of a pair are neighbours."""
  rows = np.arange(array.shape[0]).reshape(heads, 2, -1)
  order = [rows[h, half, i] for h in range(heads) for i in range(rows.shape[2]) for half in (0, 1)]
  return array[order]


def write(path, stored, kind='F32', arch='llama', drop=(), **more):
  """Writes a file as llama.cpp's converter does; `more` are other keys of the metadata."""
  names = {f'{theirs}.weight': f'{ours}.weight' for ours, theirs in gguf_file.OUTER.items()}
  for ours, theirs in gguf_file.LAYER.items():
    names |= {f'model.layers.{i}.{theirs}.weight': f'blk.{i}.{ours}.weight' for i in range(2)}
  keys = {
    f'{arch}.block_count': 1,
    f'{arch}.context_length': 64,
    f'{arch}.embedding_length': HIDDEN,
    f'{arch}.feed_forward_length': INNER,
    f'{arch}.attention.head_count': HEADS,
    f'{arch}.attention.head_count_kv': GROUPS,
    f'{arch}.attention.layer_norm_rms_epsilon': 1e-5,
    f'{arch}.rope.freq_base': 100.0,
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'smollm',
    'tokenizer.ggml.tokens': PIECES,
    'tokenizer.ggml.token_type': [3, 3] + [1] * (len(PIECES) - 2),
    'tokenizer.ggml.merges': MERGES,
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 0,
    **more,
  }
  writer = gguf.GGUFWriter(path, arch)
  for key, value in keys.items():
    if key in drop or value is None:
      continue
    if isinstance(value, str):
      writer.add_string(key, value)
    elif isinstance(value, bool):
      writer.add_bool(key, value)
    elif isinstance(value, float):
      writer.add_float32(key, value)
    elif isinstance(value, int):
      writer.add_uint32(key, value)
    else:
      writer.add_array(key, value)
  for name, array in stored.items():
    if name in drop:
      continue
    if arch == 'llama' and '.q_proj.' in name:
      array = permuted(array, HEADS)
    if arch == 'llama' and '.k_proj.' in name:
      array = permuted(array, GROUPS)
    quantised = array.ndim == 2 and kind != 'F32'
    type_ = Types[kind] if quantised else Types.F32
    data = gguf.quants.quantize(array, type_) if quantised else array
    writer.add_tensor(names.get(name, name), data, raw_dtype=type_)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path

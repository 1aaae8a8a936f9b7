"""Reads a Llama-class model from a GGUF file, dequantised, as tensors of a Hugging Face folder.

llama.cpp stores the rows of queries and keys of its architecture 'llama' in another order, in which
neighbours are rotated together. Here they are put back into the order of transformers.
"""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from prunejax.data import gguf_metadata, gguf_tokenizer
from prunejax.data.gguf_metadata import GgufError, is_gguf, value
from prunejax.models import llama
from prunejax.models.hf import convert, stored

__all__ = ['ARCHITECTURES', 'Gguf', 'GgufError', 'TYPES', 'is_gguf', 'read']

ARCHITECTURES = {
  'llama': 'LlamaConfig',
  'qwen2': 'Qwen2Config',
  'qwen3': 'Qwen3Config',
}
TYPES = ('F32', 'F16', 'BF16', 'Q4_0', 'Q4_1', 'Q8_0')  # of a tensor
# {name of a tensor: name in transformers}; {} is the number of the layer.
OUTER = {
  'token_embd': 'model.embed_tokens',
  'output_norm': 'model.norm',
  'output': 'lm_head',
}
LAYER = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
FACTORS = 'rope_freqs.weight'  # by which Llama 3.1 divides each frequency
# What Llama 3.1 and later publish; the file keeps only what follows from them.
LLAMA3 = {
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 8192,
}


class Gguf(NamedTuple):
  """An open file.

  Attributes:
    size: the model's config.
    tensors: (parts=False) -> {name in transformers: float32 array}; with `parts` a `Quantised` in
      the place of each array, so that nothing is dequantised before it is read.
    tokenizer: () -> its tokenizer.
  """

  size: Any
  tensors: Callable[..., dict[str, Any]]
  tokenizer: Callable[[], tokenizers.Tokenizer]


def read(path: str | os.PathLike) -> Gguf:
  """Opens a file and checks its architecture, settings, and the type and name of every tensor.

  Args:
    path: the file.

  Raises:
    GgufError: the file is damaged, or holds what is not supported.
  """
  path = pathlib.Path(path)
  reader = gguf_metadata.opened(path)
  try:
    _check_types(reader)
    size = _size(reader, path)
    names = _names(reader)
  except (ValueError, TypeError, OverflowError) as error:
    raise GgufError(f'{str(path)!r}: {error}') from error
  except Exception as error:  # transformers validates a config with exceptions of its own
    why = ' '.join(str(error).split())[:300]
    raise GgufError(f'{str(path)!r} holds no possible model: {why}') from error
  return Gguf(
    size,
    functools.partial(_tensors, path, reader, names, size),
    functools.partial(_tokenizer, path, reader),
  )


def _check_types(reader):
  wrong = {t.tensor_type.name for t in reader.tensors} - set(TYPES)
  if wrong:
    first = next(t.name for t in reader.tensors if t.tensor_type.name in wrong)
    raise GgufError(
      f'tensors of type {", ".join(sorted(wrong))} ({first}): expected {", ".join(TYPES)}'
    )


def _size(reader, path):
  """The config of the model, of a class of transformers."""
  architecture = value(reader, 'general.architecture', str)
  if architecture not in ARCHITECTURES:
    raise GgufError(
      f'general.architecture={architecture!r:.100}: expected one of {", ".join(ARCHITECTURES)}'
    )
  get = lambda key, *rest: value(reader, f'{architecture}.{key}', *rest)
  if experts := get('expert_count', int, 0):
    raise GgufError(f'{architecture}.expert_count={experts}: expected a model without experts')
  scaling = get('rope.scaling.type', str, '')
  if scaling not in ('', 'none'):
    raise GgufError(f"{architecture}.rope.scaling.type={scaling!r:.100}: expected 'none'")
  for key in () if scaling else ('rope.scaling.factor', 'rope.scale_linear'):
    if (factor := get(key, float, 1.0)) not in (0.0, 1.0):  # without a type it is linear
      raise GgufError(f'{architecture}.{key}={factor}: expected 1, positions that are not scaled')
  heads = get('attention.head_count', int)
  hidden = get('embedding_length', int)
  width = get('attention.key_length', int, hidden // max(heads, 1))
  for key in ('attention.value_length', 'rope.dimension_count'):
    if get(key, int, width) != width:
      raise GgufError(
        f'{architecture}.{key}={get(key, int)}: expected {width}, the width of a head'
      )
  tensors = {t.name: t for t in reader.tensors}
  if 'token_embd.weight' not in tensors:
    raise GgufError("the tensor 'token_embd.weight' is missing")
  id_of = lambda role: value(reader, f'tokenizer.ggml.{role}_token_id', int, None)
  fields = {
    'vocab_size': int(tensors['token_embd.weight'].shape[1]),
    'hidden_size': hidden,
    'intermediate_size': get('feed_forward_length', int),
    'num_hidden_layers': get('block_count', int),
    'num_attention_heads': heads,
    'num_key_value_heads': get('attention.head_count_kv', int, heads),
    'max_position_embeddings': get('context_length', int),
    # Stored as float32, in which 1e-5 is 9.999999747378752e-06.
    'rms_norm_eps': float(f'{get("attention.layer_norm_rms_epsilon", float):.6g}'),
    'tie_word_embeddings': 'output.weight' not in tensors,
    'bos_token_id': id_of('bos'),
    'eos_token_id': id_of('eos'),
    'pad_token_id': id_of('padding'),
  }
  rope = {'rope_type': 'default', 'rope_theta': float(get('rope.freq_base', float, 10000.0))}
  config, window = ARCHITECTURES[architecture], get('attention.sliding_window', int, None)
  if architecture != 'qwen2':
    fields['head_dim'] = width
  elif width * heads != hidden:
    raise GgufError(f'qwen2.attention.key_length={width}: expected {hidden // max(heads, 1)}')
  biased = _bias_of('attn_q') in tensors
  if architecture == 'llama' and window:
    config, fields['sliding_window'] = 'MistralConfig', window
  elif architecture != 'qwen2':
    fields['attention_bias'] = biased
  if architecture == 'llama' and not window:
    fields['mlp_bias'] = _bias_of('ffn_up') in tensors
  if window and architecture != 'llama':
    raise GgufError(f'{architecture}.attention.sliding_window={window}: expected none')
  size = convert.size_class(config)(**fields, rope_parameters=dict(rope))
  if FACTORS in tensors:
    size.rope_parameters = _scaled(_dequantised(tensors[FACTORS], path), size, rope)
  return size


def _bias_of(name):
  return f'blk.0.{name}.bias'


def _scaled(factors, size, rope):
  """The rotary positions of Llama 3.1, from the factors in the file."""
  plain = llama.frequencies(size)
  rope = {**rope, **LLAMA3, 'rope_type': 'llama3', 'factor': float(factors.max())}
  size.rope_parameters = rope
  if factors.shape != plain.shape or not np.allclose(
    plain / factors, llama.frequencies(size), rtol=1e-4, atol=0
  ):
    raise GgufError(f'{FACTORS} holds factors of the rotation that are not those of Llama 3.1')
  return rope


def _names(reader):
  """{name of a tensor: name in transformers}."""
  names, unknown = {}, []
  for tensor in reader.tensors:
    stem, _, leaf = tensor.name.rpartition('.')
    parts = stem.split('.')
    if tensor.name == FACTORS:
      continue
    if stem in OUTER and leaf == 'weight':
      names[tensor.name] = f'{OUTER[stem]}.weight'
    elif (
      len(parts) == 3
      and parts[0] == 'blk'
      and parts[1].isdecimal()
      and parts[2] in LAYER
      and leaf in ('weight', 'bias')
    ):
      names[tensor.name] = f'model.layers.{int(parts[1])}.{LAYER[parts[2]]}.{leaf}'
    else:
      unknown.append(tensor.name)
  if unknown:
    raise GgufError(f'unknown tensors: {", ".join(unknown[:6])!s:.300}')
  return names


def _dequantised(tensor, path, rows=slice(None)):
  """Rows of a tensor. They are read and not mapped, so that what was read is not held."""
  import gguf

  packed = tensor.data
  start, stop, _ = rows.indices(len(packed))
  shape = (max(stop - start, 0), *packed.shape[1:])
  offset = int(tensor.data_offset) + start * packed.strides[0]
  data = np.fromfile(path, packed.dtype, math.prod(shape), offset=offset).reshape(shape)
  return np.asarray(gguf.quants.dequantize(data, tensor.tensor_type), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Quantised(stored.Leaf):
  """A tensor of a GGUF file, dequantised whenever it is read.

  Attributes:
    file: its path.
    tensor: of the open file.
    heads: of queries or keys whose rows are to be put in order; 0 for rows that stay as they are.
    transposed: the leaf is the transpose.
  """

  file: pathlib.Path
  tensor: Any
  heads: int
  transposed: bool = False

  @property
  def files(self) -> frozenset[pathlib.Path]:
    """The files that it is read from."""
    return frozenset([self.file])

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape of the leaf."""
    shape = tuple(map(int, self.tensor.shape))  # a GGUF file has the last axis first
    return shape if self.transposed else shape[::-1]

  @property
  def dtype(self) -> np.dtype:
    """The dtype in which parts are returned."""
    return np.dtype(np.float32)

  @property
  def by_rows(self) -> bool:
    """Whether rows are blocks of the file, which are dequantised alone."""
    return not (self.transposed or self.heads)

  @property
  def T(self) -> 'Quantised':  # noqa: N802, as numpy calls it
    """The transpose."""
    return dataclasses.replace(self, transposed=not self.transposed)

  def read(self, index: tuple = ()) -> np.ndarray:
    """Reads a part, see `stored.Leaf.read`. Rows that are not asked for are not dequantised."""
    name, some = self.tensor.name, bool(index) and self.by_rows
    try:
      array = _dequantised(self.tensor, self.file, index[0] if some else slice(None))
      array = _in_order(array, self.heads) if self.heads else array
    except (ValueError, IndexError, OSError) as error:
      raise stored.Damaged(f'{str(self.file)!r}: the tensor {name!r} is damaged: {error}') from None
    if not np.isfinite(array).all():
      raise stored.Damaged(f'{str(self.file)!r}: {name} holds NaN or infinite numbers')
    rest = (slice(None), *index[1:]) if some else index
    return np.ascontiguousarray((array.T if self.transposed else array)[rest])


def _tensors(path, reader, names, size, parts=False):
  permuted = size.model_type in ('llama', 'mistral')
  heads = {'q_proj': size.num_attention_heads, 'k_proj': size.num_key_value_heads}
  tensors = {}
  for tensor in reader.tensors:
    if tensor.name in names:
      name = names[tensor.name]
      ordered = heads.get(name.split('.')[-2], 0) if permuted else 0
      tensors[name] = Quantised(path, tensor, ordered)
  try:
    return tensors if parts else {name: leaf.read() for name, leaf in tensors.items()}
  except stored.Damaged as error:
    raise GgufError(str(error)) from error


def _in_order(array, heads):
  """Rows of queries or keys in the order of transformers: first halves, then second halves."""
  pairs = array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:])
  return np.swapaxes(pairs, 1, 2).reshape(array.shape)


def _tokenizer(path, reader):
  try:
    return gguf_tokenizer.of_reader(reader)
  except ValueError as error:
    raise GgufError(f'{str(path)!r}: {error}') from error

"""The Llama class of decoders (Touvron et al. 2023) in Flax Linen: Llama, Mistral, Qwen2 and Qwen3.

Every prunable kernel is a 2-D leaf `[in, out]`. Parameters have the paths of models/gpt2.py:

  embeddings/word/embedding
  encoder/layer_3/attention/{query,key,value,output}/kernel     .../attention/norm/scale
  encoder/layer_3/ffn/{gate,intermediate,output}/kernel         .../ffn/norm/scale
  norm/scale   lm/kernel   classifier/kernel

`ffn/intermediate` is what transformers calls up_proj, `ffn/output` its down_proj. There are fewer
keys and values than queries: heads/groups neighbouring queries share one (Ainslie et al. 2023).
What a model has beyond this is said by `switches`: biases, norms of queries and keys
(attention/{query,key}_norm/scale), windows, scaled rotary positions. A tied head has no leaf 'lm'.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prunejax.models import causal_attention, decoder_heads, layer_stack
from prunejax.models.bert import check_widths

# Seven matrices of each layer. Embeddings and the head stay whole, as in the tables of one-shot
# pruning (Sun et al. 2023, Frantar & Alistarh 2023).
PRUNABLE = (
  r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(gate|intermediate|output))/kernel'
)
HEADS = decoder_heads.HEADS
DROPOUTS = {'attention': {'Dropout_0': {}}}  # of a layer, see `layer_stack.run`
MODEL_TYPES = ('llama', 'mistral', 'qwen2', 'qwen3')
ACTIVATIONS = {'silu': nn.silu, 'swish': nn.silu}
ROPE = {  # the kinds of rotary positions, and what rope_parameters holds beside rope_theta
  'default': (),
  'llama3': ('factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'),
}
LAYERS = ('full_attention', 'sliding_attention')


class Switches(NamedTuple):
  """What a model of this class has, beyond its sizes.

  Attributes:
    bias: biases of queries, keys and values.
    output_bias: a bias of the attention's output.
    ffn_bias: biases of the feed-forward block.
    qk_norm: queries and keys are normalized, each head by itself, before the rotation.
    windows: for each layer, how many tokens a query sees, itself included; None for all.
  """

  bias: bool
  output_bias: bool
  ffn_bias: bool
  qk_norm: bool
  windows: tuple[int | None, ...]


def switches(size: Any) -> Switches:
  """Returns what a model has.

  Args:
    size: a `LlamaConfig`, `MistralConfig`, `Qwen2Config` or `Qwen3Config` of transformers.
  """
  kind, depth = size.model_type, size.num_hidden_layers
  windows: tuple[int | None, ...] = (None,) * depth
  if kind == 'mistral':
    windows = (size.sliding_window,) * depth
  elif kind in ('qwen2', 'qwen3'):
    sees = {'full_attention': None, 'sliding_attention': size.sliding_window}
    windows = tuple(sees[layer] for layer in size.layer_types)
  both = kind in ('llama', 'qwen3') and bool(size.attention_bias)
  return Switches(
    bias=both or kind == 'qwen2',
    output_bias=both,
    ffn_bias=kind == 'llama' and bool(size.mlp_bias),
    qk_norm=kind == 'qwen3',
    windows=windows,
  )


def head_width(size: Any) -> int:
  """Returns the width of a head: `head_dim`, or hidden size / heads."""
  return getattr(size, 'head_dim', None) or size.hidden_size // size.num_attention_heads


def group_size(size: Any) -> int:
  """Returns the number of queries that share a key and a value."""
  return size.num_attention_heads // size.num_key_value_heads


def widths(size: Any) -> list[tuple[int, int, int]]:
  """Returns (number of heads, width of a head, number of inner neurons) of each layer.

  A shrunk model has the fields that `bert.widths` explains. Only prunejax reads them. It keeps or
  loses a whole group: the queries that share a key, and the key and value.

  Args:
    size: see `switches`.
  """
  depth, width = size.num_hidden_layers, head_width(size)
  heads = getattr(size, 'heads_per_layer', None) or [size.num_attention_heads] * depth
  inner = getattr(size, 'intermediate_per_layer', None) or [size.intermediate_size] * depth
  return [(h, width, i) for h, i in zip(heads, inner, strict=True)]


def frequencies(size: Any) -> np.ndarray:
  """Returns the frequencies of the rotation, float32 [width of a head / 2].

  They are theta^(-2i / width) (Su et al. 2021, section 3.2.2). Llama 3.1 divides those whose wave
  is longer than `original_max_position_embeddings / low_freq_factor` tokens by `factor`, keeps
  those shorter than `original_max_position_embeddings / high_freq_factor`, and interpolates the
  rest.

  Args:
    size: see `switches`.
  """
  rope, width = size.rope_parameters, head_width(size)
  plain = 1.0 / float(rope['rope_theta']) ** (np.arange(0, width, 2, dtype=np.float64) / width)
  if rope['rope_type'] == 'llama3':
    factor, low, high, original = (float(rope[name]) for name in ROPE['llama3'])
    waves = original / (2 * math.pi / plain)  # how often a wave fits into the original length
    kept = np.clip((waves - low) / (high - low), 0.0, 1.0)
    plain = (1 - kept) * plain / factor + kept * plain
  return plain.astype(np.float32)


def rotate(x: jax.Array, frequency: np.ndarray) -> jax.Array:
  """Rotates the pairs (i, i + width/2) of x [batch, length, heads, width] by their position."""
  angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * frequency
  cos, sin = (wave(angle)[None, :, None].astype(x.dtype) for wave in (jnp.cos, jnp.sin))
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def initializers(kind: str, size: Any) -> tuple[Any, Any, Any]:
  """Returns three initializers, see `decoder_heads.initializers`."""
  return decoder_heads.initializers(
    kind, size.initializer_range, size.hidden_size, size.num_hidden_layers
  )


def check(size: Any, heads: tuple[str, ...] = (), *, length: int = 1) -> None:
  """Checks what `Llama` would otherwise compute wrongly without an error.

  Args:
    size: see `switches`.
    heads: names of heads.
    length: tokens of an example.

  Raises:
    ValueError: an unknown activation, kind of rotary positions, kind of layer or head; numbers of
      heads that do not divide; an odd width of a head; lists of `widths` that do not fit; more
      tokens than positions.
  """
  if size.hidden_act not in ACTIVATIONS:
    raise ValueError(f'hidden_act={size.hidden_act!r}: expected one of {sorted(ACTIVATIONS)}')
  count, groups = size.num_attention_heads, size.num_key_value_heads
  if getattr(size, 'head_dim', None) is None and size.hidden_size % count:
    raise ValueError(
      f'hidden_size={size.hidden_size} does not divide into num_attention_heads={count} equal heads'
    )
  if count % groups:
    raise ValueError(
      f'num_attention_heads={count} does not divide into num_key_value_heads={groups} equal groups'
    )
  if head_width(size) % 2:
    raise ValueError(f'head_dim={head_width(size)}: expected an even number, for the rotation')
  check_rope(size.rope_parameters)
  layers = getattr(size, 'layer_types', None)
  if size.model_type in ('qwen2', 'qwen3'):
    unknown = sorted({str(layer) for layer in layers} - set(LAYERS))
    if unknown or len(layers) != size.num_hidden_layers:
      raise ValueError(
        f'layer_types={unknown or layers!r:.200}: expected one of {list(LAYERS)} for each of'
        f' {size.num_hidden_layers} layers'
      )
  check_widths(size)
  broken = [h for h in getattr(size, 'heads_per_layer', None) or () if h % group_size(size)]
  if broken:
    raise ValueError(
      f'heads_per_layer has {broken[0]}: expected multiples of {group_size(size)}, the heads of a'
      ' group'
    )
  decoder_heads.check(heads)
  if length > size.max_position_embeddings:
    raise ValueError(
      f'a sequence of {length} tokens is longer than '
      f'max_position_embeddings={size.max_position_embeddings}'
    )


def check_rope(rope: dict) -> None:
  """Checks `rope_parameters` of a config of transformers.

  Raises:
    ValueError: a kind that is not in `ROPE`, numbers that are missing or not positive, heads of
      which only a part is rotated.
  """
  kind = (rope or {}).get('rope_type')
  if kind not in ROPE:
    raise ValueError(f'rope_type={kind!r:.200}: expected one of {list(ROPE)}')
  for name in ('rope_theta', *ROPE[kind]):
    value = rope.get(name)
    if not (type(value) in (int, float) and 0 < value < math.inf):
      raise ValueError(f'{name}={value!r:.200} of the rotary positions: expected a positive number')
  if kind == 'llama3' and rope['high_freq_factor'] <= rope['low_freq_factor']:
    raise ValueError(
      f'high_freq_factor={rope["high_freq_factor"]}: expected more than'
      f' low_freq_factor={rope["low_freq_factor"]}'
    )
  if rope.get('partial_rotary_factor', 1.0) != 1.0:
    raise ValueError(
      f'partial_rotary_factor={rope["partial_rotary_factor"]!r:.200}: expected 1.0, whole heads'
    )


class RMSNorm(nn.Module):
  """Divides by the root of the mean square, in float32, then multiplies by a scale."""

  epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x):
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, -1, keepdims=True) + self.epsilon)
    return wide.astype(self.dtype) * scale.astype(self.dtype)


class Attention(nn.Module):
  """Attention of a normalized x, added to x [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any
  heads: int
  width: int
  window: int | None

  @nn.compact
  def __call__(self, x, valid, deterministic, keys):
    size, switch, (batch, length, hidden) = self.size, switches(self.size), x.shape
    groups = self.heads // group_size(size)
    # An empty kernel, of a layer without heads, cannot be drawn.
    inward, outward = self.inits[:2] if self.heads else (nn.initializers.zeros,) * 2
    norm = lambda name: RMSNorm(size.rms_norm_eps, self.dtype, name=name)
    dense = lambda width, name, init, bias: nn.Dense(
      width, use_bias=bias, dtype=self.dtype, kernel_init=init, name=name
    )
    normed = norm('norm')(x)
    split = lambda name, count: dense(count * self.width, name, inward, switch.bias)(
      normed
    ).reshape(batch, length, count, self.width)
    query, key, value = split('query', self.heads), split('key', groups), split('value', groups)
    if switch.qk_norm:
      query, key = norm('query_norm')(query), norm('key_norm')(key)
    frequency = frequencies(size)
    rate = 0.0 if deterministic else size.attention_dropout
    mixed = causal_attention.attend(
      rotate(query, frequency),
      rotate(key, frequency),
      value,
      valid=valid,
      window=self.window,
      dropout=rate,
      rng=causal_attention.dropout_key(rate, deterministic, keys),
    )
    mixed = mixed.reshape(batch, length, self.heads * self.width)
    return x + dense(hidden, 'output', outward, switch.output_bias)(mixed)


class FeedForward(nn.Module):
  """down(silu(gate) * up) of a normalized x, added to x (Shazeer 2020, SwiGLU)."""

  size: Any
  dtype: Any
  inits: Any
  inner: int

  @nn.compact
  def __call__(self, x):
    size, bias = self.size, switches(self.size).ffn_bias
    inward, outward = self.inits[:2] if self.inner else (nn.initializers.zeros,) * 2
    dense = lambda width, name, init: nn.Dense(
      width, use_bias=bias, dtype=self.dtype, kernel_init=init, name=name
    )
    normed = RMSNorm(size.rms_norm_eps, self.dtype, name='norm')(x)
    gate = ACTIVATIONS[size.hidden_act](dense(self.inner, 'gate', inward)(normed))
    inner = gate * dense(self.inner, 'intermediate', inward)(normed)
    return x + dense(x.shape[-1], 'output', outward)(inner)


class Layer(nn.Module):
  """Attention and feed-forward block. widths: one entry of `widths`."""

  size: Any
  dtype: Any
  inits: Any
  widths: tuple
  window: int | None

  @nn.compact
  def __call__(self, x, valid, deterministic=True, keys=None):
    parts, (heads, width, inner) = (self.size, self.dtype, self.inits), self.widths
    attention = Attention(*parts, heads, width, self.window, name='attention')
    x = attention(x, valid, deterministic, (keys or {}).get('attention', {}))
    return FeedForward(*parts, inner, name='ffn')(x)


class Encoder(nn.Module):
  """The stack of layers, with the same name as in models/bert.py."""

  size: Any
  dtype: Any
  inits: Any
  scan_layers: bool
  remat: str

  @nn.compact
  def __call__(self, x, valid, deterministic):
    parts = (self.size, self.dtype, self.inits)
    return layer_stack.run(
      self,
      lambda layer, x, keys: layer(x, valid, deterministic, keys),
      lambda setting, name: Layer(*parts, *setting, name=name),
      list(zip(widths(self.size), switches(self.size).windows, strict=True)),
      x,
      scan=self.scan_layers,
      remat=self.remat,
      dropouts={} if deterministic else DROPOUTS,
    )


class Embeddings(nn.Module):
  """Word embeddings; the call returns them with `attend`, which multiplies by the word table."""

  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, input_ids):
    word = nn.Embed(
      self.size.vocab_size,
      self.size.hidden_size,
      dtype=self.dtype,
      embedding_init=self.inits[2],
      name='word',
    )
    return word(input_ids), word.attend


class Llama(nn.Module):
  """The decoder with some of its heads. Its call has the signature of `gpt2.Gpt2`.

  Attributes:
    size: a config of transformers, see `switches`.
    heads: any of 'lm', 'classifier'.
    num_outputs: outputs of the classifier; 1 for regression.
    dtype: compute dtype; parameters stay float32.
    initializer: 'normal' or 'fan_in', see `decoder_heads.initializers`.
    scan_layers: as in `bert.Bert`.
    remat: as in `bert.Bert`.
  """

  size: Any
  heads: tuple[str, ...] = ('lm',)
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'
  scan_layers: bool = False
  remat: str = 'none'

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, positions=None, *, deterministic=True):
    """Runs the decoder and every head.

    Args:
      input_ids: int [batch, length].
      segment_ids: ignored; the model has no segments.
      valid: bool [batch, length], False at padding. Padding is on the right: positions count from
        the first column.
      positions: int [batch, predictions], where the head 'lm' predicts the next token; None for all
        positions.
      deterministic: if False, dropout is drawn from the rng named 'dropout'.

    Returns:
      dict with 'sequence' [batch, length, hidden] in the compute dtype, after the last norm, and
      logits of each head in float32: 'lm' [batch, predictions, vocabulary], 'classifier'
      [batch, num_outputs]. The classifier reads the last valid token, or the first token if none is
      valid.

    Raises:
      ValueError: a size, heads or a length that do not fit, see `check`.
    """
    del segment_ids
    size, length = self.size, input_ids.shape[1]
    check(size, self.heads, length=length)
    inits = initializers(self.initializer, size)
    x, attend = Embeddings(size, self.dtype, inits, name='embeddings')(input_ids)
    how = (self.scan_layers, self.remat)
    x = Encoder(size, self.dtype, inits, *how, name='encoder')(x, valid, deterministic)
    x = RMSNorm(size.rms_norm_eps, self.dtype, name='norm')(x)
    head = lambda name, width: decoder_heads.head_without_bias(name, width, self.dtype, inits[0])
    lm = attend if size.tie_word_embeddings else lambda x: head('lm', size.vocab_size)(x)
    classifier = lambda x: head('classifier', self.num_outputs)(x)
    return decoder_heads.run(x, valid, positions, self.heads, lm, classifier)

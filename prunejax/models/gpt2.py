"""GPT-2 (Radford et al. 2019) in Flax Linen. Every prunable kernel is a 2-D leaf `[in, out]`.

Parameters are a plain dict with the paths of models/bert.py, so that one regex and one sharding
rule name the same six matrices of a layer in both models. Two things differ in a decoder:
attention only looks back, and norms stand before the dense layers, with one more at the end.

  embeddings/{word,position}/embedding
  encoder/layer_3/attention/{query,key,value,output}/{kernel,bias}   .../attention/norm/{scale,bias}
  encoder/layer_3/ffn/{intermediate,output}/{kernel,bias}            .../ffn/norm
  norm/{scale,bias}
  classifier/kernel

The head 'lm' has no leaf of its own: its logits come from the word table.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from prunejax.models import decoder_heads, layer_stack
from prunejax.models.attention import attend
from prunejax.models.bert import ACTIVATIONS, activation, check_widths, sinusoids, widths_of

# As in Gordon et al. 2020: six matrices of each layer and the word embeddings, which are also the
# softmax. There is no pooler.
PRUNABLE = (
  r'embeddings/word/embedding'
  r'|encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
)
DROPOUTS = {'attention': {'Dropout_0': {}, 'Dropout_1': {}}, 'ffn': {'Dropout_0': {}}}  # of a layer
HEADS = decoder_heads.HEADS


def initializers(kind: str, size: Any) -> tuple[Any, Any, Any, Any]:
  """Returns four initializers: kernels, kernels into the residual stream, words, positions.

  Args:
    kind: 'normal' is GPT-2's own: deviation `size.initializer_range`. 'fan_in' has deviation
      1/sqrt(fan-in) for kernels, and sinusoids for positions, as in models/bert.py. Both divide the
      deviation of kernels into the residual stream by sqrt(2 * number of layers).
    size: a `transformers.GPT2Config`.

  Raises:
    ValueError: another kind.
  """
  depth = 2 * size.n_layer
  if kind == 'normal':
    draw = nn.initializers.normal(size.initializer_range)
    return draw, nn.initializers.normal(size.initializer_range / math.sqrt(depth)), draw, draw
  if kind == 'fan_in':
    scaled = lambda by: nn.initializers.variance_scaling(by, 'fan_in', 'truncated_normal')
    return scaled(1.0), scaled(1.0 / depth), nn.initializers.normal(size.n_embd**-0.5), sinusoids
  raise ValueError(f'model.initializer={kind!r}: expected "normal" or "fan_in"')


def check(size: Any, heads: tuple[str, ...] = (), *, length: int = 1) -> None:
  """Checks what `Gpt2` would otherwise compute wrongly without an error.

  Args:
    size: a `transformers.GPT2Config`.
    heads: names of heads.
    length: tokens of an example.

  Raises:
    ValueError: an unknown activation or head; a hidden size that does not divide among the heads;
      lists of `widths` that do not fit; more tokens than positions.
  """
  try:
    activation(size.activation_function)
  except ValueError as error:
    raise ValueError(f'activation_function={error}') from None
  if size.n_embd % size.n_head:
    raise ValueError(
      f'hidden_size={size.n_embd} does not divide into '
      f'num_attention_heads={size.n_head} equal heads'
    )
  check_widths(size)
  decoder_heads.check(heads)
  if length > size.n_positions:
    # A lookup past the end of the table would give NaN instead of an error.
    raise ValueError(
      f'a sequence of {length} tokens is longer than max_position_embeddings={size.n_positions}'
    )


def inner_width(size: Any) -> int:
  """Returns the number of inner neurons of a feed-forward block: `n_inner`, or 4 `n_embd`."""
  return size.n_inner or 4 * size.n_embd


def widths(size: Any) -> list[tuple[int, int, int]]:
  """Returns (number of heads, width of a head, number of inner neurons) of each layer.

  A shrunk model has the fields that `bert.widths` explains. Only prunejax reads them.

  Args:
    size: a `transformers.GPT2Config`.
  """
  return widths_of(size, inner_width(size))


class Attention(nn.Module):
  """Causal multi-head self-attention of a normalized x, added to x [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any
  attention: str
  heads: int
  width: int

  @nn.compact
  def __call__(self, x, valid, deterministic, keys):
    size, (batch, length, hidden), inner = self.size, x.shape, self.heads * self.width
    drop = lambda rate, name: (
      lambda y: nn.Dropout(rate, name=name)(y, deterministic=deterministic, rng=keys.get(name))
    )
    # An empty kernel, of a layer without heads, cannot be drawn.
    inward, outward = self.inits[:2] if inner else (nn.initializers.zeros,) * 2
    dense = lambda name, init=inward, width=inner: nn.Dense(
      width, dtype=self.dtype, kernel_init=init, name=name
    )
    split = lambda y: y.reshape(batch, length, self.heads, self.width)
    normed = nn.LayerNorm(size.layer_norm_epsilon, dtype=self.dtype, name='norm')(x)
    query, key, value = (split(dense(name)(normed)) for name in ('query', 'key', 'value'))
    visible = valid[:, None, None, :] & jnp.tril(jnp.ones((length, length), bool))
    dropped = drop(size.attn_pdrop, 'Dropout_0') if size.attn_pdrop and not deterministic else None
    how = dict(kind=self.attention, dtype=self.dtype, drop=dropped)
    mixed = attend(query, key, value, visible, **how).reshape(batch, length, inner)
    return x + drop(size.resid_pdrop, 'Dropout_1')(dense('output', outward, hidden)(mixed))


class FeedForward(nn.Module):
  """Two dense layers on a normalized x, added to x [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any
  inner: int

  @nn.compact
  def __call__(self, x, deterministic, keys):
    size = self.size
    inward, outward = self.inits[:2] if self.inner else (nn.initializers.zeros,) * 2
    dense = lambda width, name, init: nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
    normed = nn.LayerNorm(size.layer_norm_epsilon, dtype=self.dtype, name='norm')(x)
    inner = ACTIVATIONS[activation(size.activation_function)](
      dense(self.inner, 'intermediate', inward)(normed)
    )
    out = dense(size.n_embd, 'output', outward)(inner)
    drop = nn.Dropout(size.resid_pdrop, name='Dropout_0')
    return x + drop(out, deterministic=deterministic, rng=keys.get('Dropout_0'))


class Layer(nn.Module):
  """Attention and feed-forward block. widths: one entry of `widths`."""

  size: Any
  dtype: Any
  inits: Any
  widths: tuple
  attention: str = 'einsum'

  @nn.compact
  def __call__(self, x, valid, deterministic, keys=None):
    keys = keys or {}
    parts, (heads, width, inner) = (self.size, self.dtype, self.inits), self.widths
    attention = Attention(*parts, self.attention, heads, width, name='attention')
    x = attention(x, valid, deterministic, keys.get('attention', {}))
    return FeedForward(*parts, inner, name='ffn')(x, deterministic, keys.get('ffn', {}))


class Encoder(nn.Module):
  """The stack of layers, with the same name as in models/bert.py."""

  size: Any
  dtype: Any
  inits: Any
  attention: str
  scan_layers: bool
  remat: str

  @nn.compact
  def __call__(self, x, valid, deterministic):
    parts = (self.size, self.dtype, self.inits)
    return layer_stack.run(
      self,
      lambda layer, x, keys: layer(x, valid, deterministic, keys),
      lambda layer, name: Layer(*parts, layer, self.attention, name=name),
      widths(self.size),
      x,
      scan=self.scan_layers,
      remat=self.remat,
      dropouts={} if deterministic else DROPOUTS,
    )


class Embeddings(nn.Module):
  """Sum of word and position embeddings.

  Returns (x [batch, length, hidden], attend); `attend` multiplies hidden states by the word table.
  """

  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, input_ids, deterministic):
    size, (*_, word_init, position_init) = self.size, self.inits
    table = lambda rows, draw, name: nn.Embed(
      rows, size.n_embd, dtype=self.dtype, embedding_init=draw, name=name
    )
    word = table(size.vocab_size, word_init, 'word')
    position = table(size.n_positions, position_init, 'position')
    x = word(input_ids) + position(jnp.arange(input_ids.shape[1])[None])
    return nn.Dropout(size.embd_pdrop)(x, deterministic=deterministic), word.attend


class Gpt2(nn.Module):
  """The decoder with some of its heads. Its call has the signature of `bert.Bert`.

  Attributes:
    size: a `transformers.GPT2Config`, or an object with its fields.
    heads: any of 'lm', 'classifier'.
    num_outputs: outputs of the classifier; 1 for regression.
    dtype: compute dtype; parameters stay float32.
    initializer: 'normal' or 'fan_in', see `initializers`.
    scan_layers: as in `bert.Bert`.
    remat: as in `bert.Bert`.
    attention: as in `bert.Bert`.
  """

  size: Any
  heads: tuple[str, ...] = ('lm',)
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'
  scan_layers: bool = False
  remat: str = 'none'
  attention: str = 'einsum'

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, positions=None, *, deterministic=True):
    """Runs the decoder and every head.

    Args:
      input_ids: int [batch, length].
      segment_ids: ignored; GPT-2 has no segments.
      valid: bool [batch, length], False at padding. Padding is on the right: positions count from
        the first column.
      positions: int [batch, predictions], where the head 'lm' predicts the next token; None for all
        positions.
      deterministic: if False, dropout is drawn from the rng named 'dropout'.

    Returns:
      dict with 'sequence' [batch, length, hidden] in the compute dtype, after the last norm, and
      logits of each head in float32: 'lm' [batch, predictions, vocabulary], 'classifier'
      [batch, num_outputs]. The classifier reads the last valid token, as transformers'
      GPT2ForSequenceClassification does, or the first token if none is valid.

    Raises:
      ValueError: a size, heads or a length that do not fit, see `check`.
    """
    del segment_ids
    size, length = self.size, input_ids.shape[1]
    check(size, self.heads, length=length)
    inits = initializers(self.initializer, size)
    x, attend = Embeddings(size, self.dtype, inits, name='embeddings')(input_ids, deterministic)
    how = (self.attention, self.scan_layers, self.remat)
    x = Encoder(size, self.dtype, inits, *how, name='encoder')(x, valid, deterministic)
    x = nn.LayerNorm(size.layer_norm_epsilon, dtype=self.dtype, name='norm')(x)
    classifier = lambda x: decoder_heads.head_without_bias(
      'classifier', self.num_outputs, self.dtype, inits[0]
    )(x)
    return decoder_heads.run(x, valid, positions, self.heads, attend, classifier)

"""OPT (Zhang et al. 2022) in Flax Linen. Every prunable kernel is a 2-D leaf `[in, out]`.

Parameters have the paths of models/gpt2.py. Three things differ: positions are counted from
`OFFSET`, activations are ReLU, and OPT-350M, the only one with norms behind its blocks, has
narrower word embeddings, which two more maps widen and narrow:

  embeddings/{word,position}/embedding   embeddings/project/kernel
  encoder/layer_3/attention/{query,key,value,output}/{kernel,bias}   .../attention/norm/{scale,bias}
  encoder/layer_3/ffn/{intermediate,output}/{kernel,bias}            .../ffn/norm
  norm/{scale,bias}   project/kernel   classifier/kernel
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from prunejax.models import causal_attention, decoder_heads, layer_stack
from prunejax.models.bert import ACTIVATIONS, activation, check_widths, widths_of

PRUNABLE = (
  r'encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
)
HEADS = decoder_heads.HEADS
DROPOUTS = {'attention': {'Dropout_0': {}, 'Dropout_1': {}}, 'ffn': {'Dropout_0': {}}}  # of a layer
OFFSET = 2  # row of the position table that the first token takes
EPSILON = 1e-5  # of every norm


def initializers(kind: str, size: Any) -> tuple[Any, Any, Any]:
  """Returns three initializers, see `decoder_heads.initializers`."""
  return decoder_heads.initializers(kind, size.init_std, size.hidden_size, size.num_hidden_layers)


def check(size: Any, heads: tuple[str, ...] = (), *, length: int = 1) -> None:
  """Checks what `Opt` would otherwise compute wrongly without an error.

  Args:
    size: a `transformers.OPTConfig`.
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
  if size.hidden_size % size.num_attention_heads:
    raise ValueError(
      f'hidden_size={size.hidden_size} does not divide into '
      f'num_attention_heads={size.num_attention_heads} equal heads'
    )
  check_widths(size)
  decoder_heads.check(heads)
  if length > size.max_position_embeddings:
    # A lookup past the end of the table would give NaN instead of an error.
    raise ValueError(
      f'a sequence of {length} tokens is longer than '
      f'max_position_embeddings={size.max_position_embeddings}'
    )


def widths(size: Any) -> list[tuple[int, int, int]]:
  """Returns (number of heads, width of a head, number of inner neurons) of each layer.

  A shrunk model has the fields that `bert.widths` explains. Only prunejax reads them.

  Args:
    size: a `transformers.OPTConfig`.
  """
  return widths_of(size, size.ffn_dim)


class Layer(nn.Module):
  """Attention and feed-forward block. widths: one entry of `widths`."""

  size: Any
  dtype: Any
  inits: Any
  widths: tuple

  @nn.compact
  def __call__(self, x, valid, deterministic=True, keys=None):
    keys = keys or {}
    parts, (heads, width, inner) = (self.size, self.dtype, self.inits), self.widths
    attention = Attention(*parts, heads, width, name='attention')
    x = attention(x, valid, deterministic, keys.get('attention', {}))
    return FeedForward(*parts, inner, name='ffn')(x, deterministic, keys.get('ffn', {}))


class Attention(nn.Module):
  """Causal attention with its residual. x: [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any
  heads: int
  width: int

  @nn.compact
  def __call__(self, x, valid, deterministic, keys):
    size, (batch, length, hidden), inner = self.size, x.shape, self.heads * self.width
    # An empty kernel, of a layer without heads, cannot be drawn.
    inward, outward = self.inits[:2] if inner else (nn.initializers.zeros,) * 2
    dense = lambda name, width, init: _dense(size, self.dtype, width, init, name)
    norm = nn.LayerNorm(EPSILON, dtype=self.dtype, name='norm')
    normed = norm(x) if size.do_layer_norm_before else x
    query, key, value = (
      dense(name, inner, inward)(normed).reshape(batch, length, self.heads, self.width)
      for name in ('query', 'key', 'value')
    )
    rate = 0.0 if deterministic else size.attention_dropout
    key_of = causal_attention.dropout_key(rate, deterministic, keys)
    mixed = causal_attention.attend(query, key, value, valid=valid, dropout=rate, rng=key_of)
    out = dense('output', hidden, outward)(mixed.reshape(batch, length, inner))
    drop = nn.Dropout(size.dropout, name='Dropout_1')
    x = x + drop(out, deterministic=deterministic, rng=keys.get('Dropout_1'))
    return x if size.do_layer_norm_before else norm(x)


class FeedForward(nn.Module):
  """Two dense layers with their residual. x: [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any
  inner: int

  @nn.compact
  def __call__(self, x, deterministic, keys):
    size = self.size
    inward, outward = self.inits[:2] if self.inner else (nn.initializers.zeros,) * 2
    norm = nn.LayerNorm(EPSILON, dtype=self.dtype, name='norm')
    normed = norm(x) if size.do_layer_norm_before else x
    inner = ACTIVATIONS[activation(size.activation_function)](
      _dense(size, self.dtype, self.inner, inward, 'intermediate')(normed)
    )
    out = _dense(size, self.dtype, x.shape[-1], outward, 'output')(inner)
    drop = nn.Dropout(size.dropout, name='Dropout_0')
    x = x + drop(out, deterministic=deterministic, rng=keys.get('Dropout_0'))
    return x if size.do_layer_norm_before else norm(x)


def _dense(size, dtype, width, init, name):
  return nn.Dense(width, use_bias=size.enable_bias, dtype=dtype, kernel_init=init, name=name)


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
      lambda setting, name: Layer(*parts, setting, name=name),
      widths(self.size),
      x,
      scan=self.scan_layers,
      remat=self.remat,
      dropouts={} if deterministic else DROPOUTS,
    )


class Embeddings(nn.Module):
  """Sum of word and position embeddings.

  Returns (x [batch, length, hidden], attend); `attend` multiplies by the word table.
  """

  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, input_ids):
    size = self.size
    table = lambda rows, width, name: nn.Embed(
      rows, width, dtype=self.dtype, embedding_init=self.inits[2], name=name
    )
    word = table(size.vocab_size, size.word_embed_proj_dim, 'word')
    position = table(size.max_position_embeddings + OFFSET, size.hidden_size, 'position')
    x = word(input_ids)
    if size.word_embed_proj_dim != size.hidden_size:
      x = _project(size.hidden_size, self.dtype, self.inits[0])(x)
    return x + position(jnp.arange(input_ids.shape[1])[None] + OFFSET), word.attend


def _project(width, dtype, init):
  return nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name='project')


class Opt(nn.Module):
  """The decoder with some of its heads. Its call has the signature of `gpt2.Gpt2`.

  Attributes:
    size: a `transformers.OPTConfig`.
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
      dict with 'sequence' [batch, length, width of the words] in the compute dtype, which the heads
      read, and logits of each head in float32: 'lm' [batch, predictions, vocabulary], 'classifier'
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
    if size.do_layer_norm_before:
      x = nn.LayerNorm(EPSILON, dtype=self.dtype, name='norm')(x)
    if size.word_embed_proj_dim != size.hidden_size:
      x = _project(size.word_embed_proj_dim, self.dtype, inits[0])(x)
    classifier = lambda x: decoder_heads.head_without_bias(
      'classifier', self.num_outputs, self.dtype, inits[0]
    )(x)
    return decoder_heads.run(x, valid, positions, self.heads, attend, classifier)

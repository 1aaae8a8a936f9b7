"""ModernBERT (Warner et al. 2024, arXiv:2412.13663) in Flax Linen.

Every prunable kernel is a 2-D leaf `[in, out]`. Norms stand before the dense layers, positions are
rotations of queries and keys, the feed-forward block is gated, dense layers have no bias, and most
layers look at a window of tokens alone.

  embeddings/word/embedding   embeddings/norm/scale
  encoder/layer_3/attention/{query,key,value,output}/kernel   .../attention/norm/scale
  encoder/layer_3/ffn/{intermediate,gate,output}/kernel       .../ffn/norm/scale
  norm/scale   head/{kernel,norm/scale}   mlm/bias   classifier/{kernel,bias}

Layer 0 has no attention norm. `head` is shared by the MLM head and the classifier.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prunejax.models.activation_layout import by_example
from prunejax.models.bert import ACTIVATIONS, activation

# The six matrices of a layer that BERT has too, the gate of the feed-forward block, and the word
# embeddings. Gordon et al. 2020 precede this model; there is no pooler.
PRUNABLE = (
  r'embeddings/word/embedding'
  r'|encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|gate|output))/kernel'
)
HEADS = ('mlm', 'classifier')
KINDS = ('full_attention', 'sliding_attention')  # of layers


def check(size: Any, heads: tuple[str, ...] = (), *, length: int = 1) -> None:
  """Checks what `ModernBert` would otherwise compute wrongly without an error.

  Args:
    size: a `transformers.ModernBertConfig`.
    heads: names of heads.
    length: tokens of an example.

  Raises:
    ValueError: an unknown activation, kind of layer, scaling of rotations or head; widths that do
      not divide; more tokens than positions.
  """
  for field in ('hidden_activation', 'classifier_activation'):
    try:
      activation(getattr(size, field))
    except ValueError as error:
      raise ValueError(f'{field}={error}') from None
  heads_ = size.num_attention_heads
  if size.hidden_size % heads_ or size.hidden_size // heads_ % 2:
    raise ValueError(
      f'hidden_size={size.hidden_size} does not divide into num_attention_heads={heads_} heads of'
      ' an even width'
    )
  kinds = size.layer_types
  if len(kinds) != size.num_hidden_layers or not set(kinds) <= set(KINDS):
    raise ValueError(
      f'layer_types={kinds!r:.200}: expected {size.num_hidden_layers} of {", ".join(KINDS)}'
    )
  for kind in KINDS:
    rotation = size.rope_parameters.get(kind) or {}
    theta = rotation.get('rope_theta')
    if rotation.get('rope_type') != 'default' or not isinstance(theta, int | float) or theta <= 0:
      raise ValueError(
        f'rope_parameters[{kind!r}]={rotation!r:.200}: expected rope_type "default" and a'
        ' rope_theta above 0'
      )
  if size.local_attention < 0:
    raise ValueError(f'local_attention={size.local_attention}: expected 0 or more')
  unknown = [head for head in heads if head not in HEADS]
  if unknown:
    raise ValueError(f'heads={heads!r}: unknown {unknown}, expected any of {list(HEADS)}')
  if length > size.max_position_embeddings:
    raise ValueError(
      f'a sequence of {length} tokens is longer than'
      f' max_position_embeddings={size.max_position_embeddings}'
    )


def widths(size: Any) -> list[tuple[int, int, int]]:
  """Returns (number of heads, width of a head, number of inner neurons) of each layer.

  Args:
    size: a `transformers.ModernBertConfig`.
  """
  heads = size.num_attention_heads
  return [(heads, size.hidden_size // heads, size.intermediate_size)] * size.num_hidden_layers


def initializers(kind: str, size: Any) -> tuple[Any, Any, Any]:
  """Returns the initializers of kernels, of kernels into the residual stream, and of words.

  Args:
    kind: 'normal' is ModernBERT's own: a normal of deviation `size.initializer_range`, truncated at
      `size.initializer_cutoff_factor` deviations; into the residual stream divided by sqrt(2 *
      number of layers). 'fan_in' has deviation 1/sqrt(fan-in) with the same division.
    size: a `transformers.ModernBertConfig`.

  Raises:
    ValueError: another kind.
  """
  depth = 2 * size.num_hidden_layers
  if kind == 'normal':
    cut, scale = size.initializer_cutoff_factor, size.initializer_range
    # Flax divides by the deviation that truncation at two leaves; PyTorch does not.
    draw = lambda deviation: (
      lambda key, shape, dtype=jnp.float32: (
        deviation * jax.random.truncated_normal(key, -cut, cut, shape, dtype)
      )
    )
    return draw(scale), draw(scale / math.sqrt(depth)), draw(scale)
  if kind == 'fan_in':
    scaled = lambda by: nn.initializers.variance_scaling(by, 'fan_in', 'truncated_normal')
    return scaled(1.0), scaled(1.0 / depth), nn.initializers.normal(size.hidden_size**-0.5)
  raise ValueError(f'model.initializer={kind!r}: expected "normal" or "fan_in"')


def rotated(x: jax.Array, theta: float) -> jax.Array:
  """Rotates pairs of features of each token by its position (Su et al. 2021).

  Args:
    x: [batch, length, heads, width]. Feature i pairs with feature i + width / 2.
    theta: the base of the frequencies.

  Returns:
    An array like x.
  """
  half = x.shape[-1] // 2
  angle = jnp.arange(x.shape[1])[:, None] / theta ** (jnp.arange(half) / half)
  cos, sin = (f(angle)[:, None, :] for f in (jnp.cos, jnp.sin))
  first, second = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
  turned = [first * cos - second * sin, second * cos + first * sin]
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class _Part(nn.Module):
  """What the modules of this file share."""

  size: Any
  dtype: Any
  inits: Any

  def norm(self, name='norm'):
    """A LayerNorm of the size."""
    size = self.size
    return nn.LayerNorm(size.norm_eps, dtype=self.dtype, use_bias=size.norm_bias, name=name)

  def dense(self, width, name, bias, outward=False):
    """A dense layer, into the residual stream or not."""
    init = self.inits[int(outward)]
    return nn.Dense(width, use_bias=bias, dtype=self.dtype, kernel_init=init, name=name)


class Attention(_Part):
  """Self-attention of a normalized x, added to x [batch, length, hidden]."""

  index: int = 0

  @nn.compact
  def __call__(self, x, valid, deterministic):
    size, (batch, length, hidden) = self.size, x.shape
    heads = size.num_attention_heads
    kind = size.layer_types[self.index]
    normed = self.norm()(x) if self.index else x
    split = lambda y: y.reshape(batch, length, heads, hidden // heads)
    query, key, value = (
      split(self.dense(hidden, name, size.attention_bias)(normed))
      for name in ('query', 'key', 'value')
    )
    theta = size.rope_parameters[kind]['rope_theta']
    query, key = rotated(query, theta), rotated(key, theta)
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) / math.sqrt(hidden // heads)
    visible = valid[:, None, None, :]
    if kind == 'sliding_attention':
      apart = jnp.abs(jnp.arange(length)[:, None] - jnp.arange(length))
      visible = visible & (apart <= size.local_attention // 2)
    scores = jnp.where(visible, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores).astype(self.dtype)
    drop = nn.Dropout(size.attention_dropout)
    weights = drop(weights, deterministic=deterministic)
    mixed = jnp.einsum('bhqk,bkhd->bqhd', weights, value).reshape(x.shape)
    out = self.dense(hidden, 'output', size.attention_bias, outward=True)(mixed)
    return x + drop(out, deterministic=deterministic)


class FeedForward(_Part):
  """The gated block of a normalized x, added to x: output(act(intermediate x) * gate x)."""

  @nn.compact
  def __call__(self, x, deterministic):
    size = self.size
    normed = self.norm()(x)
    inner, gate = (
      self.dense(size.intermediate_size, name, size.mlp_bias)(normed)
      for name in ('intermediate', 'gate')
    )
    inner = ACTIVATIONS[activation(size.hidden_activation)](inner) * gate
    inner = nn.Dropout(size.mlp_dropout)(inner, deterministic=deterministic)
    return x + self.dense(size.hidden_size, 'output', size.mlp_bias, outward=True)(inner)


class Layer(_Part):
  """Attention and feed-forward block."""

  index: int = 0

  @nn.compact
  def __call__(self, x, valid, deterministic):
    parts = self.size, self.dtype, self.inits
    x = Attention(*parts, self.index, name='attention')(x, valid, deterministic)
    return FeedForward(*parts, name='ffn')(x, deterministic)


class Encoder(_Part):
  """The stack of layers."""

  @nn.compact
  def __call__(self, x, valid, deterministic):
    x = by_example(x)
    for i in range(self.size.num_hidden_layers):
      layer = Layer(self.size, self.dtype, self.inits, i, name=f'layer_{i}')
      x = by_example(layer(x, valid, deterministic))
    return x


class Embeddings(_Part):
  """The word embeddings, normalized.

  Returns (x [batch, length, hidden], attend); `attend` multiplies hidden states by the word table.
  """

  @nn.compact
  def __call__(self, input_ids, deterministic):
    size = self.size
    word = nn.Embed(
      size.vocab_size,
      size.hidden_size,
      dtype=self.dtype,
      embedding_init=self.inits[2],
      name='word',
    )
    x = nn.Dropout(size.embedding_dropout)(
      self.norm()(word(input_ids)), deterministic=deterministic
    )
    return x, word.attend


class Head(_Part):
  """The dense layer with norm before the MLM head and the classifier."""

  @nn.compact
  def __call__(self, x):
    size = self.size
    kernel = self.param('kernel', self.inits[1], (size.hidden_size, size.hidden_size))
    x = x @ kernel.astype(self.dtype)
    if size.classifier_bias:
      x += self.param('bias', nn.initializers.zeros, (size.hidden_size,)).astype(self.dtype)
    return self.norm()(ACTIVATIONS[activation(size.classifier_activation)](x))


class ModernBert(nn.Module):
  """ModernBERT with some of its heads. Its attributes and its call are those of `bert.Bert`.

  Segments are ignored; padding stands on the right.
  """

  size: Any
  heads: tuple[str, ...] = ('mlm',)
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, positions=None, *, deterministic=True):
    """Runs the encoder and every head; see `bert.Bert`.

    Returns:
      dict with 'sequence' [batch, length, hidden] in the compute dtype, and logits of each head in
      float32: 'mlm' [batch, predictions, vocabulary], 'classifier' [batch, num_outputs].

    Raises:
      ValueError: a size, heads or a length that do not fit, see `check`.
    """
    del segment_ids
    size = self.size
    check(size, self.heads, length=input_ids.shape[1])
    parts = size, self.dtype, initializers(self.initializer, size)
    x, attend = Embeddings(*parts, name='embeddings')(input_ids, deterministic)
    x = Encoder(*parts, name='encoder')(x, valid, deterministic)
    x = nn.LayerNorm(size.norm_eps, dtype=self.dtype, use_bias=size.norm_bias, name='norm')(x)
    out = {'sequence': x}
    head = Head(*parts, name='head')
    if 'mlm' in self.heads:
      hidden = x if positions is None else jnp.take_along_axis(x, positions[..., None], axis=1)
      logits = attend(head(hidden))
      if size.decoder_bias:
        logits += self.param('mlm', lambda _: {'bias': jnp.zeros(size.vocab_size)})['bias']
      out['mlm'] = logits.astype(jnp.float32)
    if 'classifier' in self.heads:
      read = x[:, 0]
      if size.classifier_pooling == 'mean':
        count = jnp.maximum(valid.sum(1, keepdims=True), 1)
        read = (x * valid[..., None]).sum(1) / count.astype(self.dtype)
      drop = nn.Dropout(size.classifier_dropout)
      dense = nn.Dense(
        self.num_outputs, dtype=self.dtype, kernel_init=parts[2][0], name='classifier'
      )
      pooled = drop(head(read), deterministic=deterministic)
      out['classifier'] = dense(pooled).astype(jnp.float32)
    return out

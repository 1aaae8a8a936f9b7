"""GPT-2 (Radford et al. 2019) in Flax linen, every prunable kernel a 2-D leaf `[in, out]`.

Parameters are a plain dict whose paths read like those of models/bert.py, the stack of layers and the six matrices of
a layer included, so that one regex, one probe and one sharding rule mean the same matrices in both models. What is a
decoder's own: attention looks back only, and the norms stand before the maps, with one more at the end.

  embeddings/{word,position}/embedding
  encoder/layer_3/attention/{query,key,value,output}/{kernel,bias}   .../attention/norm/{scale,bias}
  encoder/layer_3/ffn/{intermediate,output}/{kernel,bias}            .../ffn/norm
  norm/{scale,bias}
  classifier/kernel

The head 'lm' has no leaf: its softmax is the word table.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prunejax.models.bert import ACTIVATIONS, sinusoids

# As in Gordon et al. 2020: six matrices a layer and the word embeddings (and so the tied softmax). There is no pooler.
PRUNABLE = (
  r'embeddings/word/embedding'
  r'|encoder/layer_\d+/(attention/(query|key|value|output)|ffn/(intermediate|output))/kernel'
)
HEADS = ('lm', 'classifier')


def initializers(kind, size):
  """(kernel, kernel onto the residual stream, embedding, position) initializers.

  'normal' is GPT-2's own: deviation `size.initializer_range`, divided by sqrt(2 layers) where a map ends in the
  residual stream. 'fan_in' draws kernels with deviation 1/sqrt(fan-in), the latter again divided by sqrt(2 layers), and
  starts the positions as sinusoids, as in models/bert.py.
  """
  depth = 2 * size.n_layer
  if kind == 'normal':
    draw = nn.initializers.normal(size.initializer_range)
    return draw, nn.initializers.normal(size.initializer_range / math.sqrt(depth)), draw, draw
  if kind == 'fan_in':
    scaled = lambda by: nn.initializers.variance_scaling(by, 'fan_in', 'truncated_normal')
    return scaled(1.0), scaled(1.0 / depth), nn.initializers.normal(size.n_embd**-0.5), sinusoids
  raise ValueError(f'model.initializer={kind!r}: expected "normal" or "fan_in"')


def check(size, heads=(), *, length=1):
  """Raises ValueError for a size, heads or length that `Gpt2` would silently compute wrongly."""
  if size.activation_function not in ACTIVATIONS:
    raise ValueError(
      f'activation_function={size.activation_function!r}: expected one of {sorted(ACTIVATIONS)}'
    )
  if size.n_embd % size.n_head:
    raise ValueError(
      f'hidden_size={size.n_embd} does not split into num_attention_heads={size.n_head} equal heads'
    )
  unknown = [head for head in heads if head not in HEADS]
  if unknown:
    raise ValueError(f'heads={heads!r}: unknown {unknown}, expected any of {list(HEADS)}')
  if length > size.n_positions:
    # A look-up past the end of the table gives NaN, not an error.
    raise ValueError(
      f'a sequence of {length} tokens is longer than max_position_embeddings={size.n_positions}'
    )


def inner_width(size):
  """The width between the two maps of a feed-forward block: `n_inner`, or four times the model's."""
  return size.n_inner or 4 * size.n_embd


class Attention(nn.Module):
  """Causal multi-head self-attention of a normed x, added to x. x: [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, x, valid, deterministic):
    size, (batch, length, hidden) = self.size, x.shape
    inward, outward, *_ = self.inits
    dense = lambda name, init=inward: nn.Dense(
      hidden, dtype=self.dtype, kernel_init=init, name=name
    )
    split = lambda y: y.reshape(batch, length, size.n_head, -1)
    normed = nn.LayerNorm(size.layer_norm_epsilon, dtype=self.dtype, name='norm')(x)
    query, key, value = (split(dense(name)(normed)) for name in ('query', 'key', 'value'))
    scores = jnp.einsum('bqhd,bkhd->bhqk', query, key) / math.sqrt(query.shape[-1])
    # Softmax in float32 whatever the compute dtype; what may not be seen gets the lowest finite value, so that a row
    # with nothing valid in it is no NaN.
    seen = valid[:, None, None, :] & jnp.tril(jnp.ones((length, length), bool))
    scores = jnp.where(seen, scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores).astype(self.dtype)
    weights = nn.Dropout(size.attn_pdrop)(weights, deterministic=deterministic)
    mixed = jnp.einsum('bhqk,bkhd->bqhd', weights, value).reshape(batch, length, hidden)
    return x + nn.Dropout(size.resid_pdrop)(
      dense('output', outward)(mixed), deterministic=deterministic
    )


class FeedForward(nn.Module):
  """Two dense maps of a normed x, added to x. x: [batch, length, hidden]."""

  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, x, deterministic):
    size, (inward, outward, *_) = self.size, self.inits
    dense = lambda width, name, init: nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)
    normed = nn.LayerNorm(size.layer_norm_epsilon, dtype=self.dtype, name='norm')(x)
    inner = ACTIVATIONS[size.activation_function](
      dense(inner_width(size), 'intermediate', inward)(normed)
    )
    out = dense(size.n_embd, 'output', outward)(inner)
    return x + nn.Dropout(size.resid_pdrop)(out, deterministic=deterministic)


class Layer(nn.Module):
  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, x, valid, deterministic):
    parts = (self.size, self.dtype, self.inits)
    x = Attention(*parts, name='attention')(x, valid, deterministic)
    return FeedForward(*parts, name='ffn')(x, deterministic)


class Encoder(nn.Module):
  """The stack of layers, under the name that it has in models/bert.py."""

  size: Any
  dtype: Any
  inits: Any

  @nn.compact
  def __call__(self, x, valid, deterministic):
    for i in range(self.size.n_layer):
      x = Layer(self.size, self.dtype, self.inits, name=f'layer_{i}')(x, valid, deterministic)
    return x


class Embeddings(nn.Module):
  """Sum of word and position embeddings: x [batch, length, hidden].

  Returns (x, attend), attend being the word table's own product with hidden states.
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
  """The decoder and the heads asked for. It is called as `bert.Bert` is.

  Attributes:
    size: a `transformers.GPT2Config`, or anything with its fields.
    heads: any of 'lm', 'classifier'.
    num_outputs: classes of the classifier head, 1 for a regressor.
    dtype: compute dtype; parameters stay float32.
    initializer: 'normal' or 'fan_in', see `initializers`.
  """

  size: Any
  heads: tuple[str, ...] = ('lm',)
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'

  @nn.compact
  def __call__(self, input_ids, segment_ids, valid, positions=None, *, deterministic=True):
    """Runs the decoder and every head.

    Args:
      input_ids: int [batch, length].
      segment_ids: not read; GPT-2 has no segments.
      valid: bool [batch, length], False at padding, which is on the right: positions are counted from the first column.
      positions: int [batch, predictions], where the head 'lm' predicts the next token (None: everywhere).
      deterministic: False draws dropout from the rng named 'dropout'.

    Returns:
      dict with 'sequence' [batch, length, hidden], after the last norm, in the compute dtype, and a float32 entry for
      each head: 'lm' [batch, predictions, vocabulary], 'classifier' [batch, num_outputs], of the last valid token
      (as in transformers' GPT2ForSequenceClassification; of the first one where none is).

    Raises:
      ValueError: a size, a head or a length that this model cannot have, see `check`.
    """
    del segment_ids
    size, length = self.size, input_ids.shape[1]
    check(size, self.heads, length=length)
    inits = initializers(self.initializer, size)
    x, attend = Embeddings(size, self.dtype, inits, name='embeddings')(input_ids, deterministic)
    x = Encoder(size, self.dtype, inits, name='encoder')(x, valid, deterministic)
    x = nn.LayerNorm(size.layer_norm_epsilon, dtype=self.dtype, name='norm')(x)
    out = {'sequence': x}
    if 'lm' in self.heads:
      at = x if positions is None else jnp.take_along_axis(x, positions[..., None], axis=1)
      out['lm'] = attend(at).astype(jnp.float32)
    if 'classifier' in self.heads:
      last = jnp.max(jnp.where(valid, jnp.arange(length), 0), axis=1)
      ends = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
      score = nn.Dense(
        self.num_outputs, use_bias=False, dtype=self.dtype, kernel_init=inits[0], name='classifier'
      )
      out['classifier'] = score(ends).astype(jnp.float32)
    return out

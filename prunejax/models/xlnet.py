"""XLNet (Yang et al. 2019, arXiv:1906.08237) in Flax Linen.

It has two streams of attention, relative positions and memories. Every prunable kernel is a 2-D
leaf `[in, out]`. Parameters have the paths of models/bert.py where the two models have the same
parts:

  embeddings/word/embedding   embeddings/mask (what the query stream starts from)
  encoder/layer_3/attention/{query,key,value,output,position}/kernel, without biases
  encoder/layer_3/attention/{content_bias,position_bias,segment_bias} [heads, width of a head]
  encoder/layer_3/attention/segment [2, heads, width of a head]        .../attention/norm
  encoder/layer_3/ffn/{intermediate,output}/{kernel,bias}              .../ffn/norm
  lm/bias   summary/{kernel,bias}   classifier/{kernel,bias}

The head 'lm' multiplies with the word table.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from prunejax.models.activation_layout import by_example
from prunejax.models.bert import ACTIVATIONS, activation

# Gordon et al. 2020 name no matrices of XLNet. These are the six of each layer that BERT has too,
# the kernel of relative positions, and the word embeddings. The summary, in the place of BERT's
# pooler, is drawn with the classifier of a task and not pre-trained.
PRUNABLE = (
  r'embeddings/word/embedding'
  r'|encoder/layer_\d+/(attention/(query|key|value|output|position)|ffn/(intermediate|output))'
  r'/kernel'
)
HEADS = ('lm', 'classifier')
HIDDEN = -1e30  # added to the score of a token that may not be seen


def initializers(kind: str, size: Any) -> tuple[Any, Any]:
  """Returns the initializers of kernels and of embeddings.

  Args:
    kind: 'normal' is XLNet's own: deviation `size.initializer_range`. 'fan_in' has deviation
      1/sqrt(fan-in), as in models/bert.py.
    size: a `transformers.XLNetConfig`.

  Raises:
    ValueError: another kind.
  """
  if kind == 'normal':
    return (nn.initializers.normal(size.initializer_range),) * 2
  if kind == 'fan_in':
    kernel = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
    return kernel, nn.initializers.normal(size.d_model**-0.5)
  raise ValueError(f'model.initializer={kind!r}: expected "normal" or "fan_in"')


def check(size: Any, heads: tuple[str, ...] = ()) -> None:
  """Checks what `Xlnet` would otherwise compute wrongly without an error.

  Args:
    size: a `transformers.XLNetConfig`.
    heads: names of heads.

  Raises:
    ValueError: an unknown activation or head; a hidden size that does not divide among the heads,
      or that is odd.
  """
  try:
    activation(size.ff_activation)
  except ValueError as error:
    raise ValueError(f'ff_activation={error}') from None
  if size.d_model % size.n_head or size.d_model % 2:
    raise ValueError(
      f'hidden_size={size.d_model} is odd or does not divide into'
      f' num_attention_heads={size.n_head} equal heads'
    )
  unknown = [head for head in heads if head not in HEADS]
  if unknown:
    raise ValueError(f'heads={heads!r}: unknown {unknown}, expected any of {list(HEADS)}')


def widths(size: Any) -> list[tuple[int, int, int]]:
  """Returns (number of heads, width of a head, number of inner neurons) of each layer.

  Args:
    size: a `transformers.XLNetConfig`.
  """
  return [(size.n_head, size.d_model // size.n_head, size.d_inner)] * size.n_layer


def distances(queries: int, keys: int, width: int, clamp: int = -1) -> jax.Array:
  """Returns the sinusoids of the distances from a query to a key, sines before cosines.

  Args:
    queries: their number; they are the last of the keys.
    keys: their number, memories included.
    width: of the model.
    clamp: the largest distance that is told apart; -1 for any.

  Returns:
    An array [keys + queries, width]. Row t is of the distance `keys` - t.
  """
  distance = jnp.arange(keys, -queries, -1.0)
  distance = jnp.clip(distance, -clamp, clamp) if clamp > 0 else distance
  angle = distance[:, None] / 10000 ** (jnp.arange(0, width, 2.0) / width)
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Attention(nn.Module):
  """Relative attention of one stream or of two, with residual and post-LayerNorm.

  Both streams read the keys and values of the content stream, and share all weights.
  """

  size: Any
  dtype: Any
  kernel_init: Any

  @nn.compact
  def __call__(self, streams, memory, hidden_from, segment_differs, table, deterministic):
    """streams: (x [b, q, hidden], hidden from [b, q, k], places [b, q]) of each stream."""
    size, heads = self.size, self.size.n_head
    width = size.d_model // heads
    dense = {
      name: nn.Dense(
        size.d_model, use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init, name=name
      )
      for name in ('query', 'key', 'value', 'position', 'output')
    }
    split = lambda x: x.reshape(*x.shape[:-1], heads, width)
    bias = lambda name, *shape: self.param(
      name, self.kernel_init if shape else nn.initializers.zeros, (*shape, heads, width)
    ).astype(self.dtype)
    contents, positions, segments = (
      bias(f'{name}_bias') for name in ('content', 'position', 'segment')
    )
    segment = self.param(
      'segment', nn.initializers.normal(size.initializer_range), (2, heads, width)
    ).astype(self.dtype)
    norm = nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')
    drop = nn.Dropout(size.dropout)
    content = streams[0][0]
    seen = content if memory is None else jnp.concatenate([memory, content], axis=1)
    key, value = split(dense['key'](seen)), split(dense['value'](seen))
    distance = split(dense['position'](table))
    keys, length = seen.shape[1], content.shape[1]
    out = []
    for (x, place), hidden in zip(streams, hidden_from, strict=True):
      query = split(dense['query'](x))
      scores = jnp.einsum('bqhd,bkhd->bhqk', query + contents, key)
      # A query at place i and a key at place j, memories before 0, are i - j apart.
      by_distance = jnp.einsum('bqhd,thd->bhqt', query + positions, distance)
      row = length - place[:, None, :, None] + jnp.arange(keys)
      row = jnp.broadcast_to(row, scores.shape)
      scores += jnp.take_along_axis(by_distance, row, axis=3)
      of_segment = jnp.einsum('bqhd,shd->bhqs', query + segments, segment)
      differs = jnp.take_along_axis(segment_differs, place[:, :, None], axis=1)[:, None]
      scores += jnp.where(differs, of_segment[..., 1:], of_segment[..., :1])
      scores = scores.astype(jnp.float32) / math.sqrt(width)
      weights = jax.nn.softmax(scores + HIDDEN * hidden[:, None]).astype(self.dtype)
      weights = drop(weights, deterministic=deterministic)
      mixed = jnp.einsum('bhqk,bkhd->bqhd', weights, value).reshape(x.shape)
      out.append(norm(x + drop(dense['output'](mixed), deterministic=deterministic)))
    return out


class FeedForward(nn.Module):
  """Two dense layers with residual and post-LayerNorm, for each stream."""

  size: Any
  dtype: Any
  kernel_init: Any

  @nn.compact
  def __call__(self, streams, deterministic):
    size = self.size
    dense = lambda width, name: nn.Dense(
      width, dtype=self.dtype, kernel_init=self.kernel_init, name=name
    )
    inner, outer = dense(size.d_inner, 'intermediate'), dense(size.d_model, 'output')
    norm = nn.LayerNorm(size.layer_norm_eps, dtype=self.dtype, name='norm')
    drop = nn.Dropout(size.dropout)
    act = ACTIVATIONS[activation(size.ff_activation)]
    out = []
    for x in streams:
      y = drop(act(inner(x)), deterministic=deterministic)
      out.append(norm(x + drop(outer(y), deterministic=deterministic)))
    return out


class Layer(nn.Module):
  """Attention and feed-forward block of the content stream, and of the query stream if given."""

  size: Any
  dtype: Any
  kernel_init: Any

  @nn.compact
  def __call__(self, streams, places, memory, hidden_from, segment_differs, table, deterministic):
    parts = self.size, self.dtype, self.kernel_init
    attention, ffn = Attention(*parts, name='attention'), FeedForward(*parts, name='ffn')
    placed = list(zip(streams, places, strict=True))
    streams = attention(placed, memory, hidden_from, segment_differs, table, deterministic)
    return tuple(ffn(streams, deterministic))


class Encoder(nn.Module):
  """The stack of layers. Returns the streams, and the input of each layer's content stream."""

  size: Any
  dtype: Any
  kernel_init: Any

  @nn.compact
  def __call__(self, streams, places, memories, hidden_from, differs, table, deterministic):
    inputs, streams = [], by_example(streams)
    for i in range(self.size.n_layer):
      inputs.append(streams[0])
      layer = Layer(self.size, self.dtype, self.kernel_init, name=f'layer_{i}')
      memory = None if memories is None else memories[i].astype(self.dtype)
      streams = layer(streams, places, memory, hidden_from, differs, table, deterministic)
      streams = by_example(streams)
    return streams, inputs


class Embeddings(nn.Module):
  """The word table, and the vector that the query stream starts from.

  Returns (x [batch, length, hidden], mask [hidden], attend); `attend` multiplies hidden states by
  the word table.
  """

  size: Any
  dtype: Any
  word_init: Any

  @nn.compact
  def __call__(self, input_ids):
    size = self.size
    word = nn.Embed(
      size.vocab_size, size.d_model, dtype=self.dtype, embedding_init=self.word_init, name='word'
    )
    mask = self.param('mask', nn.initializers.normal(size.initializer_range), (size.d_model,))
    return word(input_ids), mask.astype(self.dtype), word.attend


class Xlnet(nn.Module):
  """XLNet with some of its heads. Its call has the signature of `bert.Bert`, and more.

  Attributes:
    size: a `transformers.XLNetConfig`, or an object with its fields.
    heads: any of 'lm', 'classifier'.
    num_outputs: outputs of the classifier; 1 for regression.
    dtype: compute dtype; parameters stay float32.
    initializer: 'normal' or 'fan_in', see `initializers`.
  """

  size: Any
  heads: tuple[str, ...] = ('lm',)
  num_outputs: int = 2
  dtype: Any = jnp.float32
  initializer: str = 'normal'

  @nn.compact
  def __call__(
    self,
    input_ids,
    segment_ids,
    valid,
    positions=None,
    *,
    permuted=None,
    memories=None,
    memory_valid=None,
    deterministic=True,
  ):
    """Runs the encoder and every head.

    Args:
      input_ids: int [batch, length].
      segment_ids: int [batch, length]; only whether two tokens have the same counts.
      valid: bool [batch, length], False at padding, on either side.
      positions: int [batch, predictions], where the query stream predicts a token that it may not
        see. None for the content stream alone; the head 'lm' then reads all of its positions.
      permuted: bool [batch, length, length], True where token i may not see token j, beside
        padding. A token of the content stream always sees itself. None hides nothing.
      memories: [layers, batch, memory, hidden], hidden states of earlier tokens, which count as
        segment 0; no gradient passes. None for none.
      memory_valid: bool [batch, memory], False at memories that nothing may see; None for none.
      deterministic: if False, dropout is drawn from the rng named 'dropout'.

    Returns:
      dict with 'sequence' [batch, length, hidden], the content stream, and 'memories'
      [layers, batch, length, hidden], its input to each layer without gradient, in the compute
      dtype; with `positions` also 'query' [batch, predictions, hidden]; and logits of each head in
      float32: 'lm' [batch, predictions, vocabulary], 'classifier' [batch, num_outputs]. The
      classifier reads the last valid token, or the first token if none is valid.

    Raises:
      ValueError: a size or heads that do not fit, see `check`.
    """
    size, (batch, length) = self.size, input_ids.shape
    check(size, self.heads)
    kernel_init, word_init = initializers(self.initializer, size)
    x, mask, attend = Embeddings(size, self.dtype, word_init, name='embeddings')(input_ids)
    drop = nn.Dropout(size.dropout)
    memory = 0 if memories is None else memories.shape[2]
    # Memories are seen by all; tokens by those that may.
    hidden = jnp.broadcast_to(~valid[:, None, :], (batch, length, length))
    hidden = hidden if permuted is None else hidden | permuted
    earlier = jnp.ones((batch, memory), bool) if memory_valid is None else memory_valid

    def widen(here):
      shape = (batch, here.shape[1], memory)
      unseen = jnp.broadcast_to(~earlier[:, None, :], shape)
      return jnp.concatenate([unseen, here], axis=2).astype(jnp.float32)

    hidden_from = [widen(hidden & ~jnp.eye(length, dtype=bool))]
    streams = [drop(x, deterministic=deterministic)]
    places = [jnp.broadcast_to(jnp.arange(length), (batch, length))]
    if positions is not None:
      start = jnp.broadcast_to(mask, (*positions.shape, size.d_model))
      streams.append(drop(start, deterministic=deterministic))
      places.append(positions)
      hidden_from.append(widen(jnp.take_along_axis(hidden, positions[..., None], axis=1)))
    key_segments = jnp.pad(segment_ids, ((0, 0), (memory, 0)))
    differs = segment_ids[:, :, None] != key_segments[:, None, :]
    table = distances(length, memory + length, size.d_model, size.clamp_len).astype(self.dtype)
    table = drop(table, deterministic=deterministic)
    streams, inputs = Encoder(size, self.dtype, kernel_init, name='encoder')(
      streams,
      places,
      memories if memories is None else jax.lax.stop_gradient(memories),
      hidden_from,
      differs,
      table,
      deterministic,
    )
    streams = [drop(stream, deterministic=deterministic) for stream in streams]
    out = {'sequence': streams[0], 'memories': jax.lax.stop_gradient(jnp.stack(inputs))}
    if positions is not None:
      out['query'] = streams[1]
    if 'lm' in self.heads:
      bias = self.param('lm', lambda _: {'bias': jnp.zeros(size.vocab_size)})['bias']
      out['lm'] = (attend(streams[-1]) + bias).astype(jnp.float32)
    if 'classifier' in self.heads:
      last = jnp.max(jnp.where(valid, jnp.arange(length), 0), axis=1)
      read = jnp.take_along_axis(streams[0], last[:, None, None], axis=1)[:, 0]
      dense = lambda width, name: nn.Dense(
        width, dtype=self.dtype, kernel_init=kernel_init, name=name
      )
      pooled = nn.tanh(dense(size.d_model, 'summary')(read))
      pooled = nn.Dropout(size.summary_last_dropout)(pooled, deterministic=deterministic)
      out['classifier'] = dense(self.num_outputs, 'classifier')(pooled).astype(jnp.float32)
    return out

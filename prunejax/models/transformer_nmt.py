"""A Transformer encoder-decoder (Vaswani et al. 2017) in Flax linen.

Every prunable kernel is a 2-D leaf [in, out].

Parameters are a plain dict:

  embeddings/{source,target}/embedding [words, hidden]
  embeddings/shared/embedding [words, hidden]    (with `tied`, in place of these two and softmax)
  {encoder,decoder}/layer_0/self/{query,key,value,output}/{kernel,bias}   .../self_norm/{scale,bias}
  decoder/layer_0/cross/{query,key,value,output}/{kernel,bias}            .../cross_norm
  {encoder,decoder}/layer_0/ffn/{intermediate,output}/{kernel,bias}       .../ffn_norm
  {encoder,decoder}/norm/{scale,bias}     (pre-norm only)
  softmax/{kernel [hidden, words], bias}  (not with `tied`)
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Every dense map, as in the code of Cheong & Daniel 2019 (nn.Linear); embeddings are not pruned.
PRUNABLE = r'(encoder|decoder)/layer_\d+/.*/kernel|softmax/kernel'
PAD = 0


def positions(length: int, hidden: int) -> np.ndarray:
  """Computes the sines and cosines of section 3.5: float32 [length, hidden]."""
  angle = np.arange(length)[:, None] / 10_000 ** (np.arange(0, hidden, 2) / hidden)
  out = np.zeros((length, hidden), np.float32)
  out[:, 0::2], out[:, 1::2] = np.sin(angle), np.cos(angle)[:, : hidden // 2]
  return out


class Attention(nn.Module):
  """Multi-head attention in two parts, so that keys and values of earlier steps can be kept."""

  hidden: int
  heads: int

  def setup(self):
    dense = lambda: nn.Dense(self.hidden, kernel_init=nn.initializers.xavier_uniform())
    self.query, self.key, self.value, self.output = dense(), dense(), dense(), dense()

  def _split(self, x):
    return x.reshape(*x.shape[:-1], self.heads, -1)

  def pair(self, x):
    """Computes keys and values of x [batch, length, hidden].

    Returns:
      Two arrays [batch, length, heads, hidden / heads].
    """
    return self._split(self.key(x)), self._split(self.value(x))

  def __call__(self, x, pair, valid):
    """Attends from x to keys and values.

    Args:
      x: [batch, q, hidden].
      pair: of `pair`.
      valid: boolean, broadcast to [batch, heads, q, k].
    """
    keys, values = pair
    scores = jnp.einsum('bqhd,bkhd->bhqk', self._split(self.query(x)), keys) / math.sqrt(
      keys.shape[-1]
    )
    weights = jax.nn.softmax(jnp.where(valid, scores, jnp.finfo(scores.dtype).min))
    return self.output(jnp.einsum('bhqk,bkhd->bqhd', weights, values).reshape(x.shape))


class FeedForward(nn.Module):
  """Dense, ReLU, dense."""

  hidden: int
  inner: int

  @nn.compact
  def __call__(self, x):
    draw = nn.initializers.xavier_uniform()
    inner = nn.relu(nn.Dense(self.inner, kernel_init=draw, name='intermediate')(x))
    return nn.Dense(self.hidden, kernel_init=draw, name='output')(inner)


class Layer(nn.Module):
  """Self-attention, attention to the source (decoder only), and a feed-forward block.

  Each block has a residual connection and a layer norm.
  """

  hidden: int
  heads: int
  inner: int
  dropout: float
  pre_norm: bool
  decoder: bool = False

  def setup(self):
    self.self_attention = Attention(self.hidden, self.heads, name='self')
    self.self_norm, self.ffn_norm = nn.LayerNorm(1e-6), nn.LayerNorm(1e-6)
    self.ffn = FeedForward(self.hidden, self.inner)
    self.drop = nn.Dropout(self.dropout)
    if self.decoder:
      self.cross, self.cross_norm = Attention(self.hidden, self.heads), nn.LayerNorm(1e-6)

  def _around(self, x, block, norm, deterministic):
    if self.pre_norm:
      return x + self.drop(block(norm(x)), deterministic=deterministic)
    return norm(x + self.drop(block(x), deterministic=deterministic))

  def __call__(self, x, valid, memory=None, deterministic=True):
    """Runs on all positions.

    Args:
      x: [batch, length, hidden].
      valid: boolean, which positions each position attends to.
      memory: (keys and values of the source, which of them are valid), for a decoder's layer.
      deterministic: no dropout.
    """
    block = lambda y: self.self_attention(y, self.self_attention.pair(y), valid)
    x = self._around(x, block, self.self_norm, deterministic)
    return self._rest(x, memory, deterministic)

  def step(self, x, pair, position, memory):
    """Runs on one position.

    Args:
      x: [batch, 1, hidden].
      pair: keys and values of the positions so far, [batch, length, ...].
      position: of `x`.
      memory: see `__call__`.

    Returns:
      x, and `pair` with this position's keys and values.
    """
    y = self.self_norm(x) if self.pre_norm else x
    insert = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=1)
    pair = jax.tree.map(insert, pair, self.self_attention.pair(y))
    valid = jnp.arange(pair[0].shape[1]) <= position
    x = self._around(x, lambda y: self.self_attention(y, pair, valid), self.self_norm, True)
    return self._rest(x, memory, True), pair

  def _rest(self, x, memory, deterministic):
    if self.decoder:
      pair, valid = memory
      x = self._around(x, lambda y: self.cross(y, pair, valid), self.cross_norm, deterministic)
    return self._around(x, self.ffn, self.ffn_norm, deterministic)


class Stack(nn.Module):
  """Layers, and a last norm where norms come first."""

  layers: int
  hidden: int
  heads: int
  inner: int
  dropout: float
  pre_norm: bool
  decoder: bool = False

  def setup(self):
    size = (self.hidden, self.heads, self.inner, self.dropout, self.pre_norm, self.decoder)
    self.layer = [Layer(*size, name=f'layer_{i}') for i in range(self.layers)]
    self.norm = nn.LayerNorm(1e-6) if self.pre_norm else lambda x: x


class Embeddings(nn.Module):
  """Word embeddings times sqrt(hidden)."""

  words: int
  hidden: int
  tied: bool

  def setup(self):
    table = lambda: nn.Embed(
      self.words, self.hidden, embedding_init=nn.initializers.normal(self.hidden**-0.5)
    )
    if self.tied:
      self.shared = table()
    else:
      self.source, self.target = table(), table()

  def __call__(self, ids, side):
    table = self.shared if self.tied else getattr(self, side)
    return table(ids) * math.sqrt(self.hidden)


class Transformer(nn.Module):
  """Source ids [batch, s] and target ids [batch, t] in, scores of each next target word out.

  Attributes:
    words: size of the joint vocabulary.
    hidden: width; must be a multiple of `heads`, else `setup` raises ValueError.
    layers: of encoder and of decoder.
    heads: of attention.
    inner: units of a feed-forward block.
    dropout: rate.
    pre_norm: norms come before the blocks, not after.
    tied: one table serves both embeddings and the softmax.
  """

  words: int
  hidden: int = 192
  layers: int = 2
  heads: int = 4
  inner: int = 768
  dropout: float = 0.1
  pre_norm: bool = True
  tied: bool = False

  def setup(self):
    if self.hidden % self.heads:
      raise ValueError(
        f'Transformer: hidden={self.hidden} does not split into heads={self.heads} equal heads'
      )
    size = (self.layers, self.hidden, self.heads, self.inner, self.dropout, self.pre_norm)
    self.embeddings = Embeddings(self.words, self.hidden, self.tied)
    self.encoder, self.decoder = Stack(*size), Stack(*size, decoder=True)
    self.drop = nn.Dropout(self.dropout)
    if not self.tied:
      self.softmax = nn.Dense(self.words, kernel_init=nn.initializers.xavier_uniform())

  def __call__(self, source, target, deterministic=True):
    """Scores the next word after each target id: [batch, t, words]."""
    memory, _ = self.encode(source, deterministic)
    x = self.embeddings(target, 'target') + positions(target.shape[1], self.hidden)
    x = self.drop(x, deterministic=deterministic)
    causal = jnp.tril(jnp.ones((target.shape[1],) * 2, bool))
    for layer, pair in zip(self.decoder.layer, memory[0], strict=True):
      x = layer(x, causal, (pair, memory[1]), deterministic)
    return self._scores(self.decoder.norm(x))

  def encode(self, source, deterministic=True):
    """Reads the source.

    Returns:
      memory: keys and values of the source for each decoder layer, and which of them are valid.
      state: None.
    """
    valid = (source != PAD)[:, None, None]
    x = self.embeddings(source, 'source') + positions(source.shape[1], self.hidden)
    x = self.drop(x, deterministic=deterministic)
    for layer in self.encoder.layer:
      x = layer(x, valid, None, deterministic)
    x = self.encoder.norm(x)
    return (tuple(layer.cross.pair(x) for layer in self.decoder.layer), valid), None

  def start(self, memory, state, length):
    """Builds empty keys and values for `length` positions of each layer."""
    del state
    zeros = lambda x: jnp.zeros((x.shape[0], length, *x.shape[2:]), x.dtype)
    return jax.tree.map(zeros, memory[0])

  def step(self, state, word, position, memory):
    """Scores the word after `word` [batch] at `position`: (state, scores [batch, words])."""
    length = state[0][0].shape[1]
    x = (
      self.embeddings(word[:, None], 'target')
      + jnp.asarray(positions(length, self.hidden))[position]
    )
    new = []
    for layer, pair, source in zip(self.decoder.layer, state, memory[0], strict=True):
      x, pair = layer.step(x, pair, position, (source, memory[1]))
      new.append(pair)
    return tuple(new), self._scores(self.decoder.norm(x))[:, 0]

  def _scores(self, x):
    return self.embeddings.shared.attend(x) if self.tied else self.softmax(x)

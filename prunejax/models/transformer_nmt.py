"""A Transformer encoder-decoder (Vaswani et al. 2017) in Flax linen, every prunable kernel a 2-D leaf [in, out].

Parameters are a plain dict:

  embeddings/{source,target}/embedding [words, hidden]    (`tied`: embeddings/shared/embedding, also the softmax)
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

# Every dense map, as the paper's code has it for nn.Linear; embeddings are left out.
PRUNABLE = r'(encoder|decoder)/layer_\d+/.*/kernel|softmax/kernel'
PAD = 0


def positions(length, hidden):
  """Sines and cosines, section 3.5: float32 [length, hidden]."""
  angle = np.arange(length)[:, None] / 10_000 ** (np.arange(0, hidden, 2) / hidden)
  out = np.zeros((length, hidden), np.float32)
  out[:, 0::2], out[:, 1::2] = np.sin(angle), np.cos(angle)[:, : hidden // 2]
  return out


class Attention(nn.Module):
  """Multi-head attention in parts, so that keys and values of earlier steps can be kept."""

  hidden: int
  heads: int

  def setup(self):
    dense = lambda: nn.Dense(self.hidden, kernel_init=nn.initializers.xavier_uniform())
    self.query, self.key, self.value, self.output = dense(), dense(), dense(), dense()

  def _split(self, x):
    return x.reshape(*x.shape[:-1], self.heads, -1)

  def pair(self, x):
    """Keys and values of x [batch, length, hidden], each [batch, length, heads, hidden / heads]."""
    return self._split(self.key(x)), self._split(self.value(x))

  def __call__(self, x, pair, seen):
    """x [batch, q, hidden]; seen: boolean, broadcast to [batch, heads, q, k]."""
    keys, values = pair
    scores = jnp.einsum('bqhd,bkhd->bhqk', self._split(self.query(x)), keys) / math.sqrt(
      keys.shape[-1]
    )
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min))
    return self.output(jnp.einsum('bhqk,bkhd->bqhd', weights, values).reshape(x.shape))


class FeedForward(nn.Module):
  hidden: int
  inner: int

  @nn.compact
  def __call__(self, x):
    draw = nn.initializers.xavier_uniform()
    inner = nn.relu(nn.Dense(self.inner, kernel_init=draw, name='intermediate')(x))
    return nn.Dense(self.hidden, kernel_init=draw, name='output')(inner)


class Layer(nn.Module):
  """Self-attention, in the decoder attention to the source, and a feed-forward block, each with residual and norm."""

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

  def __call__(self, x, seen, memory=None, deterministic=True):
    """memory: (keys and values of the source, what of it is valid), for a decoder's layer."""
    block = lambda y: self.self_attention(y, self.self_attention.pair(y), seen)
    x = self._around(x, block, self.self_norm, deterministic)
    return self._rest(x, memory, deterministic)

  def step(self, x, pair, position, memory):
    """One position: x [batch, 1, hidden]; pair: the keys and values so far [batch, length, ...]. (x, new pair)."""
    y = self.self_norm(x) if self.pre_norm else x
    here = lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new, position, axis=1)
    pair = jax.tree.map(here, pair, self.self_attention.pair(y))
    seen = jnp.arange(pair[0].shape[1]) <= position
    x = self._around(x, lambda y: self.self_attention(y, pair, seen), self.self_norm, True)
    return self._rest(x, memory, True), pair

  def _rest(self, x, memory, deterministic):
    if self.decoder:
      pair, valid = memory
      x = self._around(x, lambda y: self.cross(y, pair, valid), self.cross_norm, deterministic)
    return self._around(x, self.ffn, self.ffn_norm, deterministic)


class Stack(nn.Module):
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
  """Word tables, each times sqrt(hidden), plus positions."""

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
  """Source ids [batch, s] and target ids before each word [batch, t] in, scores of the next word out.

  ValueError where `hidden` does not split into `heads`.
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
    """Scores [batch, t, words]."""
    memory, _ = self.encode(source, deterministic)
    x = self.embeddings(target, 'target') + positions(target.shape[1], self.hidden)
    x = self.drop(x, deterministic=deterministic)
    causal = jnp.tril(jnp.ones((target.shape[1],) * 2, bool))
    for layer, pair in zip(self.decoder.layer, memory[0], strict=True):
      x = layer(x, causal, (pair, memory[1]), deterministic)
    return self._scores(self.decoder.norm(x))

  def encode(self, source, deterministic=True):
    """(memory, None): keys and values of the source for each layer of the decoder, and what of it is valid."""
    valid = (source != PAD)[:, None, None]
    x = self.embeddings(source, 'source') + positions(source.shape[1], self.hidden)
    x = self.drop(x, deterministic=deterministic)
    for layer in self.encoder.layer:
      x = layer(x, valid, None, deterministic)
    x = self.encoder.norm(x)
    return (tuple(layer.cross.pair(x) for layer in self.decoder.layer), valid), None

  def start(self, memory, state, length):
    """Empty keys and values for `length` positions of each layer."""
    del state
    blank = lambda kept: jnp.zeros((kept.shape[0], length, *kept.shape[2:]), kept.dtype)
    return jax.tree.map(blank, memory[0])

  def step(self, state, word, position, memory):
    """(state, scores [batch, words]) of the word after `word` [batch], which stands at `position`."""
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

"""An LSTM encoder-decoder with attention (Luong et al. 2015) in Flax linen, every prunable kernel a 2-D leaf.

Parameters are a plain dict:

  source/embedding/embedding [words, hidden]   source/layer_0/{below, before} [hidden, 4 hidden], bias
  target/embedding/embedding                   target/layer_0/...
  target/layer_0/feed [hidden, 4 hidden]       (with input feeding only)
  attention/{score [hidden, hidden], output [2 hidden, hidden]}
  softmax/{kernel [hidden, words], bias}

Columns of an LSTM kernel: the gates input, forget, cell, output. `below` takes what comes from the layer below,
`before` what comes from the step before.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

PRUNABLE = r'.*/(embedding|below|before|feed|score|output|kernel)'
PAD = 0


class Layer(nn.Module):
  """One LSTM layer without peepholes; `__call__` runs over time, `step` is one step of it."""

  hidden: int
  feeding: bool = False

  def setup(self):
    draw, wide = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform'), 4 * self.hidden
    self.below = self.param('below', draw, (self.hidden, wide))
    self.before = self.param('before', nn.initializers.orthogonal(), (self.hidden, wide))
    if self.feeding:
      self.feed = self.param('feed', draw, (self.hidden, wide))
    # A forget gate that starts open keeps what was read early.
    self.bias = self.param(
      'bias', lambda _, shape: jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), shape[0] // 4), (wide,)
    )

  def inward(self, x):
    """What the gates get from below: [..., 4 hidden]. It needs no step before, so it is one product for all steps."""
    return x @ self.below + self.bias

  def step(self, state, given, fed=None):
    """((cell, output), new output); given is `inward` of this step, fed the attentional state of the step before."""
    cell, out = state
    given = given + out @ self.before + (0 if fed is None else fed @ self.feed)
    enter, forget, new, leave = jnp.split(given, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
    out = jax.nn.sigmoid(leave) * jnp.tanh(cell)
    return (cell, out), out

  def __call__(self, x, state, valid=None):
    """x [batch, length, hidden] -> (outputs, last state). Where not `valid` [batch, length] the state stays."""
    valid = jnp.ones(x.shape[:2], bool) if valid is None else valid

    def run(state, given):
      given, here = given
      new, _ = self.step(state, given)
      new = jax.tree.map(lambda a, b: jnp.where(here[:, None], a, b), new, state)
      return new, new[1]

    given = jnp.swapaxes(self.inward(x), 0, 1), jnp.swapaxes(valid, 0, 1)
    state, out = jax.lax.scan(run, state, given)
    return jnp.swapaxes(out, 0, 1), state


class Side(nn.Module):
  """A word table and a stack of LSTM layers."""

  words: int
  hidden: int
  layers: int
  feeding: bool = False

  def setup(self):
    self.embedding = nn.Embed(self.words, self.hidden, embedding_init=nn.initializers.normal(0.1))
    self.layer = [
      Layer(self.hidden, self.feeding and i == 0, name=f'layer_{i}') for i in range(self.layers)
    ]


class Attention(nn.Module):
  """Luong's `general` score and attentional state tanh(W [context, h]); h: [batch, (length,) hidden]."""

  hidden: int

  def setup(self):
    draw = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')
    self.score = self.param('score', draw, (self.hidden, self.hidden))
    self.output = self.param('output', draw, (2 * self.hidden, self.hidden))

  def keys(self, memory):
    return memory @ self.score

  def __call__(self, h, memory, keys, valid):
    flat = h.ndim == 2
    query = h[:, None] if flat else h
    scores = jnp.einsum('bth,bsh->bts', query, keys)
    scores = jnp.where(valid[:, None], scores, jnp.finfo(scores.dtype).min)
    context = jnp.einsum('bts,bsh->bth', jax.nn.softmax(scores), memory)
    out = jnp.tanh(jnp.concatenate([context, query], -1) @ self.output)
    return out[:, 0] if flat else out


class Seq2Seq(nn.Module):
  """Source ids [batch, s] and target ids before each word [batch, t] in, scores of the next word out.

  feeding: the attentional state of a step also enters the next one (Luong et al., section 3.3).
  """

  words: int
  hidden: int = 256
  layers: int = 1
  dropout: float = 0.0
  feeding: bool = False

  def setup(self):
    self.source = Side(self.words, self.hidden, self.layers)
    self.target = Side(self.words, self.hidden, self.layers, self.feeding)
    self.attention = Attention(self.hidden)
    self.softmax = nn.Dense(self.words)
    self.drop = nn.Dropout(self.dropout)

  def __call__(self, source, target, deterministic=True):
    """Scores [batch, t, words]."""
    memory, state = self.encode(source, deterministic)
    x = self.drop(self.target.embedding(target), deterministic=deterministic)
    if self.feeding:
      self._advance(
        state, x[:, 0], memory
      )  # parameters must be bound before the scan; compiled away

      def run(state, x):
        state, h = self._advance(state, x, memory)
        return state, h

      _, h = jax.lax.scan(run, state, jnp.swapaxes(x, 0, 1))
      h = jnp.swapaxes(h, 0, 1)
    else:
      for layer, start in zip(self.target.layer, state[0], strict=True):
        x = self.drop(layer(x, start)[0], deterministic=deterministic)
      h = self.attention(x, *memory)
    return self.softmax(self.drop(h, deterministic=deterministic))

  def encode(self, source, deterministic=True):
    """(memory, state): the outputs of the top layer, their keys and what is valid; what `step` starts from."""
    valid = source != PAD
    x = self.drop(self.source.embedding(source), deterministic=deterministic)
    blank, states = jnp.zeros((len(source), self.hidden), x.dtype), []
    for layer in self.source.layer:
      x, last = layer(x, (blank, blank), valid)
      x = self.drop(x, deterministic=deterministic)
      states.append(last)
    return (x, self.attention.keys(x), valid), (tuple(states), blank)

  def start(self, memory, state, length):
    """What `step` carries; an LSTM's state has one size whatever the `length`."""
    del memory, length
    return state

  def step(self, state, word, position, memory):
    """(state, scores [batch, words]) of the word after `word` [batch]."""
    del position
    state, h = self._advance(state, self.target.embedding(word), memory)
    return state, self.softmax(h)

  def _advance(self, state, x, memory):
    states, fed = state
    new = []
    for i, (layer, old) in enumerate(zip(self.target.layer, states, strict=True)):
      both, x = layer.step(old, layer.inward(x), fed if self.feeding and i == 0 else None)
      new.append(both)
    h = self.attention(x, *memory)
    return (tuple(new), h), h

"""An LSTM encoder-decoder with attention (Luong et al. 2015) in Flax linen.

Every prunable kernel is a 2-D leaf.

Parameters are a plain dict:

  source/embedding/embedding [words, hidden]
  source/layer_0/{below [hidden, 4 hidden], before [hidden, 4 hidden], bias}
  target/embedding/embedding, target/layer_0/...
  target/layer_0/feed [hidden, 4 hidden]    (with input feeding only)
  attention/{score [hidden, hidden], output [2 hidden, hidden]}
  softmax/{kernel [hidden, words], bias}

Columns of an LSTM kernel: the gates input, forget, cell, output. `below` multiplies the inputs from
the layer below, `before` the outputs of the previous step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

PRUNABLE = r'.*/(embedding|below|before|feed|score|output|kernel)'
PAD = 0


class Layer(nn.Module):
  """One LSTM layer without peepholes. `__call__` runs over time, `step` takes one step."""

  hidden: int
  feeding: bool = False

  def setup(self):
    draw, wide = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform'), 4 * self.hidden
    self.below = self.param('below', draw, (self.hidden, wide))
    self.before = self.param('before', nn.initializers.orthogonal(), (self.hidden, wide))
    if self.feeding:
      self.feed = self.param('feed', draw, (self.hidden, wide))
    # The forget gate starts open, so that early words are remembered.
    self.bias = self.param(
      'bias', lambda _, shape: jnp.repeat(jnp.array([0.0, 1.0, 0.0, 0.0]), shape[0] // 4), (wide,)
    )

  def inward(self, x):
    """Computes the gates' inputs from below, [..., 4 hidden]: one product for all steps."""
    return x @ self.below + self.bias

  def step(self, state, inputs, fed=None):
    """Takes one step.

    Args:
      state: (cell, output) of the previous step.
      inputs: `inward` of this step.
      fed: attentional state of the previous step, or None.

    Returns:
      (cell, output), and the output again.
    """
    cell, out = state
    gates = inputs + out @ self.before + (0 if fed is None else fed @ self.feed)
    enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
    out = jax.nn.sigmoid(leave) * jnp.tanh(cell)
    return (cell, out), out

  def __call__(self, x, state, valid=None):
    """Runs over time; where `valid` [batch, length] is False the state stays as it is.

    Args:
      x: [batch, length, hidden].
      state: before the first step.
      valid: boolean, or None for all.

    Returns:
      Outputs [batch, length, hidden], and the last state.
    """
    valid = jnp.ones(x.shape[:2], bool) if valid is None else valid

    def run(state, step_inputs):
      inputs, step_valid = step_inputs
      new, _ = self.step(state, inputs)
      new = jax.tree.map(lambda a, b: jnp.where(step_valid[:, None], a, b), new, state)
      return new, new[1]

    inputs = jnp.swapaxes(self.inward(x), 0, 1), jnp.swapaxes(valid, 0, 1)
    state, out = jax.lax.scan(run, state, inputs)
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
  """Luong's `general` score and attentional state tanh(W [context, h])."""

  hidden: int

  def setup(self):
    draw = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')
    self.score = self.param('score', draw, (self.hidden, self.hidden))
    self.output = self.param('output', draw, (2 * self.hidden, self.hidden))

  def keys(self, memory):
    """Computes the keys of the source's outputs."""
    return memory @ self.score

  def __call__(self, h, memory, keys, valid):
    """Computes attentional states.

    Args:
      h: outputs of the target, [batch, hidden] or [batch, length, hidden].
      memory: outputs of the source, [batch, source length, hidden].
      keys: their keys, of the same shape.
      valid: boolean [batch, source length].

    Returns:
      Of the shape of `h`.
    """
    flat = h.ndim == 2
    query = h[:, None] if flat else h
    scores = jnp.einsum('bth,bsh->bts', query, keys)
    scores = jnp.where(valid[:, None], scores, jnp.finfo(scores.dtype).min)
    context = jnp.einsum('bts,bsh->bth', jax.nn.softmax(scores), memory)
    out = jnp.tanh(jnp.concatenate([context, query], -1) @ self.output)
    return out[:, 0] if flat else out


class Seq2Seq(nn.Module):
  """Source ids [batch, s] and target ids [batch, t] in, scores of each next target word out.

  Attributes:
    words: size of the joint vocabulary.
    hidden: units of a layer.
    layers: of each side.
    dropout: rate.
    feeding: the attentional state of a step is also an input of the next step (Luong et al.,
      section 3.3).
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
    """Scores the next word after each target id: [batch, t, words]."""
    memory, state = self.encode(source, deterministic)
    x = self.drop(self.target.embedding(target), deterministic=deterministic)
    if self.feeding:
      # This binds the parameters before the scan. The compiler removes it.
      self._advance(state, x[:, 0], memory)

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
    """Reads the source.

    Returns:
      memory: the top layer's outputs, their keys, and which of them are valid.
      state: before the first target word.
    """
    valid = source != PAD
    x = self.drop(self.source.embedding(source), deterministic=deterministic)
    zeros, states = jnp.zeros((len(source), self.hidden), x.dtype), []
    for layer in self.source.layer:
      x, last = layer(x, (zeros, zeros), valid)
      x = self.drop(x, deterministic=deterministic)
      states.append(last)
    return (x, self.attention.keys(x), valid), (tuple(states), zeros)

  def start(self, memory, state, length):
    """Builds what `step` carries; an LSTM's state does not depend on `length`."""
    del memory, length
    return state

  def step(self, state, word, position, memory):
    """Scores the word after `word` [batch]: (state, scores [batch, words])."""
    del position
    state, h = self._advance(state, self.target.embedding(word), memory)
    return state, self.softmax(h)

  def _advance(self, state, x, memory):
    states, fed = state
    new = []
    for i, (layer, old) in enumerate(zip(self.target.layer, states, strict=True)):
      layer_state, x = layer.step(old, layer.inward(x), fed if self.feeding and i == 0 else None)
      new.append(layer_state)
    h = self.attention(x, *memory)
    return (tuple(new), h), h

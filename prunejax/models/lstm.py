"""A stacked LSTM language model (Zaremba et al. 2014) in Flax linen, every prunable kernel a 2-D leaf.

Parameters are a plain dict:

  embedding/embedding [words, hidden]      lstm_0/{kernel [2 hidden, 4 hidden], bias}   lstm_1/...
  softmax/{kernel [hidden, words], bias}

Rows of an LSTM kernel: first what comes from below, then what comes from the step before. Columns: the gates input,
forget, cell, output.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Zhu & Gupta 2017 prune embedding, LSTM and softmax alike; biases stay.
PRUNABLE = r'embedding/embedding|lstm_\d+/kernel|softmax/kernel'


def zero_state(batch, hidden, layers=2):
  """((cell, output), ...) of the step before the first, one pair a layer, each float32 [batch, hidden]."""
  blank = jnp.zeros((batch, hidden), jnp.float32)
  return ((blank, blank),) * layers


class Layer(nn.Module):
  """One LSTM layer without peepholes. x: [batch, length, hidden]; state: (cell, output), each [batch, hidden]."""

  hidden: int
  kernel_init: Any

  @nn.compact
  def __call__(self, x, state):
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1] + self.hidden, 4 * self.hidden))
    bias = self.param('bias', nn.initializers.zeros_init(), (4 * self.hidden,))
    below, before = kernel[: x.shape[-1]], kernel[x.shape[-1] :]

    def step(state, given):
      cell, out = state
      enter, forget, new, leave = jnp.split(given + out @ before, 4, axis=-1)
      cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
      out = jax.nn.sigmoid(leave) * jnp.tanh(cell)
      return (cell, out), out

    # What comes from below needs no step before: one product for the whole length.
    state, out = jax.lax.scan(step, state, jnp.swapaxes(x @ below + bias, 0, 1))
    return jnp.swapaxes(out, 0, 1), state


class Lstm(nn.Module):
  """Words in, scores of the next word out; dropout on what goes up, never on what goes on in time (section 3.1)."""

  words: int
  hidden: int
  layers: int = 2
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, state, deterministic=True):
    """tokens: int32 [batch, length]; state: as `zero_state`. Returns (logits [batch, length, words], state)."""
    if len(state) != self.layers:
      raise ValueError(f'a state of {len(state)} layers, but the model has layers={self.layers}')
    # Wider than the paper's 0.04 to 0.1, which suits 200 to 1,500 units: few units would stay on word frequencies.
    reach = self.hidden**-0.5
    drawn = lambda key, shape, dtype=jnp.float32: jax.random.uniform(
      key, shape, dtype, -reach, reach
    )
    drop = lambda x: nn.Dropout(self.dropout)(x, deterministic=deterministic)
    x = nn.Embed(
      self.words, self.hidden, embedding_init=nn.initializers.normal(1.0), name='embedding'
    )(tokens)
    after = []
    for i, before in enumerate(state):
      x, last = Layer(self.hidden, drawn, name=f'lstm_{i}')(drop(x), before)
      after.append(last)
    return nn.Dense(self.words, kernel_init=drawn, name='softmax')(drop(x)), tuple(after)

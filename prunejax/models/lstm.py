"""A stacked LSTM language model (Zaremba et al. 2014) in Flax linen.

Every prunable kernel is a 2-D leaf.

Parameters are a plain dict:

  embedding/embedding [words, hidden]      lstm_0/{kernel [2 hidden, 4 hidden], bias}   lstm_1/...
  softmax/{kernel [hidden, words], bias}

Rows of an LSTM kernel: first the inputs from the layer below, then the previous step's outputs.
Columns: the gates input, forget, cell, output.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Zhu & Gupta 2017 prune embedding, LSTM and softmax alike, and no bias.
PRUNABLE = r'embedding/embedding|lstm_\d+/kernel|softmax/kernel'


def zero_state(batch: int, hidden: int, layers: int = 2) -> tuple:
  """Builds the first state: for each layer (cell, output), both float32 [batch, hidden]."""
  zeros = jnp.zeros((batch, hidden), jnp.float32)
  return ((zeros, zeros),) * layers


class Layer(nn.Module):
  """One LSTM layer without peepholes."""

  hidden: int
  kernel_init: Any

  @nn.compact
  def __call__(self, x, state):
    """Runs over time.

    Args:
      x: [batch, length, hidden].
      state: (cell, output) of the previous step, each [batch, hidden].

    Returns:
      Outputs [batch, length, hidden], and the last state.
    """
    kernel = self.param('kernel', self.kernel_init, (x.shape[-1] + self.hidden, 4 * self.hidden))
    bias = self.param('bias', nn.initializers.zeros_init(), (4 * self.hidden,))
    below, before = kernel[: x.shape[-1]], kernel[x.shape[-1] :]

    def step(state, gates):
      cell, out = state
      enter, forget, new, leave = jnp.split(gates + out @ before, 4, axis=-1)
      cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
      out = jax.nn.sigmoid(leave) * jnp.tanh(cell)
      return (cell, out), out

    # Inputs from below do not depend on the previous step: one product serves all steps.
    state, out = jax.lax.scan(step, state, jnp.swapaxes(x @ below + bias, 0, 1))
    return jnp.swapaxes(out, 0, 1), state


class Lstm(nn.Module):
  """Words in, scores of the next word out.

  Dropout is applied between layers and never between steps (section 3.1).
  """

  words: int
  hidden: int
  layers: int = 2
  dropout: float = 0.0

  @nn.compact
  def __call__(self, tokens, state, deterministic=True):
    """Scores the next word after each token.

    Args:
      tokens: int32 [batch, length].
      state: as `zero_state` builds it.
      deterministic: no dropout.

    Returns:
      Logits [batch, length, words], and the last state.

    Raises:
      ValueError: if the state has another number of layers.
    """
    if len(state) != self.layers:
      raise ValueError(f'a state of {len(state)} layers, but the model has layers={self.layers}')
    # Wider than the paper's 0.04 to 0.1, which suit 200 to 1,500 units. With those limits a network
    # of few units would learn word frequencies only.
    limit = self.hidden**-0.5
    draw = lambda key, shape, dtype=jnp.float32: jax.random.uniform(
      key, shape, dtype, -limit, limit
    )
    drop = lambda x: nn.Dropout(self.dropout)(x, deterministic=deterministic)
    x = nn.Embed(
      self.words, self.hidden, embedding_init=nn.initializers.normal(1.0), name='embedding'
    )(tokens)
    after = []
    for i, before in enumerate(state):
      x, last = Layer(self.hidden, draw, name=f'lstm_{i}')(drop(x), before)
      after.append(last)
    return nn.Dense(self.words, kernel_init=draw, name='softmax')(drop(x)), tuple(after)

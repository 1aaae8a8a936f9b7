"""The stacked LSTM against a plain loop in float64, and the leaves that are pruned."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.models import lstm

WORDS, HIDDEN, BATCH, LENGTH = 11, 4, 3, 5
MODEL = lstm.Lstm(WORDS, HIDDEN)
TOKENS = np.random.default_rng(0).integers(0, WORDS, (BATCH, LENGTH)).astype(np.int32)
PARAMS = MODEL.init(jax.random.key(0), TOKENS, lstm.zero_state(BATCH, HIDDEN))['params']


def oracle(params, tokens, state):
  """Zaremba et al. 2014, eqs. 1 to 6, word by word and gate by gate."""
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  state, logits = [[np.asarray(x, np.float64) for x in pair] for pair in state], []
  for t in range(tokens.shape[1]):
    x = p['embedding']['embedding'][tokens[:, t]]
    for i, (cell, out) in enumerate(state):
      kernel, bias = p[f'lstm_{i}']['kernel'], p[f'lstm_{i}']['bias']
      gates = np.concatenate([x, out], 1) @ kernel + bias
      enter, forget, new, leave = (gates[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
      cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
      x = sigmoid(leave) * np.tanh(cell)
      state[i] = [cell, x]
    logits.append(x @ p['softmax']['kernel'] + p['softmax']['bias'])
  return np.stack(logits, 1), state


def test_equals_the_loop_and_goes_on_from_its_state():
  begun, state = MODEL.apply({'params': PARAMS}, TOKENS[:, :2], lstm.zero_state(BATCH, HIDDEN))
  went_on, state = MODEL.apply({'params': PARAMS}, TOKENS[:, 2:], state)
  want, last = oracle(PARAMS, TOKENS, lstm.zero_state(BATCH, HIDDEN))
  np.testing.assert_allclose(np.concatenate([begun, went_on], 1), want, atol=1e-5)
  for mine, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(last), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_all_matrices_are_pruned_and_no_bias():
  paths = {
    '/'.join(k.key for k in path): leaf.ndim
    for path, leaf in jax.tree_util.tree_leaves_with_path(PARAMS)
  }
  assert {name for name in paths if re.fullmatch(lstm.PRUNABLE, name)} == {
    n for n, ndim in paths.items() if ndim == 2
  }
  assert len(paths) == 7


def test_dropout_draws_what_goes_up_only():
  model = lstm.Lstm(WORDS, HIDDEN, dropout=0.5)
  start = lstm.zero_state(BATCH, HIDDEN)
  draw = lambda seed: model.apply(
    {'params': PARAMS}, TOKENS, start, False, rngs={'dropout': jax.random.key(seed)}
  )[0]
  assert not np.array_equal(draw(0), draw(1))
  # Dropout removes all inputs of the upper layers, so the scores are the bias for any words.
  none = lstm.Lstm(WORDS, HIDDEN, dropout=1.0).apply(
    {'params': PARAMS}, TOKENS, start, False, rngs={'dropout': jax.random.key(0)}
  )[0]
  np.testing.assert_array_equal(none, jnp.broadcast_to(PARAMS['softmax']['bias'], none.shape))


def test_a_state_of_other_layers_is_refused():
  with pytest.raises(ValueError, match='state of 1 layers.*layers=2'):
    MODEL.init(jax.random.key(0), TOKENS, lstm.zero_state(BATCH, HIDDEN, layers=1))

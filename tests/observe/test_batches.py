"""value_fn=, examples= and outputs= of any model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax import observe

BATCH = {'x': np.arange(12.0, dtype=np.float32).reshape(4, 3), 'y': np.arange(4, dtype=np.float32)}
PARAMS = {'w': jnp.asarray([1.0, -2.0, 0.5])}


def predict(params, batch):
  return batch['x'] @ params['w']


def loss(params, batch):
  return jnp.mean((predict(params, batch) - batch['y']) ** 2) / 2


def test_value_fn_is_the_loss_of_the_batch():
  errors = BATCH['x'] @ np.asarray(PARAMS['w']) - BATCH['y']
  value = observe.value_fn(loss, BATCH)(PARAMS, state=None)
  np.testing.assert_allclose(value, np.mean(errors**2) / 2, rtol=1e-6)


def test_examples_are_losses_of_one_example_and_run_in_a_scan():
  count, one = observe.examples(loss, BATCH)
  errors = BATCH['x'] @ np.asarray(PARAMS['w']) - BATCH['y']
  losses = jax.jit(lambda params: jax.lax.map(lambda i: one(params, i), jnp.arange(count)))(PARAMS)
  assert count == 4
  np.testing.assert_allclose(losses, errors**2 / 2, rtol=1e-6)


def test_outputs_are_a_vector_an_example():
  count, one = observe.outputs(lambda params, batch: batch['x'][:, None] * params['w'], BATCH)
  assert count == 4
  np.testing.assert_allclose(one(PARAMS, 2), BATCH['x'][2] * np.asarray(PARAMS['w']), rtol=1e-6)


@pytest.mark.parametrize('make', [observe.examples, observe.outputs])
@pytest.mark.parametrize(
  'batch, words',
  [
    ({'x': np.zeros((4, 3)), 'y': np.zeros(5)}, r"shapes \{'x': \(4, 3\), 'y': \(5,\)\}"),
    ({'x': np.zeros((4, 3)), 'rate': np.float32(1)}, r"shapes \{'rate': \(\), 'x': \(4, 3\)\}"),
    ({}, r'shapes \{\}'),
  ],
)
def test_batches_that_do_not_count_examples_are_refused(make, batch, words):
  with pytest.raises(ValueError, match=words):
    make(loss, batch)

"""Outputs with the curvature of a loss: against its Hessian by the logits, and in the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from jax.flatten_util import ravel_pytree

from prunejax.train import configs, gauss_newton, objectives

RNG = np.random.default_rng(0)
WEIGHTS = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
DRAW = lambda *shape: jnp.asarray(RNG.normal(0, 2, shape), jnp.float32)


class Logits:
  """A model whose parameters are its logits: its second derivative is that of the loss."""

  def apply(self, variables, *batch, **how):
    return variables['params']


CASES = {
  'pretraining': (
    objectives.pretraining,
    {'mlm': DRAW(3, 4, 5), 'nsp': DRAW(3, 2)},
    {
      'weights': WEIGHTS,
      'targets': RNG.integers(0, 5, (3, 4)),
      'is_random': RNG.integers(0, 2, 3),
    },
  ),
  'causal': (objectives.causal, {'lm': DRAW(2, 3, 5)}, {'targets': RNG.integers(0, 5, (2, 3))}),
  'classes': (objectives.finetuning, {'classifier': DRAW(4, 3)}, {'label': RNG.integers(0, 3, 4)}),
  'regression': (
    lambda model: objectives.finetuning(model, True),
    {'classifier': DRAW(4, 1)},
    {'label': DRAW(4)},
  ),
}


@pytest.mark.parametrize('name', CASES)
def test_the_square_of_their_derivative_is_the_second_derivative_of_the_loss(name):
  make, params, batch = CASES[name]
  batch = {**dict.fromkeys(('input_ids', 'segment_ids', 'valid', 'positions'), 0), **batch}
  loss_fn, _, curved = make(Logits())
  flat, shaped = ravel_pytree(params)
  loss = lambda w: loss_fn(shaped(w), batch, jax.random.key(0))[0]
  outputs = lambda w: ravel_pytree(curved(shaped(w), batch))[0]
  whole, j = jax.jit(lambda w: (jax.hessian(loss)(w), jax.jacrev(outputs)(w)))(flat)
  assert abs(whole).max() > 0.01
  np.testing.assert_allclose(j.T @ j, whole, atol=1e-5)


def test_many_outputs_are_a_few_sums_whose_squares_are_right_on_average():
  few = {'a': DRAW(2, 3), 'b': DRAW(4)}
  np.testing.assert_array_equal(gauss_newton.sketched(few, jax.random.key(0)), ravel_pytree(few)[0])
  size, keys = gauss_newton.MOST + 6, jax.random.split(jax.random.key(1), 2000)
  signs = jax.vmap(
    lambda key: jax.jacfwd(lambda o: gauss_newton.sketched(o, key))(jnp.zeros(size))
  )(keys)
  assert signs.shape == (2000, gauss_newton.SKETCH, size)
  mean = jnp.mean(jnp.einsum('kso,ksp->kop', signs, signs), 0)
  # An entry off the diagonal has a deviation of 1 / sqrt(SKETCH) a key. Five deviations of the mean
  # are enough for thousands of entries.
  assert np.allclose(np.diag(mean), 1, atol=1e-5)
  assert abs(mean - jnp.eye(size)).max() < 5 / np.sqrt(gauss_newton.SKETCH * 2000)


@pytest.mark.slow
@pytest.mark.parametrize(
  'criterion, changes',
  [
    ("obd('levenberg_marquardt')", {}),
    ("obd('levenberg_marquardt')", {'data.task': 'glue/cola'}),
    ("obs('gauss_newton')", {'data.task': 'glue/cola'}),
  ],
)
def test_the_forms_of_half_a_squared_error_are_for_a_bert_too(criterion, changes, tmp_path):
  changes = {
    'prune.weights.criterion': criterion,
    'prune.weights.schedule': 'one_shot(0.5, at=1)',
    'steps': 3,
    'prune.weights.when': 'every(1, begin=1, until=1)',
    'prune.weights.where': r'encoder/layer_0/ffn/.*/kernel',
    'checkpoint.every': 0,
    **changes,
  }
  config = configs.override(tiny_runs.config(), changes)
  result = tiny_runs.train(config, tmp_path / 'run', say=lambda line: None)
  assert result['sparsity'] == pytest.approx(0.5, abs=1e-3)

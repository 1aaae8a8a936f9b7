"""Functions given to a criterion see all parameters, whatever the link prunes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax
from prunejax.pruning.types import Criterion


@pytest.mark.parametrize('where', ['b', '.*'])
def test_functions_of_the_parameters_get_the_leaves_that_are_not_pruned(where):
  loss = lambda p: jnp.sum((p['a'] * p['b']) ** 2)
  given = {
    'value_fn': loss,
    'examples': (1, lambda p, i: loss(p)),
    'activations': lambda p: {'b': p['a'] * p['b']},
  }

  def score(state, params, *, value_fn, examples, activations, **_):
    slope = jax.grad(value_fn)(params)
    for other in (
      jax.grad(examples[1])(params, 0),
      jax.grad(lambda p: jnp.sum(activations(p)['b'] ** 2))(params),
    ):
      slope = jax.tree.map(lambda x, y: jnp.where(x == y, x, jnp.nan), slope, other)
    return slope

  criterion = Criterion(lambda params: (), lambda state, params, **_: state, score)
  tx = prunejax.prune_transform(criterion, prunejax.constant(0.5), where=where)
  params = {'a': jnp.array([1.0, 3.0, 2.0, 1.0]), 'b': jnp.array([2.0, 1.0, 1.0, 1.0])}
  updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **given)
  assert not prunejax.nan_scores(state)
  # The slope of b is 2 a^2 b: 4, 18, 8, 2.
  np.testing.assert_array_equal(prunejax.get_masks(state, params)['b'], [False, True, True, False])
  np.testing.assert_array_equal(updates['b'], [-2, 0, 0, -1])


@pytest.mark.parametrize('name, criterion', [('examples', 'block_fisher'), ('outputs', 'obd')])
@pytest.mark.parametrize('jitted', [False, True])
def test_examples_of_numpy_say_what_to_do(name, criterion, jitted):
  data = np.ones((6, 4), np.float32)
  params = {'kernel': jnp.ones((4, 3))}
  criterion = (
    prunejax.block_fisher() if criterion == 'block_fisher' else prunejax.obd('levenberg_marquardt')
  )
  assert criterion.needs == {name}
  tx = prunejax.prune_transform(criterion, prunejax.constant(0.5))
  state = tx.init(params)
  model = lambda p, x: x @ p['kernel']
  one = model if name == 'outputs' else lambda p, x: jnp.sum(model(p, x) ** 2)

  def update(value):
    call = lambda p, s: tx.update(jax.tree.map(jnp.zeros_like, p), s, p, **{name: value})
    return (jax.jit(call) if jitted else call)(params, state)

  for wrong in (data, (data, one), (one, 6), 6):
    with pytest.raises(ValueError, match=f'{name}=.*expected {name}=.n, .*observe.{name}'):
      update(wrong)
  with pytest.raises(ValueError, match=f'{name}=.*numpy.*jax.numpy.asarray.*observe.{name}'):
    update((6, lambda p, i: one(p, data[i])))
  updates, _ = update((6, lambda p, i: one(p, jnp.asarray(data)[i])))
  assert updates['kernel'].shape == (4, 3)

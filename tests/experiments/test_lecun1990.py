"""Optimal Brain Damage: the quadratic form with its cross terms, and single units, by hand."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lecun1990 import deletion, network


@pytest.fixture(scope='module')
def trained():
  """(params, masks of what OBD deletes at 0.3, images, labels) of a tiny network."""
  images = jax.random.normal(jax.random.key(0), (12, 8, 8))
  labels = jnp.arange(12) % network.CLASSES
  params = network.init(0, 8, 2, hidden=3)
  scores = network.scores(params, images, 0, method='obd')
  return params, network.cut(params, scores, jnp.float32(0.3))[1], images, labels


def test_cross_terms_are_those_of_the_gauss_newton_matrix(trained):
  params, masks, images, _ = trained
  flat, unravel = jax.flatten_util.ravel_pytree(params)
  removed = ~np.asarray(jax.flatten_util.ravel_pytree(masks)[0], bool)
  jacobian = np.asarray(jax.jacrev(lambda w: network.apply(unravel(w), images))(flat), np.float64)
  step = np.where(removed, -np.asarray(flat, np.float64), 0)
  hessian = np.einsum('nop,noq->pq', jacobian, jacobian) / len(images)
  expected = step @ hessian @ step / 2
  here = float(network.rise_with_cross_terms(params, masks, images))
  assert here == pytest.approx(expected, rel=1e-4)
  # The diagonal alone is the prediction of the paper, and it is another number.
  diagonal = np.sum(np.diag(hessian) * step**2) / 2
  saliency = jax.flatten_util.ravel_pytree(network.saliency(params, images))[0]
  assert float(np.asarray(saliency)[removed].sum()) == pytest.approx(diagonal, rel=1e-4)
  assert abs(diagonal - expected) > 0.01 * expected


def test_the_costliest_unit_is_found_by_trying_every_unit(trained):
  params, masks, images, labels = trained
  before, best = float(network.error(params, images, labels)), (-np.inf, 0, 0)
  for name, layer in params.items():
    for j in range(layer['bias'].size):
      changed, lost, inputs = {}, 0, 0
      for leaf, w in layer.items():
        gone = np.zeros(w.shape, bool)
        gone[..., j] = ~np.asarray(masks[name][leaf])[..., j]
        changed[leaf] = jnp.where(gone, 0, w)
        lost, inputs = lost + int(gone.sum()), inputs + gone[..., j].size
      rise = float(network.error({**params, name: changed}, images, labels)) - before
      best = max(best, (rise, lost, inputs))
  here = network.costliest_unit(params, masks, images, labels)
  assert here['unit_rise'] == pytest.approx(best[0], rel=1e-4)
  assert (here['unit_lost'], here['unit_inputs']) == best[1:]


def test_saliencies_computed_again_delete_as_many_and_never_less_than_before(trained):
  params, _, images, labels = trained
  kept, seen = [], []
  settings = {'again': 0.25, 'curve': (0.0, 0.5, 0.75)}

  def score(p):
    kept.append(int(sum(jnp.sum(w != 0) for w in jax.tree.leaves(p))))
    return network.scores(p, images, 0, method='obd')

  evaluate = lambda p: seen.append(p) or [float(network.error(p, images, labels))]
  plain, predicted = deletion._again(params, settings, score, evaluate, images)
  size = sum(w.size for w in jax.tree.leaves(params))
  assert len(plain) == len(predicted) == 3 and predicted[0] == 0
  removed = [sum(int(jnp.sum(w == 0)) for w in jax.tree.leaves(p)) for p in seen]
  assert removed[1:] == [round(0.5 * size), round(0.75 * size)]
  # Scores are computed at 0, 0.25, 0.5 and 0.75; each has fewer weights than the last.
  assert len(kept) == 4 and kept[1:] == sorted(kept[1:], reverse=True)
  assert predicted == sorted(predicted)

"""Optimal Brain Damage and Surgeon on a tiny net against its dense Hessian, float64 numpy."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import prunejax
from prunejax.pruning import criteria
from prunejax.pruning.criteria import hessian_diagonal, inverse_hessian
from prunejax.train import specs

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 2))
DRAW = lambda *shape: jnp.asarray(RNG.normal(size=shape), jnp.float32)
PARAMS = {'hidden': {'kernel': DRAW(3, 4), 'bias': DRAW(4)}, 'output': {'kernel': DRAW(4, 2)}}
FLAT, SHAPED = ravel_pytree(PARAMS)


def net(params, x):
  hidden = jnp.tanh(x @ params['hidden']['kernel'] + params['hidden']['bias'])
  return hidden @ params['output']['kernel']


def outputs(params, i):
  return net(params, jnp.asarray(X, jnp.float32)[i])


def loss(params, i):
  return jnp.sum((outputs(params, i) - jnp.asarray(Y, jnp.float32)[i]) ** 2) / 2


def value(params):
  return jnp.mean(jax.vmap(loss, (None, 0))(params, jnp.arange(len(X))))


TOLD = {'value_fn': value, 'examples': (len(X), loss), 'outputs': (len(X), outputs)}


def numpy_net(w):
  """float64 [7, 2]; leaves in the order of sorted names."""
  bias, kernel, out = w[:4], w[4:16].reshape(3, 4), w[16:].reshape(4, 2)
  return np.tanh(X @ kernel + bias) @ out


def numpy_jacobian(fn, w, step=1e-5):
  return np.stack(
    [(fn(w + step * e) - fn(w - step * e)) / (2 * step) for e in np.eye(w.size)], axis=-1
  )


def dense(estimate):
  """The whole Hessian, its Gauss-Newton part or the empirical Fisher, by differences in float64."""
  w = np.float64(FLAT)
  if estimate == 'fisher':
    per_example = numpy_jacobian(lambda w: np.sum((numpy_net(w) - Y) ** 2, axis=1) / 2, w)
    return per_example.T @ per_example / len(X)
  if estimate == 'gauss_newton':
    j = numpy_jacobian(numpy_net, w).reshape(-1, w.size)
    return j.T @ j / len(X)
  error = lambda w: np.mean(np.sum((numpy_net(w) - Y) ** 2, axis=1)) / 2
  return numpy_jacobian(lambda w: numpy_jacobian(error, w, 1e-4), w, 1e-4)


@pytest.mark.parametrize(
  ('estimate', 'like'),
  [
    ('hessian', 'hessian'),
    ('levenberg_marquardt', 'gauss_newton'),
    ('fisher', 'fisher'),
  ],
)
def test_obd_is_half_the_diagonal_of_the_dense_matrix_times_w_squared(estimate, like):
  score = prunejax.obd(estimate).score((), PARAMS, grad=None, step=0, **TOLD)
  expected = np.maximum(np.diag(dense(like)), 0) * np.float64(FLAT) ** 2 / 2
  assert np.any(np.diag(dense('hessian')) < 0), 'a test of negative curvature too'
  np.testing.assert_allclose(ravel_pytree(score)[0], expected, rtol=2e-4, atol=1e-6)


def test_hutchinson_is_unbiased_exact_on_a_diagonal_and_seeded():
  h = np.diag(dense('hessian'))
  # The deviation of one probe is the norm of the other entries of its row, at most twice.
  spread = np.sqrt(2 * np.sum((dense('hessian') - np.diag(h)) ** 2, axis=1) / 1000)
  hutchinson = jax.jit(hessian_diagonal.hutchinson, static_argnums=(0, 3))
  many = ravel_pytree(hutchinson(value, PARAMS, jax.random.key(1), 1000))[0]
  assert np.all(abs(many - h) < 5 * spread + 1e-4) and np.any(abs(many - h) > spread / 20)
  bowl = lambda p: jnp.sum(jnp.arange(1.0, 25) * ravel_pytree(p)[0] ** 2) / 2
  # For a diagonal H one probe is enough.
  score = jax.jit(
    lambda seed, step: prunejax.obd('hutchinson', 1, seed).score(
      (), PARAMS, step=step, value_fn=bowl
    )
  )
  np.testing.assert_allclose(
    ravel_pytree(score(0, 0))[0], np.arange(1, 25) * np.asarray(FLAT) ** 2 / 2, rtol=1e-6
  )
  told = {'value_fn': value}
  score = jax.jit(
    lambda seed, step: prunejax.obd('hutchinson', 1, seed).score((), PARAMS, step=step, **told)
  )
  flat = lambda *numbers: ravel_pytree(score(*numbers))[0]
  np.testing.assert_array_equal(flat(0, 0), flat(0, 0))
  assert np.any(flat(0, 0) != flat(1, 0)) and np.any(flat(0, 0) != flat(0, 1))


def ranks(values):
  return np.argsort(np.argsort(np.ravel(values), kind='stable'), kind='stable')


def test_the_default_of_hutchinson_ranks_as_the_exact_diagonal_does():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(100, 16)), jnp.float32)
  labels = jax.nn.one_hot(rng.integers(0, 5, 100), 5)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
  params = {'a': draw(16, 32), 'b': draw(32, 32), 'c': draw(32, 5)}

  def loss(p):
    logits = jax.nn.relu(jax.nn.relu(x @ p['a']) @ p['b']) @ p['c']
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), -1))

  def scores(*args, **kwargs):
    criterion = prunejax.obd(*args, **kwargs)
    return ravel_pytree(jax.jit(lambda p: criterion.score((), p, step=0, value_fn=loss))(params))[0]

  exact = ranks(scores())
  against = lambda *args, **kwargs: np.corrcoef(ranks(scores(*args, **kwargs)), exact)[0, 1]
  assert against('hutchinson') > 0.95
  assert against('hutchinson', 32, smooth=False) < 0.75  # the default of 0.1


def test_smoothing_mixes_estimate_and_model_as_in_float64_and_layer_by_layer():
  """A numpy twin of the mixture, from the products of the Hessian with the same vectors."""
  rng, probes = np.random.default_rng(3), 6
  half = rng.normal(size=(30, 30))
  matrix = jnp.asarray(half @ half.T / 10 + np.diag(rng.uniform(5, 60, 30)), jnp.float32)
  params = {'w': jnp.zeros((5, 4)), 'v': jnp.zeros(10)}
  bowl = lambda p: ravel_pytree(p)[0] @ matrix @ ravel_pytree(p)[0] / 2
  key = jax.random.key(5)
  draws = [
    jax.tree_util.tree_map_with_path(
      lambda path, w, k=k: jax.random.rademacher(
        jax.random.fold_in(k, zlib.crc32(path[0].key.encode())), w.shape, w.dtype
      ),
      params,
    )
    for k in jax.random.split(key, probes)
  ]
  unravel = ravel_pytree(params)[1]
  products = [
    jax.tree.map(
      lambda v, hv: np.float64(v) * np.float64(hv), v, unravel(matrix @ ravel_pytree(v)[0])
    )
    for v in draws
  ]
  smooth = jax.jit(hessian_diagonal.smoothed_hutchinson, static_argnums=(0, 3, 4))
  got = smooth(bowl, params, key, probes)
  for name in params:
    each = np.stack([product[name] for product in products])
    estimate, noise = each.mean(0), each.var(0).mean() / (probes - 1)
    model = np.full_like(estimate, estimate.mean())
    if name == 'w':
      model = estimate.mean(1)[:, None] * estimate.mean(0)[None] / estimate.mean()
    share = max(0, 1 - noise / np.mean((estimate - model) ** 2))
    assert 0 < share < 1
    np.testing.assert_allclose(got[name], share * estimate + (1 - share) * model, rtol=1e-4)
  # The mean stays as it is, in each layer of a stack.
  layers = {'s': jnp.ones((3, 2, 2))}
  pairs = lambda p: jnp.sum(
    (p['s'][:, 0] + 2 * p['s'][:, 1]) ** 2 * jnp.asarray([[1.0], [9], [99]])
  )
  mean = lambda diagonal: np.mean(diagonal['s'], axis=(1, 2))
  hutchinson = jax.jit(hessian_diagonal.hutchinson, static_argnums=(0, 3))
  wanted = mean(hutchinson(pairs, layers, key, probes))
  stacked = smooth(pairs, layers, key, probes, ('s',))
  np.testing.assert_allclose(mean(stacked), wanted, rtol=1e-5)
  # The first layer, of little curvature, is not drawn to the columns of the others.
  plain = smooth(pairs, layers, key, probes)
  assert np.any(abs(stacked['s'][0] / plain['s'][0] - 1) > 0.01)


def test_a_shared_weight_has_the_curvature_of_all_its_places():
  shared = lambda p: jnp.sum(jnp.convolve(jnp.arange(1.0, 7), p['w'], 'valid') ** 2) / 2
  h = hessian_diagonal.hessian(shared, {'w': jnp.array([0.3, -1.0, 2.0])})['w']
  # Each weight meets four of the six inputs: the sum of their squares.
  np.testing.assert_allclose(
    h, [3**2 + 4**2 + 5**2 + 6**2, 2**2 + 3**2 + 4**2 + 5**2, 1 + 2**2 + 3**2 + 4**2]
  )


ALPHA = 1e-3


@pytest.mark.parametrize('estimate', ['gauss_newton', 'fisher'])
def test_the_recursion_gives_the_inverse(estimate):
  x, count = inverse_hessian.rows(
    TOLD['outputs' if estimate == 'gauss_newton' else 'examples'], PARAMS
  )
  got = inverse_hessian.inverse_hessian(x, count, ALPHA)
  expected = np.linalg.inv(dense(estimate) + ALPHA * np.eye(FLAT.size))
  np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3 * abs(expected).max())
  score = prunejax.obs(estimate, ALPHA).score((), PARAMS, **TOLD)
  np.testing.assert_allclose(
    ravel_pytree(score)[0], np.float64(FLAT) ** 2 / (2 * np.diag(expected)), rtol=2e-3
  )


def numpy_surgery(h, w, sizes):
  """Optimal Brain Surgeon on a dense matrix.

  Each round removes the `size` lowest weights together. The others move by the dw that minimises
  dw' H dw / 2 under that constraint, from the Lagrange system over the weights still alive.
  """
  w, alive = w.copy(), np.ones(w.size, bool)
  for size in sizes:
    at = np.flatnonzero(alive)
    inv = np.linalg.inv(h[np.ix_(at, at)])
    gone = np.argsort(w[at] ** 2 / np.diag(inv), kind='stable')[:size]
    system = np.block(
      [
        [h[np.ix_(at, at)], np.eye(at.size)[:, gone]],
        [np.eye(at.size)[gone], np.zeros((size, size))],
      ]
    )
    w[at] += np.linalg.solve(system, np.concatenate([np.zeros(at.size), -w[at][gone]]))[: at.size]
    alive[at[gone]] = False
    w[~alive] = 0
  return w


@pytest.mark.parametrize('sizes', [[1] * 9, [2, 6, 1]])
def test_surgery_inside_prune_transform_matches_the_dense_one(sizes):
  # Outputs are linear in the weights, so pruning does not change H. Two leaves share one H.
  rows = RNG.normal(size=(30, 14))
  params = {
    'a': jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32),
    'b': jnp.asarray([0.7, -1.2], jnp.float32),
  }
  out = lambda p, i: jnp.asarray(rows, jnp.float32)[i] @ jnp.concatenate([p['a'].ravel(), p['b']])
  done = np.cumsum(sizes)
  schedule = lambda step: jnp.asarray(done / 14, jnp.float32)[jnp.minimum(step, len(sizes) - 1)]
  tx = prunejax.prune_transform(
    prunejax.obs('gauss_newton', 1e-4), schedule, allocation=prunejax.global_threshold()
  )
  expected = numpy_surgery(
    rows.T @ rows / 30 + 1e-4 * np.eye(14), np.float64(ravel_pytree(params)[0]), sizes
  )

  @jax.jit
  def step(params, state):
    updates, state = tx.update(
      jax.tree.map(jnp.zeros_like, params), state, params, outputs=(30, out)
    )
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  for _ in sizes:
    params, state = step(params, state)
  got = np.asarray(ravel_pytree(params)[0])
  np.testing.assert_array_equal(got == 0, expected == 0)
  np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
  np.testing.assert_array_equal(ravel_pytree(prunejax.get_masks(state, params))[0], expected != 0)


def who_pays(criterion):
  return prunejax.who_pays(PARAMS, criterion, 0.5)


@pytest.mark.parametrize(
  ('make', 'said'),
  [
    (lambda: prunejax.obd('newton'), "estimate='newton'; accepted: hessian"),
    (lambda: prunejax.obd('hutchinson', probes=0), 'probes=0'),
    (lambda: prunejax.obs('hessian'), "estimate='hessian'; accepted: gauss_newton, fisher"),
    (lambda: prunejax.obs(alpha=0.0), 'alpha=0.0; accepted: above 0'),
    (lambda: who_pays(prunejax.obd()), r'needs value_fn=.*value_fn\(params\) -> loss'),
    (lambda: who_pays(prunejax.obd('levenberg_marquardt')), 'needs outputs='),
    (lambda: who_pays(prunejax.obs()), 'needs examples='),
    (
      lambda: prunejax.obs().score((), {'w': jnp.ones(2**14 + 1)}, **TOLD),
      '16385 weights under one H',
    ),
  ],
)
def test_wrong_arguments_are_one_error(make, said):
  with pytest.raises(ValueError, match=said):
    make()


def test_config_strings_find_them():
  for text in ("obd('hutchinson', probes=4, seed=2)", 'obs(alpha=1e-6)'):
    assert specs.parse(text, criteria, 'prune.weights.criterion')().score


def test_scores_are_float32_also_where_weights_are_float64():
  with jax.enable_x64(True):
    params = {'w': jnp.asarray([0.5, -1.0, 2.0], jnp.float64)}
    examples = 3, lambda params, i: jnp.sum(params['w'] ** 2) * (i + 1).astype(jnp.float64)
    for criterion in (prunejax.obs('fisher'), prunejax.obd('fisher')):
      score = criterion.score((), params, examples=examples)['w']
      assert score.dtype == jnp.float32
    kept = prunejax.select_masks({'w': score}, 1 / 3)
    assert kept['w'].tolist() == [False, True, True]

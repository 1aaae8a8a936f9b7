"""`prune_transform` after any optimizer: exact zeros and counts; weights that return start anew."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toy import grads_of, make_params

import prunejax
from prunejax.pruning.paths import named_leaves, path_name

# Several kinds of state: trees like params, factored moments, empty nodes, wrappers, scalars.
OPTIMIZERS = {
  'adamw': lambda: optax.adamw(0.1),
  'adafactor': lambda: optax.adafactor(0.1, min_dim_size_to_factor=4),
  'lion': lambda: optax.lion(0.1),
  'muon': lambda: optax.contrib.muon(0.1),
  'rmsprop': lambda: optax.rmsprop(0.1, momentum=0.9),
  'apply_if_finite': lambda: optax.apply_if_finite(optax.adam(0.1), 3),
  'inject_hyperparams': lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
  'multi_steps': lambda: optax.MultiSteps(optax.adam(0.1), 2),
  'partition': lambda: optax.partition(
    {'a': optax.adam(0.1), 'b': optax.sgd(0.1, momentum=0.9)}, labels
  ),
  'sgd': lambda: optax.sgd(0.1),
}


def labels(params):
  return {'enc': {'kernel': 'a', 'bias': 'b'}, 'head': {'kernel': 'b'}}


def link(criterion=None, **kwargs):
  criterion = prunejax.magnitude() if criterion is None else criterion
  schedule = prunejax.linear(0.5, begin=0, end=3)
  return prunejax.prune_transform(criterion, schedule, where='.*kernel', **kwargs)


def stepper(tx):
  @jax.jit
  def step(params, state, grad):
    updates, state = tx.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, updates), state

  return step


# One program for all optimizers, because an optax.chain calls its links in turn.
LINK = link()
pruned = jax.jit(LINK.update)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_zeros_and_counts_are_exact_at_every_step(name):
  inner, params = OPTIMIZERS[name](), make_params()
  tx = optax.chain(inner, LINK)
  state, trained = tx.init(params), jax.jit(inner.update)
  for t in range(5):
    updates, first = trained(grads_of(params, t), state[0], params)
    updates, last = pruned(updates, state[1], params)
    params, state = optax.apply_updates(params, updates), (first, last)
    masks = prunejax.get_masks(state, params)
    prunejax.check_pruned(params, state)
    removed = prunejax.masks.sparsity(masks, '.*kernel')['leaves']
    assert removed == {'enc/kernel': removed_of(24, t), 'head/kernel': removed_of(12, t)}, t
    for p, mask in zip(jax.tree.leaves(params), jax.tree.leaves(masks), strict=True):
      gone = np.asarray(p)[~np.asarray(mask)]
      assert np.all(np.isfinite(p)) and not gone.any() and not np.signbit(gone).any()
  assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))
  assert_reset(tx, state, params)


def removed_of(size, t):
  return np.floor(size * min(t, 3) / 6 + 0.5) / size


def assert_reset(tx, state, params):
  """Returning weights get their initial optimizer state; all other state stays, masks included."""
  revived = jax.tree.map(lambda p: jnp.zeros_like(p, bool).at[1].set(p.ndim == 2), params)
  after, start = prunejax.reset_moments(tx, state, params, revived), tx.init(params)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  backs = {name: np.asarray(back) for name, back in named_leaves(revived).items()}
  changed = 0
  for (path, old), new, first in zip(
    jax.tree.leaves_with_path(state), jax.tree.leaves(after), jax.tree.leaves(start), strict=True
  ):
    name = path_name(path)
    back = next((back for leaf, back in backs.items() if name.endswith(leaf)), np.zeros((), bool))
    if 'prune_' in name or back.shape != np.shape(old):
      back = np.zeros((), bool)
    np.testing.assert_array_equal(new, np.where(back, first, old), err_msg=name)
    assert new.dtype == old.dtype
    changed += np.any(np.not_equal(old, new))
  stateless = isinstance(start[0], tuple) and not jax.tree.leaves(start[0])
  assert changed > 0 or stateless


def restless():
  """Masks that change at every step, so that half of the pruned weights come back."""

  def score(state, params, *, step, **_):
    draw = lambda path, p: jax.random.uniform(
      jax.random.fold_in(jax.random.key(len(path)), step), p.shape
    )
    return jax.tree_util.tree_map_with_path(draw, params)

  return prunejax.Criterion(lambda params: (), lambda state, params, **_: state, score)


@pytest.mark.parametrize('name', ['adafactor', 'multi_steps', 'partition'])
def test_a_weight_that_comes_back_is_trained_as_a_new_one(name):
  inner = OPTIMIZERS[name]()
  plain = stepper(inner)
  tx = prunejax.with_fresh_moments(inner, link(restless()))
  params, step = make_params(), stepper(tx)
  state, came_back = tx.init(params), 0
  masks = prunejax.get_masks(state, params)
  for t in range(6):
    grad = grads_of(params, t)
    _, alone = plain(params, state[0], grad)
    before, (params, state) = masks, step(params, state, grad)
    prunejax.check_pruned(params, state)
    masks = prunejax.get_masks(state, params)
    revived = jax.tree.map(lambda new, old: new & ~old, masks, before)
    came_back += sum(int(jnp.sum(back)) for back in jax.tree.leaves(revived))
    assert not any(
      jax.tree.leaves(jax.tree.map(lambda p, back: np.any(np.asarray(p)[back]), params, revived))
    )
    want = prunejax.reset_moments(inner, alone, params, revived)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), state[0], want
    )
  assert came_back > 10
  assert prunejax.masks.sparsity(masks, '.*kernel')['total'] == 0.5
  chain = optax.chain(inner, link(restless()))
  assert jax.tree.structure(chain.init(params)) == jax.tree.structure(state), (
    'a checkpoint of one is one of the other'
  )


def test_latent_weights_keep_their_moments():
  tx = prunejax.with_fresh_moments(optax.adam(0.1), link(restless(), zero_pruned=False))
  both = [make_params(), make_params()]
  states, steps = (
    [tx.init(both[0]), optax.adam(0.1).init(both[1])],
    [stepper(tx), stepper(optax.adam(0.1))],
  )
  for t in range(4):
    for i in (0, 1):
      both[i], states[i] = steps[i](both[i], states[i], grads_of(both[i], t))
  jax.tree.map(np.testing.assert_array_equal, *both)
  jax.tree.map(np.testing.assert_array_equal, states[0][0], states[1])


def test_an_optimizer_that_cannot_be_read_is_refused():
  tx, params = optax.lbfgs(), make_params()
  with pytest.raises(ValueError, match='reset_moments: optax.tree.map_params cannot read'):
    prunejax.reset_moments(tx, tx.init(params), params, jax.tree.map(lambda p: p > 0, params))


def test_nnx_optimizer():
  model = nnx.Linear(8, 6, rngs=nnx.Rngs(0))
  tx = prunejax.with_fresh_moments(OPTIMIZERS['muon'](), link(prunejax.taylor()))
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

  @nnx.jit
  def step(model, optimizer, x):
    grads = nnx.grad(lambda model: jnp.mean((model(x) - 1) ** 2))(model)
    optimizer.update(model, grads, grad=grads)

  for t in range(5):
    step(model, optimizer, jax.random.normal(jax.random.key(t), (4, 8)))
  params = nnx.state(model, nnx.Param)
  masks = prunejax.get_masks(optimizer.opt_state, params)
  prunejax.check_pruned(params, optimizer.opt_state)
  assert (
    prunejax.masks.sparsity(masks, 'kernel')['removed']
    == 24
    == int(jnp.sum(model.kernel[...] == 0.0))
  )

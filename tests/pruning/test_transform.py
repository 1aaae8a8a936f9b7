"""`prune_transform` and `hold_zeros` among other links, on any tree, under any transformation."""

import functools
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from toy import assert_pruned, grads_of, make_params, prune, train

import prunejax
from prunejax import masks

CHAINS = {
  'chain': lambda link: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1), link),
  'named_chain': lambda link: optax.named_chain(('adam', optax.adam(0.1)), ('prune', link)),
  'apply_if_finite': lambda link: optax.apply_if_finite(optax.chain(optax.adam(0.1), link), 3),
  'masked': lambda link: optax.chain(
    optax.sgd(0.1), optax.masked(link, {'enc': {'kernel': True, 'bias': False}, 'head': True})
  ),
  'multi_steps': lambda link: optax.MultiSteps(optax.chain(optax.adam(0.1), link), 2),
}


@pytest.mark.parametrize('name', CHAINS)
def test_composes_with(name):
  params, state = train(
    CHAINS[name](prune()), make_params(), steps=8 if name == 'multi_steps' else 4
  )
  assert_pruned(params, state)


def test_groups_by_partition_with_raw_gradients():
  first = lambda labels: (
    lambda params: {key: jax.tree.map(lambda _, k=key: k, params[key]) for key in labels}
  )
  tx = optax.partition(
    {
      'enc': optax.chain(optax.sgd(0.1), prune(0.25)),
      'head': optax.chain(optax.adam(0.1), prune(0.75, prunejax.movement())),
    },
    first(('enc', 'head')),
  )
  params, state = train(tx, make_params(), give=True)
  assert_pruned(params, state, 0.25, 'enc/kernel')
  assert_pruned(params, state, 0.75, 'head/kernel')


def test_several_links_combine_by_and():
  tx = optax.chain(
    optax.sgd(0.1), prune(where='enc/kernel'), prune(0.25, prunejax.random(1), where='.*kernel')
  )
  params, state = train(tx, make_params())
  first, second = (s.prune_mask['enc']['kernel'] for s in (state[1], state[2]))
  kept = prunejax.get_masks(state, params)
  np.testing.assert_array_equal(kept['enc']['kernel'], first & second)
  assert kept['enc']['bias'].all() and masks.sparsity(kept, 'head/kernel')['total'] == 0.25
  prunejax.check_pruned(params, state)


def test_sparsity_is_data_under_inject_hyperparams_and_eval_shape():
  make = lambda sparsity: prunejax.prune_transform(
    prunejax.magnitude(), prunejax.cubic(sparsity, begin=0, end=1), where='.*kernel'
  )
  link = optax.inject_hyperparams(make, hyperparam_dtype=jnp.float32)(sparsity=0.9)
  tx = optax.chain(optax.sgd(0.1), link)
  shapes = jax.eval_shape(tx.init, make_params())
  step = jax.jit(tx.update)
  for sparsity, removed in ((0.9, 22 + 11), (0.25, 6 + 3), (0.5, 12 + 6)):
    params, state = make_params(), tx.init(make_params())
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
      lambda x: (x.shape, x.dtype), shapes
    )
    state[1].hyperparams['sparsity'] = jnp.float32(sparsity)
    for t in range(2):
      updates, state = step(grads_of(params, t), state, params)
      params = optax.apply_updates(params, updates)
    assert masks.sparsity(prunejax.get_masks(state, params))['removed'] == removed
  assert step._cache_size() == 1


def test_inside_multi_steps_the_wrapped_chain_sees_whole_gradients():
  params, micro = make_params(), [grads_of(make_params(), t) for t in range(4)]
  inner = optax.chain(optax.sgd(0.1), prune(criterion=prunejax.movement()))
  tx = optax.MultiSteps(inner, 2)
  with pytest.raises(
    ValueError, match='needs grad=.*Inside optax.MultiSteps.*gradient_from_updates'
  ):
    jax.jit(tx.update)(micro[0], tx.init(params), params)

  tx = optax.MultiSteps(prunejax.gradient_from_updates(inner), 2)
  small, small_state = params, tx.init(params)
  step = jax.jit(tx.update)
  for grad in micro:
    updates, small_state = step(grad, small_state, small)
    small = optax.apply_updates(small, updates)
  large, large_state = params, inner.init(params)
  for pair in (micro[:2], micro[2:]):
    grad = jax.tree.map(lambda a, b: (a + b) / 2, *pair)
    updates, large_state = jax.jit(inner.update)(grad, large_state, large, grad=grad)
    large = optax.apply_updates(large, updates)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), small, large)
  same = jax.tree.map(
    np.array_equal, prunejax.get_masks(small_state, small), prunejax.get_masks(large_state, large)
  )
  assert all(jax.tree.leaves(same))


def test_extra_arguments_of_other_links_pass_through():
  seen = []

  def update(updates, state, params=None, *, value, **extra):
    seen.append((value, sorted(extra)))
    return updates, state

  other = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
  tx = optax.chain(other, prune(criterion=prunejax.taylor()))
  params = make_params()
  grads = grads_of(params, 0)
  jax.jit(functools.partial(tx.update, value=3.0, note='text'))(
    grads, tx.init(params), params, grad=grads
  )
  assert seen == [(3.0, ['grad', 'note'])]


@pytest.mark.parametrize(
  'dtypes', [('float32', 'bfloat16'), ('bfloat16', 'float32'), ('float16', 'float16')], ids='-'.join
)
def test_pruned_weights_land_on_zero_in_mixed_precision(dtypes):
  dtype, update_dtype = dtypes
  rounded = optax.stateless(
    lambda updates, params: jax.tree.map(lambda u: u.astype(update_dtype), updates)
  )
  params, state = train(optax.chain(optax.sgd(0.1), rounded, prune()), make_params(dtype=dtype))
  assert_pruned(params, state)
  assert params['enc']['kernel'].dtype == dtype


def test_a_link_that_is_not_last_is_found_by_name():
  params, state = train(optax.chain(prune(), optax.adam(0.1)), make_params())
  with pytest.raises(
    ValueError,
    match=r"'enc/kernel' has \d+ pruned weights that are not zero.*must be the last link",
  ):
    prunejax.check_pruned(params, state)


def test_latent_weights_live_under_the_mask():
  latent = optax.chain(optax.sgd(0.1), prune(zero_pruned=False))
  params, state = train(latent, make_params())
  plain, _ = train(optax.sgd(0.1), make_params())
  jax.tree.map(np.testing.assert_array_equal, params, plain)
  seen = masks.apply(params, prunejax.get_masks(state, params))
  assert masks.sparsity(seen, '.*kernel')['total'] == 0.5
  prunejax.check_pruned(params, state)


def test_without_sparsity_or_without_a_link_nothing_changes():
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.0), where='.*kernel')
  params = make_params()
  updates, state = jax.jit(link.update)(grads_of(params, 0), link.init(params), params)
  jax.tree.map(np.testing.assert_array_equal, updates, grads_of(params, 0))
  for opt_state in (state, optax.adam(0.1).init(params)):
    kept = prunejax.get_masks(opt_state, params, unpruned=True)
    assert jax.tree.map(lambda m: (m.shape, m.dtype), kept) == jax.tree.map(
      lambda p: (p.shape, jnp.dtype(bool)), params
    )
    assert all(mask.all() for mask in jax.tree.leaves(kept))
    jax.tree.map(np.testing.assert_array_equal, jax.jit(masks.apply)(params, kept), params)


def test_a_zero_survivor_is_not_traded_for_a_pruned_weight():
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.25))
  tx = optax.chain(optax.sgd(1.0), link)
  params = {'w': jnp.array([0.1, 0.5, 0.2, 0.3])}
  state = tx.init(params)
  step = jax.jit(tx.update)
  for grad in ([0.0, 0, 0, 0], [0, 0, 0.2, 0], [0, 0, 0, 0]):
    updates, state = step({'w': jnp.asarray(grad, jnp.float32)}, state, params)
    params = optax.apply_updates(params, updates)
  assert params['w'][2] == 0, 'the survivor is zero now'
  assert prunejax.get_masks(state, params)['w'].tolist() == [False, True, True, True]


def test_state_round_trips_and_the_run_goes_on_bit_identically():
  tx = optax.chain(optax.adam(0.1), prune(criterion=prunejax.movement(optax.adam(0.01))))
  whole, whole_state = train(tx, make_params(), 5, give=True)
  params, state = train(tx, make_params(), 2, give=True)
  leaves, treedef = jax.tree.flatten(state)
  saved = pickle.loads(pickle.dumps([np.asarray(leaf) for leaf in leaves]))
  state = treedef.unflatten(map(jnp.asarray, saved))
  params, state = train(tx, params, 3, state, first=2, give=True)
  jax.tree.map(np.testing.assert_array_equal, (params, state), (whole, whole_state))


def test_vmap_keeps_the_cond_scan_and_donation_work():
  tx = optax.chain(optax.sgd(0.1), prune(when=prunejax.every(2)))
  members = jax.tree.map(lambda *ps: jnp.stack(ps), *(make_params(seed) for seed in range(3)))
  state = jax.vmap(tx.init)(members)
  batched = jax.tree_util.tree_map_with_path(
    lambda path, _: None if 'prune_count' in str(path) else 0, state
  )
  state = jax.tree.map(
    lambda axis, leaf: leaf if axis == 0 else leaf[0], batched, state, is_leaf=lambda x: x is None
  )

  def one(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  step = jax.vmap(one, in_axes=(0, batched, 0), out_axes=(0, batched))

  def run(members, state):
    body = lambda carry, t: (step(*carry, jax.tree.map(lambda p: p * 0.1, carry[0])), None)
    return jax.lax.scan(body, (members, state), jnp.arange(4))[0]

  compiled = jax.jit(run, donate_argnums=(0, 1)).lower(members, state).compile()
  assert ' conditional(' in compiled.as_text(), 'off mask steps would select, not branch'
  alone = [train_with(tx, make_params(seed)) for seed in range(3)]
  members, state = compiled(members, state)
  for seed, params in enumerate(alone):
    jax.tree.map(
      lambda m, p, i=seed: np.testing.assert_allclose(m[i], p, rtol=1e-6), members, params
    )
  kept = prunejax.get_masks(state, members)
  assert masks.sparsity(kept, '.*kernel')['total'] == 0.5


def train_with(tx, params):
  state = tx.init(params)
  step = jax.jit(tx.update)
  for _ in range(4):
    updates, state = step(jax.tree.map(lambda p: p * 0.1, params), state, params)
    params = optax.apply_updates(params, updates)
  return params


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=['kernel', 'bias', 'inner'], meta_fields=['name']
)
class Module:  # as Equinox makes them: a class that is its own pytree
  def __init__(self, kernel, bias, inner=None, name='dense'):
    self.kernel, self.bias, self.inner, self.name = kernel, bias, inner, name


class Pair(NamedTuple):
  kernel: Any
  frozen: Any


def odd_trees():
  kernel = jnp.arange(1.0, 13).reshape(3, 4)
  return {
    'module': Module(kernel, jnp.ones(4), inner=Module(kernel + 1, None)),
    'tuples': (Pair(kernel, None), [Pair(kernel, optax.MaskedNode())]),
    'scanned': {'kernel': jnp.stack([kernel, -kernel]), 'steps': jnp.int32(3), 'empty': {}},
  }


@pytest.mark.parametrize('name', odd_trees())
def test_any_pytree(name):
  params = odd_trees()[name]
  tx = optax.chain(optax.sgd(0.1), prune(when=prunejax.until(3)))
  state = tx.init(params)
  assert jax.tree.structure(jax.eval_shape(tx.init, params)) == jax.tree.structure(state)
  grads = jax.tree.map(jnp.zeros_like, params)
  for _ in range(3):
    updates, state = jax.jit(tx.update)(grads, state, params)
    params = optax.apply_updates(params, updates)
  assert_pruned(params, state)


def test_a_predicate_may_look_at_the_weights_at_init():
  params = {'small': jnp.full((4, 4), 0.5), 'large': jnp.arange(2.0, 18.0).reshape(4, 4)}
  link = prune(where=lambda path, leaf: float(jnp.max(leaf)) > 1)
  params, state = train(link, params)
  assert np.all(params['small'] != 0)
  assert masks.sparsity(prunejax.get_masks(state, params), 'large')['total'] == 0.5


def test_init_takes_shapes_and_placeholders():
  shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), make_params())
  tx = optax.chain(optax.adam(0.1), prune(criterion=prunejax.movement()))
  state = tx.init(shapes)
  assert state[1].prune_mask['enc']['kernel'].shape == (6, 4)
  assert isinstance(state[1].prune_mask['enc']['bias'], optax.MaskedNode)
  marked = optax.tree.map_params(
    tx, lambda leaf: 'param', tx.init(make_params()), transform_non_params=lambda leaf: 'other'
  )
  assert marked[1].prune_mask['enc']['kernel'] == 'param' and marked[1].prune_count == 'other'
  assert marked[1].prune_criterion.movement_sum['enc']['kernel'] == 'param'
  assert optax.tree.get(tx.init(make_params()), 'prune_count') == 0
  assert prune().init({}).prune_mask == {}


def test_nan_scores_spoil_their_leaf_and_no_other_and_are_named():
  params = make_params()
  tx = optax.chain(optax.sgd(0.1), prune())
  fine, state = train(tx, params, 1)
  assert prunejax.nan_scores(state) == {} == prunejax.nan_scores(prunejax.hold_zeros().init(params))
  fine['head']['kernel'] = fine['head']['kernel'].at[1, 1].set(jnp.nan)
  params, state = train(tx, fine, 2, state, first=1)
  assert jnp.isnan(params['head']['kernel']).all()
  assert jnp.isfinite(params['enc']['kernel']).all()
  assert prunejax.nan_scores(state) == {'head/kernel': 2}, (
    'the first step that saw one, counted from 1'
  )
  twice = jax.tree.map(lambda *leaves: jnp.stack(leaves), tx.init(fine), state)
  assert prunejax.nan_scores(twice, member=0) == {} and prunejax.nan_scores(twice, member=1) == {
    'head/kernel': 2
  }


def test_linen_and_nnx():
  x = jnp.ones((2, 6))
  linen = nn.Dense(4).init(jax.random.key(0), x)
  params, state = train(optax.chain(optax.adam(0.1), prune()), linen)
  assert_pruned(params, state)

  model = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
  tx = optax.chain(optax.adam(0.1), prune(criterion=prunejax.taylor()))
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

  @nnx.jit
  def step(model, optimizer):
    grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
    optimizer.update(model, grads, grad=grads)

  for _ in range(3):
    step(model, optimizer)
  assert_pruned(nnx.state(model, nnx.Param), optimizer.opt_state)


def test_hold_zeros_under_any_optimizer():
  pruned, state = train(optax.chain(optax.sgd(0.1), prune()), make_params())
  kept = prunejax.get_masks(state, pruned)
  tx = optax.chain(optax.adamw(0.1), prunejax.hold_zeros('.*kernel'))
  params, state = train(tx, pruned)
  assert_pruned(params, state)
  jax.tree.map(np.testing.assert_array_equal, prunejax.get_masks(state, params), kept)
  assert (params['enc']['kernel'] != pruned['enc']['kernel']).sum() == 12
  with pytest.warns(UserWarning, match="'b' is zero throughout"):
    prunejax.hold_zeros().init({'a': jnp.ones(2), 'b': jnp.zeros(2)})
  with pytest.raises(ValueError, match="'a' has a shape but no values"):
    prunejax.hold_zeros().init({'a': jax.ShapeDtypeStruct((2,), jnp.float32)})

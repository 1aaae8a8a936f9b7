"""Edges of the core that no table reaches: tiny scores, empty leaves, boxes, wrong input."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prunejax
from prunejax.pruning import counts, masks, who_pays
from prunejax.pruning.links import low_rank, proximal

LEAVES = {'a': (4, 6), 'b': (3, 5)}


def tree(seed=0, shapes=LEAVES):
  rng = np.random.default_rng(seed)
  return {
    name: jnp.asarray(rng.standard_normal(shape), jnp.float32) for name, shape in shapes.items()
  }


def after(tx, params, steps, state=None, **extra):
  state = tx.init(params) if state is None else state
  for _ in range(steps):
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, **extra)
    params = optax.apply_updates(params, updates)
  return params, state


@functools.partial(jax.jit, static_argnums=1)
def by_deviation(scores, stacked):
  return prunejax.select_masks(
    scores, 0.5, allocation=prunejax.class_distribution(), stacked=stacked
  )


@pytest.mark.parametrize('factor, stacked', [(1e-23, ()), (1e-30, ('a',)), (1e25, ())])
def test_class_distribution_does_not_depend_on_the_unit_of_scores(factor, stacked):
  scores = {name: jnp.abs(leaf) * (1 if name == 'a' else 0.01) for name, leaf in tree().items()}
  cut = lambda unit: by_deviation(jax.tree.map(lambda s: s * jnp.float32(unit), scores), stacked)
  jax.tree.map(np.testing.assert_array_equal, cut(2.0 ** round(np.log2(factor))), cut(1.0))
  assert min(masks.sparsity(cut(factor))['leaves'].values()) > 0.2  # sigma of each class, not 1


@pytest.mark.parametrize(
  'size, value', [(1, 0.1), (3, 0.1), (100, 0.1), (768, 0.1), (100, 1 / 3), (3, -1.7), (9, 0.0)]
)
def test_equal_weights_have_a_deviation_of_one(size, value):
  score = jax.jit(lambda w: prunejax.deviations().score((), {'w': w})['w'])(
    jnp.full(size, value, jnp.float32)
  )
  np.testing.assert_array_equal(score, np.full(size, abs(np.float32(value))))


def test_until_checks_its_inner_predicate():
  with pytest.raises(ValueError, match='first moves masks at step 10, which is after last=5'):
    prunejax.until(5, prunejax.every(1, begin=10))
  for last, inner in ((25, 10), (10, 25)):
    assert prunejax.until(last, prunejax.every(1, until=inner)).last == 10
  with pytest.raises(
    ValueError, match='stops after step 10, before the schedule reaches its target at step 20'
  ):
    prunejax.prune_transform(
      prunejax.magnitude(),
      prunejax.cubic(0.5, end=20),
      prunejax.until(25, prunejax.every(1, until=10)),
    )


@pytest.mark.parametrize(
  'when', [lambda t: t >= 3, prunejax.until(99, lambda t: t >= 3), prunejax.every(1, begin=3)]
)
@pytest.mark.parametrize(
  'make',
  [
    lambda when: prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), when),
    lambda when: low_rank.low_rank(prunejax.constant(0.5), when),
  ],
)
def test_masks_of_a_constant_schedule_move_only_when_asked(when, make):
  before, tx = tree(), make(when)
  early, state = after(tx, tree(), 3)
  late, _ = after(tx, early, 1, state)
  same = lambda params: all(bool((params[name] == before[name]).all()) for name in before)
  assert same(early) and not same(late)


def test_a_ramp_reaches_its_end_under_any_predicate():
  tx = prunejax.prune_transform(prunejax.magnitude(), prunejax.cubic(0.5, end=4), lambda t: t == 1)
  params, _ = after(tx, tree(), 5)
  assert masks.sparsity(params)['leaves'] == {'a': 0.5, 'b': pytest.approx(8 / 15)}


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Attention:
  query: jax.Array
  value: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Box:
  value: jax.Array


def test_an_array_attribute_called_value_is_an_error_unless_alone():
  tx = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5))
  with pytest.raises(
    ValueError, match=r'\.value is an array in an attribute called value beside others'
  ):
    tx.init({'attn': Attention(jnp.ones((2, 2)), jnp.ones((2, 2)))})
  assert prunejax.get_masks(
    tx.init({'attn': Box(jnp.ones((2, 2)))}), {'attn': Box(jnp.ones((2, 2)))}
  )
  named = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), where='attn')
  assert named.init(
    {'attn': Box(jnp.ones((2, 2))), 'other': Attention(jnp.ones(2), Box(jnp.ones(2)))}
  )


share = jax.jit(counts.share)


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**7))
@settings(max_examples=15, deadline=None)
def test_a_share_of_a_count_is_exact(count, parts):
  found = share(jnp.int32(count), jnp.float32(parts / 10**7))
  assert int(found) == count * parts // 10**7


ALLOCATIONS = {
  'erk': prunejax.erk(),
  'by_class': prunejax.by_class({'.*': 0.5}),
  'above': prunejax.above(0.1),
  'class_uniform': prunejax.class_uniform(['.*']),
  'class_distribution': prunejax.class_distribution(['.*']),
  'global': prunejax.global_threshold(),
  'uniform': prunejax.uniform(),
}


@pytest.mark.parametrize('allocation', ALLOCATIONS.values(), ids=ALLOCATIONS)
def test_every_allocation_accepts_a_tree_without_leaves(allocation):
  link = prunejax.prune_transform(
    prunejax.magnitude(), prunejax.constant(0.5), allocation=allocation
  )
  tx = optax.chain(optax.adam(0.1), link)
  params = tree()
  state = tx.init(params)
  again = optax.tree.map_params(tx, jnp.zeros_like, state)  # sees placeholders
  assert jax.tree.structure(again) == jax.tree.structure(state)
  assert link.init({}).prune_nan.shape == (0,)
  hidden = optax.masked(link, dict.fromkeys(params, False))
  assert not jax.tree.leaves(hidden.init(params).inner_state.prune_mask)


RECIPES = {
  **{name: (allocation, prunejax.magnitude()) for name, allocation in ALLOCATIONS.items()},
  'snip': (prunejax.uniform(), prunejax.snip()),
  'deviations': (prunejax.above(0.1), prunejax.deviations()),
}


def step_of(recipe):
  """A compiled step of a link, params -> (params, state)."""
  allocation, criterion = recipe
  tx = prunejax.prune_transform(criterion, prunejax.constant(0.5), allocation=allocation)
  return jax.jit(lambda params: after(tx, params, 1, grad=params))


FEW = ('uniform', 'global', 'class_distribution', 'snip')  # one of each kind; the others are slow


@pytest.mark.parametrize(
  'name', [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_every_allocation_accepts_an_empty_leaf(name):
  landed, state = step_of(RECIPES[name])({**tree(), 'none': jnp.zeros((0, 4))})
  assert landed['none'].shape == (0, 4) and not prunejax.nan_scores(state)


@pytest.mark.parametrize(
  'name', [n if n == 'global' else pytest.param(n, marks=pytest.mark.slow) for n in RECIPES]
)
def test_an_empty_leaf_changes_no_other(name):
  step = step_of(RECIPES[name])
  landed, _ = step({**tree(), 'none': jnp.zeros((0, 4))})
  alone, _ = step(tree())
  assert any((leaf == 0).any() for leaf in alone.values())
  jax.tree.map(np.testing.assert_array_equal, {name: landed[name] for name in alone}, alone)


@pytest.mark.parametrize('name', ['value_fn', 'activations', 'examples', 'outputs'])
def test_a_function_of_all_parameters_is_named_where_some_are_hidden(name):
  params, hide = tree(), {'a': True, 'b': False}
  value = (
    (2, lambda p, i: p['b'].sum())
    if name in ('examples', 'outputs')
    else lambda p, *a: p['b'].sum()
  )
  criterion = {
    'value_fn': prunejax.obd(),
    'activations': prunejax.wanda(),
    'outputs': prunejax.obs('gauss_newton'),
    'examples': prunejax.block_fisher(),
  }[name]
  link = prunejax.prune_transform(criterion, prunejax.constant(0.5))
  tx = optax.masked(link, hide)
  with pytest.raises(ValueError, match=f'{name}=.*optax.masked or optax.partition.*where='):
    after(tx, params, 1, **{name: value})
  # A criterion that does not call the function works.
  mild = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5))
  jax.jit(lambda params: after(optax.masked(mild, hide), params, 1, **{name: value}))(params)


def test_check_pruned_reports_nan_scores_as_the_reason():
  params = tree()
  tx = prunejax.prune_transform(prunejax.taylor(), prunejax.constant(0.5))
  landed, state = after(tx, params, 2, grad={**params, 'a': params['a'].at[0, 0].set(jnp.nan)})
  with pytest.raises(ValueError, match="'a' is NaN since step 1, when one of its scores was"):
    prunejax.check_pruned(landed, state)
  with pytest.raises(
    ValueError, match="mask of shape .4, 6. for 'a', and params have no such leaf"
  ):
    prunejax.check_pruned({'b': params['b']}, state)


def test_who_pays_has_no_cutoff_for_per_output():
  rows = who_pays.who_pays(
    {'w': jnp.array([[1.0, 10], [2, 20], [3, 30], [4, 40]])},
    prunejax.magnitude(),
    0.5,
    allocation=prunejax.per_output(),
  )
  assert rows[0].cutoff is None and rows[0].got == 0.5


def test_a_class_cannot_ask_for_more_than_the_structure_removes():
  tx = prunejax.prune_transform(
    prunejax.magnitude(),
    prunejax.constant(0.5),
    structure=prunejax.n_m(2, 4),
    allocation=prunejax.by_class({'.*': 0.9}),
  )
  with pytest.raises(ValueError, match='asks for 0.9, but this structure can remove at most 0.5'):
    tx.init({'w': jnp.ones((4, 8))})


@pytest.mark.parametrize(
  'make',
  [
    lambda: prunejax.by_class({'.*': np.float32(90)}),
    lambda: prunejax.above(np.float32('nan')),
    lambda: proximal.soft_threshold(np.float32(-1)),
  ],
)
def test_numpy_numbers_are_checked_too(make):
  with pytest.raises(ValueError):
    make()


def test_a_cut_off_may_be_a_jax_array():
  kept = prunejax.select_masks(
    {'w': jnp.array([0.05, 0.2])}, 0.5, allocation=prunejax.above(jnp.float32(0.1))
  )
  assert kept['w'].tolist() == [False, True]


def test_masks_are_of_floating_point_leaves():
  params = {'ids': jnp.arange(3), 'w': jnp.array([0.0, 1.0])}
  found = masks.from_zeros(params)
  assert found['ids'].tolist() == [True] * 3 and found['w'].tolist() == [False, True]
  assert masks.sparsity(params)['weights'] == 2
  value, slope = jax.value_and_grad(
    lambda p: masks.straight_through(p, {'w': jnp.array([False, True])})['w'].sum()
  )({'w': jnp.array([jnp.inf, 1.0])})
  assert value == 1.0 and np.isfinite(slope['w']).all()


def test_an_allocation_may_name_a_leaf_by_itself():
  params = {'a': jnp.arange(1.0, 7).reshape(2, 3), 'b': jnp.arange(1.0, 5)}
  halves = prunejax.Allocation(
    lambda units, sparsity: {name: jnp.int32(s.size // 2) for name, s in units.scores.items()}
  )
  kept = prunejax.select_masks(params, 0.1, allocation=halves)
  assert {name: int(mask.sum()) for name, mask in kept.items()} == {'a': 3, 'b': 2}
  layers = prunejax.Allocation(lambda units, sparsity: {'a': jnp.array([1, 2]), 'b': jnp.int32(4)})
  kept = prunejax.select_masks(params, 0.1, allocation=layers, stacked=['a'])
  assert kept['a'].sum(1).tolist() == [1, 2] and kept['b'].all()

"""Laws of every criterion, allocation, structure and schedule, against numpy twins (`cases.py`)."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.pruning import counts, scores_to_masks, selection
from prunejax.pruning.paths import named_leaves
from prunejax.train import specs

SPARSITIES = (0.0, 0.1, 0.35, 0.5)
# Every factor with the plain ones, and some unusual pairs.
PAIRS = (
  [(a, 'unstructured') for a in cases.ALL_ALLOCATIONS]
  + [('uniform', s) for s in cases.STRUCTURES if s != 'unstructured']
  + [('global_threshold', 'n_m'), ('erk', 'block')]
)


def tree(seed=0):
  rng = np.random.default_rng(seed)
  # Two deviations, so that a global threshold does not fall everywhere alike; eighths, so that sums
  # are exact and ties common.
  return {
    'attention/kernel': (rng.integers(-40, 40, (12, 8)) / 8).astype(np.float32),
    'mlp/kernel': (rng.integers(-20, 20, (8, 22)) / 8).astype(np.float32),
  }


@pytest.mark.parametrize('module', cases.TABLES, ids=lambda module: module.__name__.split('.')[-1])
def test_every_public_factory_has_a_case(module):
  assert set(specs.factories(module)) == set(cases.TABLES[module])


@pytest.mark.parametrize('pair', PAIRS, ids='-'.join)
def test_masks_match_the_oracle_are_exact_and_nest(pair):
  which, together = pair
  allocation, structure = cases.ALL_ALLOCATIONS[which].make(), cases.STRUCTURES[together].make()
  scores = {name: np.abs(w) for name, w in tree().items()}
  shapes = {name: score.shape for name, score in scores.items()}

  @jax.jit
  def select(scores, sparsity):
    selected = scores_to_masks.select(selection.plain(scores), sparsity, allocation, structure)
    keep = {name: jnp.sum(kept) for name, kept in selected.units.items()}
    return structure.pool(scores), keep, selected.masks

  expected_units = {name: cases.pooled(together, score) for name, score in scores.items()}
  before = None
  for sparsity in SPARSITIES:
    units, keep, masks = select(scores, jnp.float32(sparsity))
    for name, unit in units.items():
      np.testing.assert_array_equal(np.ravel(unit), np.float32(expected_units[name]))
    asked = min(1, sparsity / structure.cost)
    expected = cases.ALL_ALLOCATIONS[which].oracle(expected_units, shapes, asked)
    assert {name: int(k) for name, k in keep.items()} == expected
    for name, score in scores.items():
      stays = np.zeros(expected_units[name].size, bool)
      stays[np.argsort(-expected_units[name], kind='stable')[: expected[name]]] = True
      np.testing.assert_array_equal(masks[name], cases.opened(together, stays, score))
      if before is not None:
        assert not np.any(masks[name] & ~before[name]), 'raising sparsity revived a weight'
    before = masks
  assert select._cache_size() == 1, 'one compile for all sparsities'


@pytest.mark.parametrize('name', cases.ALL_CRITERIA)
def test_criterion_matches_its_oracle(name):
  case, rng = cases.ALL_CRITERIA[name], np.random.default_rng(1)
  criterion = case.make()
  params = {'a': {'kernel': tree()['attention/kernel']}, 'b': {'kernel': tree()['mlp/kernel']}}
  grads = [
    jax.tree.map(lambda w: rng.normal(size=w.shape).astype(np.float32), params) for _ in range(3)
  ]
  extra = case.extra(params) if case.extra else {}
  update = jax.jit(lambda state, params, **given: criterion.update(state, params, **given, **extra))
  score = jax.jit(lambda state, params, **given: criterion.score(state, params, **given, **extra))
  state = criterion.init(jax.tree.map(jnp.asarray, params))
  for step, grad in enumerate(grads):
    state = update(state, params, grad=grad, step=step)
  scores = score(state, params, grad=grads[-1], step=2)
  expected = case.oracle(named_leaves(params), [named_leaves(g) for g in grads], **extra)
  for path, score in named_leaves(scores).items():
    assert score.shape == expected[path].shape
    np.testing.assert_allclose(
      score, expected[path], rtol=case.rtol, atol=0 if name != 'movement' else 1e-6
    )


def hidden_of(params, x):
  return jnp.tanh(x @ params['a']['kernel'].astype(jnp.float32) + params['a']['bias'][None])


def linear_loss(params, x):
  return jnp.mean((hidden_of(params, x) @ params['b']['kernel'].astype(jnp.float32)) ** 2)


def told(x):
  """Every extra argument that a criterion may need."""
  return {
    'value_fn': lambda params: linear_loss(params, x),
    'examples': (
      len(x),
      lambda params, i: linear_loss(params, jax.lax.dynamic_slice_in_dim(x, i, 1)),
    ),
    'activations': lambda params: {'a/kernel': x, 'b/kernel': hidden_of(params, x)},
  }


# Each criterion, allocation and structure is in at least one product.
RECIPES = [
  ('magnitude', 'uniform', 'unstructured'),
  ('magnitude', 'class_distribution', 'unstructured'),
  ('magnitude', 'by_class', 'columns'),
  ('random', 'erk', 'block'),
  ('taylor', 'global_threshold', 'n_m'),
  ('movement', 'uniform', 'rows'),
  ('sparsegpt', 'uniform', 'n_m'),
  ('block_fisher', 'global_threshold', 'unstructured'),
  ('obd', 'uniform', 'unstructured'),
  ('obs', 'global_threshold', 'unstructured'),
]


@pytest.mark.parametrize('recipe', RECIPES, ids='-'.join)
def test_pruned_weights_are_zero_after_every_step_and_the_target_is_reached(recipe):
  criterion, which, together = recipe
  tables = (cases.ALL_CRITERIA[criterion], cases.ALL_ALLOCATIONS[which], cases.STRUCTURES[together])
  criterion, allocation, structure = (case.make() for case in tables)
  if which == 'by_class':
    allocation = prunejax.by_class({r'a/.*': 0.25, r'b/.*': 0.5})
  if which == 'class_distribution':
    allocation = prunejax.class_distribution()
  rng = np.random.default_rng(2)
  params = {
    'a': {'kernel': jnp.asarray(rng.normal(size=(12, 8)), jnp.float32), 'bias': jnp.ones(8)},
    'b': {'kernel': jnp.asarray(rng.normal(size=(8, 10)), jnp.bfloat16)},
  }
  # Neither 5 nor 2 divides 7, and the last mask step must still be at the end.
  link = prunejax.prune_transform(
    criterion,
    prunejax.cubic(0.5, begin=1, end=7),
    prunejax.every(5, begin=2),
    allocation=allocation,
    structure=structure,
    where=r'.*/kernel',
  )
  tx = optax.chain(optax.sgd(0.1, momentum=0.9), link)

  @jax.jit
  def step(params, state, x):
    grad = jax.grad(linear_loss)(params, x)
    updates, state = tx.update(grad, state, params, grad=grad, **told(x))
    return optax.apply_updates(params, updates), state

  state = tx.init(params)
  before = jax.tree.structure(state), jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
  for t in range(9):
    params, state = step(params, state, rng.normal(size=(4, 12)).astype(np.float32))
    masks = named_leaves(prunejax.get_masks(state, params))
    for name, p in named_leaves(params).items():
      gone = np.asarray(p, np.float32)[~np.asarray(masks[name])]
      assert not gone.any() and not np.signbit(gone).any(), (t, name)
    assert np.all(params['a']['bias'] != 0)
    if t < 2:
      assert prunejax.masks.sparsity(masks)['removed'] == 0
  assert (
    jax.tree.structure(state),
    jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state),
  ) == before
  assert step._cache_size() == 1
  stays, units = {}, {}
  for name in ('a/kernel', 'b/kernel'):
    numbers = cases.STRUCTURES[together].oracle(masks[name].shape)
    whole = [bool(masks[name][numbers == i].all()) for i in range(numbers.max() + 1)]
    stays[name], units[name] = sum(whole), np.zeros(len(whole))
  asked = min(1, 0.5 / structure.cost)
  shapes = {name: masks[name].shape for name in units}
  if which == 'by_class':
    assert stays == {
      name: cases.kept(units[name].size, s) for name, s in zip(units, (0.25, 0.5), strict=True)
    }
  elif which in ('uniform', 'erk'):
    assert stays == cases.ALLOCATIONS[which].oracle(units, shapes, asked)
  else:
    assert sum(stays.values()) == cases.kept(sum(unit.size for unit in units.values()), asked)


@pytest.mark.parametrize(
  'sizes', [[1], [10, 85_000_001, 110_000_003, 2**31 - 1], [3 * 2**31, 10**13 + 7]]
)
def test_counts_are_exact_at_any_size(sizes):
  count = jax.jit(counts.kept, static_argnums=0)
  for sparsity in (0.0, 0.1, 0.3, 1 / 3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999999):
    kept = count(tuple(sizes), jnp.float32(sparsity))
    got = [int(hi) * 65536 + int(lo) for hi, lo in zip(*kept, strict=True)]
    assert got == [cases.kept(size, round(sparsity, 7)) for size in sizes], sparsity

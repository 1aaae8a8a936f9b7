"""Weights that are pruned already when a link starts count, rank below all others, and stay."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax import masks as masks_of

RNG = np.random.default_rng(3)
SHAPES = {'a': (16, 12), 'b': (12, 8)}
DENSE = {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
GRADS = [
  {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
  for _ in range(8)
]
X = {
  name: jnp.asarray(RNG.normal(size=(20, shape[0])), jnp.float32) for name, shape in SHAPES.items()
}
LOSS = lambda p, i: sum(jnp.sum(jnp.tanh(X[name][i] @ p[name])) for name in p)
ARGUMENTS = {
  'value_fn': lambda p: LOSS(p, slice(None)),
  'examples': (20, LOSS),
  'outputs': (20, lambda p, i: jnp.concatenate([X[name][i] @ p[name] for name in p])),
  'activations': lambda p: X,
}
CRITERIA = {
  'magnitude': prunejax.magnitude,
  'deviations': lambda: prunejax.pruning.criteria.deviations(),
  'random': lambda: prunejax.random(5),
  'taylor': prunejax.taylor,
  'snip': prunejax.snip,
  'movement': prunejax.movement,
  'soft_movement': lambda: prunejax.soft_movement(1e-3),
  'platon': prunejax.platon,
  'obd': prunejax.obd,
  'obs': lambda: prunejax.obs(alpha=1e-2),
  'block_fisher': lambda: prunejax.block_fisher(4, damp=0.1),
  'wanda': prunejax.wanda,
  'sparsegpt': prunejax.sparsegpt,
  'gradient': lambda: prunejax.pruning.criteria.gradient(),
  'noise': lambda: prunejax.pruning.criteria.noise(),
  'negative': lambda: prunejax.pruning.criteria.weights.stateless(
    lambda p, **_: jax.tree.map(lambda w: -1 - jnp.abs(w), p)
  ),
}
TWICE = prunejax.staircase(0.5, 0.75, steps=2, jumps=1)
PRODUCTS = {
  'uniform': {},
  'global': {'allocation': prunejax.global_threshold()},
  'per_output': {'allocation': prunejax.per_output()},
  'class_uniform': {'allocation': prunejax.class_uniform(['a', 'b'])},
  'class_distribution': {'allocation': prunejax.class_distribution()},
}
STRUCTURES = {
  'n_m': prunejax.n_m(1, 4),
  'block': prunejax.block(4, 1),
  'rows': prunejax.rows(),
  'columns': prunejax.columns(),
  'tied': prunejax.tied({'a': ('unit', -1, 1), 'b': ('unit', -2, 1)}),
}


def products(table):
  """Every member of a table with a signed, a plain and a negative score; all but one are slow."""
  signs = ('movement', 'random', 'negative')
  return [
    pytest.param(name, sign, marks=() if j == i % len(signs) else pytest.mark.slow)
    for i, name in enumerate(table)
    for j, sign in enumerate(signs)
  ]


@functools.cache
def zeroed(structure=None, sparsity=0.5, seed=9):
  """Weights pruned at random, by the units of a structure."""
  scores = {
    name: jnp.asarray(np.random.default_rng(seed).random(w.shape), jnp.float32)
    for name, w in DENSE.items()
  }
  kept = prunejax.select_masks(scores, sparsity, structure=structure)
  return {name: jnp.where(kept[name], w, 0) for name, w in DENSE.items()}, kept


def run(params, schedule, criterion, steps=6, **how):
  """Params and state after some steps of Adam, and the sparsity after each step."""
  tx = optax.chain(optax.adam(1e-2), prunejax.prune_transform(criterion, schedule, **how))
  state, sparsities = tx.init(params), []

  @jax.jit
  def step(params, state, grad):
    updates, state = tx.update(grad, state, params, grad=grad, **ARGUMENTS)
    return optax.apply_updates(params, updates), state

  for t in range(steps):
    params, state = step(params, state, GRADS[t])
    sparsities.append(masks_of.sparsity(params)['total'])
  assert not prunejax.faults(state)
  prunejax.check_pruned(params, state)
  return params, state, sparsities


# Criteria of one kind, with a state, that move survivors or that need an argument; others are slow.
FEW = ('magnitude', 'random', 'movement', 'block_fisher', 'obs', 'wanda', 'sparsegpt', 'negative')


@pytest.mark.parametrize(
  'name', [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in CRITERIA]
)
def test_zeros_count_and_rank_below_all_others_for_every_criterion(name):
  params, kept = zeroed()
  after, state, sparsities = run(params, TWICE, CRITERIA[name](), steps=4, masks='zeros')
  assert sparsities == [0.5, 0.5, 0.75, 0.75], 'no survivor was dropped for a dead weight'
  assert masks_of.nested(prunejax.get_masks(state, after), kept)


@pytest.mark.parametrize('name, criterion', products(PRODUCTS))
def test_zeros_count_under_every_allocation(name, criterion):
  params, kept = zeroed()
  criterion = CRITERIA[criterion]()
  after, state, sparsities = run(params, TWICE, criterion, 4, masks='zeros', **PRODUCTS[name])
  assert masks_of.nested(prunejax.get_masks(state, after), kept)
  if name != 'per_output':  # zeros at random leave some outputs sparser than asked
    assert sparsities == [0.5, 0.5, 0.75, 0.75]


@pytest.mark.parametrize('name, criterion', products(STRUCTURES))
def test_units_that_are_gone_count_under_every_structure(name, criterion):
  structure = STRUCTURES[name]
  params, kept = zeroed(structure)
  done = masks_of.sparsity(params)['total']
  criterion = CRITERIA[criterion]()
  after, state, sparsities = run(params, TWICE, criterion, 4, masks='zeros', structure=structure)
  assert masks_of.nested(prunejax.get_masks(state, after), kept)
  assert sparsities[:2] == [done, done] and sparsities[2] == sparsities[3]
  assert abs(sparsities[3] - 0.75) < 0.05


def test_units_that_are_gone_in_part_keep_their_zeros_and_go_by_what_is_left():
  """The zeros of a unit add nothing to its score, and come back with no unit."""
  scores = {'w': jnp.array([[-3.0, -1], [-1, -9], [-2, -2], [-2, -2]])}
  params = {'w': jnp.array([[1.0, 1], [1, 0], [1, 1], [1, 1]])}
  criterion = prunejax.pruning.criteria.weights.stateless(lambda p, **_: scores)
  tx = prunejax.prune_transform(
    criterion, prunejax.constant(0.25), structure=prunejax.block(2, 1), masks='zeros'
  )
  _, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
  # The means are -2, -0.5 (the -9 is dead), -2, -2: one unit goes, the last of the equal ones.
  kept = np.array([[1, 1], [1, 0], [1, 0], [1, 0]], bool)
  np.testing.assert_array_equal(state.prune_mask['w'], kept)


@pytest.mark.parametrize('name', ['rigl', pytest.param('sparse_evolution', marks=pytest.mark.slow)])
def test_drop_and_regrow_starts_from_the_masks_and_moves_them(name):
  params, kept = zeroed(sparsity=0.8)
  criterion = getattr(prunejax, name)
  ramp = prunejax.cubic(0.8, end=4)
  moved, state, sparsities = run(params, ramp, criterion(), masks='zeros')
  assert sparsities == [masks_of.sparsity(kept)['total']] * 6, 'not dense while the ramp is low'
  assert not masks_of.nested(prunejax.get_masks(state, moved), kept)
  held, state, sparsities = run(params, ramp, criterion(), masks='zeros', hold=True)
  assert masks_of.nested(prunejax.get_masks(state, held), kept)
  assert sparsities == [masks_of.sparsity(kept)['total']] * 6


def test_a_schedule_that_falls_brings_them_back_last_unless_they_are_held():
  params, kept = zeroed()
  cycle = prunejax.cycle(0.5, steps=1, begin=0, end=4)
  _, state, sparsities = run(params, cycle, prunejax.magnitude(), steps=2, masks='zeros')
  assert sparsities[0] == 0.5 and masks_of.sparsity(state[1].prune_mask)['total'] == 0
  assert not any(map(np.any, jax.tree.leaves(state[1].prune_before))), 'they are like any other now'
  _, state, sparsities = run(params, cycle, prunejax.magnitude(), masks='zeros', hold=True)
  assert sparsities == [0.5] * 6 and masks_of.nested(state[1].prune_mask, kept)


def test_masks_are_accepted_as_the_start():
  _, kept = zeroed()
  after, state, sparsities = run(DENSE, prunejax.constant(0.5), prunejax.movement(), masks=kept)
  jax.tree.map(np.testing.assert_array_equal, prunejax.get_masks(state, after), kept)
  assert sparsities == [0.5] * 6
  # Masks apply before the first move.
  when = prunejax.every(10, begin=3)
  _, _, sparsities = run(DENSE, prunejax.constant(0.75), prunejax.movement(), when=when, masks=kept)
  assert sparsities == [0.5] * 3 + [0.75] * 3


def test_eval_shape_and_a_state_of_another_start():
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), masks='zeros')
  plain = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5))
  params, _ = zeroed()
  shapes = jax.eval_shape(link.init, params)
  state = link.init(params)
  same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, shapes, state)
  assert all(jax.tree.leaves(same))
  with pytest.raises(ValueError, match="'a' has a shape but no values"):
    link.init(shapes_of(params))
  for one, other, was in ((link, plain, 'without'), (plain, link, 'with')):
    with pytest.raises(ValueError, match=f'made by a link {was} masks=, unlike this one'):
      one.update(params, other.init(params), params)


def shapes_of(params):
  return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)


WRONG = {
  'a word': ('ones', r"masks='ones'; accepted: 'zeros'"),
  'a leaf short': ({'a': DENSE['a'] != 0}, "masks= has no leaf 'b'"),
  'numbers': (DENSE, "masks= has float32 for 'a'; bool is needed"),
  'a shape': ({'a': jnp.ones((2, 2), bool), 'b': DENSE['b'] != 0}, r'masks= has shape \(2, 2\)'),
}


@pytest.mark.parametrize('name', WRONG)
def test_wrong_masks_are_named(name):
  given, message = WRONG[name]
  link = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), masks=given)
  with pytest.raises(ValueError, match=message):
    link.init(DENSE)
  with pytest.raises(ValueError, match='hold=True holds what masks= prunes'):
    prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), hold=True)


def test_who_pays_says_what_is_pruned_already():
  params, kept = zeroed()
  for given in ('zeros', kept):
    rows = prunejax.who_pays(params, prunejax.random(1), 0.75, masks=given)
    assert [row.before for row in rows] == [96, 48, 144] and rows[-1].got == 0.75
  after, _, _ = run(params, prunejax.constant(0.75), prunejax.random(1), masks='zeros')
  assert [row.kept for row in rows] == [int((after[n] != 0).sum()) for n in 'ab'] + [72]
  text = prunejax.format_report(rows)
  assert 'pruned already' in text and text.splitlines()[1].endswith('96')
  plain = prunejax.format_report(prunejax.who_pays(params, prunejax.random(1), 0.75))
  assert 'pruned already' not in plain


def test_a_step_that_donates_its_state_leaves_the_given_masks_alone():
  given = {name: jnp.asarray(x > 0) for name, x in DENSE.items()}
  tx = prunejax.prune_transform(prunejax.magnitude(), prunejax.constant(0.5), masks=given)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, grads):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  for _ in range(2):  # a second run starts from the same masks
    params = jax.tree.map(jnp.copy, DENSE)
    step(params, tx.init(params), GRADS[0])
  assert not any(mask.is_deleted() for mask in given.values())

"""The approximate cut-off of the first TensorFlow library: its memory and its error."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.pruning.allocations import histogram
from prunejax.pruning.paths import named_leaves

SHAPES = {'a': (40, 30), 'b': (25, 16)}


def masks_over_time(weights, sparsity, moves, *, decay, bins=256, stacked='', noise=None):
  """Masks and cut-offs after each of `moves` mask steps; each adds `noise` to the weights."""
  link = prunejax.prune_transform(
    prunejax.magnitude(),
    prunejax.constant(sparsity),
    allocation=histogram(bins, decay),
    stacked=stacked,
    zero_pruned=False,
  )
  step = jax.jit(lambda updates, state, params: link.update(updates, state, params))
  state, seen = link.init(weights), []
  for t in range(moves):
    _, state = step(jax.tree.map(jnp.zeros_like, weights), state, weights)
    seen.append(
      (named_leaves(prunejax.get_masks(state, weights)), cuts_of(state, list(weights), stacked))
    )
    if noise is not None:
      weights = {name: w + noise[name][t] for name, w in weights.items()}
  return seen


def cuts_of(state, names, stacked=''):
  """The smoothed cut-off of each leaf, or of each layer of a stacked one."""
  cuts = state.prune_criterion.histogram_cuts
  return np.concatenate([cuts[name] if stacked else cuts[name][:1] for name in names])


def test_the_cut_is_smoothed_over_the_moves_as_in_numpy():
  # Eighths up to 32: every weight lies on the edge of a bin, where rounding cannot move it.
  rng = np.random.default_rng(0)
  weights = {
    name: np.clip(rng.normal(0, 60, shape).round(), -250, 250) for name, shape in SHAPES.items()
  }
  noise = {name: rng.integers(-2, 3, (6, *shape)) for name, shape in SHAPES.items()}
  for name in SHAPES:
    weights[name][0, 0], noise[name][:, 0, 0] = 256, 0
  weights, noise = (
    jax.tree.map(lambda w: (w / 8).astype(np.float32), tree) for tree in (weights, noise)
  )
  seen = masks_over_time(weights, 0.6, 6, decay=0.9, noise=noise)
  for i, (name, w) in enumerate(weights.items()):
    cut, now = 0.0, w
    for t, (masks, cuts) in enumerate(seen):
      cut = 0.9 * cut + 0.1 * cases.histogram_cut(np.abs(now), 0.6, 256)
      np.testing.assert_allclose(cuts[i], cut, rtol=1e-5)
      np.testing.assert_array_equal(masks[name], np.abs(now) > np.float32(cuts[i]))
      now = now + noise[name][t]


def test_twenty_moves_fall_short_of_a_cut_that_stands_still():
  rng = np.random.default_rng(1)
  weights = {'w': rng.normal(size=(300, 300)).astype(np.float32)}
  masks, cuts = masks_over_time(weights, 0.5, 20, decay=0.9)[-1]
  whole = cases.histogram_cut(np.abs(weights['w']), 0.5, 256)
  np.testing.assert_allclose(cuts[0] / whole, 1 - 0.9**20, rtol=1e-4)
  assert (
    0.43 < 1 - np.mean(masks['w']) < 0.46
  )  # 44.6 % for a normal distribution, where 50 % were asked


@pytest.mark.parametrize('asked, got', [(0.1, 0.074), (0.5, 0.486), (0.9, 0.887)])
def test_one_outlier_makes_bins_wide(asked, got):
  weights = np.random.default_rng(2).normal(size=(768, 768)).astype(np.float32)
  weights[0, 0] = 24.0
  masks = prunejax.select_masks({'w': np.abs(weights)}, asked, allocation=histogram(256, 0.0))
  assert abs(1 - float(jnp.mean(masks['w'])) - got) < 0.012


def test_each_slice_of_a_stacked_leaf_has_its_own_cut():
  weights = (
    np.random.default_rng(3).normal(size=(3, 20, 10)).astype(np.float32)
    * np.array([1, 5, 0.2])[:, None, None]
  )
  together, cuts = masks_over_time({'w': jnp.asarray(weights)}, 0.5, 4, decay=0.9, stacked='w')[-1]
  assert cuts.shape == (3,)
  for i in range(3):
    alone, cut = masks_over_time({'w': jnp.asarray(weights[i])}, 0.5, 4, decay=0.9)[-1]
    np.testing.assert_array_equal(together['w'][i], alone['w'])
    np.testing.assert_array_equal(cuts[i], cut[0])


def test_the_memory_is_part_of_the_state_and_moves_only_when_masks_do():
  params = {'w': jnp.asarray(np.random.default_rng(4).normal(size=(20, 20)), jnp.float32)}
  link = prunejax.prune_transform(
    prunejax.magnitude(), prunejax.constant(0.5), prunejax.every(3), allocation=histogram()
  )
  tx = optax.chain(optax.sgd(0.0), link)
  step = jax.jit(
    lambda params, state: tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
  )
  state, cuts = tx.init(params), []
  for _ in range(7):
    _, state = step(params, state)
    cuts.append(float(cuts_of(state[-1], ['w'])[0]))
  assert cuts[0] == cuts[1] == cuts[2] > 0 and cuts[3] == cuts[5] > cuts[2] and cuts[6] > cuts[5]
  assert step._cache_size() == 1


def test_a_criterion_that_moves_the_survivors_does_so_under_a_memory():
  weights = {'w': jnp.asarray(np.random.default_rng(5).normal(size=(8, 6)), jnp.float32)}
  directions = jnp.asarray(np.random.default_rng(6).normal(size=(3, 48)), jnp.float32)
  examples = 3, lambda params, i: (directions[i] @ params['w'].ravel()) ** 2

  def link(decay, **more):
    return prunejax.prune_transform(
      prunejax.obs(), prunejax.constant(0.5), allocation=histogram(16, decay), **more
    )

  def updates_of(decay):
    tx = link(decay)
    return tx.update({'w': jnp.zeros((8, 6))}, tx.init(weights), weights, examples=examples)

  updates, state = updates_of(0.5)
  without_memory = prunejax.get_masks(updates_of(0.0)[1], weights)['w']
  kept = prunejax.get_masks(state, weights)['w']
  assert jnp.sum(without_memory) < jnp.sum(kept) < 48
  assert jnp.any(jnp.where(kept, updates['w'], 0) != 0)
  with pytest.raises(ValueError, match='zero_pruned=False'):
    link(0.5, zero_pruned=False)
  assert histogram().with_memory(prunejax.rigl())[0].dense_gradient


@pytest.mark.parametrize('stacked', ['', 'empty'])
def test_a_leaf_without_weights_has_no_cut(stacked):
  weights = {'empty': jnp.zeros((0, 4)), 'w': jnp.asarray([[3.0, 2.9, 0.1]])}
  (_, _), (masks, _) = masks_over_time(weights, 0.5, 2, decay=0.5, stacked=stacked)
  assert masks['empty'].shape == (0, 4) and masks['w'].tolist() == [[True, True, False]]


@pytest.mark.parametrize(
  'wrong', [dict(bins=1), dict(bins=2.5), dict(bins=1 << 17), dict(decay=1.0), dict(decay=-0.1)]
)
def test_bad_arguments_are_refused(wrong):
  with pytest.raises(
    ValueError, match=f'histogram: {next(iter(wrong))}={next(iter(wrong.values()))}'
  ):
    histogram(**wrong)


@pytest.mark.parametrize('decay', [0.0, 0.9])
def test_weights_that_are_pruned_already_change_little(decay):
  w = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
  w[:8] = 0
  totals = {}
  for masks in (None, 'zeros'):
    link = prunejax.prune_transform(
      prunejax.magnitude(),
      prunejax.cubic(0.8, end=30),
      prunejax.every(1),
      allocation=histogram(decay=decay),
      masks=masks,
    )
    params, step = {'w': jnp.asarray(w)}, jax.jit(link.update)
    state = link.init(params)
    for _ in range(60):
      updates, state = step(jax.tree.map(jnp.zeros_like, params), state, params)
      params = optax.apply_updates(params, updates)
    totals[masks] = prunejax.masks.sparsity(prunejax.get_masks(state, params))['total']
    assert not prunejax.faults(state)
  assert totals['zeros'] == pytest.approx(totals[None], abs=0.01) and totals[None] > 0.77

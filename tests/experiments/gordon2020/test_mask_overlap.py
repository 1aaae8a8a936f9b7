"""Masks against masks, by counting weights one by one and by drawing many masks."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prunejax
from experiments.gordon2020.analysis import mask_overlap


def drawn(seed, shape=(7, 9), share=0.5):
  return np.random.default_rng(seed).random(shape) < share


def test_difference_counts_every_entry():
  a, b = {'x': drawn(0), 'y': drawn(1, (3, 5))}, {'x': drawn(2), 'y': drawn(3, (3, 5))}
  count = sum(
    bool(p) != bool(q) for path in a for p, q in zip(a[path].flat, b[path].flat, strict=True)
  )
  assert mask_overlap.difference(a, b) == count / (63 + 15)
  assert (
    mask_overlap.difference(a, a) == 0
    and mask_overlap.difference(a, {k: ~v for k, v in a.items()}) == 1
  )
  assert mask_overlap.differing(a, b)['y'][1] == 15


@pytest.mark.parametrize(
  'size, first, second', [(6, 3, 2), (5, 5, 2), (7, 0, 3), (4, 4, 4), (1, 1, 1)]
)
def test_chance_is_that_of_all_possible_masks(size, first, second):
  fixed = set(range(first))
  common = [len(fixed & set(chosen)) for chosen in itertools.combinations(range(size), second)]
  mean, variance = mask_overlap.chance(size, first, second)
  assert mean == pytest.approx(np.mean(common)) and variance == pytest.approx(
    np.var(common), abs=1e-12
  )


def test_common_sums_matrices_and_judges_against_chance():
  a, b = {'x': drawn(0), 'y': drawn(1, (4, 5), 0.2)}, {'x': drawn(2), 'y': drawn(3, (4, 5), 0.7)}
  got, parts = mask_overlap.common(a, b), mask_overlap.by_matrix(a, b)
  assert (
    got.observed
    == sum(int((a[p] & b[p]).sum()) for p in a)
    == sum(part.observed for part in parts.values())
  )
  assert got.either == sum(int((a[p] | b[p]).sum()) for p in a)
  assert got.jaccard == got.observed / got.either and got.ratio == pytest.approx(
    got.observed / got.expected
  )
  assert got.expected == pytest.approx(sum(a[p].sum() * b[p].sum() / a[p].size for p in a))
  assert got.sd == pytest.approx(math.sqrt(sum(part.sd**2 for part in parts.values())))
  assert got.z == pytest.approx((got.observed - got.expected) / got.sd)


def test_random_masks_lie_within_chance_and_equal_ones_far_above():
  rng = np.random.default_rng(0)
  z = []
  for _ in range(200):
    a, b = ({'x': rng.permutation(np.arange(600) < 240)} for _ in range(2))
    z.append(mask_overlap.common(a, b).z)
  assert abs(np.mean(z)) < 0.25 and 0.85 < np.std(z) < 1.15
  same = mask_overlap.common(a, a)
  assert (
    same.ratio == pytest.approx(600 / 240) and same.jaccard == same.agreement == 1 and same.z > 20
  )
  inside = {'x': a['x'] & (np.arange(600) % 3 > 0)}
  assert (
    mask_overlap.common(a, inside).agreement == 1
    and mask_overlap.common(a, {'x': ~a['x']}).agreement < 0
  )


def test_where_chance_has_no_choice_there_is_no_z():
  a = {'x': np.ones((3, 3), bool)}
  none = {'x': np.zeros((3, 3), bool)}
  assert math.isnan(mask_overlap.common(a, a).z) and math.isnan(mask_overlap.common(a, a).agreement)
  assert mask_overlap.common(a, a).ratio == 1
  assert (
    math.isnan(mask_overlap.common(none, none).ratio)
    and mask_overlap.common(none, none).jaccard == 1
  )
  assert all(math.isnan(v) for v in mask_overlap.nesting(none, a))


def test_nesting():
  weights = {
    'x': np.random.default_rng(4).normal(size=(30, 20)),
    'y': np.random.default_rng(5).normal(size=50),
  }
  masks = {s: mask_overlap.magnitude(weights, s) for s in (0.2, 0.5, 0.9)}
  assert mask_overlap.nesting(masks[0.9], masks[0.5]) == (1.0, 0.5)
  share, expected = mask_overlap.nesting(masks[0.2], masks[0.5])
  assert share == pytest.approx(0.5 / 0.8) and expected == 0.5


def naive(weights, sparsity):
  """Sorts (|w| descending, position) and keeps the first ones; the number by exact fractions."""
  flat = np.abs(weights).reshape(-1)
  order = sorted(range(flat.size), key=lambda i: (-flat[i], i))
  gone = int(math.floor(flat.size * round(sparsity * 1e7) / 1e7 + 0.5))
  mask = np.zeros(flat.size, bool)
  mask[order[: flat.size - gone]] = True
  return mask.reshape(weights.shape)


@settings(max_examples=60, deadline=None)
@given(
  st.integers(0, 2**31),
  st.integers(1, 60),
  st.sampled_from([0, 0.1, 0.25, 0.3, 0.5, 0.6, 0.9, 1]),
  st.booleans(),
)
def test_magnitude_masks_are_those_of_a_sort(seed, size, sparsity, ties):
  weights = np.random.default_rng(seed).normal(size=size).astype(np.float32)
  weights = np.round(weights) if ties else weights
  assert np.array_equal(
    mask_overlap.magnitude({'w': weights}, sparsity)['w'], naive(weights, sparsity)
  )


@pytest.mark.parametrize('sparsity', [0.37, 0.9])
def test_magnitude_masks_are_those_that_the_optimizer_draws(sparsity):
  rng = np.random.default_rng(0)
  params = {
    'a': rng.normal(size=(13, 17)).astype(np.float32),
    'b': np.round(rng.normal(size=(31, 7)), 1),
  }
  params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
  tx = optax.chain(
    optax.sgd(0.0), prunejax.prune_transform(prunejax.magnitude(), prunejax.one_shot(sparsity))
  )
  state = tx.init(params)
  _, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
  ours = mask_overlap.magnitude(params, sparsity)
  for path, mask in prunejax.get_masks(state, params).items():
    assert np.array_equal(ours[path], np.asarray(mask)), path


def test_kept_is_exact_beyond_float32():
  assert (
    mask_overlap.kept(10**8, 0.9) == 10**7
    and mask_overlap.kept(23_440_896, 0.3) == 23_440_896 - 7_032_269
  )
  assert mask_overlap.kept(5, 0.5) == 2 and mask_overlap.kept(0, 0.5) == 0


def test_from_zeros():
  assert mask_overlap.from_zeros({'x': np.array([0.0, -0.0, 1e-30, -2.0])})['x'].tolist() == [
    False,
    False,
    True,
    True,
  ]


@pytest.mark.parametrize(
  'a, b, words',
  [
    ({'x': drawn(0)}, {'y': drawn(0)}, 'x, y'),
    ({'x': drawn(0)}, {'x': drawn(0, (9, 7))}, 'x: expected two bool arrays of one shape'),
    ({'x': drawn(0)}, {'x': drawn(0).astype(int)}, 'int64'),
  ],
)
def test_unlike_masks_are_refused(a, b, words):
  with pytest.raises(ValueError, match=words):
    mask_overlap.common(a, b)
  with pytest.raises(ValueError, match='from 0 to 1'):
    mask_overlap.magnitude(a, 1.5)

"""Movement, heads, embeddings, features and drift against loops written from the definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.gordon2020.analysis import drift, embeddings, heads, likeness, movement


def rank_by_counting(weights):
  """How many are smaller in magnitude, or as small and earlier."""
  flat = np.abs(weights).reshape(-1)
  return [sum(v < w or v == w and j < i for j, v in enumerate(flat)) for i, w in enumerate(flat)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.booleans())
def test_ranks_are_counts(seed, size, ties):
  weights = np.random.default_rng(seed).normal(size=size)
  weights = np.round(weights) if ties else weights
  assert movement.ranks(weights).tolist() == rank_by_counting(weights)


def test_movement_by_hand():
  # Magnitudes 1 2 3 4 become 4 2 3 1: the ends swap, three places of four.
  assert movement.movement([-1.0, 2, 3, 4], [4.0, -2, 3, 1]).tolist() == [0.75, 0, 0, 0.75]
  assert movement.movement([1.0, 2, 3], [10.0, -20, 30]).tolist() == [0, 0, 0]


def test_measure_pools_and_bins():
  rng = np.random.default_rng(1)
  before = {'a': rng.normal(size=(20, 15)), 'b': rng.normal(size=(8, 25))}
  after = {path: w + 0.3 * rng.normal(size=w.shape) for path, w in before.items()}
  got = movement.measure(before, after, bins=10)
  moved, percentile = [], []
  for path in before:
    start, end = (np.array(rank_by_counting(w)) for w in (before[path], after[path]))
    moved += [np.abs(end - start) / start.size]
    percentile += [start / start.size]
    assert got['matrices'][path] == pytest.approx((moved[-1].mean(), moved[-1].std()))
  moved, percentile = np.concatenate(moved), np.concatenate(percentile)
  assert got['mean'] == pytest.approx(moved.mean()) and got['std'] == pytest.approx(moved.std())
  assert got['weights'] == 500
  for i in range(10):
    inside = (percentile >= i / 10) & (percentile < (i + 1) / 10)
    assert got['by_magnitude'][i] == pytest.approx(moved[inside].mean())
  # The same noise moves small weights past more others than large ones.
  assert got['by_magnitude'][-1] < got['by_magnitude'][3]


def test_a_matrix_smaller_than_the_bins_leaves_gaps():
  got = movement.measure({'a': np.arange(4.0)}, {'a': np.arange(4.0)}, bins=8)['by_magnitude']
  assert np.isnan(got).sum() == 4 and np.nansum(got) == 0


def test_unlike_models_are_refused():
  with pytest.raises(ValueError, match='nothing to measure'):
    movement.movement(np.zeros(3), np.zeros(4))
  with pytest.raises(ValueError, match='b'):
    movement.measure({'a': np.zeros(3)}, {'a': np.zeros(3), 'b': np.zeros(3)})
  with pytest.raises(ValueError, match='a: shape'):
    movement.measure({'a': np.zeros(3)}, {'a': np.zeros(4)})


def test_spread():
  leaf = np.random.default_rng(0).normal(3, 2, (40, 5)).astype(np.float32)
  mean, std = movement.spread({'a': leaf})['a']
  assert mean == pytest.approx(leaf.mean(dtype=float)) and std == pytest.approx(
    leaf.std(dtype=float)
  )


def attention(seed, hidden=12, share=0.6):
  rng = np.random.default_rng(seed)
  return {part: rng.random((hidden, hidden)) < share for part in heads.PARTS}


def test_heads_are_columns_of_three_and_rows_of_the_last():
  layers = [attention(0), attention(1)]
  found = heads.pruned(layers, 3)
  for i, layer in enumerate(layers):
    for h in range(3):
      mine = slice(4 * h, 4 * h + 4)
      weights = [layer[p][:, mine] for p in ('query', 'key', 'value')] + [layer['output'][mine, :]]
      assert found.share[i, h] == pytest.approx(np.mean([1 - w.mean() for w in weights]))
  assert found.expected == pytest.approx(
    1 - np.mean([m for layer in layers for m in layer.values()])
  )
  assert found.share.mean() == pytest.approx(found.expected)


def test_spread_of_heads_under_chance():
  rng, shares, sds = np.random.default_rng(0), [], []
  for _ in range(300):
    layer = {part: rng.permutation(np.arange(144) < 60).reshape(12, 12) for part in heads.PARTS}
    found = heads.pruned([layer], 3)
    shares.append(found.share[0, 0])
    sds.append(found.sd)
  assert np.std(shares) == pytest.approx(sds[0], rel=0.12) and min(sds) == max(sds)


def test_one_head_dies_and_is_seen():
  layer = {part: np.ones((8, 8), bool) for part in heads.PARTS}
  for part in ('query', 'key', 'value'):
    layer[part][:, 2:4] = False
  layer['output'][2:4] = False
  assert heads.pruned([layer], 4).share.tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize(
  'layers, count, words',
  [
    ([], 2, 'no attention layer'),
    ([{'query': np.ones((4, 4), bool)}], 2, "no 'key'"),
    ([attention(0)], 5, '5 heads'),
  ],
)
def test_no_heads_are_refused(layers, count, words):
  with pytest.raises(ValueError, match=words):
    heads.pruned(layers, count)


PIECES = ['[PAD]', '[unused1]', 'the', 'a', '##ing', '##s', '[', 'cat', '##']


def test_kinds_and_lengths_of_pieces():
  of = embeddings.kinds(PIECES)
  assert [PIECES[i] for i in np.flatnonzero(of['special'])] == ['[PAD]', '[unused1]']
  assert [PIECES[i] for i in np.flatnonzero(of['inner pieces'])] == ['##ing', '##s', '##']
  assert sum(mask.astype(int) for mask in of.values()).tolist() == [1] * len(PIECES)
  bpe = embeddings.kinds(['<|endoftext|>', '\u0120the', 'ing', '!', '\u0120'])
  assert [mask.tolist() for mask in bpe.values()] == [
    [0, 1, 0, 0, 1],
    [0, 0, 1, 1, 0],
    [1, 0, 0, 0, 0],
  ]
  assert embeddings.lengths(['\u0120the', 'ing']).tolist() == [3, 3]
  assert embeddings.lengths(PIECES, 4).tolist() == [4, 4, 3, 1, 3, 1, 1, 3, 0]


def test_pruned_embeddings_by_kind_length_and_dimension():
  mask = np.random.default_rng(0).random((len(PIECES), 6)) < 0.5
  by_kind = embeddings.pruned_by_kind(mask, PIECES)
  assert by_kind['inner pieces'] == (pytest.approx(1 - mask[[4, 5, 8]].mean()), 3)
  by_length = embeddings.pruned_by_length(mask, PIECES)
  assert by_length[3] == (
    pytest.approx(1 - mask[[2, 7]].mean()),
    pytest.approx(1 - mask[[4]].mean()),
  )
  assert 2 not in by_length
  shares, sd = embeddings.pruned_by_dimension(mask)
  assert shares == pytest.approx(np.sort(1 - mask.mean(0))) and 0 < sd < 0.3
  with pytest.raises(ValueError, match='does not fit'):
    embeddings.pruned_by_kind(mask[:5], PIECES)


def test_spread_of_dimensions_under_chance():
  rng, first = np.random.default_rng(0), []
  for _ in range(300):
    mask = rng.permutation(np.arange(20 * 6) < 70).reshape(20, 6)
    first.append(1 - mask[:, 0].mean())
  assert np.std(first) == pytest.approx(embeddings.pruned_by_dimension(mask)[1], rel=0.12)


def test_heat_map_is_block_means():
  table = np.random.default_rng(0).normal(size=(12, 10))
  got = embeddings.heat_map(table, 3, 5)
  assert got.shape == (3, 5) and got[1, 2] == pytest.approx(np.abs(table[4:8, 4:6]).mean())
  assert embeddings.heat_map(table, 100, 100).tolist() == np.abs(table).tolist()
  assert embeddings.heat_map(table, 5, 3).shape == (5, 3)  # blocks of two and three


def test_likeness_is_a_mean_over_valid_tokens():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 3, 4, 5, 6))  # layers, batch, length, hidden
  valid = rng.random((4, 5)) < 0.7
  total = likeness.add(
    likeness.add(None, likeness.likeness(a[:, :2], b[:, :2], valid[:2])),
    likeness.likeness(a[:, 2:], b[:, 2:], valid[2:]),
  )
  mean, sd = likeness.summary(total)
  for layer in range(3):
    each = [
      np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y)
      for x, y, ok in zip(a[layer].reshape(-1, 6), b[layer].reshape(-1, 6), valid.flat, strict=True)
      if ok
    ]
    assert mean[layer] == pytest.approx(np.mean(each)) and sd[layer] == pytest.approx(np.std(each))
  assert total.tokens == valid.sum()


def test_cosine_of_the_same_the_opposite_and_nothing():
  a = np.random.default_rng(0).normal(size=(4, 5))
  assert likeness.cosine(a, 3 * a) == pytest.approx(1) and likeness.cosine(a, -a) == pytest.approx(
    -1
  )
  assert likeness.cosine(a, 0 * a).tolist() == [0] * 4
  with pytest.raises(ValueError, match='cannot be compared'):
    likeness.cosine(a, a[:2])
  with pytest.raises(ValueError, match='no valid token'):
    likeness.summary(None)


COSINES = {0.3: 0.98, 0.5: 0.9, 0.7: 0.7, 0.9: 0.3}
COSTS = {0.3: 0.001, 0.5: -0.004, 0.7: -0.03, 0.9: -0.2}


@pytest.mark.parametrize(
  'threshold, sparsity, cost',
  [
    (0.99, 0.0, 0.0),
    (0.98, 0.3, 0.001),
    (0.8, 0.5, -0.004),
    (0.5, 0.7, -0.03),
    (-1, 0.9, -0.2),
  ],
)
def test_where_drift_stops(threshold, sparsity, cost):
  assert drift.stop(COSINES, COSTS, threshold) == (threshold, sparsity, cost)


def test_the_first_fall_counts():
  wavy = {0.3: 0.9, 0.5: 0.95, 0.7: 0.6}
  assert drift.stop(wavy, {}, 0.92).sparsity == 0.0 and math.isnan(drift.stop(wavy, {}, 0.8).cost)
  assert drift.free_until({0.3: -0.02, 0.5: 0.0}) == 0.0 and math.isnan(drift.free_until({}))
  assert [drift.free_until(COSTS, t) for t in (0.01, 0.5, 0.002)] == [0.5, 0.9, 0.3]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.data())
def test_thresholds_inside_the_window_stop_there_and_no_other_does(values, data):
  cosines = {0.1 * (i + 1): v for i, v in enumerate(values)}
  free = data.draw(st.sampled_from([0.0, *cosines]))
  low, high = drift.window(cosines, free)
  for threshold in (-0.5, low, high, (low + high) / 2, 0.5, *values):
    if 0 <= threshold <= 1:
      assert (drift.stop(cosines, {}, threshold).sparsity == free) == (low < threshold <= high)


def test_no_window_at_a_sparsity_not_measured():
  assert all(math.isnan(v) for v in drift.window(COSINES, 0.4))

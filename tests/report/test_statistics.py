"""Statistics against numpy oracles and known tables."""

import itertools
import math

import numpy as np
import pytest
import synthetic_ledger as synthetic
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prunejax.report import ledger, statistics

floats = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


def test_mean_leaves_out_what_has_no_value():
  assert statistics.mean([1, None, 3, math.nan]) == 2
  assert math.isnan(statistics.mean([]))


@settings(deadline=None, max_examples=30)
@given(floats)
def test_bootstrap_matches_numpy(values):
  picks = np.random.default_rng(3).integers(0, len(values), (500, len(values)))
  means = np.array([np.mean(np.asarray(values)[pick]) for pick in picks])
  got = statistics.bootstrap(values, level=0.9, samples=500, seed=3)
  np.testing.assert_allclose([got.low, got.high], np.percentile(means, [5, 95]), atol=1e-9)
  assert got.mean == pytest.approx(np.mean(values), abs=1e-9) and got.n == len(values)


def test_bootstrap_approaches_every_resample():
  values = [0.0, 1.0, 5.0, 6.0]
  every = [np.mean(pick) for pick in itertools.product(values, repeat=4)]
  got = statistics.bootstrap(values, samples=40_000, seed=1)
  np.testing.assert_allclose([got.low, got.high], np.quantile(every, [0.025, 0.975]), atol=0.26)


def test_bootstrap_is_deterministic_in_its_seed():
  values = np.random.default_rng(0).normal(size=6)
  assert statistics.bootstrap(values, seed=1) == statistics.bootstrap(values, seed=1)
  assert statistics.bootstrap(values, seed=1) != statistics.bootstrap(values, seed=2)


@pytest.mark.parametrize('interval', [statistics.bootstrap, statistics.cautious])
def test_one_value_has_no_interval(interval):
  for values, n in [([], 0), ([0.5], 1), ([0.5, None], 1)]:
    got = interval(values)
    assert got.n == n and math.isnan(got.low) and math.isnan(got.high)


@pytest.mark.parametrize(
  'level, df, t',
  [
    (0.95, 1, 12.7062),
    (0.95, 2, 4.3027),
    (0.95, 3, 3.1824),
    (0.95, 4, 2.7764),
    (0.99, 5, 4.0321),
    (0.9, 7, 1.8946),
    (0.95, 10, 2.2281),
    (0.99, 30, 2.7500),
    (0.95, 120, 1.9799),
    (0.995, 1, 127.3213),
  ],
)
def test_student_matches_the_printed_tables(level, df, t):
  assert statistics.student_quantile(level, df) == pytest.approx(t, abs=6e-5)


@pytest.mark.parametrize('level, df', [(0.95, 0), (1.0, 3), (0.0, 3)])
def test_student_refuses_what_has_no_quantile(level, df):
  with pytest.raises(ValueError, match='df >= 1'):
    statistics.student_quantile(level, df)


@settings(deadline=None, max_examples=30)
@given(floats)
def test_cautious_is_never_narrower_than_either(values):
  got, plain = statistics.cautious(values), statistics.bootstrap(values)
  reach = statistics.student_quantile(0.95, len(values) - 1) * np.std(values, ddof=1)
  assert got.low <= plain.low and got.high >= plain.high
  assert got.high - got.mean >= reach / math.sqrt(len(values)) - 1e-9


def test_cautious_covers_what_it_promises_with_two_seeds():
  rng = np.random.default_rng(0)
  draws = rng.normal(size=(400, 2))
  held = lambda interval: np.mean([e.low <= 0 <= e.high for e in map(interval, draws)])
  assert held(statistics.cautious) > 0.92
  assert held(lambda v: statistics.bootstrap(v, samples=200)) < 0.6  # why verdicts do not use it


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=3, max_size=12))
@example([(0.0, 0.0), (1e-170, 1.0), (0.0, 2.0)])
@example([(3.357510284878681, 0.0)] * 3)
def test_fit_matches_numpy(pairs):
  x, y = np.array(pairs).T
  got = statistics.fit(x, y)
  if np.ptp(x) < 1e-3 or np.ptp(y) < 1e-3:
    assert got.n == len(x)
    return
  slope, intercept = np.polyfit(x, y, 1)
  np.testing.assert_allclose([got.slope, got.intercept], [slope, intercept], rtol=1e-6, atol=1e-6)
  assert got.r == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-7)
  assert got.low <= got.slope <= got.high


def test_slope_interval_holds_the_truth_as_often_as_it_says():
  rng, x = np.random.default_rng(1), np.arange(5.0)
  fits = [statistics.fit(x, 2 * x + rng.normal(size=5)) for _ in range(400)]
  assert 0.92 < np.mean([f.low <= 2 <= f.high for f in fits]) < 0.98


def test_fit_without_a_line():
  assert math.isnan(statistics.fit([1], [2]).slope)
  assert math.isnan(statistics.fit([1, 1], [2, 3]).slope)
  assert math.isnan(statistics.fit([1, 2], [2, 3]).low)
  assert math.isnan(statistics.fit([1, 2, 3], [4, 4, 4]).r)
  assert statistics.fit([1, 2, math.nan], [2, 3, 4]).n == 2
  with pytest.raises(ValueError, match='as many x as y'):
    statistics.fit([1, 2], [1, 2, 3])


def _cell(score, rate, **change):
  made = synthetic.row(
    'finetune',
    'pruned',
    0.5,
    0,
    {'accuracy': score, 'train_loss': 10 * score},
    task='t',
    learning_rate=rate,
  )
  return {**made, **change}


def test_paired_uses_common_keys_only():
  ours, theirs = {('t', 0): 0.5, ('t', 1): 0.6}, {('t', 1): 0.4, ('u', 1): 0.1}
  assert statistics.paired(ours, theirs) == {('t', 1): pytest.approx(0.2)}


def test_rows_of_two_presets_do_not_mix():
  rows = [_cell(0.5, 1e-3), _cell(0.5, 1e-3, preset='mini')]
  with pytest.raises(ValueError, match='several grids.*mini.*quick'):
    ledger.one_grid(rows)


def test_the_intraclass_correlation_is_that_of_the_analysis_of_variance():
  # Shrout & Fleiss 1979, table 2: six targets, four judges; ICC(3, 1) is 0.71 (their table 4).
  ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
  assert round(statistics.intraclass([ratings]), 2) == 0.71
  # Two tables are pooled: the same table twice says the same.
  shifted = [[v + 100 for v in group] for group in ratings]
  assert round(statistics.intraclass([ratings, shifted]), 2) == 0.71
  # What columns differ in does not count.
  assert statistics.intraclass([[[1, 11], [2, 12]]]) == 1.0
  assert statistics.intraclass([[[1, 4], [2, 3]]]) == -1.0
  for nothing in ([], [[[1.0, 2.0]]], [[[1.0], [2.0]]], [[]]):
    assert math.isnan(statistics.intraclass(nothing))

"""Two one-sided tests against scipy's, and the ends of the regimes against known breaks."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.report import equivalence


def one_task(values):
  return {('t', seed): v for seed, v in enumerate(values)}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=6), st.floats(0.001, 0.05))
def test_both_ps_match_scipys_t_tests(values, margin):
  if np.std(values) < 1e-6:
    return
  got = equivalence.test(one_task(values), margin)
  lower = scipy.stats.ttest_1samp(values, -margin, alternative='greater').pvalue
  upper = scipy.stats.ttest_1samp(values, margin, alternative='less').pvalue
  assert got.p_same == pytest.approx(max(lower, upper), abs=1e-9)
  assert got.p_different == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, abs=1e-9)
  interval = scipy.stats.t.interval(0.9, len(values) - 1, np.mean(values), scipy.stats.sem(values))
  np.testing.assert_allclose([got.low, got.high], interval, atol=1e-9)
  if abs(got.p_same - 0.05) > 1e-6:
    assert (got.p_same < 0.05) == (-margin < got.low and got.high < margin)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=6))
def test_a_wider_margin_never_loses_equivalence(values):
  ps = [equivalence.test(one_task(values), margin).p_same for margin in (0.005, 0.01, 0.02, 0.1)]
  assert all(a >= b - 1e-12 for a, b in zip(ps, ps[1:], strict=False))


@pytest.mark.parametrize(
  'values, word',
  [
    ([0.001, -0.001, 0.0], 'as dense'),
    ([-0.05, -0.051, -0.049], 'worse'),
    ([0.05, 0.051, 0.049], 'better'),
    ([-0.05, 0.05, 0.0], 'cannot tell'),
    ([0.0], 'cannot tell'),
    ([], 'cannot tell'),
    ([0.0, 0.0], 'as dense'),
    ([-0.03, -0.03], 'worse'),
  ],
)
def test_words(values, word):
  assert equivalence.test(one_task(values), 0.01).word == word


def test_seeds_that_disagree_are_not_outvoted_by_many_tasks():
  diffs = {(task, seed): 0.02 * (2 * seed - 1) for task in 'abcdefghij' for seed in (0, 1)}
  assert equivalence.test(diffs, 0.021).word == 'cannot tell'
  with pytest.raises(ValueError, match='margin must be above 0'):
    equivalence.test(diffs, 0)


def test_equivalence_is_claimed_wrongly_as_seldom_as_it_says():
  rng = np.random.default_rng(0)
  said = [
    equivalence.test(one_task(0.01 + rng.normal(0, 0.004, 4)), 0.01).p_same < 0.05
    for _ in range(600)
  ]
  assert 0.02 < np.mean(said) < 0.08

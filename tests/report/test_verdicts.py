"""The verdict of several comparisons, and the number that decides it."""

import math

import pytest
from scipy import stats

from prunejax.report import statistics, verdicts
from prunejax.report.verdicts import Comparison

CLEAR, OPEN, AGAINST = [1.0, 1.1, 1.2], [-1.0, 1.1, 1.2], [-1.0, -1.1, -1.2]


@pytest.mark.parametrize('above', [True, False])
@pytest.mark.parametrize('threshold', [0.0, 0.7, 2.0])
@pytest.mark.parametrize('values', [CLEAR, OPEN, AGAINST, [0.5], []])
def test_a_comparison_supports_its_claim_on_one_side(values, threshold, above):
  side = verdicts.side(values, threshold)
  assert verdicts.supports(Comparison('', values, threshold, above)) == (side if above else -side)
  mirrored = Comparison('', [-v for v in values], -threshold, not above)
  assert verdicts.supports(mirrored) == (side if above else -side)


@pytest.mark.parametrize(
  'parts, verdict, decisive',
  [
    ([CLEAR], 'reproduced', 0),
    ([CLEAR, [5.0, 5.1, 5.2]], 'reproduced', 0),  # the nearer to its threshold
    ([CLEAR, OPEN], 'undecided', 1),
    ([OPEN, AGAINST, CLEAR], 'not reproduced', 1),
    ([AGAINST, [-9.0, -9.1, -9.2]], 'not reproduced', 1),
  ],
)
def test_the_least_supported_comparison_decides(parts, verdict, decisive):
  comparisons = [Comparison(f'part {i}', values) for i, values in enumerate(parts)]
  assert verdicts.all_hold(comparisons) == verdict
  number = verdicts.decided_by(comparisons)
  assert number == f'{verdicts.shown(parts[decisive], "+.3f")} part {decisive}'


def test_a_part_that_was_not_measured_leaves_a_claim_undecided_unless_another_refutes_it():
  missing = Comparison('nats at 0.9', [])
  assert verdicts.all_hold([Comparison('', CLEAR), missing]) == 'undecided'
  assert verdicts.decided_by([Comparison('', CLEAR), missing]) == 'not measured: nats at 0.9'
  against = Comparison('nats at 0.5', AGAINST)
  assert verdicts.decided_by([missing, against]).endswith(' nats at 0.5')
  assert verdicts.decided_by([]) == ''


def test_a_number_tells_its_threshold_and_can_be_written_in_another_unit():
  assert verdicts.decided_by([Comparison('points', CLEAR, 0.5)]).endswith(' points, against 0.5')
  times = Comparison('times', [math.log(2)] * 3, math.log(1.5), form='.2f', unit_of=math.exp)
  assert verdicts.decided_by([times]) == '2.00 [2.00, 2.00] times, against 1.5'
  assert verdicts.decided_by([Comparison('points', [0.5])]) == '+0.500, one seed, points'


def test_equal_values_have_an_interval_without_width():
  equal, near = Comparison('equal', [3.0, 3.0]), Comparison('near', [0.1, 0.2, 0.15])
  assert verdicts.decided_by([equal, near]).endswith('near')
  assert verdicts.decided_by([equal._replace(values=[-3.0, -3.0]), near]).endswith('equal')


@pytest.mark.parametrize('count, n', [(0, 5), (5, 5), (30, 30), (7, 20)])
def test_the_interval_of_a_proportion_is_the_exact_one(count, n):
  got = statistics.proportion(count, n)
  assert got.mean == count / n and got.n == n
  # Clopper & Pearson: the tail beyond each end has a probability of 2.5 %.
  if count:
    assert stats.binom.sf(count - 1, n, got.low) == pytest.approx(0.025, abs=1e-6)
  if count < n:
    assert stats.binom.cdf(count, n, got.high) == pytest.approx(0.025, abs=1e-6)
  assert math.isnan(statistics.proportion(0, 0).mean)


def test_a_verdict_without_a_number_says_so():
  verdict = verdicts.Verdict('name', 'Claim.', verdicts.UNDECIDED, 'No rows; nothing else.')
  assert verdicts.deciding(verdict) == 'not measured'
  assert verdicts.deciding(verdict._replace(number='+1.0 points')) == '+1.0 points'

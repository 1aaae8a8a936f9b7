"""The ends of the regimes, and which arms score as well as dense."""

import math

import numpy as np
import pytest
import synthetic_ledger as synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.gordon2020 import paper
from experiments.gordon2020.analysis import as_dense, regimes


def oracle_isotonic(values):
  """Pool adjacent violators, the textbook's way."""
  blocks = []
  for v in values:
    blocks.append([v, 1])
    while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
      (a, n), (b, m) = blocks[-2:]
      blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
  return [v for v, n in blocks for _ in range(n)]


LEVELS = np.linspace(0, 0.9, 10)


def broken(at, slope, seeds, noise, rng):
  """Seeds of a curve that is flat up to a break and rises from there; zero at zero."""
  values = np.maximum(0, LEVELS - at) * slope + noise * rng.normal(size=(seeds, 10))
  return regimes.Curve(LEVELS, values - values[:, :1] * (LEVELS == 0))


def test_the_table_names_every_arm_and_sparsity_and_leaves_strangers_out():
  rows = synthetic.make(sparsities=(0.1, 0.9))
  odd = [{**row, 'arm': 'switch:x'} for row in rows if row['arm'] == 'pruned']
  table = as_dense.table(rows + odd)
  assert [line[1] for line in table.rows] == ['0.1', '0.9'] * 4
  assert {line[-1] for line in table.rows if line[1] == '0.9'} == {'worse'}
  assert table.rows[0][-1] == 'as dense' and '±1 points' in table.note


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-10, 10), min_size=1, max_size=9))
def test_isotonic_is_pooling_of_violators(values):
  np.testing.assert_allclose(regimes.isotonic(values), oracle_isotonic(values), atol=1e-9)
  np.testing.assert_allclose(
    regimes.isotonic([values, values[::-1]])[1], oracle_isotonic(values[::-1]), atol=1e-9
  )


def test_a_known_crossing_lies_within_its_interval_as_often_as_promised():
  rng, truth, hits = np.random.default_rng(0), 0.45 + 0.02 / 0.2, []
  for _ in range(150):
    got = regimes.crossing(broken(0.45, 0.2, 3, 0.004, rng), 0.02, samples=400)
    hits.append(got.low <= truth <= got.high)
    assert got.low <= got.at <= got.high and got.n == 3
  assert np.mean(hits) > 0.9


@settings(deadline=None, max_examples=25)
@given(st.floats(0.1, 0.6), st.integers(0, 100))
def test_a_later_break_and_a_wider_margin_cross_later(at, seed):
  curve = lambda where: broken(where, 0.3, 2, 0.003, np.random.default_rng(seed))
  first = regimes.crossing(curve(at), 0.02, samples=50).at
  assert regimes.crossing(curve(at + 0.1), 0.02, samples=50).at >= first - 1e-12
  assert regimes.crossing(curve(at), 0.03, samples=50).at >= first - 1e-12
  lifted = curve(at)._replace(values=curve(at).values + 0.005 * (LEVELS > 0))
  assert regimes.crossing(lifted, 0.02, samples=50).at <= first + 1e-12


def test_crossings_by_hand():
  line = regimes.Curve(np.array([0.0, 0.5, 1.0]), np.array([[0.0, 0.1, 0.3]]))
  got = regimes.crossing(line, 0.2)
  assert got.at == pytest.approx(0.75) and math.isnan(got.low) and got.n == 1
  assert regimes.crossing(line, 0.05).at == pytest.approx(0.25)
  assert math.isinf(regimes.crossing(line, 0.4).at)
  assert math.isnan(regimes.crossing(regimes.curve({}), 0.1).at)
  with pytest.raises(ValueError, match='margin must be above 0'):
    regimes.crossing(line, 0)


def test_half_a_grid_is_judged_on_what_is_whole():
  rise = {0.3: {0: 0.0, 1: 0.1}, 0.6: {0: 1.0}}
  assert regimes.curve(rise).values.tolist() == [[0.0, 0.0, 1.0]]
  rise = {0.3: {0: 0.0, 1: 0.1}, 0.6: {0: 1.0}, 0.9: {1: 2.0}}
  got = regimes.curve(rise)
  assert got.levels.tolist() == [0.0, 0.3] and got.values.tolist() == [[0.0, 0.0], [0.0, 0.1]]


def test_the_papers_ends_by_hand():
  # AVG of pruned is 87.2, 86.7 at 0.4 and 86.2 at 0.5: one point is gone at 0.5. Loss 1.82, 1.86 at
  # 0.3, 1.93 at 0.4.
  ends = {
    name: regimes.crossing(*pair) for name, pair in regimes.paper_curves(paper.TABLE1).items()
  }
  assert ends['free, score'].at == pytest.approx(0.5, abs=0.03)
  assert ends['free, loss'].at == pytest.approx(0.3 + 0.1 * (0.1 - 0.04) / 0.07)
  assert ends['fit, score'].at == pytest.approx(0.7, abs=0.03)
  assert ends['free, score'].low < ends['free, score'].at < ends['free, score'].high


def test_the_planted_ends_are_found():
  rows = synthetic.make(noise=0.0005, seeds=4)
  got = {name: regimes.crossing(*pair) for name, pair in regimes.curves(rows).items()}
  # 0.12 points a nat: one point is gone 1/12 nat above dense, between 4.05 at 0.3 and 4.1 at 0.4.
  assert got['free, score'].low <= 0.3 + 0.1 * (1 / 12 - 0.05) / 0.05 <= got['free, score'].high
  assert got['free, loss'].at == pytest.approx(0.4, abs=0.01)
  assert got['fit, score'].at == pytest.approx(0.6 + 0.01 / 0.3, abs=0.01)
  table = regimes.table(rows, paper.TABLE1, paper.REGIMES)
  assert [line[-1] for line in table.rows] == ['0.4', '0.4', '0.7', '0.7']
  assert regimes.table([], paper.TABLE1).rows == ()


def test_the_figure_of_the_ends_needs_curves():
  from experiments.gordon2020.analysis import regime_figure

  assert regime_figure.figure(synthetic.make(seeds=1), paper.TABLE1).startswith(b'\x89PNG')
  assert regime_figure.figure([]) is None

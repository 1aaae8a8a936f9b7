"""Optimal Brain Surgeon: networks in one minimum are one unit of replication."""

import pytest

from experiments.hassibi1993 import claims
from prunejax.report import statistics


def network(error, left, train=1.0, test=1.0):
  """Metrics of a planted network of the first of MONK's problems."""
  return {
    'error_dense': error,
    'left': left,
    'train_dense': train,
    'train_left': train,
    'test_dense': test,
    'test_left': test,
  }


def rows_of(networks, method='obs', problem='monks-1'):
  """A ledger of planted networks, a seed each."""
  return [
    {'problem': problem, 'method': method, 'seed': seed, 'metrics': metrics}
    for seed, metrics in enumerate(networks)
  ]


@pytest.mark.parametrize(
  ('errors', 'groups'),
  [
    ((0.00301, 0.00303, 0.00300), [[2, 0, 1]]),
    ((0.0030, 0.0040, 0.00301), [[0, 2], [1]]),
    ((0.5,), [[0]]),
    ((), []),
  ],
)
def test_minima(errors, groups):
  assert claims.minima({s: {'error_dense': e} for s, e in enumerate(errors)}) == groups


@pytest.mark.parametrize(
  ('errors', 'left', 'word'),
  [
    # Five networks of one minimum are one network: they decide nothing.
    ((0.003,) * 5, (10, 10, 10, 10, 10), 'undecided'),
    ((0.003, 0.004, 0.005), (10, 11, 10), 'reproduced'),
    ((0.003, 0.004, 0.005), (30, 31, 30), 'not reproduced'),
    # The mean of a minimum counts once, however many networks are in it.
    ((0.003, 0.003, 0.003, 0.004), (10, 10, 10, 40), 'undecided'),
  ],
)
def test_a_minimum_is_the_unit(errors, left, word):
  networks = [network(e, n) for e, n in zip(errors, left, strict=True)]
  rows = rows_of(networks) + rows_of(networks, 'obs, retrained')
  verdict = claims.claims(rows)[0]
  assert verdict.name == 'monks-1_table' and verdict.verdict == word
  count = len(set(errors))
  # The deciding number names the unit, which is no seed.
  assert (', one minimum, weights left' in verdict.number) == (count == 1)
  assert f'{len(errors)} seeds in {count} {"minimum" if count == 1 else "minima"}' in (
    verdict.evidence
  )


def test_a_network_that_has_not_learned_is_left_out():
  # Three minima were learned; the fourth network's 58 weights would make the claim undecided.
  learned = [network(error, 10) for error in (0.003, 0.004, 0.005)]
  networks = [*learned, network(0.2, 58, train=0.7)]
  verdict = claims.claims(rows_of(networks) + rows_of(networks, 'obs, retrained'))[0]
  assert verdict.verdict == 'reproduced' and '3 seeds in 3 minima' in verdict.evidence


def xor_rows(shares, seeds, decays=(0.0, 1e-5)):
  """A ledger of XOR: {method: how many of the first seeds are right at every decay}."""
  return [
    {
      'problem': 'xor',
      'method': method,
      'decay': decay,
      'seed': seed,
      'metrics': {'right': int(seed < right or decay == decays[0]), 'accuracy_after': 1.0},
    }
    for method, right in shares.items()
    for decay in decays
    for seed in range(seeds)
  ]


@pytest.mark.parametrize(
  ('obs', 'obd', 'magnitude', 'seeds', 'word'),
  [
    (10, 0, 1, 10, 'reproduced'),
    (10, 0, 10, 10, 'not reproduced'),  # Magnitude does so as well.
    (2, 0, 1, 10, 'not reproduced'),  # OBS fails on most seeds.
    (10, 0, 9, 10, 'undecided'),  # One failure of magnitude is no difference from OBS.
    (9, 0, 0, 10, 'undecided'),  # OBS fails once: not every time, and not seldom.
    # Two networks, and nine seeds, are too few for either word.
    (1, 0, 0, 1, 'undecided'),
    (2, 0, 2, 2, 'undecided'),
    (9, 0, 9, 9, 'undecided'),
    (0, 0, 0, 9, 'undecided'),
  ],
)
def test_a_seed_of_xor_is_the_unit(obs, obd, magnitude, seeds, word):
  rows = xor_rows({'obs': obs, 'obd': obd, 'magnitude': magnitude}, seeds)
  verdict = claims.claims(rows)[-1]
  assert (verdict.name, verdict.verdict) == ('xor', word)
  assert f'of {seeds} seeds by ' in verdict.number


def test_an_exact_interval_clears_the_bound_with_the_stated_number_of_seeds_and_no_fewer():
  low = lambda n: statistics.proportion(n, n).low
  assert low(claims.SEEDS) > claims.ALWAYS > low(claims.SEEDS - 1)


def test_a_seed_without_all_weight_decays_is_left_out():
  rows = xor_rows({'obs': 3}, 3)
  assert claims.right_by_seed(rows[1:], 'obs') == {1: True, 2: True}

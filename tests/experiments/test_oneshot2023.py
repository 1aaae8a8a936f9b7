"""One-shot pruning: the cells of the plan, and the verdicts on planted numbers."""

import pytest

from experiments.oneshot2023 import claims, oneshot, study


def planted(loss_of):
  rows = []
  for cell in study.plan(study.PRESETS['quick'], ''):
    loss = loss_of(cell.labels['method']) + 0.001 * cell.labels['seed']
    rows.append({**cell.labels, 'metrics': {'loss': loss, 'dense_loss': 1.0}})
  return rows


def test_claims_follow_the_losses_and_want_rows():
  order = {'sparsegpt': 2.0, 'wanda': 3.0, 'magnitude': 4.0}
  verdicts = {v.name: v.verdict for v in claims.claims(planted(order.get))}
  assert verdicts == {
    'wanda-half': 'reproduced',
    'sparsegpt-half': 'reproduced',
    'sparsegpt-high': 'reproduced',
    'fisher': 'undecided',
    'recompute': 'undecided',
  }
  upside = {'sparsegpt': 4.0, 'wanda': 3.0, 'magnitude': 2.0}
  verdicts = {v.name: v.verdict for v in claims.claims(planted(upside.get))}
  assert verdicts['wanda-half'] == verdicts['sparsegpt-half'] == 'not reproduced'


def test_every_method_has_three_draws_of_calibration_at_each_place():
  cells = study.plan(study.PRESETS['quick'], '') + study.plan(study.PRESETS['fisher'], '')
  for method in set(oneshot.METHODS) - {'magnitude'}:
    mine = [c.labels for c in cells if c.labels['method'] == method]
    places = {(c['pattern'], c['sparsity']) for c in mine}
    assert len(mine) == 3 * len(places) and {c['seed'] for c in mine} == {0, 1, 2}


def test_in_the_preset_nets_a_seed_is_a_network_for_every_method():
  cells = study.plan(study.PRESETS['nets'], '')
  assert {c.labels['method'] for c in cells} == set(oneshot.METHODS)
  for cell in cells:
    assert cell.config['net'] == cell.labels['seed'] and cell.config['born'] == 6000
  seeds = [c.labels['seed'] for c in cells if c.labels['method'] == 'magnitude']
  assert sorted(set(seeds)) == [0, 1, 2]
  # Cells of the packaged network have no such settings, so they keep their names.
  assert not any('net' in c.config for c in study.plan(study.PRESETS['quick'], ''))


def test_magnitude_of_each_network_meets_the_method_of_the_same_network():
  rows = [
    {
      'method': method,
      'pattern': 'unstructured',
      'sparsity': s,
      'seed': net,
      'metrics': {'loss': loss},
    }
    for s in (0.7, 0.8)
    for net, dense in enumerate((2.0, 3.0, 4.0))
    for method, loss in (('magnitude', dense + 1), ('fisher 1', dense + 0.5 + 0.01 * net))
  ]
  verdict = next(v for v in claims.claims(rows) if v.name == 'fisher')
  # Networks differ by 1 nat, methods by 0.5: only pairs of one network show it.
  assert verdict.verdict == 'reproduced' and 'higher by 0.490 [0.465, 0.515]' in verdict.evidence


@pytest.mark.slow
def test_a_network_is_trained_once_and_read_again(tmp_path):
  cell = next(c for c in study.plan(study.PRESETS['nets'], '') if c.labels['method'] == 'magnitude')
  settings = {**cell.config, 'born': 3, 'batches': 1, 'calibration': 8}
  said = []
  first = oneshot.measure(settings, '', tmp_path, said.append)
  [home] = (tmp_path / 'nets').iterdir()
  assert (home / 'model').is_dir() and first['got'] == pytest.approx(0.5, abs=0.01)
  trained = len(said)
  assert oneshot.measure(settings, '', tmp_path, said.append) == first and len(said) == trained
  other = oneshot.measure({**settings, 'net': 1}, '', tmp_path, said.append)
  assert (
    len(list((tmp_path / 'nets').iterdir())) == 2 and other['dense_loss'] != first['dense_loss']
  )

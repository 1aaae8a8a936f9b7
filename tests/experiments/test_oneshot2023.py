"""One-shot pruning: the cells of the plan, and the verdicts on planted numbers."""

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

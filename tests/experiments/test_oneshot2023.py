"""One-shot pruning: the cells of the plan, and the verdicts on planted numbers."""

import functools
import math

import pytest

from experiments.oneshot2023 import claims, oneshot, smollm2, smollm2_report, study


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


@pytest.mark.parametrize(
  'settings, verdict, shown',
  [
    (lambda seed: {}, 'reproduced', '1.000 [0.975, 1.025]'),
    (lambda seed: {'net': seed}, 'undecided', '1.010;'),
  ],
  ids=['draws for one network', 'networks'],
)
def test_magnitude_of_one_network_is_compared_with_no_other(settings, verdict, shown):
  rows = [
    {
      'method': method,
      'pattern': 'unstructured',
      'sparsity': s,
      'seed': seed,
      'settings': settings(seed),
      'metrics': {'loss': loss},
    }
    for s in (0.7, 0.8)
    for seed in range(3)
    for method, loss in (('magnitude', 3.0), ('fisher 1', 1.99 + 0.01 * seed))
    if method != 'magnitude' or not seed
  ]
  found = next(v for v in claims.claims(rows) if v.name == 'fisher')
  assert found.verdict == verdict and f'higher by {shown}' in found.evidence


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


def planted_smollm2(loss_of, preset='smollm2-small'):
  rows = []
  for cell in study.plan(study.PRESETS[preset], 'data'):
    labels = cell.labels
    loss = loss_of(labels) + 0.001 * labels['seed']
    metrics = {'loss': loss, 'losses': [loss] * 4, 'perplexity': math.exp(loss)}
    seconds = {'prune_seconds': 1.0, 'evaluate_seconds': 1.0}
    rows.append({**labels, 'metrics': {**metrics, **seconds}})
  return rows


def as_in_the_papers(labels):
  """Losses in nats with the order that the papers found."""
  method, _, more = labels['method'].partition(' + ')
  if method == 'dense':
    return 3.0
  target = {'50 %': 0.3, '60 %': 0.6, '70 %': 1.5, '4:8': 0.5, '2:4': 0.8}[labels['target']]
  factor = {'sparsegpt': 1.0, 'wanda': 1.1, 'magnitude': 10.0}[method]
  few = 0.02 * (labels['segments'] == 4)
  return 3.0 + target * factor * (0.5 if more else 1.0) + few


def test_claims_on_smollm2_follow_the_losses_and_want_rows():
  names = ('collapse', 'near', 'ahead', 'patterns', 'calibration', 'reconstruction')
  found = {v.name: v.verdict for v in study.STUDY.claims(planted_smollm2(as_in_the_papers))}
  assert found == dict.fromkeys(names, 'reproduced')
  flipped = lambda labels: -as_in_the_papers(labels)
  found = {v.name: v.verdict for v in claims.of_smollm2(planted_smollm2(flipped))}
  assert found['collapse'] == found['ahead'] == found['patterns'] == 'not reproduced'
  one_seed = [row for row in planted_smollm2(as_in_the_papers) if row['seed'] == 0]
  assert {v.verdict for v in claims.of_smollm2(one_seed)} == {'undecided'}
  dense = [row for row in one_seed if row['method'] == 'dense']
  assert {v.evidence for v in claims.of_smollm2(dense)} == {'no rows'}


def with_windows(rows, windows):
  """The rows with a loss of each window that rises from window to window, as many as are asked."""
  made = []
  for row in rows:
    losses = [row['metrics']['loss'] + 0.5 * w for w in range(windows(row['target']))]
    metrics = {**row['metrics'], 'losses': losses, 'loss': sum(losses) / len(losses)}
    made.append({**row, 'metrics': {**metrics, 'perplexity': math.exp(metrics['loss'])}})
  return made


def test_runs_are_compared_on_the_windows_that_both_have_read():
  rows = planted_smollm2(as_in_the_papers)
  alike = with_windows(rows, lambda target: 3)
  unlike = with_windows(rows, lambda target: 3 if target in ('4:8', '60 %', '70 %') else 5)
  said = [[(v.verdict, v.number) for v in claims.of_smollm2(some)] for some in (alike, unlike)]
  assert said[0] == said[1]
  arms = ('wanda', '2:4', None), ('wanda', '4:8', None)
  gaps = smollm2_report.gaps(unlike, *arms)
  assert gaps == pytest.approx(dict.fromkeys((0, 1, 2), 0.33))
  # So is the figure, dense included; the table says how many windows a column rests on.
  assert study.STUDY.figures(alike) == study.STUDY.figures(unlike)
  assert study.STUDY.tables(unlike)[0].rows[-1][1:] != study.STUDY.tables(alike)[0].rows[-1][1:]


def test_gains_are_paired_by_draw_whichever_draws_are_there():
  rows = planted_smollm2(as_in_the_papers)
  for row in rows:
    if row['method'] in ('magnitude + reconstruction', 'wanda + reconstruction'):
      change = row['seed'] * (1.0 + 0.01 * row['seed'])  # as large as what is compared
      row['metrics']['loss'] += change
      row['metrics']['losses'] = [row['metrics']['loss']] * 4
  rows = [row for row in rows if (row['method'], row['seed']) != ('wanda + reconstruction', 0)]
  found = next(v for v in claims.of_smollm2(rows) if v.name == 'reconstruction')
  # Draw by draw: 1.5 less 0.165, and 0.001 for the draw of magnitude's one run.
  assert 'over that of wanda: 1.334 [1.327, 1.340]' in found.evidence


def test_the_tables_and_the_figure_hold_every_method_and_say_the_windows():
  rows = planted_smollm2(as_in_the_papers)
  table = study.STUDY.tables(rows)[0]
  assert [line[0] for line in table.rows][1:-1] == list(smollm2_report.NAMES.values())
  assert table.rows[-1][1] == '4 windows of 2,048'
  assert study.STUDY.figures(rows)['perplexity'].startswith(b'\x89PNG')
  partial = [row for row in rows if row['target'] in ('dense', '50 %') and row['seed'] == 0]
  assert study.STUDY.tables(partial) and study.STUDY.figures(partial)


def test_the_cells_on_smollm2_are_told_apart_and_need_a_root():
  cells = study.plan(study.PRESETS['smollm2'], 'data')
  assert len({tuple(cell.labels.items()) for cell in cells}) == len(cells) == 51
  assert {c.labels['windows'] for c in cells if c.labels['target'] in ('50 %', '2:4')} == {-1}
  assert {c.labels['windows'] for c in cells if c.labels['target'] == '70 %'} == {48}
  with pytest.raises(ValueError, match='needs --config.data.root=FOLDER'):
    smollm2.plan(study.PRESETS['smollm2'], '')


@pytest.mark.parametrize('preset', study.PRESETS)
def test_what_a_preset_does_not_read_is_refused(preset, tmp_path):
  for name in (smollm2.TEST, smollm2.TEXT + '/a.txt'):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text('One line.\n')
  root, pydoc = {'data.root': str(tmp_path)}, {'data.pydoc': 'packaged'}
  takes, refused, said = (
    (root, pydoc, f'data.pydoc: oneshot2023 {preset} takes no such key')
    if preset.startswith('smollm2')
    else (pydoc, root, f'data.root={tmp_path}: this preset .* take one of smollm2, ')
  )
  # A new work directory sets data.pydoc for itself where text of the package is read.
  planned = functools.partial(study.reproduce, preset, tmp_path / 'new', dry_run=True)
  lines = []
  planned(overrides=takes, say=lines.append)
  assert 'cells are missing' in lines[0]
  with pytest.raises(ValueError, match=said):
    planned(overrides={**takes, **refused})

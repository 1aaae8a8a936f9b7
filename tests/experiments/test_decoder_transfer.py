"""A decoder pruned in one shot and fine-tuned: its cells, verdicts on planted numbers, a run."""

import pytest
import tiny_llama

from experiments.decoder_transfer import claims, pruned, study

TINY = study.Preset(('glue/sst2',), (0.5,), (0,), 8, 2, 'a test', batch=4, segments=2, length=8)


def planted(score_of, preset=study.PRESETS['long']):
  rows = []
  for cell in study.plan(preset, 'data'):
    labels = cell.labels
    score = score_of(labels['arm'], labels['sparsity']) + 0.001 * labels['seed']
    metrics = {'score': score, 'train_loss': 0.1, 'dev_loss': 0.5, 'got': labels['sparsity']}
    rows.append({**labels, 'metrics': {**metrics, 'seconds': 1.0}})
  return rows


def deleted(arm, sparsity):
  """Pruning costs from 0.5 on, and free zeros win back a fifth."""
  lost = {0.0: 0.0, 0.3: 0.005, 0.5: 0.1, 0.7: 0.2}[sparsity]
  return 0.9 - lost * (0.8 if arm == 'free' else 1.0) - 0.0001 * (arm == 'held')


def won_back(arm, sparsity):
  """What free zeros win back is nearly all."""
  lost = {0.0: 0.0, 0.3: 0.1, 0.5: 0.1, 0.7: 0.2}[sparsity]
  return 0.9 - lost * (0.1 if arm == 'free' else 1.0)


def test_claims_follow_the_scores_and_want_rows():
  found = {v.name: v.verdict for v in claims.claims(planted(deleted))}
  assert found == dict.fromkeys(
    ('low_is_free', 'high_costs', 'medium_deletes', 'high_deletes', 'deleted_fit'), 'reproduced'
  )
  found = {v.name: v.verdict for v in claims.claims(planted(won_back))}
  assert (
    found['low_is_free'] == found['medium_deletes'] == found['high_deletes'] == 'not reproduced'
  )
  without = study.PRESETS['quick']._replace(sparsities=(0.5, 0.7))
  some = {v.name: v.verdict for v in claims.claims(planted(deleted, without))}
  assert some['low_is_free'] == 'undecided' and some['medium_deletes'] == 'reproduced'
  to_half = study.PRESETS['quick']._replace(sparsities=(0.5, 0.3))
  some = {v.name: v for v in claims.claims(planted(deleted, to_half))}
  for name in ('high_costs', 'high_deletes', 'deleted_fit'):  # said of 70 %, not of the highest
    assert (some[name].verdict, some[name].evidence) == ('undecided', 'no rows')
  one = [row for row in planted(deleted) if row['seed'] == 0]
  assert {v.verdict for v in claims.claims(one)} == {'undecided'}
  assert {v.evidence for v in claims.claims([])} == {'no rows'}


@pytest.mark.parametrize('cost', [0.0, -0.1], ids=['nothing', 'less than nothing'])
@pytest.mark.parametrize('free', [-0.05, 0.05], ids=['worse', 'better'])
def test_where_pruning_cost_nothing_there_is_nothing_to_win_back(cost, free):
  rows = planted(lambda arm, s: 0.9 - cost * (arm != 'dense') + free * (arm == 'free'))
  found = {v.name: v for v in claims.claims(rows)}
  for name in ('medium_deletes', 'high_deletes'):
    assert found[name].verdict == 'undecided' and 'not clear below dense' in found[name].evidence


def test_tables_and_figures_hold_every_arm_and_take_a_part():
  rows = planted(deleted)
  assert [len(table.rows) for table in study.STUDY.tables(rows)] == [7, 7]
  for some in (rows, rows[:1]):
    assert set(study.STUDY.figures(some)) == set(study.STUDY.captions)
    assert all(png.startswith(b'\x89PNG') for png in study.STUDY.figures(some).values())


def test_cells_are_told_apart_and_need_a_root():
  for preset in study.PRESETS.values():
    cells = study.plan(preset, 'data')
    assert len({tuple(cell.labels.items()) for cell in cells}) == len(cells)
  with pytest.raises(ValueError, match='needs --config.data.root=FOLDER'):
    study.plan(study.PRESETS['quick'], '')


@pytest.mark.slow
def test_both_arms_start_from_one_pruned_model_and_only_one_keeps_its_zeros(tmp_path):
  root = tmp_path / 'data'
  for name, text in (
    ('SST-2', 'sentence\tlabel\nno cat , only mats \t0\nthe cat sat on a hat \t1\n'),
    ('MRPC', 'Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tthe cat\ta hat\n'),
  ):
    (root / 'glue' / name).mkdir(parents=True)
    head, *rows = text.splitlines(keepends=True)
    for split in ('train', 'dev'):
      (root / 'glue' / name / f'{split}.tsv').write_text(head + ''.join(rows) * 8)
  (root / 'wikipedia').mkdir()
  (root / 'wikipedia' / 'a.txt').write_text('\n'.join(tiny_llama.LINES * 20))
  tiny_llama.write(tmp_path / 'model')
  cells = study.plan(TINY._replace(model=str(tmp_path / 'model')), str(root))
  said = []
  metrics = {
    cell.labels['arm']: pruned.measure(cell.config, str(root), tmp_path / 'work', said.append)
    for cell in cells
  }
  assert len(list((tmp_path / 'work' / 'pruned').iterdir())) == 1
  assert metrics['held']['got'] == pytest.approx(0.5, abs=0.01)
  assert metrics['dense']['got'] < 0.01 and metrics['free']['got'] < 0.49
  assert all(0 <= m['score'] <= 1 and m['train_loss'] > 0 for m in metrics.values())
  assert set(pruned.reads(str(root))) == {'wikipedia', 'glue/sst2', 'glue/mrpc'}

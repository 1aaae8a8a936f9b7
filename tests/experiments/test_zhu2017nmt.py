"""Zhu & Gupta 2017 on translation: cells, verdicts on planted ledgers, wrong input, the command."""

import pytest

from experiments.zhu2017nmt import claims, paper, report, study
from prunejax import __main__ as command
from prunejax.report import ledger


def planted(bleu, seeds=3):
  rows = []
  for seed in range(seeds):
    for size, sparsity, allocation in study.PRESETS['quick'].arms:
      metrics = {'bleu': bleu(size, sparsity, allocation) + 0.01 * seed, 'nonzeros': 1000}
      labels = {'size': size, 'sparsity': sparsity, 'allocation': allocation, 'seed': seed}
      rows.append({'data': 'cipher', **labels, 'metrics': metrics})
  return rows


def words(rows):
  return [v.verdict for v in claims.claims(rows)]


def test_the_papers_own_numbers_reproduce_every_claim():
  rows = planted(lambda size, s, kind: paper.BLEU[size, s][1] - (kind == 'global'))
  assert words(rows) == ['reproduced'] * 4
  assert words(planted(lambda *arm: 20.0, seeds=1)) == ['undecided'] * 4
  assert words([]) == ['undecided'] * 4


def test_opposites_do_not():
  opposite = lambda size, s, kind: 20 - 10 * s + (kind == 'global')
  assert words(planted(opposite)) == ['not reproduced'] * 4


def test_reports_of_parts_can_be_drawn():
  rows = planted(lambda size, s, kind: paper.BLEU[size, s][1])
  for some in (rows, rows[:1], rows[-1:]):
    assert report.tables(some)[0].rows and report.figures(some)['bleu']
  assert len(report.tables(rows)[0].rows) == 5


def test_a_folder_without_multi30k_is_refused_before_anything_is_written(tmp_path, capsys):
  args = ['reproduce', 'zhu2017nmt', f'--config.data.root={tmp_path}', f'--workdir={tmp_path}/run']
  assert command.main(args) == 2
  assert 'train.lc.norm.tok.en' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_smoke_by_the_real_command(tmp_path):
  args = ['reproduce', 'zhu2017nmt', '--preset=smoke', f'--workdir={tmp_path}']
  assert command.main(args) == 0
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  assert len(rows) == 3 and not any(row.get('failed') for row in rows)
  for row in rows:
    assert row['metrics']['sparsity'] == pytest.approx(row['sparsity'], abs=0.01)
  assert 'made-up language' in (tmp_path / 'report.md').read_text()

"""The fourfold reduction of Optimal Brain Damage: verdicts on planted ledgers, and the command."""

import pytest

from experiments.lecun1990 import claims, fourfold, fourfold_report, study
from prunejax import __main__ as command
from prunejax.report import ledger


def planted(test_accuracy=0.0, test=1.2, train=3.0, seeds=5):
  """Rows whose accuracy changes by some points, and whose losses rise by factors, when cut."""
  rows = []
  kept = [1.0, *study.PRESETS['fourfold'].kept]
  for seed in range(seeds):
    for method in fourfold.METHODS:
      noise = 1e-3 * seed
      curve = lambda dense, cut, noise=noise: [dense, *[cut + noise] * (len(kept) - 1)]
      metrics = {
        'weights': 10_052,
        'kept': kept,
        'train_loss': curve(0.01, 0.01 * train),
        'test_loss': curve(0.1, 0.1 * test),
        'train_accuracy': curve(0.99, 0.98),
        'test_accuracy': curve(0.9, 0.9 + test_accuracy / 100),
      }
      labels = {'part': fourfold.PART, 'digits': 'planted', 'method': method, 'seed': seed}
      rows.append({**labels, 'metrics': metrics})
  return rows


def test_verdicts_say_what_was_planted():
  words = lambda rows: [v.verdict for v in claims.claims(rows)]
  assert words(planted()) == ['reproduced'] * 3
  assert words(planted(-2.0, 3.0)) == ['not reproduced'] * 3
  assert words(planted(0.0, 1.2, 30.0)) == ['reproduced', 'not reproduced', 'reproduced']
  assert words(planted(seeds=1)) == ['undecided'] * 3


def test_reports_of_parts_can_be_drawn():
  rows = planted()
  [table] = study.STUDY.tables(rows)
  assert len(table.rows) == 1 + 2 * len(study.PRESETS['fourfold'].kept)
  for some in (rows, rows[:1], rows[-1:]):
    assert fourfold_report.tables(some)[0].rows and study.STUDY.figures(some)['fourfold']


def test_the_network_has_the_ten_thousand_parameters_of_the_paper():
  import jax

  from experiments.lecun1990 import network

  preset = study.PRESETS['fourfold']
  params = network.init(0, 8, preset.wide, preset.hidden)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == pytest.approx(10_000, rel=0.02)


@pytest.mark.slow
def test_smoke_by_the_real_command(tmp_path):
  args = ['reproduce', 'lecun1990', '--preset=fourfold-smoke', f'--workdir={tmp_path}']
  assert command.main(args) == 0
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  assert len(rows) == 2 and not any(row.get('failed') for row in rows)
  assert {row['metrics']['train_loss'][0] for row in rows} == {rows[0]['metrics']['train_loss'][0]}
  assert 'The fourfold reduction' in (tmp_path / 'report.md').read_text()
  lines = (tmp_path / 'ledger.jsonl').read_text().splitlines()
  (tmp_path / 'part.jsonl').write_text(lines[-1] + '\n')
  assert command.main(['report', str(tmp_path / 'part.jsonl'), f'--out={tmp_path / "part"}']) == 0

"""The real command on the papers of Optimal Brain Damage and Surgeon, at their smallest presets."""

import pytest

from prunejax import __main__ as command
from prunejax.report import ledger


@pytest.mark.parametrize(
  ('paper', 'words', 'cells'),
  [
    ('hassibi1993', ('monks-3 table', 'xor', 'removes more', 'OBS, the paper'), 1),
    pytest.param(
      'lecun1990',
      (
        'by saliency',
        'by saliency, computed again',
        'the costliest unit alone',
        'at random',
        'quadratic prediction',
        'predicted.png',
        "scikit-learn's digits",
      ),
      4,
      marks=pytest.mark.slow,
    ),
  ],
)
def test_smoke(paper, words, cells, tmp_path):
  assert command.main(['reproduce', paper, '--preset=smoke', f'--workdir={tmp_path}']) == 0
  rows = ledger.read(tmp_path / 'ledger.jsonl')
  assert len(rows) == cells and not any(row.get('failed') for row in rows)
  report = (tmp_path / 'report.md').read_text()
  assert all(word in report for word in words)
  # One seed gives no interval, so nothing is decided.
  assert 'undecided' in report
  # A stopped run can be reported from its rows so far.
  lines = (tmp_path / 'ledger.jsonl').read_text().splitlines()
  (tmp_path / 'part.jsonl').write_text(lines[-1] + '\n')
  assert command.main(['report', str(tmp_path / 'part.jsonl'), f'--out={tmp_path / "part"}']) == 0

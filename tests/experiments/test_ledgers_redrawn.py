"""Committed ledgers draw the same tables and verdicts, and every cell keeps its hash.

The references were written by the code of commit c2669f9. Words may change, numbers and verdicts
may not.
"""

import json
import re

import cell_hashes
import pytest
import redrawn

# The number that decides a verdict, with its interval. A claim that cannot be judged yet has none.
DECIDING = re.compile(r'[-+]?\d+\.\d+ \[[-+]?\d+\.\d+, [-+]?\d+\.\d+\] \S')
NO_INTERVAL = re.compile(r'not measured|[-+]?\d+\.\d+, one (?:seed|minimum), ')
SLOW = ('league/results.jsonl', 'league/results-even.jsonl')  # a dozen seconds


@pytest.mark.parametrize(
  'ledger',
  [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in redrawn.LEDGERS],
)
def test_a_ledger_draws_the_same_tables_verdicts_and_figures(ledger, tmp_path):
  reference = json.loads(redrawn.reference(ledger).read_text())
  here = redrawn.redraw(ledger, tmp_path)
  assert here['verdicts'] == reference['verdicts']
  assert len(here['deciding']) == len(here['verdicts'])
  for verdict, number in here['deciding']:
    assert DECIDING.match(number) or verdict == 'undecided' and NO_INTERVAL.match(number), number
  for claim, numbers in reference['evidence'].items():
    assert set(numbers.split()) <= set(here['evidence'][claim].split()), claim
  for title, lines in reference['tables'].items():
    assert lines in here['tables'].values(), f'no table has the numbers of {title!r}'
  for name, panels in reference['figures'].items():
    assert redrawn.same(here['figures'][name], panels), name


def test_the_committed_report_is_that_of_its_ledger(tmp_path):
  redrawn.redraw('gordon2020/results-mini.jsonl', tmp_path)
  here, there = (
    [redrawn.numbers(lines) for _, lines in redrawn.read_tables(path.read_text())]
    for path in (tmp_path / 'report.md', redrawn.ROOT / 'experiments/gordon2020/mini/report.md')
  )
  assert len(here) > 25 and here == there


def test_every_ledger_has_a_reference():
  assert {redrawn.reference(name).name for name in redrawn.LEDGERS} == {
    path.name for path in redrawn.REFERENCE.iterdir()
  }


def test_a_changed_number_is_seen(tmp_path):
  ledger = tmp_path / 'experiments' / 'gordon2020' / 'results.jsonl'
  ledger.parent.mkdir(parents=True)
  rows = [
    json.loads(line) for line in (redrawn.ROOT / 'experiments/gordon2020/results.jsonl').open()
  ]
  row = next(row for row in rows if row['stage'] == 'pretrain' and row['arm'] == 'pruned')
  row['metrics']['loss'] += 0.1
  ledger.write_text('\n'.join(map(json.dumps, rows)) + '\n')
  reference = json.loads(redrawn.reference('gordon2020/results.jsonl').read_text())
  here = redrawn.redraw('gordon2020/results.jsonl', tmp_path / 'out', path=ledger)
  assert here['tables'] != reference['tables']
  assert not redrawn.same(here['figures']['pretrain_loss'], reference['figures']['pretrain_loss'])


@pytest.mark.parametrize('name', cell_hashes.NAMES)
def test_every_cell_keeps_its_hash(name):
  assert cell_hashes.of(name) == json.loads(cell_hashes.PATH.read_text())[name]

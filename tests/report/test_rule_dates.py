"""Rules of claims: what is part of one, and what a report says of one that came too late."""

import datetime
import json
import re

import claim_rules
import pytest

from prunejax.report import rule_dates
from prunejax.report.verdicts import Verdict

CLAIMS = '''
"""Judge."""
from experiments.other import helper
from prunejax.report import verdicts

BOUND = 0.5
UNUSED = 1

def claims(rows):
  values = [row['x'] for row in rows]
  lead = []
  for value in values:
    lead.append(value - BOUND)
  words = 'the lead is ' + str(sum(lead))
  return [
    verdicts.Verdict('leads', 'One leads.', verdicts.word(verdicts.side(lead) > 0), words),
    _duel(rows, 'a'),
    lower('low', rows, 2),
  ]

def _duel(rows, other):
  return verdicts.Verdict(f'beats_{other}', 'It beats.', helper.judge(rows, other), 'because')

def lower(name, rows, k):
  evidence = f'{k} of them'
  return verdicts.Verdict(name, 'It is low.', verdicts.word(len(rows) < k), evidence)
'''
HELPER = '''
def judge(rows, other):
  """Judges."""
  return 'reproduced' if rows[0][other] > 1 else 'undecided'
'''
VERDICTS = """
def word(yes):
  return 'reproduced' if yes else 'undecided'

def side(values):
  return sum(values)
"""


def codes(claims=CLAIMS, helper=HELPER, verdicts=VERDICTS):
  """The rules of modules with these texts."""
  texts = {
    'experiments.p.claims': claims,
    'experiments.other.helper': helper,
    'prunejax.report.verdicts': verdicts,
  }
  return rule_dates.codes('experiments.p.claims', texts.get)


def test_every_claim_is_found_by_the_pattern_of_its_name():
  assert set(codes()) == {'leads', 'beats_.+?', 'low'}
  assert rule_dates.matching(codes(), 'beats_b') == codes()['beats_.+?']
  assert rule_dates.matching(codes(), 'nothing') is None


@pytest.mark.parametrize(
  ('old', 'new', 'changed'),
  [
    ('BOUND = 0.5', 'BOUND = 0.4', {'leads'}),
    ('value - BOUND', 'value + BOUND', {'leads'}),
    ('> 0), words', '>= 0), words', {'leads'}),
    ("lower('low', rows, 2)", "lower('low', rows, 3)", {'low'}),
    ('len(rows) < k', 'len(rows) <= k', {'low'}),
    ('helper.judge(rows, other)', "helper.judge(rows, 'c')", {'beats_.+?'}),
    ("_duel(rows, 'a')", "_duel(rows, 'b')", {'beats_.+?'}),
    # Words, evidence, layout and what no rule uses are no part of a rule.
    ("'the lead is ' + str(sum(lead))", "'it leads by ' + str(max(lead))", set()),
    ("'One leads.'", "'The first leads.'", set()),
    ("f'{k} of them'", "f'{k + 1} at most'", set()),
    ('UNUSED = 1', 'UNUSED = 2', set()),
    ('\n\ndef lower(', '\n\n\n# A comment.\ndef lower(', set()),
    ('"""Judge."""', '"""Judge the claims."""', set()),
  ],
)
def test_a_rule_changes_with_what_decides_and_with_nothing_else(old, new, changed):
  assert CLAIMS.count(old) == 1
  before, after = codes(), codes(CLAIMS.replace(old, new))
  assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize(
  ('texts', 'changed'),
  [
    ({'helper': HELPER.replace('> 1', '> 2')}, {'beats_.+?'}),
    ({'helper': HELPER.replace('Judges.', 'Decides.')}, set()),
    ({'verdicts': VERDICTS.replace('if yes', 'if not yes')}, {'leads', 'low'}),
    ({'verdicts': VERDICTS.replace('sum(values)', 'max(values)')}, {'leads'}),
  ],
)
def test_functions_that_a_rule_calls_are_part_of_it(texts, changed):
  before, after = codes(), codes(**texts)
  assert {name for name in before if before[name] != after[name]} == changed


TIMES = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (3, 5, 7)]


@pytest.mark.parametrize(
  ('entry', 'code', 'times', 'word'),
  [
    ({'code': 'a', 'fixed': '2026-01-02T00:00:00+00:00'}, 'a', TIMES, 'before its first row'),
    ({'code': 'a', 'fixed': '2026-01-06T00:00:00+00:00'}, 'a', TIMES, 'after 2 of 3 rows'),
    ({'code': 'a', 'fixed': '2026-01-06T00:00:00'}, 'a', TIMES, 'after 2 of 3 rows'),
    ({'code': 'a', 'fixed': '2026-01-02T00:00:00+00:00'}, 'b', TIMES, rule_dates.CHANGED),
    ({}, 'a', TIMES, rule_dates.NOT_RECORDED),
    ({'code': 'a', 'fixed': '2026-01-02T00:00:00+00:00'}, 'a', [], 'the rows have no times'),
  ],
)
def test_standing(entry, code, times, word):
  assert rule_dates.standing(entry, code, times) == word


def test_a_report_says_by_itself_which_rule_came_after_its_rows(tmp_path, monkeypatch):
  path = tmp_path / rule_dates.NAME
  monkeypatch.setattr(rule_dates, 'path_of', lambda claims: path)
  monkeypatch.setattr(
    rule_dates, 'codes', lambda module, load: {'early': 'a', 'late': 'b', 'new': 'c'}
  )
  dates = {'early': '2026-01-01T00:00:00+00:00', 'late': '2026-01-04T00:00:00+00:00'}
  checks = [Verdict(name, '', 'undecided', 'Evidence.') for name in ('early', 'late', 'new')]
  rows = [{'time': time.isoformat()} for time in TIMES]
  assert rule_dates.of_ledger(rule_dates.read, checks, rows) == []
  record = {n: {'code': c, 'fixed': dates[n], 'commit': 'abc'} for n, c in zip(dates, 'ab')}  # noqa: B905
  path.write_text(json.dumps(record))
  fixed = rule_dates.of_ledger(rule_dates.read, checks, rows)
  assert [f.word for f in fixed] == [
    'before its first row',
    'after 1 of 3 rows',
    rule_dates.NOT_RECORDED,
  ]
  assert [check.evidence for check in rule_dates.noted(checks, fixed)] == [
    'Evidence.',
    'Evidence. The rule was fixed after 1 of 3 rows.',
    f'Evidence. The rule: {rule_dates.NOT_RECORDED}.',
  ]
  table = rule_dates.table(fixed, rows)
  assert table.rows[1] == ('late', dates['late'], 'abc', 'after 1 of 3 rows')
  assert '2026-01-03 00:00 to 2026-01-07 00:00' in table.note


@pytest.mark.parametrize('paper', claim_rules.papers())
def test_every_rule_is_recorded_as_it_is(paper):
  recorded = rule_dates.read(claim_rules.file_of(paper))
  now = rule_dates.codes(f'experiments.{paper}.claims', claim_rules.source)
  assert now, paper
  assert {name: entry['code'] for name, entry in recorded.items()} == now, (
    'a rule has changed: commit it, then run python tests/claim_rules.py'
  )
  for entry in recorded.values():
    assert re.fullmatch('[0-9a-f]{7,}', entry['commit']) and rule_dates.moment(entry['fixed'])


@pytest.mark.parametrize(
  'paper, homes', [('gordon2020', {'gordon2020'}), ('transfer', {'gordon2020', 'transfer'})]
)
def test_the_history_of_a_rule_is_that_of_all_the_code_it_rests_on(paper, homes):
  found = set(claim_rules.folders(f'experiments.{paper}.claims'))
  assert found == {*(f'experiments/{name}' for name in homes), 'prunejax/report'}

"""The list of slow tests names cases that exist, and leaves some of each table to the default."""

import collections
import pathlib
import re
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).parent
LINES = [line for line in (TESTS / 'slow.txt').read_text().splitlines() if not line.startswith('#')]


def pattern(line):
  return re.compile(re.escape(line).replace(r'\*', '.*'))


def test_lines_are_in_order_and_stand_once():
  assert sorted(set(LINES)) == LINES


@pytest.mark.slow
def test_every_line_names_a_case_and_some_of_a_table_run_by_default():
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'pytest',
      '-q',
      '--collect-only',
      '-o',
      'addopts=--import-mode=importlib',
    ],
    capture_output=True,
    text=True,
    cwd=TESTS.parent,
  )
  cases = [line.removeprefix('tests/') for line in done.stdout.splitlines() if '::' in line]
  assert len(cases) > 1000, done.stdout[-2000:]
  unknown = [line for line in LINES if not any(map(pattern(line).fullmatch, cases))]
  assert unknown == []
  tables, left = collections.Counter(), collections.Counter()
  listed = [pattern(line) for line in LINES]
  for case in cases:
    name, _, table = case.partition('[')
    if table:
      tables[name] += 1
      left[name] += not any(p.fullmatch(case) for p in listed)
  whole = {line.rstrip('*') for line in LINES if '[' not in line}  # tests that are slow as a whole
  assert [name for name in tables if not left[name] and name not in whole] == []

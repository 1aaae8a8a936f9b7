"""Tests that compare the bits of two programs, in a process that compiles for that."""

import os
import subprocess
import sys

import pytest
import tiny_runs

pytestmark = pytest.mark.slow


def test_bits_are_equal_where_they_are_promised():
  tests = tiny_runs.ROOT / 'tests'
  argv = [
    sys.executable,
    '-m',
    'pytest',
    '-q',
    '-n',
    '0',
    '-o',
    'addopts=',
    '-m',
    'exact',
    tests / 'sweep' / 'test_population.py',
    tests / 'sweep' / 'test_grid.py',
  ]
  environment = {**os.environ, 'XLA_FLAGS': tiny_runs.EXACT_COMPILE}
  done = subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=tiny_runs.ROOT)
  assert done.returncode == 0 and '4 passed' in done.stdout, done.stdout[-3000:]

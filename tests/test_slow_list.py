"""The list of slow tests names tests that exist."""

import ast
import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent
LINES = [line for line in (TESTS / 'slow.txt').read_text().splitlines() if not line.startswith('#')]


@pytest.mark.parametrize('line', LINES)
def test_a_line_names_a_test(line):
  file, _, rest = line.partition('::')
  name = rest.partition('[')[0].rstrip('*')
  tree = ast.parse((TESTS / file).read_text())
  assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_lines_are_in_order_and_stand_once():
  assert sorted(set(LINES)) == LINES

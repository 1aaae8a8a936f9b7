"""The files of constraints/, which CI installs: they are the ends of what pyproject.toml admits."""

import collections
import itertools
import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PYTHONS, KINDS = ('3.11', '3.12', '3.13'), ('lowest', 'highest')
NAMES = [f'{kind}-{python}' for kind, python in itertools.product(KINDS, PYTHONS)]
EXTRAS = ('train', 'onnx', 'gguf', 'test')


def pins(name):
  """{package: version} of a file."""
  lines = (ROOT / f'constraints/{name}.txt').read_text().splitlines()
  return {package: Version(version) for package, version in (line.split('==') for line in lines)}


def requirements(python):
  """What pyproject.toml requires of others on a version of Python, with the extras of the tests."""
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  extras = project['optional-dependencies']
  written = project['dependencies'] + [line for extra in EXTRAS for line in extras[extra]]
  read = map(Requirement, written)
  where = {'python_version': python, 'python_full_version': f'{python}.0'}
  return [one for one in read if not one.marker or one.marker.evaluate(where)]


def admitted(python):
  """{package: specifier}; of lines of one package the specifiers are joined."""
  joined = {}
  for one in requirements(python):
    name = canonicalize_name(one.name)
    joined[name] = joined.get(name, one.specifier) & one.specifier
  return {name: joined[name] for name in joined if name != 'prunejax'}.items()


def test_every_file_is_in_the_matrix_of_ci_and_in_the_manual():
  assert sorted(path.stem for path in (ROOT / 'constraints').iterdir()) == sorted(NAMES)
  ci = (ROOT / '.github/workflows/ci.yml').read_text()
  quoted = ', '.join(f"'{python}'" for python in PYTHONS)
  assert f'python: [{quoted}]' in ci and f'versions: [{", ".join(KINDS)}]' in ci
  table = (ROOT / 'docs/versions.md').read_text()
  assert [name for name in NAMES if f'`.ci/versions {name}' not in table] == []


@pytest.mark.parametrize('name', NAMES)
def test_pins_are_admitted(name):
  pinned = pins(name)
  wrong = {
    package: f'{pinned.get(package)}, not {specifier}'
    for package, specifier in admitted(name.partition('-')[2])
    if package not in pinned or not specifier.contains(pinned[package], prereleases=True)
  }
  assert wrong == {}


def test_every_lower_bound_is_tested_on_some_python():
  """A bound below what is tested is a guess; another Python may need a later version."""
  tested = collections.defaultdict(list)
  for python in PYTHONS:
    pinned = pins(f'lowest-{python}')
    for package, specifier in admitted(python):
      bounds = [Version(one.version) for one in specifier if one.operator == '>=']
      assert bounds, f'{package} has no lower bound'
      tested[package, max(bounds)].append(pinned[package])
  wrong = {
    f'{name}>={bound}': min(seen) for (name, bound), seen in tested.items() if min(seen) != bound
  }
  assert wrong == {}


@pytest.mark.parametrize('name', NAMES)
def test_versions_of_the_manual_are_those_of_the_files(name):
  """The row of docs/versions.md has what the file has, in the columns of its head."""
  lines = (ROOT / 'docs/versions.md').read_text().splitlines()
  (head,) = (line for line in lines if line.startswith('| constraints |'))
  (row,) = (line for line in lines if line.startswith(f'| `{name}` |'))
  cells = lambda line: [cell.strip() for cell in line.strip('|').split('|')]
  columns = dict(zip(cells(head), cells(row), strict=True))
  pinned = pins(name)
  assert {package: columns[package] for package in columns if package in pinned} == {
    package: str(pinned[package]) for package in columns if package in pinned
  }
  assert len(columns.keys() & pinned.keys()) >= 6


@pytest.mark.parametrize('name', NAMES)
def test_lines_are_name_and_version_alone(name):
  lines = (ROOT / f'constraints/{name}.txt').read_text().splitlines()
  assert [line for line in lines if not re.fullmatch(r'[a-z0-9.-]+==[\w.+!]+', line)] == []

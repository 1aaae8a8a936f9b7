"""Names of topologies: which are accepted, and what is said of the others."""

import importlib.util

import pytest

from prunejax import __main__ as command
from prunejax.topology import chips, slices

KNOWN = ['v5e:1x1', 'v5e:2x2', 'v5e:4x4', 'v6e:16x16', 'v5p:2x2x1', 'v5p:4x4x8']
UNKNOWN = ['', 'v5e', 'v5e:', 'v5e:3x3', 'v5e:4x4x4', 'v5p:2x2', 'v5p:1x1x2', 'v4:2x2x1', 'tpu']


@pytest.fixture
def libtpu(monkeypatch):
  """Says whether libtpu is there."""
  find, there = importlib.util.find_spec, [True]
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name, *rest: (there[0] or None) if name == 'libtpu' else find(name, *rest),
  )
  return there


@pytest.mark.parametrize('name', [*KNOWN, 'cpu', 'gpu'])
def test_known(name, libtpu):
  slices.check(name)


@pytest.mark.parametrize('name', UNKNOWN)
def test_unknown_names_what_is_accepted(name, libtpu):
  with pytest.raises(ValueError, match=r'v5e:AxB .* v5p:AxBxC.* cpu or gpu'):
    slices.check(name)


def test_without_libtpu_the_extra_is_named(libtpu):
  libtpu[0] = False
  slices.check('cpu')
  with pytest.raises(ValueError, match=r"pip install -e '\.\[tpu\]'"):
    slices.check('v5e:4x4')


@pytest.mark.parametrize('name, size', [('v5e:4x4', 16), ('v5p:2x2x2', 8), ('cpu', None)])
def test_size(name, size):
  assert slices.size(name) == size


def test_a_chip_is_found_by_the_name_that_jax_has():
  assert chips.of_device('TPU v5 lite').name == 'v5e'
  assert chips.of_device('NVIDIA H200').name == 'H200'
  assert chips.of_device('cpu') is None
  kinds = [kind for chip in chips.CHIPS.values() for kind in chip.kinds]
  assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize('chip', chips.CHIPS.values(), ids=lambda chip: chip.name)
def test_every_chip_says_where_its_numbers_come_from(chip):
  assert chip.source and chip.flops >= chip.flops_float32 > chip.bandwidth > chip.links > 0


TRAIN = ['train', '--config=configs/pretrain.py:nano']
WRONG = [
  ([*TRAIN, '--dry-run', '--topology=v5e:3x3'], ['--topology=v5e:3x3', 'expected v5e:AxB']),
  ([*TRAIN, '--topology=v5e:4x4'], ['needs --dry-run']),
  ([*TRAIN, '--dry-run', '--out=a.md'], ['--out=a.md', '--topology']),
  (['reproduce', 'gordon2020', '--dry-run', '--topology=v9:1'], ['--topology=v9:1', 'expected']),
  (['sweep', '--config=configs/sparsity.py', '--dry-run', '--topology=v9:1'], ['--topology=v9:1']),
]


@pytest.mark.parametrize('argv, words', WRONG, ids=lambda value: ' '.join(value)[:60])
def test_wrong_input_is_one_line(argv, words, capsys):
  assert command.main(argv) == 2
  line = capsys.readouterr().err.strip()
  assert '\n' not in line and all(word in line for word in words), line

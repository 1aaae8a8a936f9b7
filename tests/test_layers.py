"""Which part of the package may import which."""

import ast
import graphlib
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'prunejax'
FILES = sorted(PACKAGE.rglob('*.py'))
# For each room: the rooms it may import, and outside packages; a star stands for any. `files` and
# `freed` are one file each.
ROOMS = {
  'pruning': ({'pruning'}, {'jax', 'numpy', 'optax'}),
  'observe': ({'observe', 'pruning'}, {'jax', 'flax'}),
  # A folder holds a vocabulary beside the weights: data/vocabulary.py reads it for all.
  'models': (
    {'models', 'data'},
    {'jax', 'flax', 'numpy', 'safetensors', 'transformers', 'tokenizers', 'gguf'},
  ),
  'data': (
    {'data'},
    {
      'numpy',
      'tensorflow_datasets',
      'array_record',
      'grain',
      'tokenizers',
      'transformers',
      'gguf',
      'etils',
      'sklearn',
    },
  ),
  # ml_dtypes gives numpy a bfloat16; `files` reads and writes object stores.
  'compress': ({'compress', 'pruning', 'files'}, {'numpy', 'ml_dtypes', 'onnx'}),
  'report': ({'report', 'files'}, {'numpy', 'scipy', 'matplotlib'}),
  'files': (set(), {'etils', 'fsspec'}),
  'freed': (set(), set()),
  # export writes the forms of compress.
  'train': (
    {'train', 'compress', 'data', 'models', 'observe', 'pruning', 'files', 'freed', ''},
    {'*'},
  ),
  'evaluation': ({'evaluation', 'train', 'data', 'models', 'files', ''}, {'*'}),
  # The command reads and writes what a run does; the algorithm needs pruning, models and data.
  'oneshot': ({'oneshot', 'train', 'data', 'models', 'pruning', 'files', 'freed', ''}, {'*'}),
  'sweep': ({'sweep', 'train', 'report', 'data', 'models', 'pruning', 'files', ''}, {'*'}),
  # Compiles what train and sweep would run.
  'topology': (
    {'topology', 'sweep', 'train', 'report', 'data', 'models', 'pruning', 'files', ''},
    {'*'},
  ),
  'bench': (
    {
      'bench',
      'topology',
      'sweep',
      'train',
      'report',
      'compress',
      'data',
      'models',
      'pruning',
      'files',
      '',
    },
    {'*'},
  ),
  # The verbs. Only __main__ imports them.
  'cli': (
    {'cli', 'bench', 'topology', 'evaluation', 'oneshot', 'sweep', 'train', 'report', 'files', ''},
    set(),
  ),
}


def imports(path):
  """Dotted names of everything a file imports, `from a import b` as 'a.b'."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def arrows(path, name):
  """(room used, or None; outside package, or None) of one import."""
  parts = name.split('.')
  if parts[0] != 'prunejax':
    return None, None if parts[0] in sys.stdlib_module_names else parts[0]
  room = len(parts) > 1 and (parts[1] in ROOMS or (PACKAGE / parts[1]).is_dir())
  return (parts[1] if room else ''), None


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_forbidden_arrow(path):
  for name in imports(path):
    assert name.split('.')[0] not in ('configs', 'experiments', 'tests'), (
      f'{path.name} imports {name}'
    )
  if path.parent == PACKAGE and path.stem not in ROOMS:
    inside = {name for name in imports(path) if name.startswith('prunejax.')}
    allowed = {
      '__init__': 'prunejax.public',
      'public': ('prunejax.pruning', 'prunejax.compress.sparse_file'),
      '__main__': 'prunejax.cli.command',
    }[path.stem]
    assert all(name.startswith(allowed) for name in inside)
    assert all(arrows(path, name)[1] is None for name in imports(path))
    return
  rooms, outside = ROOMS[path.relative_to(PACKAGE).parts[0].removesuffix('.py')]
  for name in imports(path):
    room, package = arrows(path, name)
    assert room is None or room in rooms, f'{path.name} imports {name}'
    assert package is None or package in outside or '*' in outside, f'{path.name} imports {name}'


def test_every_room_has_a_rule():
  rooms = {path.relative_to(PACKAGE).parts[0] for path in FILES if path.parent != PACKAGE}
  assert rooms <= set(ROOMS)


def test_no_circle():
  modules = {_module(path): path for path in FILES}
  graph = {}
  for module, path in modules.items():
    used = set()
    for name in imports(path):
      while name and name not in modules:  # a function or class of a module
        name = name.rpartition('.')[0]
      used.add(name)
    graph[module] = used - {'', module}
  assert {'prunejax.cli.command', 'prunejax.cli.bench'} <= set(modules)
  graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def _module(path):
  parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
  return '.'.join(parts).removesuffix('.__init__')

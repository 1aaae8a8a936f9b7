"""Nothing that a run does is kept in a module: what runs share is handed on as an argument."""

import ast
import pathlib

import pytest

import prunejax

PACKAGE = pathlib.Path(prunejax.__file__).parent
# What functions may remember, and why it changes nothing: their arguments hold all that the result
# depends on, and the result is data.
REMEMBERED = {
  ('data/content.py', '_of_file'): 'digest of a file, by its inode and the time of its last change',
  ('data/gguf_metadata.py', '_parsed'): 'a mapped file, which is only read, by the same',
  ('models/hf/folder.py', '_sha256_of'): 'digest of a file, by the same',
  ('models/hf/convert.py', '_one_layer_shapes'): 'shapes of a model, by its size',
  ('models/hf/tables.py', '_one_layer'): 'the same',
  ('models/hf/named.py', '_traced'): 'the same',
  ('data/prose/__init__.py', 'entries'): 'a text in the package, which never changes',
  ('data/pydoc.py', '_fingerprint'): 'digest of the text of the installed libraries',
  ('data/pydoc_tasks.py', '_splits'): 'examples made of that text',
}
CACHES = ('cache', 'lru_cache', 'cached_property')
EMPTY = ('dict', 'list', 'set', 'defaultdict', 'Counter', 'deque', 'OrderedDict', 'local')


@pytest.fixture(scope='module')
def modules():
  """[(path in the package, its syntax tree)]."""
  return [
    (path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text()))
    for path in sorted(PACKAGE.rglob('*.py'))
  ]


def called(node):
  """The last name of what a node calls or names, such as 'lru_cache'."""
  node = node.func if isinstance(node, ast.Call) else node
  return node.attr if isinstance(node, ast.Attribute) else getattr(node, 'id', '')


def remembering(tree):
  """Names of functions of a module that remember their results."""
  return [
    node.name
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    and any(called(mark) in CACHES for mark in node.decorator_list)
  ]


def mutable(tree):
  """Names of a module that are bound to something empty, which can but be filled later."""
  names = []
  for node in tree.body:
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    empty = isinstance(value, ast.Dict | ast.List) and not ast.unparse(value)[1:-1]
    if isinstance(value, ast.Call) and called(value) in EMPTY and not value.keywords:
      empty = not value.args or called(value) == 'defaultdict'
    if empty:
      names.append(ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target))
  names += [name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names]
  return names


def test_functions_remember_nothing_that_could_change(modules):
  found = {(path, name) for path, tree in modules for name in remembering(tree)}
  assert found == set(REMEMBERED)


def test_no_module_holds_what_is_filled_later(modules):
  assert {path: names for path, tree in modules if (names := mutable(tree))} == {}


@pytest.mark.parametrize(
  'text, names',
  [
    ('_known: dict[tuple, dict] = {}', ['_known']),
    ('_met = []', ['_met']),
    ('seen = set()', ['seen']),
    ('table = collections.defaultdict(list)', ['table']),
    ('def f():\n  global count\n  count = 1', ['count']),
    ("NAMES = {'a': 1}\nORDER = ('a',)\nNOTHING = ()\nTABLE = dict(a=1)", []),
  ],
)
def test_a_module_with_state_is_found(text, names):
  assert mutable(ast.parse(text)) == names


@pytest.mark.parametrize('mark', ['functools.cache', 'functools.lru_cache(maxsize=8)', 'cache'])
def test_a_function_that_remembers_is_found(mark):
  assert remembering(ast.parse(f'@{mark}\ndef f(x):\n  return x')) == ['f']

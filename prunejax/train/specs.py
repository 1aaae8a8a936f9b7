"""Spec strings such as `'cubic(0.9, end=10000)'`: the name of a factory and literal arguments."""

import ast
import difflib
import inspect
from typing import NamedTuple

MOST = 10_000  # characters of a spec or a value


class Spec(NamedTuple):
  """A parsed call: `factory(**arguments)`."""

  name: str
  factory: object
  arguments: dict

  def __call__(self):
    return self.factory(**self.arguments)


def literal(text: str) -> object:
  """Returns the Python literal in a text, such as a number or a tuple.

  Raises:
    ValueError: it is none, or is too long or too deep to be meant.
  """
  return _of_node(_parsed(text))


def _parsed(text):
  if len(text) > MOST:
    raise ValueError(f'a text of {len(text)} characters: expected at most {MOST}')
  try:
    return ast.parse(text.strip(), mode='eval').body
  except (SyntaxError, MemoryError, RecursionError) as error:
    raise ValueError(str(error)) from None


def _of_node(node):
  try:
    return ast.literal_eval(node)
  except (TypeError, MemoryError, RecursionError) as error:
    raise ValueError(str(error)) from None


def parse(text: str, module, key: str) -> Spec:
  """Parses a spec string.

  Args:
    text: 'name(literal, ..., keyword=literal)'.
    module: where the factory is looked up, one module or a tuple of them.
    key: the config key, for messages.

  Raises:
    ValueError: no call of literals, an unknown name (the nearest is suggested), or arguments that
      do not fit.
  """
  try:
    node = _parsed(text)
    if isinstance(node, ast.Name):  # `magnitude` for `magnitude()`
      node = ast.Call(node, [], [])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
      raise ValueError
    args = [_of_node(a) for a in node.args]
    kwargs = {k.arg: _of_node(k.value) for k in node.keywords}
  except ValueError as error:
    raise ValueError(
      f'{key}={_shown(text)}: expected a call with literal arguments, such as'
      " 'cubic(0.9, end=10000)'"
    ) from error
  known = factories(module)
  if node.func.id not in known:
    raise ValueError(
      f'{key}={text!r}: no {node.func.id!r}{suggest(node.func.id, known)}; known:'
      f' {", ".join(known)}'
    )
  factory = known[node.func.id]
  try:
    bound = inspect.signature(factory).bind(*args, **kwargs)
  except TypeError as error:
    raise ValueError(
      f'{key}={text!r}: {error}; expected {node.func.id}{_plain_signature(factory)}'
    ) from error
  bound.apply_defaults()  # so that two spellings of one method are equal
  arguments = {}
  for name, value in bound.arguments.items():
    kind = inspect.signature(factory).parameters[name].kind
    arguments.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
  return Spec(node.func.id, factory, arguments)


def _shown(text):
  return repr(text) if len(text) <= 200 else f'{text[:200]!r}...'


def factories(module):
  """Returns {name: function} of the factories in `__all__` of a module, or of a tuple of modules.

  A module without a list offers the public functions that it defines.
  """
  return {
    name: value
    for one in (module if isinstance(module, tuple) else (module,))
    for name, value in vars(one).items()
    if inspect.isfunction(value) and name in _listed(one)
  }


def _listed(module):
  if hasattr(module, '__all__'):
    return module.__all__
  return [
    name
    for name, value in vars(module).items()
    if getattr(value, '__module__', None) == module.__name__ and not name.startswith('_')
  ]


def _plain_signature(factory):
  """The signature without annotations, as a person would type the call."""
  signature = inspect.signature(factory)
  plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
  return signature.replace(parameters=plain, return_annotation=signature.empty)


def suggest(word: str, known) -> str:
  """Returns ' (did you mean ...?)' with the nearest of the known words, or ''."""
  near = difflib.get_close_matches(word, known, n=1)
  return f' (did you mean {near[0]!r}?)' if near else ''

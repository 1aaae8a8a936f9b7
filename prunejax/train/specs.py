"""Spec strings such as `'cubic(0.9, end=10000)'`: the name of a factory and literal arguments."""

import ast
import difflib
import inspect
import math
import numbers
import types
import typing
from typing import Any, NamedTuple

MOST = 4096  # characters of a spec string, or of another literal


class Spec(NamedTuple):
  """A parsed call: `factory(**arguments)`."""

  name: str
  factory: object
  arguments: dict

  def __call__(self):
    return self.factory(**self.arguments)


def parse(text: str, module, key: str) -> Spec:
  """Parses a spec string.

  Args:
    text: 'name(literal, ..., keyword=literal)'.
    module: where the factory is looked up, one module or a tuple of them.
    key: the config key, for messages.

  Raises:
    ValueError: no call of literals, an unknown name (the nearest is suggested), or arguments that
      do not fit, in number or in type.
  """
  try:
    node = _parsed(text)
    if isinstance(node, ast.Name):  # `magnitude` for `magnitude()`
      node = ast.Call(node, [], [])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
      raise ValueError
    args = [_finite(literal(a)) for a in node.args]
    kwargs = {k.arg: _finite(literal(k.value)) for k in node.keywords}
  except (ValueError, TypeError) as error:
    raise ValueError(
      f'{key}={shown(text)}: expected a call with literal arguments, such as'
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
  hints = typing.get_type_hints(factory)
  for name, value in bound.arguments.items():
    if inspect.signature(factory).parameters[name].kind in _VARIABLE:
      continue
    if wanted := _misfit(value, hints.get(name, Any)):
      raise ValueError(f'{key}={text!r}: {name}={value!r}: expected {wanted}')
  bound.apply_defaults()  # so that two spellings of one method are equal
  arguments = {}
  for name, value in bound.arguments.items():
    kind = inspect.signature(factory).parameters[name].kind
    arguments.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
  return Spec(node.func.id, factory, arguments)


_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
# What a literal is, by annotation. Whether a number has to be an integer the factories say.
_NUMBER = lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool)
_PLAIN = {
  int: ('a number', _NUMBER),
  float: ('a number', _NUMBER),
  bool: ('True or False', lambda value: isinstance(value, bool)),
  str: ('a text', lambda value: isinstance(value, str)),
  types.NoneType: ('None', lambda value: value is None),
}
_NO_LITERAL = ('Array', 'ndarray')  # names of types: neither library is imported here


def _misfit(value, hint) -> str:
  """What the annotation of an argument accepts, in words, if a literal is none of it; or ''."""
  union = typing.get_origin(hint) in (typing.Union, types.UnionType)
  kinds = [
    kind
    for kind in (typing.get_args(hint) if union else [hint])
    if getattr(kind, '__name__', '') not in _NO_LITERAL
  ]
  if not kinds or not all(kind in _PLAIN for kind in kinds):
    return ''  # the factory checks it
  wanted = dict(_PLAIN[kind] for kind in kinds)
  return '' if any(fits(value) for fits in wanted.values()) else ' or '.join(wanted)


def literal(text: str | ast.AST) -> Any:
  """Returns the value of a Python literal, given as text or as a parsed node.

  Raises:
    ValueError: no literal, or one of more than `MOST` characters or too deep to read.
  """
  try:
    return ast.literal_eval(_parsed(text) if isinstance(text, str) else text)
  except (TypeError, RecursionError, MemoryError) as error:
    raise ValueError('it is no literal, or too deep') from error


def shown(text: Any) -> str:
  """Returns a value of a config as an error shows it: its repr, cut short."""
  return repr(text) if len(repr(text)) <= 200 else f'{repr(text)[:180]}... ({len(text):,} in all)'


def _parsed(text):
  """The tree of an expression. Raises ValueError."""
  if not isinstance(text, str) or len(text) > MOST:
    raise ValueError(f'expected at most {MOST} characters')
  try:
    return ast.parse(text.lstrip(' \t'), mode='eval').body
  except (SyntaxError, RecursionError, MemoryError) as error:
    raise ValueError('it is no expression, or too deep') from error


def _finite(value):
  """Returns a literal. Raises ValueError if it holds a number beyond those of a computer, 1e999."""
  if isinstance(value, float | complex) and not math.isfinite(abs(value)):
    raise ValueError('a number is not finite')
  if isinstance(value, dict):
    value = {_finite(k): _finite(v) for k, v in value.items()}
  elif isinstance(value, list | tuple | set):
    value = type(value)(map(_finite, value))
  return value


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

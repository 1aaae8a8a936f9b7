"""Spec strings such as `'cubic(0.9, end=10000)'`: the name of a factory and literal arguments."""

import ast
import difflib
import inspect
from typing import NamedTuple


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
      do not fit.
  """
  try:
    node = ast.parse(text, mode='eval').body
    if isinstance(node, ast.Name):  # `magnitude` for `magnitude()`
      node = ast.Call(node, [], [])
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
      raise ValueError
    args = [ast.literal_eval(a) for a in node.args]
    kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
  except (SyntaxError, ValueError, TypeError) as error:
    raise ValueError(
      f"{key}={text!r}: expected a call with literal arguments, such as 'cubic(0.9, end=10000)'"
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


def factories(module):
  """{name: function} of the factories that a module lists in `__all__`, or all of a tuple of modules.

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

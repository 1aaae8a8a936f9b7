"""How often a loop of a compiled program runs, where the program says so."""

import re


def count(module, home: str, loop) -> int | None:
  """Returns the rounds of a `while`, or None where they depend on the data.

  Args:
    module: an `hlo.Module`.
    home: the computation of the loop.
    loop: its `hlo.Instruction`.
  """
  known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
  if known:
    return int(known[1])
  scope = re.search(r'op_name="(?:[^"]*/)?([^/"]+)/while"', loop.attributes)
  if scope and scope[1] in module.rounds:
    return module.rounds[scope[1]]
  name = re.search(r'\bcondition=%([\w.\-]+)', loop.attributes)[1]
  condition = module.computations[name]
  comparison = _comparison(module, condition)
  if comparison is None:
    return None
  sides, direction = comparison
  index = [side[1] for side in sides if side[0] == 'carried']
  for number in index:
    first = _first(module, home, loop, number)
    step = _step(module, loop, number)
    limits = [
      side[1] if side[0] == 'constant' else _unchanged(module, home, loop, side[1])
      for side in sides
      if side != ('carried', number)
    ]
    if first is None or not step or len(limits) != 1 or limits[0] is None:
      continue
    counter_is_left = sides[0] == ('carried', number)
    return _rounds(first, step, limits[0], direction if counter_is_left else _SWAPPED[direction])
  return None


_SWAPPED = {'LT': 'GT', 'GT': 'LT', 'LE': 'GE', 'GE': 'LE', 'NE': 'NE', 'EQ': 'EQ'}


def _rounds(first, step, limit, direction):
  """Rounds of a counter that starts at `first`, while it compares with `limit`."""
  distance = {'LT': limit - first, 'LE': limit - first + 1, 'NE': limit - first}
  distance |= {'GT': limit - first, 'GE': limit - first - 1}
  if direction not in distance:
    return None
  if (step > 0) != (direction in ('LT', 'LE')) and direction != 'NE':
    return None
  return max(-(-distance[direction] // step), 0)


def _comparison(module, condition):
  """([side, side], direction) of the comparison that a condition consists of, or None."""
  return _compared(module, condition, _root(condition), {})


def _compared(module, inside, one, arguments):
  """As `_comparison`; `arguments` says what the parameters of a fusion stand for."""
  if one.opcode == 'compare':
    direction = re.search(r'direction=(\w+)', one.attributes)[1]
    return [_side(module, inside, inside.get(name), arguments) for name in one.operands], direction
  if one.opcode in ('bitcast', 'copy'):
    return _compared(module, inside, inside[one.operands[0]], arguments)
  if one.opcode in ('fusion', 'call'):
    name = re.search(r'\b(?:calls|to_apply)=%([\w.\-]+)', one.attributes)[1]
    values = {
      str(n): _side(module, inside, inside.get(operand), arguments)
      for n, operand in enumerate(one.operands)
    }
    deeper = module.computations[name]
    return _compared(module, deeper, _root(deeper), values)
  return None


def _side(module, inside, one, arguments):
  """('constant', n), ('carried', index in the loop's tuple) or ('other', None)."""
  if one is None:
    return ('other', None)
  if one.opcode == 'constant' and re.fullmatch(r'-?\d+', one.argument):
    return ('constant', int(one.argument))
  if one.opcode == 'parameter' and arguments:
    return arguments.get(one.argument, ('other', None))
  if one.opcode == 'get-tuple-element' and _is_parameter(inside, one.operands[0]):
    return ('carried', int(re.search(r'index=(\d+)', one.attributes)[1]))
  if one.opcode in ('bitcast', 'copy', 'convert'):
    return _side(module, inside, inside.get(one.operands[0]), arguments)
  return ('other', None)


def _first(module, home, loop, number):
  """The constant that a carried value starts from, or None."""
  instructions = module.computations[home]
  start = instructions.get(loop.operands[0])
  if start is None or start.opcode != 'tuple':
    return None
  return _constant(module, instructions, instructions.get(start.operands[number]))


def _constant(module, inside, one):
  if one is None:
    return None
  if one.opcode == 'constant' and re.fullmatch(r'-?\d+', one.argument):
    return int(one.argument)
  if one.opcode in ('copy', 'bitcast', 'convert', 'copy-done', 'copy-start', 'broadcast'):
    return _constant(module, inside, inside.get(one.operands[0]))
  if one.opcode == 'fusion' and not one.operands:
    name = re.search(r'\bcalls=%([\w.\-]+)', one.attributes)[1]
    deeper = module.computations[name]
    return _constant(module, deeper, _root(deeper))
  return None


def _unchanged(module, home, loop, number):
  """The constant of a carried value that the body hands on as it is, or None."""
  body = _body(module, loop)
  root = _root(body)
  if root.opcode != 'tuple':
    return None
  handed = body.get(root.operands[number])
  while handed is not None and handed.opcode in ('copy', 'bitcast'):
    handed = body.get(handed.operands[0])
  if handed is None or handed.opcode != 'get-tuple-element':
    return None
  if int(re.search(r'index=(\d+)', handed.attributes)[1]) != number:
    return None
  return _first(module, home, loop, number)


def _step(module, loop, number):
  """What the body adds to a carried counter, or None."""
  body = _body(module, loop)
  root = _root(body)
  if root.opcode != 'tuple':
    return None
  return _added(module, body, body.get(root.operands[number]), number, {})


def _added(module, inside, one, number, arguments):
  if one is None:
    return None
  if one.opcode in ('copy', 'bitcast'):
    return _added(module, inside, inside.get(one.operands[0]), number, arguments)
  if one.opcode == 'fusion':
    name = re.search(r'\bcalls=%([\w.\-]+)', one.attributes)[1]
    values = {
      str(n): _side(module, inside, inside.get(operand), arguments)
      for n, operand in enumerate(one.operands)
    }
    deeper = module.computations[name]
    return _added(module, deeper, _root(deeper), number, values)
  if one.opcode in ('add', 'subtract'):
    sides = [_side(module, inside, inside.get(name), arguments) for name in one.operands]
    steps = [side[1] for side in sides if side[0] == 'constant']
    if ('carried', number) in sides and steps:
      return steps[0] if one.opcode == 'add' else -steps[0]
  return None


def _body(module, loop):
  return module.computations[re.search(r'\bbody=%([\w.\-]+)', loop.attributes)[1]]


def _root(computation):
  return next(one for one in computation.values() if one.is_root)


def _is_parameter(inside, name):
  return name in inside and inside[name].opcode == 'parameter'

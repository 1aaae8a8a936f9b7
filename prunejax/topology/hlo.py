"""What a compiled program does, read from its HLO text: FLOPs, bytes, collectives.

XLA's own cost analysis takes every loop as one round. Here each loop counts as often as it runs,
and both sides of a mask step are told apart. All figures are those of one chip.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from prunejax.topology import trips

# Scopes that the core gives to what runs at mask steps only, and to the search among equal scores.
MASK_STEP, TIES = 'mask_step', 'ties'
# Rounds of a loop whose length depends on the data: the search for a threshold, which takes five to
# seven reads of weights that are distributed as BERT's are (experiments/bench/README.md). Among
# fewer than a million weights on one chip it takes up to eleven, of a table that is small.
ROUNDS = 6
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
# Operations that move nothing.
FREE = {
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'partition-id',
  'replica-id',
  'opt-barrier',
  'domain',
}
FREE_CALLS = {
  'AllocateBuffer',
  'ConcatBitcast',
  'AssumeGatherIndicesInBound',
  'Sharding',
  'SPMDFullToShardShape',
  'SPMDShardToFullShape',
  'LayoutConstraint',
}
SLICES = ('dynamic-slice', 'slice', 'gather')
BITS = {'pred': 8, 'token': 0, 'c64': 64, 'c128': 128}
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_HEAD = re.compile(r'\s*(ROOT )?%?([\w.\-]+) = ')
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$')


class Array(NamedTuple):
  """An array of a program: its element type, its shape, and whether it lies in main memory."""

  dtype: str
  shape: tuple[int, ...]
  in_memory: bool

  @property
  def size(self) -> int:
    """The number of elements."""
    return math.prod(self.shape)

  @property
  def bytes(self) -> float:
    """Bytes without the padding of tiles."""
    bits = BITS.get(self.dtype) or int((re.search(r'\d+', self.dtype) or ['0'])[0])
    return self.size * bits / 8


class Instruction(NamedTuple):
  """One line of a computation."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]  # of the result
  operands: tuple[str, ...]
  argument: str  # the text between the parentheses
  attributes: str  # the text behind them
  is_root: bool


class Module(NamedTuple):
  """A program: {name of a computation: {name of an instruction: Instruction}}, and where it starts.

  Instructions are in order. `rounds` says how often loops run whose length is data: {named scope
  that the loop alone stands in: rounds}.
  """

  computations: dict[str, dict[str, Instruction]]
  entry: str
  rounds: Mapping[str, int] = {}


class Cost(NamedTuple):
  """What a part of a program does on one chip.

  Attributes:
    flops: {element type of the operands: FLOPs of matrix products and convolutions}.
    bytes: read from and written to the main memory of the chip.
    sent: bytes over the links of the chip, as a ring or better needs at least.
    collectives: {kind: (how often, bytes)}. Bytes are those of the larger side, whole.
    guessed: loops that were counted `ROUNDS` times, each as often as it is entered.
    opaque: names of library calls whose FLOPs are unknown.
  """

  flops: Mapping[str, float] = {}
  bytes: float = 0.0
  sent: float = 0.0
  collectives: Mapping[str, tuple[float, float]] = {}
  guessed: float = 0.0
  opaque: frozenset = frozenset()


def parse(text: str) -> Module:
  """Reads the HLO text of a compiled program, as `jax.stages.Compiled.as_text` returns it.

  Raises:
    ValueError: there is no entry computation.
  """
  computations, entry, current = {}, '', None
  for line in text.splitlines():
    if current is None:
      head = _COMPUTATION.match(line)
      if head and not line.startswith('HloModule'):
        current = computations.setdefault(head[2], {})
        entry = head[2] if head[1] else entry
    elif line.startswith('}'):
      current = None
    elif _HEAD.match(line):
      instruction = _instruction(line)
      current[instruction.name] = instruction
  if not entry:
    raise ValueError('this text is no compiled program: it has no ENTRY computation')
  return Module(computations, entry)


def _instruction(line):
  line = re.sub(r'/\*.*?\*/', '', line)
  head = _HEAD.match(line)
  rest = line[head.end() :]
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  kind, rest = rest[:end], rest[end:].lstrip()
  start = rest.index('(')
  stop = _closing(rest, start)
  argument = rest[start + 1 : stop]
  return Instruction(
    head[2],
    rest[:start],
    tuple(map(_array, _ARRAY.finditer(kind))),
    tuple(_NAME.findall(argument)),
    argument,
    rest[stop + 1 :],
    bool(head[1]),
  )


def _closing(text, start):
  """The position of the parenthesis that closes the one at `start`."""
  depth = 0
  for match in re.compile(r'[()]').finditer(text, start):
    depth += 1 if match[0] == '(' else -1
    if not depth:
      return match.start()
  raise ValueError(f'no closing parenthesis in {text[:80]!r}')


def _array(match):
  shape = tuple(int(n) for n in re.findall(r'\d+', match[2]))
  # Memory space 0 is the main memory, others lie on the chip.
  space = re.search(r'S\((\d+)\)', match[3] or '')
  return Array(match[1], shape, space is None or space[1] == '0')


def cost(module: Module) -> tuple[Cost, Cost]:
  """Counts what a program does on one chip.

  Returns:
    The cost of a step at which no mask moves, and of a mask step. They are equal where the program
    has no part named `MASK_STEP`.
  """
  return _of_computation(module, module.entry, {})


def _of_computation(module, name, known):
  if name not in known:
    pairs = [
      _of_instruction(module, name, instruction, known)
      for instruction in module.computations[name].values()
    ]
    known[name] = tuple(_sum(side) for side in zip(*pairs, strict=True)) or (Cost(), Cost())
  return known[name]


def _of_instruction(module, home, one, known):
  """(cost without, cost with masks that move) of one instruction."""
  both = lambda single: (single, single)
  inner = lambda name: _of_computation(module, name, known)
  kind = one.opcode.removesuffix('-start')
  if one.opcode in FREE or one.opcode.endswith(('-done', '-update')):
    return both(Cost())
  if kind == 'while':
    body, condition = (_called(one, key)[0] for key in ('body', 'condition'))
    count = trips.count(module, home, one)
    if count is None and f'/{TIES}/' in one.attributes:
      return both(Cost())  # no scores tie at a threshold
    guess = Cost(guessed=1.0) if count is None else Cost()
    times = ROUNDS if count is None else count
    return tuple(
      _sum([guess, _scaled(_sum(pair), times)])
      for pair in zip(inner(body), inner(condition), strict=True)
    )
  if kind == 'conditional':
    branches = [inner(name) for name in _branches(one)]
    most = max(branches, key=lambda pair: _weight(pair[1]))
    least = min(branches, key=lambda pair: _weight(pair[0]))
    return (least[0] if MASK_STEP in one.attributes else most[0]), most[1]
  if kind in ('call', 'async'):
    names = _called(one, 'calls') or _called(one, 'to_apply')
    return inner(names[0]) if names else both(Cost())
  if kind in COLLECTIVES:
    return both(Cost() if _goes_on(module, home, one) else _of_collective(module, home, one, kind))
  moved = _moved(module, home, one)
  if kind == 'fusion':
    inside = inner(_called(one, 'calls')[0])
    # What a fusion computes on the way never reaches the memory.
    return tuple(side._replace(bytes=moved) for side in inside)
  if kind in ('dot', 'convolution'):
    arrays = [_arrays(module, home, operand)[0] for operand in one.operands[:2]]
    return both(Cost({arrays[0].dtype: products(one, *arrays)}, moved))
  if kind == 'custom-call':
    return both(_of_library(module, home, one, moved))
  return both(Cost(bytes=moved))


def products(one: Instruction, left: Array, right: Array) -> float:
  """Returns the FLOPs of a dot or convolution: two for each product that is added.

  Args:
    one: the instruction.
    left: its first operand.
    right: its second operand.
  """
  out = one.arrays[0]
  if one.opcode == 'dot':
    axes = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', one.attributes)
    inner = [left.shape[int(axis)] for axis in re.findall(r'\d+', axes[1])] if axes else []
    return 2.0 * out.size * math.prod(inner)
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', one.attributes)
  window = _window(one.attributes)
  inner = right.shape[labels[2].index('i')]
  total = 2.0 * out.shape[labels[3].index('b')] * out.shape[labels[3].index('f')] * inner
  for axis in sorted(set(labels[3]) - {'b', 'f'}):
    number = int(axis)
    total *= _pairs(
      left.shape[labels[1].index(axis)],
      out.shape[labels[3].index(axis)],
      right.shape[labels[2].index(axis)],
      {name: values[number] for name, values in window.items()},
    )
  return total


def _window(attributes):
  """{'stride': [...], ...} of a convolution; those that are left out have their usual value."""
  text = (re.search(r'window=\{([^}]*)\}', attributes) or ['', ''])[1]
  given = dict(part.split('=') for part in text.split())
  axes = max((len(value.split('x')) for value in given.values()), default=0)
  usual = {'stride': '1', 'lhs_dilate': '1', 'rhs_dilate': '1', 'pad': '0_0'}
  return {
    name: [int(value.split('_')[0]) for value in given[name].split('x')]
    if name in given
    else [int(plain.split('_')[0])] * axes
    for name, plain in usual.items()
  }


def _pairs(length, out, size, window):
  """How many (place of the result, place of the kernel) of one axis meet a number of the input.

  A batched product is a convolution whose dilation leaves one such place for each result.
  """
  reach = (length - 1) * window['lhs_dilate'] + 1
  count = 0
  for place in range(out):
    for k in range(size):
      at = place * window['stride'] + k * window['rhs_dilate'] - window['pad']
      count += 0 <= at < reach and at % window['lhs_dilate'] == 0
  return count


def _of_collective(module, home, one, kind):
  inputs = sum(array.bytes for name in one.operands for array in _arrays(module, home, name))
  outputs = sum(array.bytes for array in one.arrays)
  if one.opcode.endswith('-start') and kind != 'all-reduce':
    # The start of an asynchronous collective returns its operands too, and scalars of its own.
    outputs = sum(array.bytes for array in one.arrays if array.shape) - inputs
  size = max(inputs, outputs)
  n = _group_size(one.attributes)
  share = (n - 1) / n if n else 1.0
  sent = {'all-reduce': 2 * share, 'collective-permute': 1.0}.get(kind, share) * size
  return Cost(bytes=inputs + outputs, sent=sent, collectives={kind: (1.0, size)})


def _goes_on(module, home, one):
  """Whether this is a later part of a collective that a TPU computes along with other work.

  Such a collective stands in the fusion that starts it, in those that carry it on, and in the one
  that ends it.
  """
  if 'chain_id=' not in one.attributes:
    return False
  others = module.computations[home].values()
  return not any('"AsyncCollectiveStart"' in other.attributes for other in others)


def _group_size(attributes):
  """How many chips exchange data with each other; 0 where the text does not say."""
  if explicit := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
    return len(explicit[1].split(','))
  if short := re.search(r'replica_groups=\[\d+,(\d+)\]<=', attributes):
    return int(short[1])
  if named := re.search(r'replica_groups=mesh\[([^\]]*)\](?:<[^>]*>)? ?\{([^}]*)\}', attributes):
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])
    return math.prod(int(part) if part else sizes[name] for name, part in parts)
  return 0


def _of_library(module, home, one, moved):
  """The cost of a call of a library, such as a matrix product of cuBLAS."""
  target = (re.search(r'custom_call_target="([^"]*)"', one.attributes) or ['', ''])[1]
  if target in FREE_CALLS or target.startswith('AsyncCollective'):
    return Cost()
  if 'gemm' in target or 'matmul' in target:
    left = _arrays(module, home, one.operands[0])[0]
    axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', one.attributes)
    axes = [int(axis) for axis in re.findall(r'\d+', axes[1])] if axes else [len(left.shape) - 1]
    inner = math.prod(left.shape[axis] for axis in axes)
    return Cost({left.dtype: 2.0 * one.arrays[0].size * inner}, moved)
  return Cost(bytes=moved, opaque=frozenset([target]))


def _moved(module, home, one):
  """Bytes that an instruction reads from and writes to the main memory."""
  results = [array for array in one.arrays if array.in_memory]
  operands = [_arrays(module, home, name) for name in one.operands]
  in_memory = lambda arrays: [array for array in arrays if array.in_memory]
  total = lambda arrays: sum(array.bytes for array in arrays)
  if one.opcode == 'fusion':
    inside = module.computations[_called(one, 'calls')[0]]
    parameters = {
      int(item.argument): item for item in inside.values() if item.opcode == 'parameter'
    }
    read = sum(
      min(total(in_memory(arrays)), _used(module, inside, parameters[number].name))
      for number, arrays in enumerate(operands)
      if in_memory(arrays) and number in parameters
    )
    return read + min(total(results), _written(module, inside))
  if one.opcode in ('copy-start', 'slice-start'):
    target = one.arrays[1 if one.opcode == 'slice-start' else 0]
    source = one.arrays[0 if one.opcode == 'slice-start' else 1]
    return target.bytes * (target.in_memory + source.in_memory)
  if one.opcode in SLICES:
    return total(results) + min(total(in_memory(operands[0])), total(one.arrays))
  if one.opcode == 'dynamic-update-slice':
    return 2 * total(in_memory(operands[1]) or operands[1]) if results else 0.0
  if one.opcode == 'scatter':
    updates = operands[len(operands) // 2 + 1 :]
    return sum(3 * total(in_memory(arrays)) for arrays in updates)
  return total(results) + sum(total(in_memory(arrays)) for arrays in operands)


def _used(module, inside, name):
  """Bytes of an operand that a fusion reads: a slice of it, where all its users take slices."""
  read = 0.0
  for user in inside.values():
    if name not in user.operands:
      continue
    if user.opcode in SLICES and user.operands[0] == name:
      read += sum(array.bytes for array in user.arrays)
    elif user.opcode == 'dynamic-update-slice' and user.operands[0] == name:
      continue  # written in place
    elif user.opcode == 'bitcast':
      read += _used(module, inside, user.name)
    elif user.opcode == 'fusion':
      deeper = module.computations[_called(user, 'calls')[0]]
      for number, operand in enumerate(user.operands):
        parameter = next(
          (p for p in deeper.values() if p.opcode == 'parameter' and p.argument == str(number)),
          None,
        )
        if operand == name and parameter is not None:
          read += _used(module, deeper, parameter.name)
    else:
      return math.inf
  return read


def _written(module, inside, name=None):
  """Bytes that a fusion writes: the slice, where it updates one in place."""
  root = inside[name] if name else next(one for one in inside.values() if one.is_root)
  if root.opcode == 'tuple':
    return sum(_written(module, inside, operand) for operand in root.operands)
  if root.opcode == 'bitcast' and root.operands[0] in inside:
    return min(
      sum(array.bytes for array in root.arrays), _written(module, inside, root.operands[0])
    )
  if root.opcode == 'dynamic-update-slice':
    return sum(array.bytes for array in inside[root.operands[1]].arrays)
  if root.opcode == 'fusion':
    return _written(module, module.computations[_called(root, 'calls')[0]])
  return sum(array.bytes for array in root.arrays)


def _arrays(module, home, name):
  instruction = module.computations[home].get(name)
  return instruction.arrays if instruction else ()


def _called(one, key):
  """The names of the computations that an attribute names."""
  match = re.search(rf'\b{key}=(\{{[^}}]*\}}|%[\w.\-]+)', one.attributes)
  return _NAME.findall(match[1]) if match else []


def _branches(one):
  names = _called(one, 'branch_computations')
  return names or _called(one, 'true_computation') + _called(one, 'false_computation')


def _weight(one):
  return (sum(one.flops.values()), one.bytes)


def _sum(costs):
  flops, collectives = {}, {}
  for one in costs:
    for name, value in one.flops.items():
      flops[name] = flops.get(name, 0.0) + value
    for kind, (count, size) in one.collectives.items():
      old = collectives.get(kind, (0.0, 0.0))
      collectives[kind] = (old[0] + count, old[1] + size)
  return Cost(
    flops,
    sum(one.bytes for one in costs),
    sum(one.sent for one in costs),
    collectives,
    sum(one.guessed for one in costs),
    frozenset().union(*(one.opaque for one in costs)),
  )


def _scaled(one, times):
  return one._replace(
    flops={name: times * value for name, value in one.flops.items()},
    bytes=times * one.bytes,
    sent=times * one.sent,
    collectives={
      kind: (times * count, times * size) for kind, (count, size) in one.collectives.items()
    },
    guessed=times * one.guessed,
  )

"""Structures whose units span several leaves, beside their numpy twins.

A twin maps {leaf: shape} to {leaf: the unit of each weight}, in object arrays of pairs (name,
number). The twins are written leaf by leaf.
"""

import numpy as np

from prunejax.pruning import structures

SHAPES = {
  'layer_0/attention/query/kernel': (10, 12),
  'layer_0/attention/query/bias': (12,),
  'layer_0/attention/output/kernel': (12, 10),
  'layer_1/attention/query/kernel': (10, 12),
  'layer_1/attention/query/bias': (12,),
  'layer_1/attention/output/kernel': (12, 10),
  'layer_1/attention/key/kernel': (10, 8),
}
BLOCK = {
  'layer_0/ffn/intermediate/kernel': (6, 10),
  'layer_0/ffn/intermediate/bias': (10,),
  'layer_0/ffn/output/kernel': (10, 6),
  'layer_1/ffn/intermediate/kernel': (6, 8),
  'layer_1/ffn/output/kernel': (8, 6),
}
GROUPED = {
  'layer_0/attention/query/kernel': (10, 12),
  'layer_0/attention/key/kernel': (10, 4),
  'layer_0/attention/value/kernel': (10, 4),
  'layer_0/attention/value/bias': (4,),
  'layer_0/attention/output/kernel': (12, 10),
}
GATED = {
  'layer_0/ffn/gate/kernel': (6, 8),
  'layer_0/ffn/intermediate/kernel': (6, 8),
  'layer_0/ffn/output/kernel': (8, 6),
}
TABLE = {
  r'(a|b)/up': (r'\1', -1, 2),
  r'(a|b)/down': (r'\1', -2, 3),
  'stack/up': ('stack', -1, 2),
  'stack/bias': ('stack', -1, 2),
}
FREE = {
  'a/up': (4, 8),
  'a/down': (12, 6),
  'b/up': (4, 6),
  'stack/up': (3, 4, 8),
  'stack/bias': (3, 8),
}


def columns(size):
  return lambda *place: place[-1] // size


def rows(size):
  return lambda *place: place[-2] // size


def head_of(name, place):
  layer = name.split('/')[0]
  return f'{layer}/attention/heads', (rows if name.endswith('output/kernel') else columns)(4)(
    *place
  )


def group_of(name, place):
  """Of heads 2 wide, three read one key and value."""
  wide = 6 if 'query' in name or 'output' in name else 2
  return 'layer_0/attention/heads', (rows if name.endswith('output/kernel') else columns)(wide)(
    *place
  )


def neuron_of(name, place):
  layer = name.split('/')[0]
  return f'{layer}/ffn/neurons', (rows if name.endswith('output/kernel') else columns)(1)(*place)


def free_of(name, place):
  if name.startswith('stack'):
    return 'stack', place[0] * 4 + place[-1] // 2
  return name[0], place[-2] // 3 if name.endswith('down') else place[-1] // 2


class Tied:
  """A structure, the shapes to test it on, and the unit of a weight by leaf and position."""

  def __init__(self, make, shapes, unit_of, stacked=()):
    self.make, self.shapes, self.stacked = make, shapes, stacked
    self.of = {}
    for name, shape in shapes.items():
      self.of[name] = np.empty(shape, object)
      for place in np.ndindex(*shape):
        self.of[name][place] = unit_of(name, place)

  def means(self, scores):
    """{leaf: scores} -> {unit: float64 [units]}, the mean score of each unit."""
    gathered = {}
    for name, score in scores.items():
      for unit, value in zip(self.of[name].ravel(), np.float64(score).ravel(), strict=True):
        gathered.setdefault(unit[0], {}).setdefault(unit[1], []).append(value)
    return {
      unit: np.array([np.mean(of[i]) for i in range(len(of))]) for unit, of in gathered.items()
    }

  def joined(self):
    """{unit: shape as one matrix with a column for each unit}."""
    size, number = {}, {}
    for of in self.of.values():
      unit = of.flat[0][0]
      size[unit] = size.get(unit, 0) + of.size
      number[unit] = len({u[1] for u in of.flat})
    return {unit: (size[unit] // number[unit], number[unit]) for unit in size}

  def opened(self, stays):
    """{unit: bool [units]} -> {leaf: mask}."""
    keep = np.vectorize(lambda unit: bool(stays[unit[0]][unit[1]]), otypes=[bool])
    return {name: keep(of) for name, of in self.of.items()}


ATTENTION = {name: shape for name, shape in SHAPES.items() if 'key' not in name}
TIED = {
  'heads': Tied(lambda: structures.heads(4), ATTENTION, head_of),
  'ffn': Tied(structures.ffn, BLOCK, neuron_of),
  'tied': Tied(lambda: structures.tied(TABLE), FREE, free_of, ('stack/up', 'stack/bias')),
}
# The same factories for models with grouped queries and gates.
ALL = {
  **TIED,
  'heads of a group': Tied(lambda: structures.heads(2, group=3), GROUPED, group_of),
  'ffn with a gate': Tied(structures.ffn, GATED, neuron_of),
}

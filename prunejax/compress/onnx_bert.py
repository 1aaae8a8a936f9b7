"""A BERT as an ONNX graph, built node by node. Pruned weights stay zeros.

Inputs have the names that other exporters use: input_ids, token_type_ids and attention_mask, int64
[batch, length], both axes of any size. Outputs are sequence [batch, length, hidden], pooled
[batch, hidden] if the model has a pooler, and one for each head of the model: mlm [batch, length,
vocabulary], nsp [batch, 2], classifier [batch, classes].
"""

import math
from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np

OPSET = 17
INPUTS = ('input_ids', 'token_type_ids', 'attention_mask')
HEADS = ('mlm', 'nsp', 'classifier')


def write(
  path: PathLike | str,
  leaves: Mapping[str, np.ndarray],
  widths: Sequence[tuple[int, int, int]],
  activation: str,
  epsilon: float,
):
  """Writes the graph of `build` as one file.

  Args:
    path: of the file.
    leaves: see `build`.
    widths: see `build`.
    activation: see `build`.
    epsilon: see `build`.

  Raises:
    ValueError: onnx is not installed; an unknown activation.
  """
  _onnx().save(build(leaves, widths, activation, epsilon), str(path))


def build(
  leaves: Mapping[str, np.ndarray],
  widths: Sequence[tuple[int, int, int]],
  activation: str,
  epsilon: float,
):
  """Builds the graph.

  Args:
    leaves: {path: float array} with the paths of models/bert.py.
    widths: (heads, numbers a head, inner neurons) of each layer; 0 for a block without any.
    activation: 'gelu', 'gelu_new' or 'relu'.
    epsilon: of the layer norms.

  Returns:
    An onnx.ModelProto, checked.

  Raises:
    ValueError: onnx is not installed; an unknown activation.
  """
  onnx = _onnx()
  graph = _Graph(onnx, leaves)
  x = _embedded(graph, epsilon)
  valid = graph.op(
    'Unsqueeze', graph.op('Cast', INPUTS[2], to=onnx.TensorProto.BOOL), graph.ints([1, 2])
  )
  for i, (heads, width, inner) in enumerate(widths):
    attention, ffn = f'encoder/layer_{i}/attention', f'encoder/layer_{i}/ffn'
    added = _attention(graph, attention, x, valid, heads, width)
    x = graph.norm(f'{attention}/norm', graph.op('Add', x, added), epsilon)
    if inner:
      wide = _activated(graph, activation, graph.dense(f'{ffn}/intermediate', x))
      added = graph.dense(f'{ffn}/output', wide)
    else:
      added = graph.leaf(f'{ffn}/output/bias')
    x = graph.norm(f'{ffn}/norm', graph.op('Add', x, added), epsilon)
  outputs = {'sequence': x}
  if 'pooler/kernel' in leaves:
    first = graph.op('Gather', x, graph.constant(np.int64(0)), axis=1)
    pooled = outputs['pooled'] = graph.op('Tanh', graph.dense('pooler', first))
  if 'mlm/bias' in leaves:
    y = graph.norm(
      'mlm/norm', _activated(graph, activation, graph.dense('mlm/transform', x)), epsilon
    )
    table = graph.op('Transpose', graph.leaf('embeddings/word/embedding'), perm=[1, 0])
    outputs['mlm'] = graph.op('Add', graph.op('MatMul', y, table), graph.leaf('mlm/bias'))
  outputs |= {head: graph.dense(head, pooled) for head in HEADS[1:] if f'{head}/kernel' in leaves}
  for name, value in outputs.items():
    graph.op('Identity', value, out=name)
  types, helper = onnx.TensorProto, onnx.helper
  spec = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
  axes = {  # after the batch's
    'sequence': ['length', None],
    'pooled': [None],
    'mlm': ['length', None],
    'nsp': [2],
    'classifier': [None],
  }
  body = helper.make_graph(
    graph.nodes,
    'bert',
    [spec(name, types.INT64, ['batch', 'length']) for name in INPUTS],
    [spec(name, types.FLOAT, ['batch', *axes[name]]) for name in outputs],
    list(graph.tensors.values()),
  )
  model = helper.make_model(
    body, opset_imports=[helper.make_opsetid('', OPSET)], producer_name='prunejax'
  )
  model.ir_version = 8  # belongs to opset 17; current runtimes read it
  onnx.checker.check_model(model)
  return model


def _onnx():
  try:
    import onnx
  except ImportError as error:
    raise ValueError(
      f"onnx is not installed ({error}): python -m pip install -e '.[onnx]'"
    ) from error
  return onnx


class _Graph:
  """The nodes and tensors added so far. Each method returns the name of a value."""

  def __init__(self, onnx, leaves):
    self.onnx, self.leaves, self.nodes, self.tensors = onnx, leaves, [], {}

  def op(self, kind, *inputs, out=None, **attributes):
    out = out or f'{kind}_{len(self.nodes)}'
    self.nodes.append(
      self.onnx.helper.make_node(kind, list(inputs), [out], name=f'node_{out}', **attributes)
    )
    return out

  def tensor(self, name, array):
    self.tensors.setdefault(
      name, self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
    )
    return name

  def leaf(self, path):
    return self.tensor(path, np.asarray(self.leaves[path], np.float32))

  def constant(self, value):
    value = np.asarray(value)
    name = f'constant_{value.dtype}_{"_".join(map(str, value.ravel().tolist()))}_{value.ndim}'
    self.tensors.setdefault(name, self.onnx.numpy_helper.from_array(value, name))
    return name

  def ints(self, values):
    return self.constant(np.asarray(values, np.int64))

  def dense(self, path, x):
    return self.op(
      'Add', self.op('MatMul', x, self.leaf(f'{path}/kernel')), self.leaf(f'{path}/bias')
    )

  def norm(self, path, x, epsilon):
    scale, bias = self.leaf(f'{path}/scale'), self.leaf(f'{path}/bias')
    return self.op('LayerNormalization', x, scale, bias, axis=-1, epsilon=float(epsilon))


def _embedded(graph, epsilon):
  tables = [f'embeddings/{name}/embedding' for name in ('word', 'segment', 'position')]
  word = graph.op('Gather', graph.leaf(tables[0]), INPUTS[0], axis=0)
  segment = graph.op('Gather', graph.leaf(tables[1]), INPUTS[1], axis=0)
  length = graph.op('Gather', graph.op('Shape', INPUTS[0]), graph.ints([1]), axis=0)
  position = graph.op('Slice', graph.leaf(tables[2]), graph.ints([0]), length, graph.ints([0]))
  return graph.norm(
    'embeddings/norm', graph.op('Add', graph.op('Add', word, position), segment), epsilon
  )


def _attention(graph, path, x, valid, heads, width):
  """The value that attention adds to x."""
  if not heads:
    return graph.leaf(f'{path}/output/bias')

  def split(name, perm):
    wide = graph.op('Reshape', graph.dense(f'{path}/{name}', x), graph.ints([0, 0, heads, width]))
    return graph.op('Transpose', wide, perm=perm)

  query, key, value = (
    split(name, p)
    for name, p in (('query', [0, 2, 1, 3]), ('key', [0, 2, 3, 1]), ('value', [0, 2, 1, 3]))
  )
  scores = graph.op(
    'Div', graph.op('MatMul', query, key), graph.constant(np.float32(math.sqrt(width)))
  )
  scores = graph.op('Where', valid, scores, graph.constant(np.finfo(np.float32).min))
  mixed = graph.op('MatMul', graph.op('Softmax', scores, axis=-1), value)
  mixed = graph.op('Transpose', mixed, perm=[0, 2, 1, 3])
  mixed = graph.op('Reshape', mixed, graph.ints([0, 0, heads * width]))
  return graph.dense(f'{path}/output', mixed)


def _activated(graph, activation, x):
  number = lambda value: graph.constant(np.float32(value))
  if activation == 'relu':
    return graph.op('Relu', x)
  if activation == 'gelu':
    inner = graph.op('Erf', graph.op('Div', x, number(math.sqrt(2))))
  elif activation == 'gelu_new':
    cube = graph.op('Mul', graph.op('Mul', graph.op('Mul', x, x), x), number(0.044715))
    inner = graph.op(
      'Tanh', graph.op('Mul', graph.op('Add', x, cube), number(math.sqrt(2 / math.pi)))
    )
  else:
    raise ValueError(f'onnx: activation {activation!r}; accepted: gelu, gelu_new, relu')
  return graph.op('Mul', graph.op('Mul', x, number(0.5)), graph.op('Add', inner, number(1)))

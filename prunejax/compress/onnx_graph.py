"""What the ONNX graphs of a BERT and of a GPT-2 share: nodes, attention, activations, a model."""

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

OPSET = 17


def library():
  """Returns the package onnx. Raises ValueError where it is not installed."""
  try:
    import onnx
  except ImportError as error:
    raise ValueError(
      f"onnx is not installed ({error}): python -m pip install -e '.[onnx]'"
    ) from error
  return onnx


def write(path: PathLike | str, model: Any) -> None:
  """Writes an onnx.ModelProto as one file. Raises ValueError where onnx is not installed."""
  library().save(model, str(path))


class Graph:
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


def attention(graph, path: str, x: str, visible: str, heads: int, width: int) -> str:
  """Adds attention to a graph.

  Args:
    graph: a `Graph`.
    path: of the module.
    x: what it reads, [batch, length, hidden].
    visible: boolean, broadcast to [batch, heads, queries, keys].
    heads: number of heads; without any, attention is its output's bias.
    width: numbers a head.

  Returns:
    The value that is added to the residual stream.
  """
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
  scores = graph.op('Where', visible, scores, graph.constant(np.finfo(np.float32).min))
  mixed = graph.op('MatMul', graph.op('Softmax', scores, axis=-1), value)
  mixed = graph.op('Transpose', mixed, perm=[0, 2, 1, 3])
  mixed = graph.op('Reshape', mixed, graph.ints([0, 0, heads * width]))
  return graph.dense(f'{path}/output', mixed)


def activated(graph, activation: str, x: str) -> str:
  """Adds an activation, 'gelu', 'gelu_new' or 'relu', to a graph.

  Raises:
    ValueError: another activation.
  """
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


def feed_forward(graph, path: str, x: str, activation: str, inner: int) -> str:
  """Adds a feed-forward block to a graph; without inner neurons it is its output's bias."""
  if not inner:
    return graph.leaf(f'{path}/output/bias')
  wide = activated(graph, activation, graph.dense(f'{path}/intermediate', x))
  return graph.dense(f'{path}/output', wide)


def model(graph, name: str, inputs: Sequence[str], outputs: Mapping[str, str], axes: Mapping):
  """Returns the onnx.ModelProto of a graph, checked.

  Args:
    graph: a `Graph`.
    name: of the graph.
    inputs: names of int64 inputs [batch, length].
    outputs: {name: value} of float outputs.
    axes: {name of an output: its axes after the batch's}.
  """
  for output, value in outputs.items():
    graph.op('Identity', value, out=output)
  onnx = graph.onnx
  types, helper = onnx.TensorProto, onnx.helper
  spec = lambda name, kind, shape: helper.make_tensor_value_info(name, kind, shape)
  body = helper.make_graph(
    graph.nodes,
    name,
    [spec(given, types.INT64, ['batch', 'length']) for given in inputs],
    [spec(output, types.FLOAT, ['batch', *axes[output]]) for output in outputs],
    list(graph.tensors.values()),
  )
  proto = helper.make_model(
    body, opset_imports=[helper.make_opsetid('', OPSET)], producer_name='prunejax'
  )
  proto.ir_version = 8  # belongs to opset 17; current runtimes read it
  onnx.checker.check_model(proto)
  return proto

"""A GPT-2 as an ONNX graph, built node by node. Pruned weights stay zeros.

Inputs have the names that other exporters use: input_ids and attention_mask, int64 [batch, length],
both axes of any size. Padding is on the right. Outputs are sequence [batch, length, hidden], after
the last norm, and classifier [batch, classes] if the model has one, which reads the last valid
token, else lm [batch, length, vocabulary].
"""

from collections.abc import Mapping, Sequence

import numpy as np

from prunejax.compress import onnx_graph

INPUTS = ('input_ids', 'attention_mask')


def build(
  leaves: Mapping[str, np.ndarray],
  widths: Sequence[tuple[int, int, int]],
  activation: str,
  epsilon: float,
):
  """Builds the graph.

  Args:
    leaves: {path: float array} with the paths of models/gpt2.py.
    widths: (heads, numbers a head, inner neurons) of each layer; 0 for a block without any.
    activation: 'gelu', 'gelu_new' or 'relu'.
    epsilon: of the layer norms.

  Returns:
    An onnx.ModelProto, checked.

  Raises:
    ValueError: onnx is not installed; an unknown activation.
  """
  graph = onnx_graph.Graph(onnx_graph.library(), leaves)
  types = graph.onnx.TensorProto
  word, position = (f'embeddings/{name}/embedding' for name in ('word', 'position'))
  length = graph.op('Gather', graph.op('Shape', INPUTS[0]), graph.constant(np.int64(1)), axis=0)
  places = graph.op('Range', graph.constant(np.int64(0)), length, graph.constant(np.int64(1)))
  x = graph.op(
    'Add',
    graph.op('Gather', graph.leaf(word), INPUTS[0], axis=0),
    graph.op('Gather', graph.leaf(position), places, axis=0),
  )
  valid = graph.op('Cast', INPUTS[1], to=types.BOOL)
  keys, queries = (graph.op('Unsqueeze', places, graph.ints([axis])) for axis in (0, 1))
  visible = graph.op(
    'And',
    graph.op('Unsqueeze', valid, graph.ints([1, 2])),
    graph.op('LessOrEqual', keys, queries),
  )
  for i, (heads, width, inner) in enumerate(widths):
    attention, ffn = f'encoder/layer_{i}/attention', f'encoder/layer_{i}/ffn'
    normed = graph.norm(f'{attention}/norm', x, epsilon)
    added = onnx_graph.attention(graph, attention, normed, visible, heads, width)
    x = graph.op('Add', x, added)
    normed = graph.norm(f'{ffn}/norm', x, epsilon)
    x = graph.op('Add', x, onnx_graph.feed_forward(graph, ffn, normed, activation, inner))
  x = graph.norm('norm', x, epsilon)
  outputs = {'sequence': x}
  if 'classifier/kernel' in leaves:
    marked = graph.op('Mul', graph.op('Cast', valid, to=types.INT64), places)
    last = graph.op('ReduceMax', marked, axes=[1], keepdims=1)
    hidden = graph.op('GatherND', x, last, batch_dims=1)
    outputs['classifier'] = graph.op('MatMul', hidden, graph.leaf('classifier/kernel'))
  else:
    table = graph.op('Transpose', graph.leaf(word), perm=[1, 0])
    outputs['lm'] = graph.op('MatMul', x, table)
  axes = {'sequence': ['length', None], 'lm': ['length', None], 'classifier': [None]}
  return onnx_graph.model(graph, 'gpt2', INPUTS, outputs, axes)

"""A BERT as an ONNX graph, built node by node. Pruned weights stay zeros.

Inputs have the names that other exporters use: input_ids, token_type_ids and attention_mask, int64
[batch, length], both axes of any size. Outputs are sequence [batch, length, hidden], pooled
[batch, hidden] if the model has a pooler, and one for each head of the model: mlm [batch, length,
vocabulary], nsp [batch, 2], classifier [batch, classes].
"""

from collections.abc import Mapping, Sequence

import numpy as np

from prunejax.compress import onnx_graph

INPUTS = ('input_ids', 'token_type_ids', 'attention_mask')
HEADS = ('mlm', 'nsp', 'classifier')


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
  graph = onnx_graph.Graph(onnx_graph.library(), leaves)
  x = _embedded(graph, epsilon)
  valid = graph.op(
    'Unsqueeze', graph.op('Cast', INPUTS[2], to=graph.onnx.TensorProto.BOOL), graph.ints([1, 2])
  )
  for i, (heads, width, inner) in enumerate(widths):
    attention, ffn = f'encoder/layer_{i}/attention', f'encoder/layer_{i}/ffn'
    added = onnx_graph.attention(graph, attention, x, valid, heads, width)
    x = graph.norm(f'{attention}/norm', graph.op('Add', x, added), epsilon)
    added = onnx_graph.feed_forward(graph, ffn, x, activation, inner)
    x = graph.norm(f'{ffn}/norm', graph.op('Add', x, added), epsilon)
  outputs = {'sequence': x}
  if 'pooler/kernel' in leaves:
    first = graph.op('Gather', x, graph.constant(np.int64(0)), axis=1)
    pooled = outputs['pooled'] = graph.op('Tanh', graph.dense('pooler', first))
  if 'mlm/bias' in leaves:
    y = onnx_graph.activated(graph, activation, graph.dense('mlm/transform', x))
    y = graph.norm('mlm/norm', y, epsilon)
    table = graph.op('Transpose', graph.leaf('embeddings/word/embedding'), perm=[1, 0])
    outputs['mlm'] = graph.op('Add', graph.op('MatMul', y, table), graph.leaf('mlm/bias'))
  outputs |= {head: graph.dense(head, pooled) for head in HEADS[1:] if f'{head}/kernel' in leaves}
  axes = {
    'sequence': ['length', None],
    'pooled': [None],
    'mlm': ['length', None],
    'nsp': [2],
    'classifier': [None],
  }
  return onnx_graph.model(graph, 'bert', INPUTS, outputs, axes)


def _embedded(graph, epsilon):
  tables = [f'embeddings/{name}/embedding' for name in ('word', 'segment', 'position')]
  word = graph.op('Gather', graph.leaf(tables[0]), INPUTS[0], axis=0)
  segment = graph.op('Gather', graph.leaf(tables[1]), INPUTS[1], axis=0)
  length = graph.op('Gather', graph.op('Shape', INPUTS[0]), graph.ints([1]), axis=0)
  position = graph.op('Slice', graph.leaf(tables[2]), graph.ints([0]), length, graph.ints([0]))
  return graph.norm(
    'embeddings/norm', graph.op('Add', graph.op('Add', word, position), segment), epsilon
  )

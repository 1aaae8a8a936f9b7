"""One BERT encoder in several forms, each a function from ids to hidden states."""

import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import transformers
from flax import traverse_util
from jax.experimental import sparse

from prunejax.bench import measure
from prunejax.compress import onnx_bert, onnx_graph
from prunejax.models import bert
from prunejax.train import saved_model


class Form(NamedTuple):
  """One form of the encoder.

  Attributes:
    name: shown in the table.
    call: {input_ids, segment_ids, valid} -> (sequence, pooled).
    note: how it is run.
    size: bytes of its file, 0 if it has none of its own.
  """

  name: str
  call: Callable[[Mapping[str, np.ndarray]], tuple[Any, Any]]
  note: str
  size: int = 0


def forms(
  leaves: Mapping[str, np.ndarray],
  size: transformers.BertConfig,
  small: tuple[Mapping[str, np.ndarray], transformers.BertConfig],
  scratch: pathlib.Path,
) -> tuple[list[Form], list[tuple[str, str]]]:
  """Builds every form that the model and the machine allow.

  Args:
    leaves: {path: float32 array} of the model.
    size: its configuration.
    small: leaves and configuration of the shrunk model.
    scratch: a folder for files of ONNX.

  Returns:
    The forms, the dense one first; and (name, reason) of those that cannot be built.
  """
  built = [Form('dense', dense(leaves, size), 'jit of the plain model')]
  missing = []
  kernels = {
    path: leaf
    for path, leaf in leaves.items()
    if path.startswith('encoder/') and _has_zeros(path, leaf)
  }
  if kernels:
    note = f'jax.experimental.sparse, {len(kernels)} kernels'
    built.append(Form('sparse, BCSR', bcsr(leaves, size, kernels), note))
  else:
    missing.append(('sparse, BCSR', 'no gain: no kernel of the encoder has a zero'))
  smaller = _weights(small[0]) < _weights(leaves)
  if smaller:
    heads, inner = small[1].heads_per_layer, small[1].intermediate_per_layer
    built.append(Form('shrunk', dense(*small), f'heads {heads}, inner neurons {inner}'))
  else:
    missing.append(('shrunk', 'no gain: no head and no inner neuron is idle'))
  try:
    built += _onnx('ONNX Runtime', leaves, size, scratch)
    built += _onnx('ONNX Runtime, shrunk', *small, scratch) if smaller else []
  except (ImportError, ValueError) as error:
    missing.append(('ONNX Runtime', f"not run: {error}; python -m pip install -e '.[onnx]'"))
  return built, missing


def dense(leaves: Mapping[str, np.ndarray], size: transformers.BertConfig) -> Callable:
  """Builds the Flax encoder. It compiles for each shape of batch.

  Args:
    leaves: {path: float32 array}.
    size: configuration of the model.

  Returns:
    The `call` of a form.
  """
  model = bert.Bert(size, ())
  params = jax.device_put(traverse_util.unflatten_dict(_encoder(leaves), sep='/'))

  @jax.jit
  def forward(params, input_ids, segment_ids, valid):
    states = model.apply({'params': params}, input_ids, segment_ids, valid)
    return states['sequence'], states['pooled']

  return lambda batch: jax.block_until_ready(forward(params, **batch))


def bcsr(
  leaves: Mapping[str, np.ndarray],
  size: transformers.BertConfig,
  kernels: Mapping[str, np.ndarray],
) -> Callable:
  """Builds the Flax encoder with some kernels as sparse matrices.

  Args:
    leaves: {path: float32 array}.
    size: configuration of the model.
    kernels: the leaves that become BCSR matrices, [out, in], so that a product is matrix @ dense.

  Returns:
    The `call` of a form.
  """
  model = bert.Bert(size, ())
  rest = traverse_util.unflatten_dict(
    {path: leaf for path, leaf in _encoder(leaves).items() if path not in kernels}, sep='/'
  )
  matrices = {path: sparse.BCSR.fromdense(leaf.T) for path, leaf in kernels.items()}

  @jax.jit
  def forward(params, matrices, input_ids, segment_ids, valid):
    def product(call, args, kwargs, context):
      path = '/'.join((*context.module.path, 'kernel'))
      if not isinstance(context.module, nn.Dense) or path not in matrices:
        return call(*args, **kwargs)
      x = args[0]
      y = (matrices[path] @ x.reshape(-1, x.shape[-1]).T).T
      return y.reshape(*x.shape[:-1], -1) + context.module.get_variable('params', 'bias')

    with nn.intercept_methods(product):
      states = model.apply({'params': params}, input_ids, segment_ids, valid)
    return states['sequence'], states['pooled']

  return lambda batch: jax.block_until_ready(forward(rest, matrices, **batch))


def _onnx(name, leaves, size, scratch):
  """Forms of ONNX Runtime: float32, and int8 by dynamic quantisation of weights and activations."""
  import onnxruntime
  from onnxruntime import quantization

  plain, small = (scratch / f'{name}-{kind}.onnx' for kind in ('float32', 'int8'))
  activation = saved_model.activation(size)
  widths = saved_model.widths(size)
  graph = onnx_bert.build(_encoder(leaves), widths, activation, size.layer_norm_eps)
  onnx_graph.write(plain, graph)
  logging.disable(logging.WARNING)  # advice that is for models of other exporters
  quantization.quantize_dynamic(plain, small, weight_type=quantization.QuantType.QInt8)
  logging.disable(logging.NOTSET)
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads, options.log_severity_level = measure.cores(), 3

  def session(path):
    runtime = onnxruntime.InferenceSession(
      path.read_bytes(), options, providers=['CPUExecutionProvider']
    )

    def call(batch):
      arrays = (batch[key].astype(np.int64) for key in ('input_ids', 'segment_ids', 'valid'))
      return runtime.run(['sequence', 'pooled'], dict(zip(onnx_bert.INPUTS, arrays, strict=True)))

    return call

  note = 'encoder and pooler'
  return [
    Form(f'{name}, float32', session(plain), note, plain.stat().st_size),
    Form(f'{name}, int8', session(small), f'{note}, dynamic quantisation', small.stat().st_size),
  ]


def _encoder(leaves):
  """The leaves without those of the heads."""
  return {
    path: leaf
    for path, leaf in leaves.items()
    if not path.startswith(tuple(f'{h}/' for h in bert.HEADS))
  }


def _has_zeros(path, leaf):
  return path.endswith('/kernel') and leaf.size and bool(np.any(leaf == 0))


def _weights(leaves):
  return sum(leaf.size for leaf in leaves.values())

"""One BERT encoder in several forms, each a function from ids to hidden states: what `pruned` times."""

import logging
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from jax.experimental import sparse

from prunejax.bench import measure
from prunejax.compress import onnx_bert
from prunejax.models import bert
from prunejax.train import saved_model


class Form(NamedTuple):
  """call: {input_ids, segment_ids, valid} -> (sequence, pooled). size: bytes of its file, 0 for none of its own."""

  name: str
  call: Any
  note: str
  size: int = 0


def forms(leaves, size, small, scratch):
  """([Form], the dense one first; [(name, why)] of those that cannot be). small: (leaves, size) of the shrunk model."""
  found = [Form('dense', dense(leaves, size), 'jit of the plain model')]
  lacking = []
  holes = {
    path: leaf
    for path, leaf in leaves.items()
    if path.startswith('encoder/') and _sparse(path, leaf)
  }
  if holes:
    found.append(
      Form(
        'sparse, BCSR', bcsr(leaves, size, holes), f'jax.experimental.sparse, {len(holes)} kernels'
      )
    )
  else:
    lacking.append(('sparse, BCSR', 'no gain: no kernel of the encoder has a zero'))
  cut = sum(leaf.size for leaf in small[0].values()) < sum(leaf.size for leaf in leaves.values())
  if cut:
    heads, inner = small[1].heads_per_layer, small[1].intermediate_per_layer
    found.append(Form('shrunk', dense(*small), f'heads {heads}, inner neurons {inner}'))
  else:
    lacking.append(('shrunk', 'no gain: no head and no inner neuron is idle'))
  try:
    found += _onnx('ONNX Runtime', leaves, size, scratch)
    found += _onnx('ONNX Runtime, shrunk', *small, scratch) if cut else []
  except (ImportError, ValueError) as error:
    lacking.append(('ONNX Runtime', f"not run: {error}; python -m pip install -e '.[onnx]'"))
  return found, lacking


def dense(leaves, size):
  """The Flax encoder, compiled for each shape that comes."""
  model = bert.Bert(size, ())
  params = jax.device_put(traverse_util.unflatten_dict(_encoder(leaves), sep='/'))

  @jax.jit
  def forward(params, input_ids, segment_ids, valid):
    out = model.apply({'params': params}, input_ids, segment_ids, valid)
    return out['sequence'], out['pooled']

  return lambda batch: jax.block_until_ready(forward(params, **batch))


def bcsr(leaves, size, holes):
  """The same with the kernels `holes` as BCSR matrices, [out, in], so that a product is matrix @ dense."""
  model = bert.Bert(size, ())
  rest = traverse_util.unflatten_dict(
    {path: leaf for path, leaf in _encoder(leaves).items() if path not in holes}, sep='/'
  )
  matrices = {path: sparse.BCSR.fromdense(leaf.T) for path, leaf in holes.items()}

  @jax.jit
  def forward(params, matrices, input_ids, segment_ids, valid):
    def product(call, args, kwargs, context):
      path = '/'.join((*context.module.path, 'kernel'))
      if not isinstance(context.module, nn.Dense) or path not in matrices:
        return call(*args, **kwargs)
      x = args[0]
      out = (matrices[path] @ x.reshape(-1, x.shape[-1]).T).T
      return out.reshape(*x.shape[:-1], -1) + context.module.get_variable('params', 'bias')

    with nn.intercept_methods(product):
      out = model.apply({'params': params}, input_ids, segment_ids, valid)
    return out['sequence'], out['pooled']

  return lambda batch: jax.block_until_ready(forward(rest, matrices, **batch))


def _onnx(name, leaves, size, scratch):
  """Forms of ONNX Runtime: float32, and weights and activations in eight bits by dynamic quantisation."""
  import onnxruntime
  from onnxruntime import quantization

  plain, small = (scratch / f'{name}-{kind}.onnx' for kind in ('float32', 'int8'))
  onnx_bert.write(
    plain, _encoder(leaves), saved_model.widths(size), size.hidden_act, size.layer_norm_eps
  )
  logging.disable(
    logging.WARNING
  )  # it would advise steps for models that were exported from elsewhere
  quantization.quantize_dynamic(plain, small, weight_type=quantization.QuantType.QInt8)
  logging.disable(logging.NOTSET)
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads, options.log_severity_level = measure.cores(), 3

  def session(path):
    made = onnxruntime.InferenceSession(
      path.read_bytes(), options, providers=['CPUExecutionProvider']
    )

    def call(batch):
      given = (batch[key].astype(np.int64) for key in ('input_ids', 'segment_ids', 'valid'))
      return made.run(['sequence', 'pooled'], dict(zip(onnx_bert.INPUTS, given, strict=True)))

    return call

  note = 'encoder and pooler'
  return [
    Form(f'{name}, float32', session(plain), note, plain.stat().st_size),
    Form(f'{name}, int8', session(small), f'{note}, dynamic quantisation', small.stat().st_size),
  ]


def _encoder(leaves):
  return {
    path: leaf
    for path, leaf in leaves.items()
    if not path.startswith(tuple(f'{h}/' for h in bert.HEADS))
  }


def _sparse(path, leaf):
  return path.endswith('/kernel') and leaf.size and bool(np.any(leaf == 0))

"""Compiles a mask update of BERT-Base for a TPU slice, where no TPU is; see pruning/test_tpu.py.

Usage: python tests/tpu_program.py {rows,both} LAYERS {uniform,global_threshold} FOLDER, an empty
folder for the compiler's reports.

Prints one JSON object a way of dividing the kernels: collectives, their largest operand, bytes.
`temporaries` are bytes of a chip's main memory (HBM); what the compiler fetches ahead into the
core's own memory is not in them. `largest_temporary` is the largest array among them.
"""

import json
import os
import pathlib
import re
import sys
import time

# Nothing here looks for a TPU: libtpu compiles, and that is all.
os.environ |= {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'JAX_PLATFORMS': 'cpu',
  'XLA_FLAGS': f'--xla_dump_to={sys.argv[4]} --xla_dump_hlo_as_text',
}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import prunejax

WAYS = {'rows': ((16, 1), ('x',)), 'both': ((4, 4), ('x', 'y'))}
COLLECTIVE = re.compile(
  r'= (.*?) ((?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?)\('
)

# Lines of the compiler's report. An allocation with a color is not in main memory.
ALLOCATION = re.compile(r'allocation \d+: size (\d+), (.*)')
VALUE = re.compile(r' value: .* \(size=(\d+),offset=\d+\)')


def kernels(layers):
  """{path: shape} of the encoder's six kernels a layer."""
  shapes = {}
  for layer in range(layers):
    for name in ('query', 'key', 'value', 'output'):
      shapes[f'encoder/layer_{layer}/attention/{name}/kernel'] = (768, 768)
    shapes[f'encoder/layer_{layer}/ffn/intermediate/kernel'] = (768, 3072)
    shapes[f'encoder/layer_{layer}/ffn/output/kernel'] = (3072, 768)
  return shapes


def compiled(way, layers, allocation):
  """What the compiler says of a mask update of `prune_transform`."""
  devices = topologies.get_topology_desc('v5e:4x4', platform='tpu').devices
  (rows, columns), axes = WAYS[way]
  mesh = Mesh(np.array(devices).reshape(rows, columns), ('x', 'y'), axis_types=(AxisType.Auto,) * 2)
  lies = NamedSharding(mesh, PartitionSpec(*axes))
  shapes = kernels(layers)
  params = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=lies) for name, shape in shapes.items()
  }
  tx = prunejax.prune_transform(
    prunejax.magnitude(),
    prunejax.cubic(0.9, end=100),
    allocation=getattr(prunejax, allocation)(),
  )
  whole = NamedSharding(mesh, PartitionSpec())
  state = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=lies if leaf.shape in shapes.values() else whole
    ),
    jax.eval_shape(tx.init, params),
  )
  out = jax.tree.map(lambda leaf: leaf.sharding, (params, state))
  update = jax.jit(tx.update, donate_argnums=(0, 1), out_shardings=out)
  began = time.perf_counter()
  program = update.lower(params, state, params).compile()
  seconds = time.perf_counter() - began
  collectives = [
    (kind, [_elements(shape) for shape in re.findall(r'\w+\[([\d,]*)\]', result)])
    for result, kind in COLLECTIVE.findall(program.as_text())
  ]
  size = sum(rows * columns for rows, columns in shapes.values())
  return {
    'collectives': [kind for kind, _ in collectives],
    'largest': max(n for _, sizes in collectives for n in sizes),
    **_temporaries(),
    'weights': 4 * size // 16,
    'seconds': seconds,
  }


def _temporaries():
  """Bytes of main memory that the mask update takes beside its arguments and results."""
  (report,) = pathlib.Path(sys.argv[4]).glob('*jit_update*buffer-assignment.txt')
  total, largest, counted = 0, 0, False
  for line in report.read_text().splitlines():
    if allocation := ALLOCATION.match(line):
      size, kind = allocation.groups()
      counted = 'color' not in kind and kind.startswith(('preallocated-temp', 'thread-local'))
      total += int(size) * counted
    elif counted and (value := VALUE.match(line)):
      largest = max(largest, int(value[1]))
  return {'temporaries': total, 'largest_temporary': largest}


def _elements(shape):
  return int(np.prod([int(length) for length in shape.split(',') if length], dtype=np.int64))


if __name__ == '__main__':
  print(json.dumps(compiled(sys.argv[1], int(sys.argv[2]), sys.argv[3])))

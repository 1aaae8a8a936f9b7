"""Fully sharded training gathers weights and adds gradients; it moves no activation."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import tiny_runs

from prunejax.models import activation_layout
from prunejax.train import families

# Activations of one layer, [128, 16, 16], are several times as large as all weights of the model.
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from prunejax.topology import hlo
from prunejax.train import families, sharding

size = dict(json.loads(sys.argv[1]))
mesh = sharding.make_mesh()
for kind, scan in json.loads(sys.argv[2]):
  family = families.FAMILIES[kind]
  how = {'scan_layers': True} if scan else {}
  module = family.module(families.fresh_size(family, size, 64), ('classifier',), **how)
  ids, valid = jnp.zeros((128, 16), jnp.int32), jnp.ones((128, 16), bool)
  params = jax.eval_shape(module.init, jax.random.key(0), ids[:1], ids[:1], valid[:1])['params']
  like = lambda tree, lies: jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, lies
  )
  batch = like((ids, ids, valid), (NamedSharding(mesh, PartitionSpec('data')),) * 3)
  lies = sharding.shard(params, mesh, 'fsdp')

  def loss(params, batch):
    out = module.apply({'params': params}, *batch)
    return sum(jnp.mean(leaf**2) for leaf in jax.tree.leaves(out))

  step = jax.jit(jax.grad(loss), out_shardings=lies).lower(like(params, lies), batch).compile()
  always, _ = hlo.cost(hlo.parse(step.as_text()))
  moved = {kind: amount for kind, (_, amount) in always.collectives.items()}
  weights = sum(4 * leaf.size for leaf in jax.tree.leaves(params))
  print(json.dumps({'case': [kind, scan], 'moved': moved, 'weights': weights}))
"""
SIZES = {
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'intermediate_size': 32,
  'max_position_embeddings': 32,
}
# Left to itself, XLA divides the width of activations where a model scans over its layers.
CASES = [
  (kind, scan)
  for kind, family in families.FAMILIES.items()
  for scan in (False, True)
  if not scan or 'scan_layers' in family.module.__dataclass_fields__
]


@pytest.fixture(scope='module')
def traffic():
  """{case: what a step on eight devices moves, and the bytes of its weights}."""
  environment = {
    **os.environ,
    'PYTHONPATH': str(tiny_runs.ROOT),
    'JAX_PLATFORMS': 'cpu',
    'PJRT_NPROC': '16',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count=8 {tiny_runs.QUICK_COMPILE}',
  }
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, json.dumps(SIZES), json.dumps(CASES)],
    env=environment,
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
  return {tuple(row['case']): row for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize('kind, scan', CASES)
def test_a_fully_sharded_step_moves_weights_and_gradients_alone(kind, scan, traffic):
  row = traffic[kind, scan]
  # Weights are gathered forward and backward, and gradients added: three times the weights.
  assert sum(row['moved'].values()) <= 3 * row['weights'], row


def test_without_a_mesh_nothing_changes():
  x = jnp.ones((4, 8))
  assert activation_layout.by_example({'x': x})['x'] is x
  text = jax.jit(activation_layout.by_example).lower(x).as_text()
  assert 'shard' not in text

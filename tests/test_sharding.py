"""The mesh and its rules; one run on eight devices as on one."""

import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from jax.sharding import PartitionSpec

from prunejax.train import sharding

PROGRAM = """
import json, sys
import jax
import tiny_runs
from prunejax.train import loop, optimizer, sharding

changes, folder = json.loads(sys.argv[1]), sys.argv[2]
config = tiny_runs.configs.override(tiny_runs.base.get_config(), changes)
result = loop.train(config, folder, say=lambda line: None)
source, data = loop.read_inputs(config)
tx = optimizer.make(config)
abstract = loop.abstract_state(config, loop.build(config, source, data, tx), tx)
placed = sharding.shard(abstract, sharding.make_mesh(4, 2), tuple(config.mesh.rules))
split = [sharding.path_of(p) for p, s in jax.tree_util.tree_leaves_with_path(placed) if any(s.spec)]
print(json.dumps({'hash': result['mask_hash'], 'devices': jax.device_count(), 'split': split}))
"""


def of_shape(data, model):
  """What is read of a mesh before anything is placed."""
  return types.SimpleNamespace(shape={'data': data, 'model': model})


def test_the_default_mesh_takes_every_device():
  mesh = sharding.make_mesh()
  assert mesh.shape == {'data': jax.device_count(), 'model': 1}
  assert sharding.make_mesh(devices=jax.devices()[:1]).shape == {'data': 1, 'model': 1}


@pytest.mark.parametrize('data, model', [(2, 1), (1, 3), (-1, 5), (0, 1)])
def test_a_mesh_that_does_not_fit_is_named(data, model):
  with pytest.raises(ValueError, match=rf'mesh.data=.* x mesh.model={model} does not use the 1 devices'):
    sharding.make_mesh(data, model, devices=jax.devices()[:1])


def test_rules_follow_a_leaf_into_moments_and_masks():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  kernel = jax.ShapeDtypeStruct((4, 6), jnp.float32)
  tree = {
    'params': {'pooler': {'kernel': kernel, 'bias': jax.ShapeDtypeStruct((6,), jnp.float32)}},
    'opt_state': {'adam': {'mu': {'pooler': {'kernel': kernel}}}, 'mask': {'pooler': {'kernel': kernel}}},
    'step': jax.ShapeDtypeStruct((), jnp.int32),
  }
  rules = (('pooler/kernel', (None, 'model')), ('.*', ('data', None)), ('step', ('data',)))
  placed = sharding.shard(tree, mesh, rules)
  assert placed['params']['pooler']['kernel'].spec == PartitionSpec(None, 'model')
  assert placed['opt_state']['adam']['mu']['pooler']['kernel'].spec == PartitionSpec(None, 'model')
  assert placed['opt_state']['mask']['pooler']['kernel'].spec == PartitionSpec(None, 'model')
  assert placed['params']['pooler']['bias'].spec == PartitionSpec() == placed['step'].spec  # of another rank


@pytest.mark.parametrize('axes', [('data', None), (None, 'model'), (None, 'pipeline')])
def test_an_axis_that_does_not_divide_is_named(axes):
  tree = {'pooler': {'kernel': jax.ShapeDtypeStruct((6, 9), jnp.float32)}}
  with pytest.raises(ValueError, match=r"mesh.rules: '\w+' does not divide pooler/kernel of shape \(6, 9\)"):
    sharding.shard(tree, of_shape(4, 2), (('.*/kernel', axes),))


def test_a_batch_must_divide_among_the_devices():
  with pytest.raises(ValueError, match='batch_size=6 does not divide among the 4 devices of mesh.data'):
    sharding.check_batch(of_shape(4, 2), 6)
  sharding.check_batch(of_shape(4, 2), 8)


def test_eight_devices_compute_what_one_does(tmp_path):
  one = tiny_runs.finished('each-step', log__every=1)
  rules = (('.*/(kernel)', (None, 'model')), ('embeddings/word/embedding', (None, 'model')))
  changes = {**tiny_runs.PRUNED, **tiny_runs.overrides(log__every=1, mesh__data=4, mesh__model=2, mesh__rules=rules)}
  environment = {
    **os.environ, 'PYTHONPATH': f'{tiny_runs.ROOT}:{tiny_runs.ROOT}/tests', 'JAX_PLATFORMS': 'cpu', 'PJRT_NPROC': '16',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
  }
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, json.dumps(changes), str(tmp_path / 'run')], env=environment, capture_output=True,
    text=True, cwd=tiny_runs.ROOT,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  said = json.loads(done.stdout.splitlines()[-1])
  assert said['devices'] == 8
  kinds = {path.split('/')[0] for path in said['split']}
  assert kinds == {'params', 'opt_state'} and sum('prune_mask' in path for path in said['split']) == 8
  for name in ('loss', 'grad_norm'):
    series = lambda folder: [row[name] for row in tiny_runs.rows(folder) if row['kind'] == 'train']  # noqa: B023
    assert len(series(one.folder)) == 12
    np.testing.assert_allclose(series(tmp_path / 'run'), series(one.folder), rtol=1e-5)
  assert said['hash'] == one.result['mask_hash']

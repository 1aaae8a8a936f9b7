"""The mesh and its rules; one run that moves from mesh to mesh as one that stays."""

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
import json, pathlib, sys
import jax
import tiny_runs
from prunejax.pruning.paths import path_name
from prunejax.train import loop, optimizer, program, recipe, sharding

home, folder, rules = sys.argv[1], pathlib.Path(sys.argv[2]), eval(sys.argv[3])
tiny_runs.home = lambda: pathlib.Path(home)
compiled, steady = [], sharding.steady
sharding.steady = lambda *args: compiled.append(steady(*args)) or compiled[-1]
for data, model, words in ((8, 1, 'train 5/12'), (4, 2, 'train 9/12')):
  changes = dict(log__every=1, mesh__data=data, mesh__model=model, mesh__rules=rules)
  tiny_runs.stopped(folder, words, **changes)
  compiles = compiled[-1]._cache_size()
  row = {'devices': jax.device_count(), 'mask': tiny_runs.newest(folder), 'compiles': compiles}
  print(json.dumps(row))
resolved = recipe.resolve(tiny_runs.config(**changes))
tx = optimizer.make(resolved)
functions = program.build(resolved, *program.read_inputs(resolved), tx)
abstract = program.abstract_state(resolved, functions, tx)
placed = sharding.shard(abstract, sharding.make_mesh(4, 2), rules)
split = [path_name(p) for p, s in jax.tree_util.tree_leaves_with_path(placed) if any(s.spec)]
print(json.dumps({'split': split}))
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
  with pytest.raises(
    ValueError, match=rf'mesh.data=.* x mesh.model={model} does not use the 1 devices'
  ):
    sharding.make_mesh(data, model, devices=jax.devices()[:1])


def test_rules_follow_a_leaf_into_moments_and_masks():
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  kernel = jax.ShapeDtypeStruct((4, 6), jnp.float32)
  tree = {
    'params': {'pooler': {'kernel': kernel, 'bias': jax.ShapeDtypeStruct((6,), jnp.float32)}},
    'opt_state': {
      'adam': {'mu': {'pooler': {'kernel': kernel}}},
      'mask': {'pooler': {'kernel': kernel}},
    },
    'step': jax.ShapeDtypeStruct((), jnp.int32),
  }
  rules = (('pooler/kernel', (None, 'model')), ('.*', ('data', None)), ('step', ('data',)))
  placed = sharding.shard(tree, mesh, rules)
  assert placed['params']['pooler']['kernel'].spec == PartitionSpec(None, 'model')
  assert placed['opt_state']['adam']['mu']['pooler']['kernel'].spec == PartitionSpec(None, 'model')
  assert placed['opt_state']['mask']['pooler']['kernel'].spec == PartitionSpec(None, 'model')
  assert (
    placed['params']['pooler']['bias'].spec == PartitionSpec() == placed['step'].spec
  )  # of another rank


@pytest.mark.parametrize('axes', [('data', None), (None, 'model'), (None, 'pipeline')])
def test_an_axis_that_does_not_divide_is_named(axes):
  tree = {'pooler': {'kernel': jax.ShapeDtypeStruct((6, 9), jnp.float32)}}
  with pytest.raises(
    ValueError, match=r"mesh.rules: '\w+' does not divide pooler/kernel of shape \(6, 9\)"
  ):
    sharding.shard(tree, of_shape(4, 2), (('.*/kernel', axes),))


def test_an_axis_may_be_several():
  tree = {'kernel': jax.ShapeDtypeStruct((4, 8), jnp.float32)}
  with pytest.raises(
    ValueError, match=r"mesh.rules: \('data', 'model'\) does not divide kernel of shape \(4, 8\)"
  ):
    sharding.shard(tree, of_shape(4, 2), (('kernel', (('data', 'model'), None)),))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  placed = sharding.shard(tree, mesh, (('kernel', (None, ('data', 'model'))),))
  assert placed['kernel'].spec == PartitionSpec(None, ('data', 'model'))


def test_a_batch_must_divide_among_the_devices():
  with pytest.raises(
    ValueError, match='batch_size=6 does not divide among the 4 devices of mesh.data'
  ):
    sharding.check_batch(of_shape(4, 2), 6)
  sharding.check_batch(of_shape(4, 2), 8)


@pytest.mark.slow
def test_a_run_goes_from_8x1_to_4x2_to_one_device_and_computes_what_one_does(tmp_path):
  one = tiny_runs.finished('each-step', log__every=1)
  rules = (('.*/(kernel)', ('data', 'model')), ('embeddings/word/embedding', (None, 'model')))
  environment = {
    **os.environ,
    'PYTHONPATH': f'{tiny_runs.ROOT}:{tiny_runs.ROOT}/tests',
    'JAX_PLATFORMS': 'cpu',
    'PJRT_NPROC': '16',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count=8 {tiny_runs.QUICK_COMPILE}',
  }
  folder = tmp_path / 'run'
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, str(tiny_runs.home()), str(folder), repr(rules)],
    env=environment,
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  *stops, laid = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
  whole = [
    tiny_runs.newest(tiny_runs.stopped(tmp_path / at, f'train {at}/12', log__every=1))
    for at in ('5', '9')
  ]
  assert [(stop['devices'], tuple(stop['mask'])) for stop in stops] == [(8, mask) for mask in whole]
  assert [step for step, _ in whole] == [4, 8] and whole[0] != whole[1], (
    'the schedule was under way'
  )
  assert [stop['compiles'] for stop in stops] == [1, 1]
  kinds = {path.split('/')[0] for path in laid['split']}
  assert (
    kinds == {'params', 'opt_state'} and sum('prune_mask' in path for path in laid['split']) == 8
  )

  lines = []
  result = tiny_runs.train(
    tiny_runs.config(log__every=1, mesh__rules=rules), folder, say=lines.append
  )
  assert 'goes on at step 8 of 12' in lines[0]
  for name in ('loss', 'grad_norm'):
    series = lambda folder: [row[name] for row in tiny_runs.rows(folder) if row['kind'] == 'train']  # noqa: B023
    assert len(series(one.folder)) == 12
    np.testing.assert_allclose(series(folder), series(one.folder), rtol=1e-5)
  assert result['mask_hash'] == one.result['mask_hash'] and result['sparsity'] == 0.5

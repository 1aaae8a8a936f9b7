"""Named sets of rules: they know every matrix of every family, and change no mask and no loss."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from jax.sharding import AbstractMesh, PartitionSpec

from prunejax.models import layer_stack
from prunejax.pruning import paths
from prunejax.train import families, sharding

MESH = AbstractMesh((4, 2), ('data', 'model'))
SIZES = {
  'hidden_size': 32,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'intermediate_size': 64,
  'max_position_embeddings': 16,
}
PROGRAM = """
import json, pathlib, sys
import tiny_runs

home, folder = sys.argv[1], pathlib.Path(sys.argv[2])
tiny_runs.home = lambda: pathlib.Path(home)
for rules, data, model, more in json.loads(sys.argv[3]):
  changes = dict(log__every=1, mesh__data=data, mesh__model=model, mesh__rules=rules, **more)
  at = folder / f'{rules}-{data}-{len(more)}'
  result = tiny_runs.train(tiny_runs.config(**changes), at)
  losses = [row['loss'] for row in tiny_runs.rows(at) if row['kind'] == 'train']
  print(json.dumps({'run': [rules, data, more], 'mask': result['mask_hash'], 'losses': losses}))
"""


def shapes_of(kind, scan=False):
  """The shapes of a model of a family with all its heads; 51 words, which no axis divides."""
  family = families.FAMILIES[kind]
  size = families.fresh_size(family, SIZES, 51)
  module = family.module(size, (*family.heads, 'classifier'))
  ids, valid = (jax.ShapeDtypeStruct((1, 4), dtype) for dtype in (jnp.int32, bool))
  tree = jax.eval_shape(module.init, jax.random.key(0), ids, ids, valid)['params']
  if not scan:
    return tree
  return jax.eval_shape(layer_stack.stack, tree)


def used(spec):
  axes = [part if isinstance(part, tuple) else (part,) for part in spec if part]
  return {axis for part in axes for axis in part}


def scans(kind):
  """Whether a family can scan over its layers."""
  return 'scan_layers' in families.FAMILIES[kind].module.__dataclass_fields__


@pytest.mark.parametrize(
  ('kind', 'scan'),
  [(kind, scan) for kind in families.FAMILIES for scan in (False, True)[: 1 + scans(kind)]],
)
def test_every_matrix_of_a_family_is_divided(kind, scan):
  shapes = shapes_of(kind, scan)
  for rules, axes in (
    ('fsdp', {'data'}),
    ('tensor', {'model'}),
    ('fsdp+tensor', {'data', 'model'}),
  ):
    sharding.check_leaves(rules, shapes)
    specs = {
      name: lies.spec
      for name, lies in paths.named_leaves(sharding.shard(shapes, MESH, rules)).items()
    }
    for name, spec in specs.items():
      rank = len(paths.named_leaves(shapes)[name].shape)
      assert len(spec) in (0, rank) and used(spec) <= axes, (rules, name)
      if name.endswith(('kernel', 'word/embedding')) and ('layer' in name or 'word' in name):
        assert used(spec) == axes, (rules, name)
      if name.endswith(('kernel', 'embedding')) and 'fsdp' in rules:
        assert 'data' in used(spec), (rules, name)
      if 'layers/' in name:
        assert not spec or spec[0] is None, 'the axis of layers is not divided'


def test_tensor_parallel_layers_are_divided_as_in_megatron():
  specs = sharding.shard(shapes_of('bert'), MESH, 'tensor')['encoder']['layer_0']
  columns, rows = PartitionSpec(None, 'model'), PartitionSpec('model', None)
  kernels = {name: specs['attention'][name]['kernel'].spec for name in ('query', 'key', 'value')}
  assert set(kernels.values()) == {columns}
  assert specs['attention']['output']['kernel'].spec == rows
  assert specs['attention']['query']['bias'].spec == PartitionSpec('model')
  assert not used(specs['attention']['output']['bias'].spec)
  assert specs['ffn']['intermediate']['kernel'].spec == columns
  assert specs['ffn']['output']['kernel'].spec == rows


def test_rules_follow_stacked_layers():
  shapes = shapes_of('bert', scan=True)
  rules = ((r'layer_\d+/ffn/output/kernel', ('model', None)), ('pooler/kernel', (None, 'model')))
  sharding.check_leaves(rules, shapes)
  state = {'params': shapes, 'mu': shapes}
  placed = sharding.shard(state, MESH, rules)
  for tree in placed.values():
    kernel = tree['encoder']['layers']['ffn']['output']['kernel']
    assert kernel.spec == PartitionSpec(None, 'model', None)
    assert tree['pooler']['kernel'].spec == PartitionSpec(None, 'model')


@pytest.mark.parametrize(
  'rules, message',
  [
    ((('.*/kernel', (None, 'model')), ('decoder/kernel', (None, 'model'))), 'decoder/kernel'),
    ((('pooler/kernel', ('model',)),), r'pooler/kernel.*matches no leaf with 1 axes .*\(32, 32\)'),
  ],
)
def test_a_rule_that_matches_no_leaf_is_refused_by_name(rules, message):
  with pytest.raises(ValueError, match=f'mesh.rules: .*{message}'):
    sharding.check_leaves(rules, shapes_of('bert'))


def test_a_matrix_that_a_set_of_rules_does_not_know_is_named(tmp_path):
  shapes = {'tower': {'weight': jax.ShapeDtypeStruct((4, 4), jnp.float32)}}
  with pytest.raises(ValueError, match="mesh.rules='fsdp' says nothing of 'tower/weight'"):
    sharding.check_leaves('fsdp', shapes)
  with pytest.raises(ValueError, match="mesh.rules='fdsp': expected one of fsdp, tensor"):
    sharding.check_rules('fdsp')
  with pytest.raises(ValueError, match='mesh.rules=.?fdsp.?: expected'):
    tiny_runs.config(mesh__rules='fdsp')
  rules = (('decoder/kernel', (None, 'model')),)
  with pytest.raises(ValueError, match='decoder/kernel.*matches no leaf'):
    tiny_runs.train(tiny_runs.config(mesh__rules=rules), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def trained(folder, cases):
  environment = {
    **os.environ,
    'PYTHONPATH': f'{tiny_runs.ROOT}:{tiny_runs.ROOT}/tests',
    'JAX_PLATFORMS': 'cpu',
    'PJRT_NPROC': '16',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count=8 {tiny_runs.QUICK_COMPILE}',
  }
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, str(tiny_runs.home()), str(folder), json.dumps(cases)],
    env=environment,
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]


def check_same(rows, whole):
  losses = [row['loss'] for row in tiny_runs.rows(whole.folder) if row['kind'] == 'train']
  for row in rows:
    assert row['mask'] == whole.result['mask_hash'], row['run']
    np.testing.assert_allclose(row['losses'], losses, rtol=1e-5, err_msg=str(row['run']))


@pytest.mark.slow
@pytest.mark.parametrize('rules', sharding.NAMED)
def test_masks_and_losses_are_those_of_one_device(rules, tmp_path):
  one = tiny_runs.finished('each-step', log__every=1)
  explicit, scan = {'mesh__axes': 'explicit'}, {'model__scan_layers': True, 'model__remat': 'full'}
  cases = [(rules, 8, 1, {}), (rules, 4, 2, {}), (rules, 2, 4, scan), (rules, 4, 2, explicit)]
  rows = trained(tmp_path, [case for case in cases if 'tensor' not in case[0] or case[2] > 1])
  check_same(rows, one)

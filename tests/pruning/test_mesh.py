"""Eight simulated devices make the masks of one device; no weight or score crosses devices."""

import json
import os
import subprocess
import sys

import mesh_program
import pytest
import tiny_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def told():
  flags = f'--xla_force_host_platform_device_count=8 {tiny_runs.EXACT_COMPILE}'
  environment = {
    **os.environ,
    'PYTHONPATH': str(tiny_runs.ROOT),
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': flags,
  }
  done = subprocess.run(
    [sys.executable, mesh_program.__file__],
    env=environment,
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  rows = [json.loads(line) for line in done.stdout.splitlines()]
  checks = ('selection', 'training', 'scored', 'streamed', 'surgery')
  return {check: [row for row in rows if row['check'] == check] for check in checks}


def test_every_allocation_and_structure_gives_the_masks_of_one_device(told):
  rows = told['selection']
  assert [tuple(row['mesh']) for row in rows] == [
    (*shape, kind) for shape, kind in mesh_program.MESHES
  ]
  pairs = {tuple(pair.split()) for row in rows for pair in row['pairs']}
  assert {a for a, _ in pairs} == set(mesh_program.ALLOCATIONS)
  assert {s for _, s in pairs} == set(mesh_program.STRUCTURES)
  assert {tuple(row['mesh']): row['differ'] for row in rows if row['differ']} == {}


def test_no_score_or_weight_is_gathered_moved_or_sorted(told):
  assert {
    tuple(row['mesh']): row['moved'] for rows in told.values() for row in rows if row['moved']
  } == {}


def test_masks_lie_as_their_weights(told):
  assert {
    tuple(row['mesh']): row['stray'] for rows in told.values() for row in rows if row['stray']
  } == {}


def test_steps_of_several_optimizers_are_those_of_one_device(told):
  assert [row['mesh'][2] for row in told['training']] == ['Auto', 'Explicit']
  for row in told['training']:
    assert row['differ'] == [] and row['removed'] == [row['weights'] // 2] * 3


def test_scores_from_masks_draws_and_all_leaves_equal_one_device(told):
  (row,) = told['scored']
  assert row['differ'] == [] and set(row['removed']) == {
    'rigl',
    'set',
    'snip',
    'platon',
    'deviations',
    'soft_movement',
  }
  assert all(0.2 < share < 0.8 for share in row['removed'].values()), row['removed']


def test_large_trees_have_the_masks_of_small_ones(told):
  assert [row['mesh'][2] for row in told['streamed']] == ['Explicit', 'Auto']
  assert [row['differ'] for row in told['streamed']] == [[], []]


def test_fisher_blocks_and_compensation_equal_one_device(told):
  (row,) = told['surgery']
  assert row['differ'] == [] and max(row['off'].values()) < 1e-4

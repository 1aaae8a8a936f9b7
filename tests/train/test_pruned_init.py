"""Runs that start from a pruned checkpoint: its zeros count, and stay."""

import json

import numpy as np
import pytest
import tiny_runs

from prunejax.models import bert
from prunejax.models.hf import bert as bert_hf
from prunejax.pruning.paths import matches, named_leaves
from prunejax.train import optimizer, program, recipe

AGAIN = {
  'prune__weights__when': 'every(2)',
  'steps': 8,
  'log__who_pays': True,
  'prune__weights__schedule': 'cubic(0.8, end=6)',
}
CRITERIA = {
  'magnitude': ('magnitude()', 'uniform()'),
  'movement': ('movement()', 'global_threshold()'),
  'random': ('random(seed=1)', 'uniform()'),
  'SET': ('sparse_evolution()', 'uniform()'),
}


@pytest.fixture(scope='module')
def parent():
  return tiny_runs.finished('at 0.8', prune__weights__schedule='cubic(0.8, end=6)').folder / 'model'


def zeros(folder):
  leaves = named_leaves(bert_hf.load(folder, heads=())[0])
  return {n: w == 0 for n, w in leaves.items() if matches(bert.PRUNABLE)(n, w)}


@pytest.mark.slow
@pytest.mark.parametrize('hold', [True, False])
@pytest.mark.parametrize('name', CRITERIA)
def test_a_pruned_model_asked_for_its_own_sparsity_keeps_it(name, hold, parent, tmp_path):
  criterion, allocation = CRITERIA[name]
  changes = {'prune__weights__criterion': criterion, 'prune__weights__allocation': allocation}
  lines, config = [], tiny_runs.config(init=str(parent), hold_zeros=hold, **{**AGAIN, **changes})
  result = tiny_runs.train(config, tmp_path / 'run', say=lines.append)
  before, after = zeros(parent), zeros(tmp_path / 'run' / 'model')
  removed, total = (
    sum(np.sum(z) for z in after.values()),
    sum(z.size for z in after.values()),
  )
  asked = sum(np.sum(z) for z in before.values()) / total
  assert abs(asked - 0.8) < 1e-3 and result['sparsity'] == removed / total
  assert abs(removed / total - asked) < 1e-3, 'no survivor was dropped for a dead weight'
  back = sum(np.sum(before[n] & ~after[n]) for n in before)
  if name == 'SET' and not hold:
    assert back > 20, 'weights come back'
  elif name == 'magnitude' and not hold:
    assert back <= len(before), 'the share of each leaf is rounded once more'
  else:
    assert not back, 'zeros stay zeros'
  rows = json.loads((tmp_path / 'run' / 'who_pays_weights.json').read_text())
  assert rows['total']['before'] == round(asked * total)
  assert abs(rows['total']['got'] - removed / total) < 1e-3
  assert any('pruned already' in line for line in lines)
  assert any('of its weights are 0 in init: pruned already' in line for line in lines)


def test_a_dense_model_and_a_schedule_of_nothing_are_as_they_were(parent, tmp_path):
  dense = tiny_runs.finished('dense', pruned=False).folder / 'model'
  for folder, schedule, pruned in (
    (dense, 'cubic(0.5, end=6)', []),
    (parent, 'one_shot(0.0)', []),
    (parent, '', []),
    (parent, 'constant(0.5)', ['weights']),
  ):
    config = tiny_runs.config(init=str(folder), prune__weights__schedule=schedule)
    resolved = recipe.resolve(config)
    source, _ = program.read_inputs(resolved)
    assert sorted(source.pruned) == pruned
    for group in resolved.prune:
      start = optimizer.start_of(resolved, group, source.pruned)
      assert start == ({'masks': 'zeros'} if pruned else {})


def test_a_sparsity_beyond_the_structure_is_refused_before_the_run(tmp_path):
  changes = {'prune__weights__structure': 'n_m(2, 4)', 'prune__weights__schedule': 'constant(0.6)'}
  with pytest.raises(ValueError, match=r"prune.weights.schedule='constant\(0.6\)'.*at most 0.5"):
    tiny_runs.train(tiny_runs.config(**changes), tmp_path / 'run')

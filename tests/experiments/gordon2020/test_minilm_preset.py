"""The preset `minilm`: what is planned, and in which order."""

import collections

import pytest

from experiments.gordon2020 import presets
from experiments.gordon2020.plan import plan
from prunejax.sweep import grid

TASKS = ('glue/sst2', 'glue/stsb', 'glue/mrpc')


@pytest.fixture(scope='module')
def cells():
  return plan(presets.minilm_glue(), {})


def test_every_cell_follows_the_one_it_starts_from(cells):
  seen = set()
  for cell in cells:
    assert cell.parent is None or cell.parent in seen, cell.labels
    seen.add(grid.key(cell))
  assert len(seen) == len(cells)


def test_all_of_a_seed_at_one_sparsity_comes_before_the_next(cells):
  order = [(cell.labels['seed'], cell.labels['sparsity']) for cell in cells]
  blocks = list(dict.fromkeys(order))
  assert blocks[0] == (0, 0.0) and len(blocks) == 21
  assert order == [block for block in blocks for _ in range(order.count(block))]
  assert [seed for seed, _ in blocks] == sorted(seed for seed, _ in blocks)


def test_each_seed_prunes_in_a_run_of_its_own_and_arms_train_equally_long(cells):
  count = collections.Counter((cell.labels['stage'], cell.labels['arm']) for cell in cells)
  assert count['born', 'dense'] == 1 and count['pretrain', 'pruned'] == 18
  assert count['pretrain', 'random'] == 3
  for arm, levels in (('pruned', 6), ('deleted', 6), ('after', 4), ('random', 1), ('fresh', 1)):
    assert count['finetune', arm] == 3 * len(TASKS) * levels, arm
  tuned = [cell for cell in cells if cell.labels['stage'] == 'finetune']
  steps = collections.defaultdict(set)
  for cell in tuned:
    half = cell.labels['arm'] in ('before', 'after')  # the two halves of one training
    steps[cell.labels['task'], half].add((cell.config.steps, cell.labels['learning_rate']))
  for task in TASKS[:2]:
    assert steps[task, False] == {(63, 2e-4)} and steps[task, True] == {(32, 2e-4)}
  assert steps['glue/mrpc', False] == {(126, 1e-4)} and steps['glue/mrpc', True] == {(63, 1e-4)}


def test_rates_that_are_asked_for_are_those_of_every_task():
  tuned = [cell for cell in plan(presets.minilm_glue(), {}, rates=[3e-4]) if cell.labels['task']]
  assert {cell.config.optimizer.learning_rate for cell in tuned} == {3e-4}


def test_stage_0_starts_from_minilm_or_from_a_folder_that_is_named(cells):
  first = cells[0].config
  assert first.init == 'minilm' and first.data.corpus == 'wikipedia' and not first.data.task
  assert all(cell.config.init.startswith('cell:') for cell in cells[1:])
  other = plan(presets.minilm_glue(), {'init': 'FOLDER'})
  assert other[0].config.init == 'FOLDER' and other[0].labels['stage'] == 'born'
  assert all(cell.config.init.startswith('cell:') for cell in other[1:])


def test_the_smoke_preset_has_every_kind_of_cell(cells):
  kinds = lambda cells: {(cell.labels['stage'], cell.labels['arm']) for cell in cells}
  small = plan(presets.minilm_smoke(), {})
  assert kinds(small) == kinds(cells) and len(small) < 20

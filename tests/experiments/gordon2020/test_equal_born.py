"""The preset in which each seed has a model of its own."""

from experiments.gordon2020 import plan, presets
from prunejax.sweep import grid


def test_every_arm_of_a_seed_starts_from_the_model_that_is_born_of_that_seed():
  cells = {grid.key(cell): cell for cell in plan.plan(presets.PRESETS['equal-born'](), {})}
  born = {key: cell for key, cell in cells.items() if cell.labels['stage'] == 'born'}
  assert sorted(cell.labels['seed'] for cell in born.values()) == [0, 1, 2]
  assert len({key for key in born}) == 3
  for cell in born.values():
    assert not cell.config.pretrained and cell.config.init == 'nano' and cell.config.steps == 6000
    assert cell.config.seed == cell.labels['seed']
  for key, cell in cells.items():
    first = cell
    while first.parent:
      first = cells[first.parent]
    if key not in born:
      assert first.labels['stage'] == 'born' or cell.labels['arm'] == 'fresh'
      assert first.labels['seed'] == cell.labels['seed']
  # Every arm is fine-tuned for as many steps as in `equal`.
  steps = {cell.labels['arm']: cell.config.steps for cell in cells.values() if cell.labels['task']}
  assert steps['pruned'] == steps['deleted'] == steps['dense'] == 400
  assert steps['after'] + steps['before'] == 400


def test_the_cells_of_the_other_presets_share_one_checkpoint():
  cells = plan.plan(presets.PRESETS['equal'](), {})
  assert {cell.config.init for cell in cells if not cell.parent} == {'nano'}

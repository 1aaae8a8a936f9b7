"""The programs of a grid: as many as the grid compiles, with batches of the true shapes."""

import jax
import pytest
import tiny_runs

from experiments.gordon2020 import plan, presets
from prunejax.sweep import grid, population
from prunejax.topology import programs, report, worker
from prunejax.train import configs, optimizer, program, recipe

KINDS = {
  'pretrain': {},
  'finetune': {'data.task': 'glue/cola'},
  'gpt2': {'model.kind': 'gpt2', 'data.vocab_size': 300},
  'xlnet': {'model.kind': 'xlnet', 'data.memory': 8},
  'roberta': {'model.kind': 'roberta', 'data.vocab_size': 300, 'data.seq_len': 12},
  'taught': {'distill.teacher': 'nano', 'init': 'nano', 'data.seq_len': 16},
}


def tiny(**changes):
  return configs.override(tiny_runs.config(), changes)


def test_members_in_turn_cost_what_they_would_alone():
  cells = [grid.Cell({}, tiny_runs.config(seed=seed)) for seed in range(3)]
  (together,) = programs.of_cells(cells)
  requests = (programs.of_run(recipe.resolve(tiny_runs.config()), ''), together)
  alone, turns = (worker.respond('cpu', request, '')['step'] for request in requests)
  assert sum(turns['flops'].values()) == 3 * sum(alone['flops'].values())
  assert turns['guessed'] == 0 and 3 < turns['bytes'] / alone['bytes'] < 4.5


@pytest.mark.parametrize('name', KINDS)
def test_blank_batches_have_the_shapes_of_the_true_ones(name):
  one = recipe.resolve(configs.override(tiny_runs.config(), KINDS[name]))
  source, data = program.read_inputs(one)
  blank = programs._blank_data(one, source).train(0)
  shaped = lambda batch: {key: (x.shape, str(x.dtype)) for key, x in batch.items()}
  assert shaped(blank) == shaped(data.train(0))


def test_the_program_is_that_of_the_run():
  """The key, the state and the traced step are those that the train loop builds from the data."""
  one = recipe.resolve(tiny_runs.config())
  source, data = program.read_inputs(one)
  size = source.size.vocab_size
  guessed = programs._source(one, ())
  guessed.size.vocab_size = size  # a plan does not train a vocabulary
  assert program.program_key(one, source) == program.program_key(one, guessed)
  texts = []
  for where, batches in ((source, data), (guessed, programs._blank_data(one, guessed))):
    tx = optimizer.make(one, where.pruned)
    functions = program.build(one, where, batches, tx)
    state = program.abstract_state(one, functions, tx)
    texts.append(functions.step.lower(state, batches.train(0)).as_text())
  assert texts[0] == texts[1]


@pytest.mark.parametrize(
  'name, count', [('smoke', 4), pytest.param('paper', 7, marks=pytest.mark.slow)]
)
def test_a_grid_has_few_programs(name, count):
  cells = plan.plan(presets.PRESETS[name](), {})
  requests = programs.of_cells(cells)
  assert len(requests) == count
  assert sum(map(programs.runs, requests)) == len(cells)
  keys = {
    program.program_key(one, programs._source(one, ()))
    for one in (recipe.resolve(cell.config) for cell in cells)
  }
  assert len(keys) == count
  alone = programs.of_cells(cells, one_by_one=True)
  assert all(request.streams and len(request.streams) == 1 for request in alone)
  assert sum(map(programs.runs, alone)) == len(cells)


def test_members_are_those_that_the_grid_puts_together():
  """Compared with `population.groups`, which reads the data."""
  changes = [{'seed': seed, 'optimizer.learning_rate': rate} for seed in (0, 1) for rate in (1, 2)]
  cells = [grid.Cell({'seed': c['seed'], 'stage': 'x'}, tiny(**c)) for c in changes]
  cells.append(grid.Cell({'stage': 'y'}, tiny(**{'prune.weights.schedule': ''})))
  (four, one) = programs.of_cells(cells)
  assert (programs.runs(four), len(set(four.streams)), programs.runs(one)) == (4, 2, 1)
  runs = [
    population.prepare(grid.key(cell), '', one, tiny_runs.home() / f'members{i}')
    for i, (cell, one) in enumerate((c, recipe.resolve(c.config)) for c in cells)
  ]
  assert len({program.program_key(run.recipe, run.source) for run in runs}) == 2
  assert len({population.stream(run) for run in runs[:4]}) == 2


def test_measurements_have_no_programs():
  with pytest.raises(ValueError, match='measurements'):
    report.of_cells([grid.Cell({}, {})], 'toy', ['cpu'])


def test_waves_last_as_long_as_their_longest_run():
  request = programs.Request('', None, (), ('a',) * 5, ((1, 2, 3, 10, 20), (7,)), 0.0)
  assert programs.steps(request, 2) == 2 + 10 + 20 + 7
  assert programs.steps(request, 5) == 20 + 7
  assert programs.steps(request, 1) == 1 + 2 + 3 + 10 + 20 + 7


def test_due_is_the_share_of_mask_steps():
  # Steps 0, 2, ..., 10 of 12; the target at step 6 is one of them.
  assert programs.due(recipe.resolve(tiny_runs.config())) == 6 / 12
  assert programs.due(recipe.resolve(tiny_runs.config(pruned=False))) == 0


def test_a_pruned_parent_is_told_to_its_children():
  parent = grid.Cell({'stage': 'a'}, tiny())
  key = grid.key(parent)
  child = tiny(init=f'cell:{key}', **{'data.task': 'pydoc/order'})
  child.prune.weights.criterion = 'taylor()'
  free = configs.override(child.copy_and_resolve_references(), {'pretrained': False})
  cells = [parent, grid.Cell({'stage': 'b'}, child, key), grid.Cell({'stage': 'b'}, free, key)]
  requests = programs.of_cells(cells)
  assert [request.pruned for request in requests] == [(), ('weights',), ()]


def test_a_mesh_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match=r'mesh.data=3 x mesh.model=1'):
    programs.step(programs.of_run(recipe.resolve(tiny(**{'mesh.data': 3})), ''), jax.devices()[:1])

"""A grid as one program: every member is the run by itself, and may fail or end alone."""

import json
import os
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import population_cases
import pytest
import tiny_runs
from jax.extend.core import jaxprs_in_params

import prunejax
from prunejax import __main__ as command
from prunejax.report import ledger
from prunejax.sweep import grid, planning, population, resources, stacking
from prunejax.train import console, preemption, program, resume

CHANGES = [
  {},
  {'seed': 1},
  {'prune.weights.schedule': 'cubic(0.8, end=6)', 'optimizer.learning_rate': 3e-3},
  {'steps': 9},  # ends before the others
  {'optimizer.learning_rate': 1e30},  # fails
]


def sweep(folder, changes=CHANGES, **how):
  lines = []
  one_at_a_time = {'population__members': 3, 'population__waves': 1}
  config = tiny_runs.config(**{**one_at_a_time, **how.pop('config', {})})
  return grid.sweep(
    config,
    changes,
    folder,
    name='tiny',
    **{'say': lines.append, 'compiled': tiny_runs.COMPILED, **how},
  ), lines


def alone(change):
  """The same run by itself."""
  name = 'alone-' + '-'.join(f'{k}={v}' for k, v in change.items()).replace('/', '.')
  return tiny_runs.finished(name, **{k.replace('.', '__'): v for k, v in change.items()})


def plain(folder):
  """metrics.jsonl without what depends on the clock."""
  return [
    {k: v for k, v in row.items() if k != 'steps_per_second'} for row in tiny_runs.rows(folder)
  ]


def same(cell, other, log=True):
  """Whether two cells are equal bit for bit; `log`: what they wrote on the way as well."""
  results = [
    tiny_runs.plain(json.loads((folder / 'result.json').read_text())) for folder in (cell, other)
  ]
  return (
    results[0] == results[1]
    and tiny_runs.same_weights(cell, other)
    and (not log or plain(cell) == plain(other))
  )


def same_ending(folder, swept):
  """Whether a sweep that was stopped on its way ended as the one that was not."""
  names = [row['cell'] for row in swept[1][:4]]  # the last one fails
  # The first mean after a resume is over fewer steps, so of the logs only the rows are the same.
  steps = lambda cell: [(row['kind'], row['step']) for row in plain(cell)]
  cells = [[home / 'cells' / name for home in (folder, swept[0])] for name in names]
  return all(same(*pair, log=False) and steps(pair[0]) == steps(pair[1]) for pair in cells)


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  folder = tmp_path_factory.mktemp('population')
  compiled = program.Compiled({}, {}, {})  # of these tests alone, which count what it holds
  rows, lines = sweep(folder, compiled=compiled)
  return folder, rows, lines, compiled


@pytest.mark.exact
def test_every_member_is_the_run_by_itself(swept):
  folder, rows, _, _ = swept
  for row, change in zip(rows[:4], CHANGES[:4], strict=True):
    solo, cell = alone(change), folder / 'cells' / row['cell']
    assert row['mask_hash'] == solo.result['mask_hash'] and row['steps'] == solo.result['steps']
    for name, mine in tiny_runs.weights(cell).items():
      if (
        'key.bias' not in name
      ):  # it shifts every score of a row alike: its gradient is rounding and nothing else
        population_cases.close(mine, tiny_runs.weights(solo.folder)[name])
    for mine, its in zip(plain(cell), plain(solo.folder), strict=True):
      assert mine.pop('kind') == its.pop('kind') and mine == pytest.approx(its, rel=1e-5), change
    # Newer compilers lay out a matrix of a loop and one of an argument differently. Their sums then
    # differ in the last bit.
    assert jax.__version_info__ >= (0, 11) or same(cell, solo.folder), change
    assert row['members'] in (2, 3) and row['batching'] == 'map' and row['device_seconds'] > 0
    assert not any(key.startswith('population') for key in row['config'])
  assert len({row['mask_hash'] for row in rows[:4]}) == 4


def test_a_member_that_fails_has_its_row_and_stops_nobody(swept):
  _, rows, lines, _ = swept
  with pytest.raises(FloatingPointError) as error:
    alone(CHANGES[4])
  assert rows[4]['failed'] == str(error.value) and rows[4]['metrics'] == {}
  assert any('1 of 2 members train' in line for line in lines) and 'failed: ' in ' '.join(lines)


def test_waves_share_one_program_that_memory_was_measured_of(swept):
  _, rows, lines, compiled = swept
  assert [row['members'] for row in rows] == [3, 3, 2, 3, 2] and any(
    'wave 2/2' in line for line in lines
  )
  (engine,) = [engine for key, engine in compiled.engines.items() if key[0] != 'single']
  state = sum(x.nbytes for x in jax.tree.leaves(engine.blank()))
  assert engine.width == 3 and state < resources.held(engine.step) < 20 * state


def test_progress_is_one_line_for_all_members(swept):
  lines = [line for line in swept[2] if 'members train' in line]
  words = (
    '5 cells wave 1/2  train 6/12',
    'steps/s',
    'left 0:',
    'loss',
    'worst',
    'sparsity 0.',
    ' to 0.',
  )
  assert all(word in lines[1] for word in words), lines
  assert len(lines) == 8 and '3 of 3' in lines[1] and '2 of 3' in lines[3]


@pytest.mark.slow
def test_runs_that_log_nothing_give_a_sign_of_life(swept, tmp_path, monkeypatch):
  monkeypatch.setattr(console, 'PATIENCE', 0.0)
  quiet = {'log__every': 0, 'checkpoint__every': 0, 'steps': 8}
  _, lines = sweep(tmp_path / 'wave', CHANGES[:3], config=quiet)
  told = [line for line in lines if '3 of 3 members train' in line]
  assert [f'train {at}/8' in line and 'loss' in line for at, line in enumerate(told, 1)] == [
    True
  ] * 8, lines
  rows, lines = sweep(tmp_path / 'alone', CHANGES[:1], config=quiet, one_by_one=True)
  assert sum('  train ' in line and 'loss' in line for line in lines) == 8
  assert [
    row['kind'] for row in tiny_runs.rows(tmp_path / 'alone' / 'cells' / rows[0]['cell'])
  ] == ['eval']


def test_rows_and_what_it_took_are_written_and_nothing_is_left_under_way(swept):
  folder, rows, _, _ = swept
  assert {r['cell'] for r in ledger.read(folder / 'ledger.jsonl')} == {r['cell'] for r in rows}
  assert resume.under_way(folder) == {} and not list((folder / 'populations').iterdir())
  (took,) = [json.loads(path.read_text()) for path in (folder / 'cost').iterdir()]
  assert (
    took['how'] == 'together'
    and took['cells'] == 5
    and took['compiles'] > 0
    and took['device_seconds'] > 0
  )


def test_a_cell_can_be_exported_alone(swept, tmp_path):
  folder, rows, _, _ = swept
  cell = folder / 'cells' / rows[2]['cell']
  assert command.main(['export', f'--workdir={cell}', f'--out={tmp_path / "out"}']) == 0
  assert (tmp_path / 'out' / 'model.safetensors').exists()


@pytest.mark.parametrize('words, step', [('wave 1/2  train 6/12', 4), ('wave 1/2  train 12/12', 9)])
def test_a_killed_population_goes_on_bit_for_bit(swept, tmp_path, words, step):
  def say(line):
    if words in line:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    sweep(tmp_path, say=say, compiled=swept[3])
  over = {row['cell']: row for row in ledger.read(tmp_path / 'ledger.jsonl')}
  assert len(over) == (step == 9)  # the one that ended
  rows, lines = sweep(tmp_path, compiled=swept[3])
  assert f'goes on at step {step}' in ' '.join(lines) and resume.under_way(tmp_path) == {}
  assert all(over.get(row['cell'], row) == row for row in rows)
  assert same_ending(tmp_path, swept)


@pytest.mark.parametrize('apart, steps', [(0.0, [2, 4, 6, 8, 10, 12]), (1e6, [12])])
def test_members_without_checkpoints_are_not_saved_too_often(tmp_path, monkeypatch, apart, steps):
  """An eighth of 12 steps is 2; the state at the end is kept until the members are evaluated."""
  monkeypatch.setattr(population, 'APART', apart)
  save, saved = resume.save, []

  def counted(manager, saves, state, *given, **how):
    saved.append(int(state['step']))
    return save(manager, saves, state, *given, **how)

  monkeypatch.setattr(resume, 'save', counted)
  sweep(tmp_path, CHANGES[:2], config={'checkpoint__every': 0})
  assert saved == steps


def test_a_preempted_population_saves_the_step_it_is_at(swept, tmp_path):
  def say(line):
    if 'train 6/12' in line:
      os.kill(os.getpid(), signal.SIGTERM)

  with preemption.guard(), pytest.raises(preemption.Preempted, match='step 6 of 12 is saved'):
    sweep(tmp_path, say=say, compiled=swept[3])
  (name,) = resume.under_way(tmp_path)
  assert '6' in [path.name for path in (tmp_path / 'populations' / name / 'checkpoints').iterdir()]
  _, lines = sweep(tmp_path, compiled=swept[3])
  assert 'goes on at step 6' in ' '.join(lines)
  assert same_ending(tmp_path, swept)


def test_a_child_starts_when_its_parent_is_done(swept, tmp_path):
  engines = set(swept[3].engines)
  labels = {'stage': 'pretrain', 'arm': 'pruned', 'task': '', 'learning_rate': 0.01, 'seed': 0}
  config = lambda **changes: tiny_runs.config(population__waves=1, **changes)
  parents = [grid.Cell({**labels, 'seed': seed}, config(seed=seed)) for seed in (0, 1)]
  failing = grid.Cell(labels, config(optimizer__learning_rate=1e30))
  child = lambda parent: grid.Cell(
    labels, config(init=f'cell:{grid.key(parent)}', seed=4), grid.key(parent)
  )
  cells = [*parents, failing, *(child(parent) for parent in [*parents, failing])]
  how = {'compiled': swept[3], 'say': lambda line: None}
  rows = grid.run(cells, tmp_path, experiment='x', preset='y', **how)
  assert [row['members'] for row in rows] == [3, 3, 3, 2, 2, 1]
  assert {
    key for key in swept[3].engines if key[0] != 'single'
  } == engines  # empty places are skipped, so a wider program serves as well
  assert 'the cell it starts from' in rows[5]['failed']
  for row, parent in zip(rows[3:5], rows[:2], strict=True):
    model = tmp_path / 'cells' / parent['cell'] / 'model'
    by_hand = tiny_runs.train(
      tiny_runs.config(init=str(model), seed=4), tmp_path / row['cell'], say=lambda line: None
    )
    assert row['mask_hash'] == by_hand['mask_hash']
    population_cases.close(row['metrics']['loss'], by_hand['metrics']['loss'])


# Law 5: between mask updates nothing is counted, also under vmap.

# A primitive of the search alone: it orders scores by the bits that stand for them.
KEY = 'shift_right_arithmetic'


def inside(jaxpr, name, conds=0):
  """How often a primitive stands in a jaxpr, at any depth but inside at most `conds` conds."""
  found = 0
  for eqn in jaxpr.eqns:
    found += eqn.primitive.name == name
    left = conds - (eqn.primitive.name == 'cond')
    if left >= 0:
      for sub in jaxprs_in_params(eqn.params):
        found += inside(getattr(sub, 'jaxpr', sub), name, left)
  return found


@pytest.fixture(scope='module', params=stacking.BATCHING)
def toy(request):
  return request.param, population_cases.toy(3, request.param, criterion=population_cases.slow)


def test_masks_are_searched_inside_a_conditional_only(toy):
  _, toy = toy
  assert ' conditional(' in toy.compiled.as_text()
  counted = lambda f, *args, conds=0: inside(jax.make_jaxpr(f)(*args).jaxpr, KEY, conds)
  given = (toy.state, toy.batches, toy.rows, toy.steps)
  assert counted(toy.stacked, *given) == 0 and counted(toy.stacked, *given, conds=1) > 0
  assert (
    counted(lambda w: prunejax.select_masks({'up': jnp.abs(w)}, 0.5), toy.alone[0]['params']['up'])
    > 0
  )


def test_a_member_in_turn_does_not_copy_the_others():
  toy = population_cases.toy(3, 'map', criterion=population_cases.slow)
  # What a loop carries is a tuple's element in its body. A copy there is made for each member.
  copies = re.findall(
    r'= (?:f32|pred)\[3(?:,\d+)+\]\S* copy\(%get-tuple-element\S*\)', toy.compiled.as_text()
  )
  assert not copies


def test_steps_between_mask_updates_are_cheap(toy):
  on, off = population_cases.times(toy[1], rounds=7)
  assert min(on) > 3 * min(off), (on, off)


@pytest.mark.exact
def test_a_stack_is_its_members(toy):
  batching, toy = toy
  together, metrics = population_cases.run(toy, steps=5)
  for i, state in enumerate(toy.alone):
    state, told = population_cases.run_alone(toy, state, i, steps=5)
    mine = stacking.take(together, i)
    tight = np.testing.assert_array_equal if batching == 'map' else population_cases.close
    jax.tree.map(tight, mine['params'], state['params'])
    tight(metrics['loss'][i], told['loss'])
    jax.tree.map(np.testing.assert_array_equal, *(population_cases.masks(s) for s in (mine, state)))


def test_a_counter_that_depends_on_a_member_is_refused(toy):
  _, toy = toy

  def odd(state, batch):
    state, metrics = toy.step(state, batch)
    return {**state, 'step': state['step'] + jnp.int32(metrics['loss'] > 0)}, metrics

  mesh = stacking.make_mesh(1, count=3, batch_size=8)
  with pytest.raises(ValueError, match='out_axes'):
    given = (toy.state, toy.batches, toy.rows, toy.steps)
    jax.eval_shape(stacking.make_step(odd, 'vmap', mesh), *given)


# What goes together, and how much of it.


def test_stages_follow_parents_and_wait_for_their_kind():
  parents = {'a': None, 'b': 'a', 'fresh': None, 'other': None, 'late': 'b', 'orphan': 'gone'}
  kinds = {'a': 'pre', 'b': 'tune', 'fresh': 'tune', 'other': 'pre', 'late': 'tune', 'orphan': 'x'}
  want = {'a': 0, 'b': 1, 'fresh': 2, 'other': 0, 'late': 2, 'orphan': 0}
  assert planning.stages(parents, kinds) == want and planning.stages({}, {}) == {}


@pytest.mark.parametrize(
  'count, unit, limit, how, width, built',
  [
    (10, 1, 1000, {}, 10, [10]),  # all fit
    (10, 1, 70, {}, 5, [10, 5]),  # 10 + 10 a member: six fit, five a wave are as few waves
    (10, 1, 70, {'least': 10}, 5, [5]),  # their states alone are too much: not even compiled
    (10, 4, 70, {}, 4, [12, 4]),  # in fours
    (3, 1, 5, {}, 1, [3, 1]),  # not even one fits: it is given what it needs
    (10, 1, 1000, {'most': 4}, 4, [4]),
    (7, 2, 1000, {'most': 3}, 2, [2]),
    (1, 8, 1000, {}, 8, [8]),
  ],
)
def test_waves_are_as_few_as_memory_allows(count, unit, limit, how, width, built):
  asked = []
  build = lambda n: asked.append(n) or n
  assert (
    planning.fit(count, unit, build, lambda n: 10 + 10 * n, limit, **how) == (width, width)
    and asked == built
  )


@pytest.mark.parametrize(
  'change, words',
  [
    ({'population__batching': 'pmap'}, "population.batching='pmap'"),
    ({'population__members': -1}, 'population.members=-1'),
    (
      {'population__mesh': 3},
      'population.mesh=3 x mesh.data=-1 x mesh.model=1 does not use the 1 devices',
    ),
  ],
)
def test_what_cannot_be_is_refused_by_key(tmp_path, change, words):
  with pytest.raises(ValueError, match=words.replace('.', r'\.')):
    sweep(tmp_path, CHANGES[:2], config=change)
  assert not (tmp_path / 'populations').exists()


@pytest.mark.slow
def test_on_eight_devices(swept):
  rows = zip(CHANGES[:3], swept[1][:3], strict=True)
  cells = [[change, row['mask_hash'], row['metrics']['loss']] for change, row in rows]
  done = subprocess.run(
    [sys.executable, str(tiny_runs.ROOT / 'tests' / 'population_cases.py'), json.dumps(cells)],
    capture_output=True,
    text=True,
    timeout=300,
    cwd=tiny_runs.ROOT,
  )
  assert done.returncode == 0 and done.stdout.split()[-1] == 'good', done.stdout + done.stderr

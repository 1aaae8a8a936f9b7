"""Grids and sweeps, a run at a time: each cell once, into the ledger, whatever stops in between."""

import json
import shutil

import pytest
import shrunk_bert
import tiny_runs

from prunejax.cli import command
from prunejax.data import corpus, wordpiece
from prunejax.models import installed
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import folder as hf_folder
from prunejax.report import compare, ledger
from prunejax.sweep import dependencies, estimate, grid, summary
from prunejax.train import configs, inputs, loop, minilm, program, recipe, resume

CHANGES = [{}, {'seed': 1}, {'prune.weights.schedule': 'cubic(0.8, end=6)'}]
LABELS = {'stage': 'pretrain', 'arm': 'pruned', 'task': '', 'learning_rate': 0.01, 'seed': 0}


def sweep(folder, changes=CHANGES, **how):
  lines = []
  how = {'say': lines.append, 'one_by_one': True, **how}
  how = {'compiled': tiny_runs.COMPILED, **how}
  return grid.sweep(tiny_runs.config(), changes, folder, name='tiny', **how), lines


@pytest.fixture(scope='module')
def swept(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sweep')
  rows, lines = sweep(folder)
  return folder, json.loads(json.dumps(rows)), lines


def test_each_cell_is_one_row_with_all_that_it_takes_to_trust_it(swept):
  folder, rows, lines = swept
  assert rows == ledger.read(folder / 'ledger.jsonl') and len({row['cell'] for row in rows}) == 3
  for row, change in zip(rows, CHANGES, strict=True):
    assert row['experiment'] == 'sweep' and row['preset'] == 'tiny' and row['overrides'] == change
    assert (
      row['steps'] == 12 and row['seconds'] > 0 and row['bytes'] > 0 and len(row['mask_hash']) == 64
    )
    assert row['config']['optimizer.learning_rate'] == 0.01 and row['config']['steps'] == 12
    assert set(row['versions']) == {'python', *grid.PACKAGES} and row['device'] and row['time']
    assert row['metrics']['loss'] > 0 and 'sparsity' in row['metrics']
    assert row['members'] == 1 and row['device_seconds'] >= row['seconds']
    assert (folder / 'cells' / row['cell'] / 'model' / 'model.safetensors').exists()
    assert not (
      folder / 'cells' / row['cell'] / 'checkpoints'
    ).exists()  # what is in the ledger needs none
  assert rows[0]['mask_hash'] != rows[2]['mask_hash']


def test_cells_that_run_by_themselves_compile_and_encode_once(tmp_path, monkeypatch):
  read, load = [], corpus.load
  monkeypatch.setattr(corpus, 'load', lambda *a, **k: read.append(a[:2]) or load(*a, **k))
  compiled = program.Compiled({}, {}, {})  # not the one that the tests of a process share
  changes = [{}, {'optimizer.learning_rate': 0.02}, {'seed': 1}]
  rows, _ = sweep(tmp_path, changes, compiled=compiled)
  assert len({row['cell'] for row in rows}) == 3
  # Every cell took its program from here or added it; none compiled a program of its own.
  assert 0 < len(compiled.programs) == len(compiled.engines) <= 3
  assert len(read) == len(set(read)) == 2  # the training text and the held-out text


def test_progress_is_told_in_cells(swept):
  lines = swept[2]
  assert lines[0] == 'sweep tiny: 3 cells, 0 done, 3 left'
  starts = [
    line
    for line in lines
    if line.startswith('[') and line.split(']')[1].split('  ')[1:2] == ['12 steps']
  ]
  assert [line[:5] for line in starts] == ['[1/3]', '[2/3]', '[3/3]']
  assert 'seed=1' in starts[1] and 'left in all' in starts[2]


@pytest.mark.slow
@pytest.mark.parametrize('one_by_one', [False, True])
def test_numbers_only_rise_and_the_table_of_who_pays_is_printed_once(tmp_path, one_by_one):
  task, lines = {'data.task': 'glue/cola'}, []
  changes = [task, {}, {'seed': 1, 'batch_size': 4}, {'seed': 1}, {'seed': 1, **task}]
  rows = grid.sweep(
    # The lines of waves that train at a time alternate.
    tiny_runs.config(log__who_pays=True, keep_model=False, population__waves=1),
    changes,
    tmp_path,
    name='mixed',
    one_by_one=one_by_one,
    compiled=tiny_runs.COMPILED,
    say=lines.append,
  )
  numbers = [int(line[1 : line.index('/')]) for line in lines if line.startswith('[')]
  assert numbers == sorted(numbers) and set(numbers) == {1, 2, 3, 4, 5}
  assert sum('embeddings/word' in line for line in lines) == 1
  for row in rows:
    assert (tmp_path / 'cells' / row['cell'] / 'who_pays_weights.json').exists()


def test_the_time_left_is_told_once_each_kind_of_cell_has_run():
  cells = {
    name: grid.Cell({'stage': stage}, tiny_runs.config(steps=steps))
    for name, stage, steps in (('a', 'pretrain', 10), ('b', 'finetune', 20), ('c', 'pretrain', 30))
  }
  pace = grid._Pace(cells)
  assert pace.left() == ''
  pace.took('a', 20.0)
  assert pace.left() == ''  # what fine-tuning takes is not known yet
  pace.took('b', 5.0)
  assert pace.left() == '  about 1:00 left in all'


def test_a_second_time_nothing_runs(swept, monkeypatch):
  monkeypatch.setattr(loop, 'train', lambda *a, **k: pytest.fail('ran again'))
  rows, lines = sweep(swept[0])
  assert rows == swept[1] and lines == ['sweep tiny: 3 cells, 3 done, 0 left']


@pytest.mark.slow
def test_a_stopped_sweep_takes_up_where_it_was(swept, tmp_path):
  def say(line):
    if line.startswith('[2/3]') and 'train 3/12' in line:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    sweep(tmp_path, say=say)
  assert len(ledger.read(tmp_path / 'ledger.jsonl')) == 1
  rows, lines = sweep(tmp_path)
  assert lines[0] == 'sweep tiny: 3 cells, 1 done, 2 left'
  whole = {row['cell']: row for row in swept[1]}
  for row in rows:
    assert (
      row['metrics'] == whole[row['cell']]['metrics']
      and row['mask_hash'] == whole[row['cell']]['mask_hash']
    )


def test_a_torn_ledger_line_costs_its_cell_only(swept, tmp_path):
  (tmp_path / 'grid.json').write_text('{"sweep": "tiny"}')
  text = (swept[0] / 'ledger.jsonl').read_text()
  (tmp_path / 'ledger.jsonl').write_text(text[: -len(text.splitlines()[-1]) // 2])
  with pytest.warns(UserWarning, match='torn'):
    rows, lines = sweep(tmp_path)
  assert lines[0].endswith('2 done, 1 left') and len(ledger.read(tmp_path / 'ledger.jsonl')) == 3
  assert [row['mask_hash'] for row in rows] == [row['mask_hash'] for row in swept[1]]


def test_a_cell_whose_loss_is_not_finite_fails_alone(tmp_path):
  rows, lines = sweep(tmp_path, [{'optimizer.learning_rate': 1e30}, {'seed': 1}])
  assert 'not finite' in rows[0]['failed'] and rows[0]['metrics'] == {} and 'failed' not in rows[1]
  assert any('failed: ' in line for line in lines)


def test_a_cell_starts_from_the_model_of_its_parent(tmp_path):
  first = grid.Cell(LABELS, tiny_runs.config())
  child = tiny_runs.config(init=f'cell:{grid.key(first)}', seed=4)
  cells = [first, grid.Cell({**LABELS, 'arm': 'again'}, child, grid.key(first))]
  rows = grid.run(cells, tmp_path, experiment='x', preset='y', say=lambda line: None)
  assert (
    rows[1]['parent'] == rows[0]['cell'] and rows[1]['config']['init'] == f'cell:{rows[0]["cell"]}'
  )
  assert child.init.startswith('cell:')  # the config itself is left alone
  model = tmp_path / 'cells' / rows[0]['cell'] / 'model'
  by_hand = tiny_runs.train(
    tiny_runs.config(init=str(model), seed=4), tmp_path / 'by-hand', say=lambda line: None
  )
  assert (rows[1]['mask_hash'], rows[1]['metrics']['loss']) == (
    by_hand['mask_hash'],
    by_hand['metrics']['loss'],
  )


@pytest.mark.exact
def test_a_ledger_that_comes_alone_is_gone_on_with(tmp_path):
  first = grid.Cell(LABELS, tiny_runs.config())
  child = lambda seed: grid.Cell(
    {**LABELS, 'seed': seed},
    tiny_runs.config(init=f'cell:{grid.key(first)}', seed=seed),
    grid.key(first),
  )
  said = []
  run = lambda cells, folder: grid.run(cells, folder, experiment='x', preset='y', say=said.append)
  whole = run([first, child(4), child(5)], tmp_path / 'whole')
  run([first, child(4)], tmp_path / 'part')
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  shutil.copy(tmp_path / 'part' / 'ledger.jsonl', elsewhere)
  said.clear()
  rows = run([first, child(4), child(5)], elsewhere)
  assert any(line.startswith('1 of the done run again') for line in said)
  for row, theirs in zip(rows, whole, strict=True):
    assert (row['cell'], row['metrics'], row['mask_hash']) == (
      theirs['cell'],
      theirs['metrics'],
      theirs['mask_hash'],
    )
  assert [row['cell'] for row in ledger.read(elsewhere / 'ledger.jsonl')] == [
    row['cell'] for row in whole
  ]
  said.clear()
  run([first, child(4), child(5)], elsewhere)
  assert said == ['x y: 3 cells, 3 done, 0 left']


def test_the_name_of_a_cell_follows_numbers_and_nothing_else():
  same = [
    tiny_runs.config(log__every=9),
    tiny_runs.config(checkpoint__every=0),
    tiny_runs.config(keep_model=False),
  ]
  same += [
    tiny_runs.config(data__cache='x'),
    tiny_runs.config(data__root='y'),
    tiny_runs.config(population__members=3),
  ]
  changes = (
    {'seed': 1},
    {'steps': 5},
    {'optimizer__b1': 0.8},
    {'prune__weights__criterion': 'random()'},
  )
  other = [tiny_runs.config(**change) for change in changes]
  key = lambda config: grid.key(grid.Cell({}, config))
  assert {key(config) for config in same} == {key(tiny_runs.config())}
  assert len({key(config) for config in [tiny_runs.config(), *other]}) == 5


@pytest.mark.parametrize(
  'changes, words',
  [
    ([], 'yields nothing'),
    ([{}, {'seed': 0}], r"the same cell twice: \{\} and \{'seed': 0\}"),
    ([{'seed': 1}, {}, {'log.every': 9}], r"the same cell twice: \{\} and \{'log.every': 9\}"),
    ([{'sed': 1}], "did you mean 'seed'"),
  ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_written(tmp_path, changes, words):
  with pytest.raises(ValueError, match=words):
    sweep(tmp_path / 'sweep', changes)
  assert not (tmp_path / 'sweep').exists()


def test_a_sweep_has_a_report_of_its_settings(swept, tmp_path, capsys):
  assert command.main(['report', str(swept[0]), f'--out={tmp_path}']) == 0
  said = capsys.readouterr().out
  assert 'Sweep tiny: what each setting gives' in said
  for name in ('report.html', 'report.md', 'tables.md', 'metrics.png'):
    assert (tmp_path / name).stat().st_size > 0
  groups = summary.settings(swept[1])
  assert sum(len(rows) for _, rows in groups) == len(swept[1])
  assert all('seed' not in setting for setting, _ in groups)


def test_the_report_of_a_sweep_has_a_row_for_each_setting_and_the_mean_over_seeds():
  row = lambda rate, seed, loss, **more: {
    'config': {'optimizer.learning_rate': rate, 'seed': seed, 'steps': 3},
    'metrics': {'loss': loss, 'sparsity': 0.5} if loss else {},
    **more,
  }
  rows = [row(0.1, 0, 2.0), row(0.1, 1, 4.0), row(0.2, 0, 5.0), row(0.2, 1, None, failed='nan')]
  for finished in rows[:3]:  # as grid.run adds what the model of a finished run has
    finished['config']['model.hidden_size'] = 128
  table = summary.summary(summary.settings(rows), 'title')
  assert table.head == ('optimizer.learning_rate', 'seeds', 'loss', 'sparsity', 'failed')
  assert [line[:2] for line in table.rows] == [('0.1', '2'), ('0.2', '2')]
  assert table.rows[0][2].startswith('3 ± ') and table.rows[1][2] == '5' and table.rows[1][4] == '1'


def test_seeds_that_agree_have_no_interval_of_rounding():
  majority = 0.6911792905081495  # its mean over three rounds to another number
  rows = [{'config': {'seed': seed}, 'metrics': {'majority': majority}} for seed in range(3)]
  assert summary.summary(summary.settings(rows), 'title').rows == (('3', '0.6912 ± 0'),)


def test_a_failed_row_stands_with_its_setting_where_models_differ_in_size():
  def row(seed, size, failed='', **changes):
    # The config of a failed row has sizes that its model did not have.
    config = {'init': '', 'model.hidden_size': 768, 'seed': seed, **changes}
    config |= {} if failed else {'model.hidden_size': size, 'data.vocab_size': 100 + size}
    more = {'failed': failed} if failed else {}
    return {'config': config, 'metrics': {}, 'overrides': {**changes, 'seed': seed}, **more}

  counts = lambda rows: [(setting, len(some)) for setting, some in summary.settings(rows)]
  small, large = {'init': 'small'}, {'init': 'large'}
  rows = [row(0, 128, **small), row(0, 384, **large), row(1, 128, 'nan', **small)]
  rows += [row(1, 384, 'nan', **large), row(2, 384, 'nan', init='third')]
  assert counts(rows) == [
    ({'init': 'small', 'model.hidden_size': 128, 'data.vocab_size': 228}, 2),
    ({'init': 'large', 'model.hidden_size': 384, 'data.vocab_size': 484}, 2),
    ({'init': 'third'}, 1),
  ]
  # Where the sizes are what the sweep varies, the change of a row says which it is. A vocabulary
  # may have fewer pieces than were asked for.
  for key in ('model.hidden_size', 'data.vocab_size'):
    rows = [row(s, 64, 'nan' if s else '', **{key: size}) for size in (500, 600) for s in (0, 1)]
    assert [(setting[key], n) for setting, n in counts(rows)] == [(500, 2), (600, 2)]
    assert [n for _, n in counts(rows[1:])] == [1, 2]


def test_a_plan_counts_the_packaged_model_whatever_its_initializer():
  config = tiny_runs.config(init='nano', model__initializer='normal')
  assert estimate.size_of(recipe.resolve(config)).hidden_size == 128


def test_a_plan_finds_a_model_as_a_run_does(tmp_path, monkeypatch):
  model = tmp_path / 'carried'
  leaves, size = shrunk_bert.whole()
  bert_hf.save(model, shrunk_bert.tree(leaves), size)
  monkeypatch.setattr(installed, 'find', lambda name: model if name == 'a-package' else None)
  monkeypatch.setattr(minilm, 'folder', lambda: model)
  width = lambda init: estimate.size_of(recipe.resolve(tiny_runs.config(init=init))).vocab_size
  for init in (str(model), 'a-package', 'minilm'):
    assert width(init) == size.vocab_size != width('')
  assert width('no-package') == width(str(tmp_path / 'none')) == width('')


def test_a_plan_unpacks_a_model_once(monkeypatch):
  found = []
  monkeypatch.setattr(inputs, 'folder_of', lambda init: found.append(init) or inputs.NANO)
  runs = [recipe.resolve(tiny_runs.config(init='a-package', seed=seed)) for seed in (0, 1)]
  estimate.table([(LABELS, run) for run in runs], 'two cells')
  assert found == ['a-package']


def test_columns_of_a_plan_stay_apart():
  run = recipe.resolve(tiny_runs.config())
  labels = {'stage': 'finetune', 'arm': 'class_distribution', 'task': 'tfds/glue/a_long_task'}
  lines = estimate.table([(LABELS, run), (labels, run)], 'two cells').splitlines()
  assert lines[3].split()[:4] == ['finetune', 'class_distribution', 'tfds/glue/a_long_task', '1']
  ends = {line.rindex(line.split()[-1]) + len(line.split()[-1]) for line in lines[1:5]}
  assert len(ends) == 1
  assert 'no cells: there is nothing to run' in estimate.table([], 'none')


def test_a_folder_of_another_grid_is_refused(swept, tmp_path):
  with pytest.raises(
    ValueError, match='belongs to sweep tiny, not to sweep other; nothing was written'
  ):
    grid.sweep(tiny_runs.config(), CHANGES, swept[0], name='other', say=pytest.fail)
  with pytest.raises(ValueError, match='expected the work directory of a paper'):
    compare.experiment_of(swept[0])
  with pytest.raises(FileNotFoundError, match='holds no grid'):
    compare.experiment_of(tmp_path)
  (tmp_path / 'thesis.tex').write_text('mine')
  with pytest.raises(ValueError, match='is not empty'):
    sweep(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']
  (tmp_path / 'paper').mkdir()
  grid.claim(tmp_path / 'paper', {'paper': 'gordon2020', 'preset': 'quick'})
  assert compare.experiment_of(tmp_path / 'paper') == 'gordon2020'


def test_what_a_grid_would_cost(swept):
  run = recipe.resolve(tiny_runs.config(model__hidden_size=128, steps=100))
  text = estimate.table([(LABELS, run), (LABELS, run)], 'two cells')
  row = text.splitlines()[2].split()
  assert row[:4] == ['pretrain', 'pruned', '2', '200']
  measured = swept[1][0]['bytes'] // 4
  size = json.loads(
    (swept[0] / 'cells' / swept[1][0]['cell'] / 'model' / 'config.json').read_text()
  )
  folder = swept[0] / 'cells' / swept[1][0]['cell'] / 'model'
  cost = lambda **changes: estimate.estimate(recipe.resolve(tiny_runs.config(**changes)))
  counted = cost(init=str(folder))
  assert (
    counted['parameters'] == measured
    and counted['bytes'] > 17 * measured
    and size['vocab_size'] < 120
  )
  assert cost(init=str(folder), steps=24)['flops'] == 2 * counted['flops']


def test_overrides_of_a_sweep_leave_its_config_alone():
  config = tiny_runs.config()
  before = configs.flat(config)
  configs.override(config.copy_and_resolve_references(), {'seed': 5})
  assert configs.flat(config) == before


def test_a_teacher_whose_model_is_not_here_runs_again(tmp_path):
  teacher = grid.Cell(LABELS, tiny_runs.config())
  student = grid.Cell(
    LABELS, tiny_runs.config(seed=1, distill__teacher=f'cell:{grid.key(teacher)}')
  )
  cells, done = {grid.key(c): c for c in (teacher, student)}, {grid.key(teacher): {}}
  left = {grid.key(student): student}
  assert dependencies.without_model(cells, left.values(), done, tmp_path) == {grid.key(teacher)}
  model = tmp_path / 'cells' / grid.key(teacher) / 'model'
  model.mkdir(parents=True)
  (model / 'config.json').write_text('{}')
  assert dependencies.without_model(cells, left.values(), done, tmp_path) == set()


@pytest.mark.slow
def test_a_done_cell_whose_model_was_deleted_runs_again(tmp_path):
  parent = grid.Cell(LABELS, tiny_runs.config(steps=8))
  child = grid.Cell(
    LABELS, tiny_runs.config(steps=8, seed=1, init=f'cell:{grid.key(parent)}'), grid.key(parent)
  )
  run = lambda cells: grid.run(
    cells, tmp_path, experiment='a', preset='b', one_by_one=True, say=lambda text: None
  )
  before = run([parent])
  shutil.rmtree(tmp_path / 'cells' / grid.key(parent) / 'model')  # to save room; its result stays
  rows = run([parent, child])
  assert rows[0]['metrics'] == before[0]['metrics'] and rows[1]['parent'] == grid.key(parent)
  assert (tmp_path / 'cells' / grid.key(parent) / 'model' / 'model.safetensors').exists()


@pytest.mark.slow
@pytest.mark.parametrize('alone', [True, False])
def test_what_a_failed_teacher_would_have_taught_fails_and_the_others_go_on(alone, tmp_path):
  teacher = grid.Cell(LABELS, tiny_runs.config(steps=8, optimizer__learning_rate=1e30))
  student = grid.Cell(
    LABELS, tiny_runs.config(steps=8, seed=1, distill__teacher=f'cell:{grid.key(teacher)}')
  )
  other = grid.Cell(LABELS, tiny_runs.config(steps=8, seed=2))
  cells = [teacher, student, other]
  rows = grid.run(
    cells, tmp_path, experiment='a', preset='b', one_by_one=alone, say=lambda text: None
  )
  assert [bool(row.get('failed')) for row in rows] == [True, True, False] and grid.key(
    teacher
  ) in rows[1]['failed']


def test_a_wave_that_another_worker_has_just_ended_is_no_wave(tmp_path, monkeypatch):
  (tmp_path / 'populations').mkdir()
  monkeypatch.setattr(resume.files, 'names', lambda folder: ['gone'])
  assert resume.under_way(tmp_path) == {}


def test_a_ledger_alone_makes_a_work_directory_of_its_own_grid(tmp_path):
  mine, row = {'paper': 'gordon2020', 'preset': 'mini'}, {'experiment': 'gordon2020'}
  for name in ('own', 'other', 'more'):
    (tmp_path / name).mkdir()
    preset = 'quick' if name == 'other' else 'mini'
    (tmp_path / name / 'ledger.jsonl').write_text(
      json.dumps({'cell': 'a', **row, 'preset': preset}) + '\n'
    )
  (tmp_path / 'more' / 'thesis.tex').write_text('')
  grid.claim(tmp_path / 'own', mine)
  assert json.loads((tmp_path / 'own' / 'grid.json').read_text()) == mine
  for name in ('other', 'more'):
    with pytest.raises(
      ValueError, match='holds no grid.*nothing but a ledger.jsonl of paper gordon2020, preset mini'
    ):
      grid.claim(tmp_path / name, mine)
    assert not (tmp_path / name / 'grid.json').exists()


def family(tmp_path):
  """Two cells, the child of each, and a function that runs them all in `tmp_path`."""
  parents = [grid.Cell({**LABELS, 'seed': seed}, tiny_runs.config(seed=seed)) for seed in (0, 1)]
  children = [
    grid.Cell(
      {**LABELS, 'arm': 'again', 'seed': cell.labels['seed']},
      tiny_runs.config(init=f'cell:{grid.key(cell)}', seed=7 + cell.labels['seed'], steps=8),
      grid.key(cell),
    )
    for cell in parents
  ]

  def run(cells):
    how = {'compiled': tiny_runs.COMPILED, 'one_by_one': True, 'say': lambda line: None}
    return grid.run(cells, tmp_path, experiment='x', preset='y', **how)

  run(parents)
  return parents, children, run


def swap(a, b):
  for name in ('model.safetensors', 'checksums.json'):
    first, second = (a / name).read_bytes(), (b / name).read_bytes()
    (a / name).write_bytes(second)
    (b / name).write_bytes(first)


def flip(folder):
  path = folder / 'model.safetensors'
  content = bytearray(path.read_bytes())
  content[-5] ^= 4
  path.write_bytes(content)


@pytest.mark.slow
def test_a_parent_that_is_damaged_or_exchanged_is_refused_by_name(tmp_path):
  parents, children, run = family(tmp_path)
  models = [tmp_path / 'cells' / grid.key(cell) / 'model' for cell in parents]
  swap(*models)
  with pytest.raises(ValueError, match=f'is not the model of cell {grid.key(parents[0])}'):
    run([*parents, *children])
  swap(*models)
  flip(models[1])
  with pytest.raises(ValueError, match=f'{grid.key(parents[1])} cannot be read: .*not the file'):
    run([*parents, *children])
  assert not [cell for cell in children if (tmp_path / 'cells' / grid.key(cell)).exists()]
  shutil.rmtree(models[1])  # as the message says: the cell runs again
  rows = run([*parents, *children])
  assert [row['models']['model'] for row in rows[:2]] == [hf_folder.digest(m) for m in models]
  flip(models[0])  # nothing is left that reads it
  assert json.loads(json.dumps(rows)) == run([*parents, *children])


@pytest.mark.slow
def test_a_teacher_that_is_exchanged_is_refused_by_name(tmp_path):
  parents, _, run = family(tmp_path)
  name = f'cell:{grid.key(parents[0])}'
  student = grid.Cell(
    {**LABELS, 'arm': 'taught'}, tiny_runs.config(distill__teacher=name, seed=5, steps=8)
  )
  swap(*(tmp_path / 'cells' / grid.key(cell) / 'model' for cell in parents))
  with pytest.raises(ValueError, match=f'is not the model of cell {grid.key(parents[0])}'):
    run([*parents, student])


@pytest.mark.slow
def test_a_row_says_the_sizes_and_the_vocabulary_of_the_model_that_was_trained(tmp_path):
  parents, children, run = family(tmp_path)
  config = children[0].config
  config.model.hidden_size = 768  # of a fresh model, which this is not
  child = grid.Cell(LABELS, config, grid.key(parents[0]))
  parent, row = run([parents[0], child])
  sizes = {k: v for k, v in row['config'].items() if k.startswith('model.')}
  assert sizes == {k: v for k, v in parent['config'].items() if k.startswith('model.')}
  assert sizes['model.hidden_size'] == 16 and row['cell'] == grid.key(child)
  folder = tmp_path / 'cells' / grid.key(parents[0]) / 'model'
  words = wordpiece.load(folder)
  assert row['config']['data.vocab_size'] == words.get_vocab_size() > 50
  assert row['vocabulary'] == parent['vocabulary'] == wordpiece.fingerprint(words)

"""Studies: each cell once, killed and gone on with, reported from the ledger alone."""

import importlib
import json
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.numpy

from prunejax.report import drawing, ledger, tables, verdicts
from prunejax.sweep import study
from prunejax.train import configs


class Size(NamedTuple):
  seeds: tuple
  cost: str = 'nothing'


class Killed(BaseException):
  pass


def plan(size, root):
  if root == 'empty':
    raise ValueError("data.root='empty' holds no data")
  return [
    study.Cell({'sparsity': s, 'seed': seed}, {'s': s, 'seed': seed})
    for seed in size.seeds
    for s in (0.0, 0.5)
  ]


def toy(measured, die_at=None):
  def measure(settings, root, folder, say):
    del root, say
    if settings == die_at:
      raise Killed
    if settings == {'s': 0.5, 'seed': 3}:
      raise FloatingPointError('the loss is not finite')
    parent = study.kept(
      folder, {'seed': settings['seed']}, lambda: {'w': np.full(3, settings['seed'], np.float32)}
    )
    measured.append(settings)
    return {'error': settings['s'] + float(parent['w'][0]) / 100}

  def claims(rows):
    costs = [
      a['metrics']['error'] - b['metrics']['error']
      for a in rows
      for b in rows
      if a['seed'] == b['seed'] and (a['sparsity'], b['sparsity']) == (0.5, 0.0)
    ]
    return [
      verdicts.Verdict(
        'costs', 'Pruning costs.', verdicts.word(verdicts.side(costs) > 0), verdicts.shown(costs)
      )
    ]

  def figure(rows):
    with drawing.canvas(3, 2, 1) as (canvas, (axes,)):
      axes.plot([row['sparsity'] for row in rows], [row['metrics']['error'] for row in rows])
      return drawing.png(canvas)

  return study.Study(
    'toy1990',
    'A toy',
    'nobody',
    {'quick': Size((0, 1)), 'long': Size((0, 1, 3))},
    plan,
    measure,
    claims,
    lambda rows: [tables.records('Errors', [{'error': row['metrics']['error']} for row in rows])],
    lambda rows: {'curve': figure(rows)},
    {'curve': 'Error against sparsity.'},
  )


def test_each_cell_runs_once_and_a_killed_study_goes_on(tmp_path):
  measured, said = [], []
  reproduce, *_ = study.verbs(toy(measured, die_at={'s': 0.0, 'seed': 1}))
  with pytest.raises(Killed):
    reproduce('quick', tmp_path / 'run', say=said.append)
  assert len(measured) == 2 and len(ledger.read(tmp_path / 'run' / 'ledger.jsonl')) == 2
  reproduce, *_ = study.verbs(toy(measured))
  reproduce('quick', tmp_path / 'run', say=said.append)
  assert measured == [{'s': s, 'seed': seed} for seed in (0, 1) for s in (0.0, 0.5)]
  assert any('4 cells, 2 done, 2 left' in line for line in said) and any(
    'reproduced' in line for line in said
  )
  row = ledger.read(tmp_path / 'run' / 'ledger.jsonl')[-1]
  assert row['settings'] == {'s': 0.5, 'seed': 1} and row['metrics'] == {'error': 0.51}
  assert (
    row['versions']['jax']
    and row['device']
    and row['experiment'] == 'toy1990'
    and row['preset'] == 'quick'
  )
  reproduce('quick', tmp_path / 'run', say=said.append)
  assert len(measured) == 4


def test_the_report_is_drawn_from_the_ledger_alone(tmp_path):
  reproduce, _, redraw, compare = study.verbs(toy([]))
  reproduce('long', tmp_path / 'run', say=lambda line: None)
  text = (tmp_path / 'run' / 'report.md').read_text()
  assert 'the loss is not finite' in text and 'Error against sparsity.' in text and 'nobody' in text
  redraw(tmp_path / 'run' / 'ledger.jsonl', tmp_path / 'again', say=lambda line: None)
  assert (tmp_path / 'again' / 'report.md').read_text() == text
  assert (tmp_path / 'again' / 'curve.png').read_bytes() == (
    tmp_path / 'run' / 'curve.png'
  ).read_bytes()
  compare(
    str(tmp_path / 'run'),
    str(tmp_path / 'again/../run/ledger.jsonl'),
    tmp_path / 'two',
    say=lambda line: None,
  )
  assert 'A: Errors' in (tmp_path / 'two' / 'report.md').read_text()


def test_the_folder_of_a_report_can_be_compared_and_no_ledger_is_lost(tmp_path):
  silent = lambda line: None
  reproduce, _, redraw, compare = study.verbs(toy([]))
  for name in ('run', 'other'):
    reproduce('quick', tmp_path / name, say=silent)
  source = tmp_path / 'run' / 'ledger.jsonl'
  for _ in range(2):  # a report may be drawn again into its folder
    redraw(source, tmp_path / 'drawn', say=silent)
  assert ledger.read(tmp_path / 'drawn' / 'ledger.jsonl') == ledger.read(source)
  compare(tmp_path / 'run', tmp_path / 'drawn', tmp_path / 'two', say=silent)
  text = (tmp_path / 'two' / 'report.md').read_text()
  assert '## Verdicts' in text and 'differs' not in text
  before = (tmp_path / 'other' / 'ledger.jsonl').read_bytes()
  with pytest.raises(ValueError, match=r'other.*of another grid'):
    redraw(source, tmp_path / 'other', say=silent)
  assert (tmp_path / 'other' / 'ledger.jsonl').read_bytes() == before


def test_a_row_that_the_claims_cannot_read_is_named(tmp_path):
  reproduce, write_report, *_ = study.verbs(toy([]))
  reproduce('long', tmp_path / 'run', say=lambda line: None)
  rows = ledger.read(tmp_path / 'run' / 'ledger.jsonl')
  del rows[-2]['metrics']['error']
  ledger.append(tmp_path / 'run' / 'ledger.jsonl', rows[-2])
  with pytest.raises(ValueError, match=f"{rows[-2]['cell']}' has no metrics.error"):
    write_report(tmp_path / 'run')


def test_what_a_killed_report_left_half_written_goes(tmp_path):
  reproduce, write_report, *_ = study.verbs(toy([]))
  reproduce('quick', tmp_path / 'run', say=lambda line: None)
  (tmp_path / 'run' / '.report.html.0123456789ab.part').write_text('half')
  (tmp_path / 'run' / '.grid.json.0123456789ab.part').write_text('of another worker')
  write_report(tmp_path / 'run', say=lambda line: None)
  left = [path.name for path in (tmp_path / 'run').glob('.*.part')]
  assert left == ['.grid.json.0123456789ab.part']


def test_seeds_and_sparsities_take_a_part_and_workers_share_it(tmp_path):
  measured, said = [], []
  reproduce, *_ = study.verbs(toy(measured))
  reproduce('quick', tmp_path / 'run', seeds=[1], sparsities=[0.5], say=said.append)
  assert measured == [{'s': 0.5, 'seed': 1}]
  reproduce('quick', tmp_path / 'two', worker=(0, 2), say=said.append)
  assert any('2 cells are left to other workers' in line for line in said)
  assert not (tmp_path / 'two' / 'report.html').exists()
  reproduce('quick', tmp_path / 'two', worker=(1, 2), say=said.append)
  assert (tmp_path / 'two' / 'report.html').exists()
  reproduce('quick', tmp_path / 'two', dry_run=True, say=said.append)
  assert '0 of 4 cells are missing' in said[-1] and 'sparsity 0.5, seed 1' in said[-1]
  assert said[-1].endswith(str(tmp_path / 'two'))
  reproduce('quick', tmp_path / 'run', dry_run=True, say=said.append)
  assert '3 of 4 cells are missing' in said[-1]
  assert said[-1].endswith('cells: 0.00 seeds 0, 1; 0.50 seed 0')


@pytest.mark.parametrize(
  'preset, given, words',
  [
    ('quik', {}, ["'quik'", "did you mean 'quick'"]),
    ('quick', {'overrides': {'data.rot': 'x'}}, ['data.rot', "did you mean 'data.root'"]),
    ('quick', {'overrides': {'data.root': 'empty'}}, ["data.root='empty'"]),
    ('quick', {'seeds': [7]}, ['--seeds=7', '[0, 1]']),
    ('quick', {'sparsities': [0.9]}, ['--sparsities=0.9', '[0.0, 0.5]']),
    ('quick', {'rates': [1e-3]}, ['--rates', '--seeds and --sparsities']),
    ('quick', {'names': ['pydoc/order']}, ['--tasks']),
    ('quick', {'from_scratch': True}, ['--from-scratch']),
  ],
)
def test_wrong_input_is_told_before_anything_is_written(preset, given, words, tmp_path):
  reproduce, *_ = study.verbs(toy([]))
  with pytest.raises(ValueError) as error:
    reproduce(preset, tmp_path / 'run', **{'names': None, 'scale': None, **given})
  assert all(word in str(error.value) for word in words), error.value
  assert not (tmp_path / 'run').exists()


def test_a_folder_of_another_study_is_refused(tmp_path):
  reproduce, *_ = study.verbs(toy([]))
  (tmp_path / 'grid.json').write_text(json.dumps({'paper': 'toy1990', 'preset': 'long'}))
  with pytest.raises(ValueError, match='belongs to paper toy1990, preset long'):
    reproduce('quick', tmp_path)


def test_a_parent_is_made_once_and_made_again_when_its_file_is_damaged(tmp_path):
  made = []
  make = lambda: made.append(1) or {'w': np.arange(3.0)}
  for _ in range(2):
    np.testing.assert_array_equal(study.kept(tmp_path, {'a': 1}, make)['w'], np.arange(3.0))
  assert len(made) == 1
  [path] = (tmp_path / 'parents').iterdir()
  whole = path.read_bytes()
  other = study.kept(tmp_path, {'a': 2}, lambda: {'w': np.ones(3)})
  [theirs] = set((tmp_path / 'parents').iterdir()) - {path}
  flipped = whole[:-1] + bytes([whole[-1] ^ 1])
  unmarked = safetensors.numpy.save(other)  # as 0.1 wrote it
  for content in (b'nothing', flipped, whole[:-8], theirs.read_bytes(), unmarked):
    path.write_bytes(content)
    made.clear()
    np.testing.assert_array_equal(study.kept(tmp_path, {'a': 1}, make)['w'], np.arange(3.0))
    assert made == [1] and path.read_bytes() == whole


def test_the_quantities_of_a_grid_are_computed_once_and_passed_on(tmp_path):
  toys, calls = toy([]), []

  def analyse(rows):
    calls.append(len(rows))
    return {'rows': rows}

  analysed = toys._replace(
    analyse=analyse,
    claims=lambda found: toys.claims(found['rows']),
    tables=lambda found: toys.tables(found['rows']),
    figures=lambda found: toys.figures(found['rows']),
  )
  study.reproduce(analysed, 'quick', tmp_path / 'w', say=lambda line: None)
  assert calls == [4]
  plain = study.redraw(toys, tmp_path / 'w' / 'ledger.jsonl', tmp_path / 'p', say=lambda line: None)
  assert plain['report.md'].read_text() == (tmp_path / 'w' / 'report.md').read_text()


def test_a_study_may_take_its_own_parts_and_presets_may_be_functions():
  taken = []

  def plan(size, overrides, scale=1, seeds=None):
    taken.append((overrides, scale))
    return [study.Cell({'seed': seed}, {'seed': seed}) for seed in seeds or size.seeds]

  own = toy([])._replace(plan=plan, parts=('scale', 'seeds'), presets={'quick': lambda: Size((0,))})
  assert [cell.labels for cell in study.cells(own, 'quick', {'a': 1}, scale=2)] == [{'seed': 0}]
  assert [cell.labels for cell in study.cells(own, 'quick', seeds=[7])] == [{'seed': 7}]
  assert taken == [({'a': 1}, 2), ({}, 1)]
  with pytest.raises(
    ValueError, match='--arms: toy1990 has no such part; it takes --scale and --see'
  ):
    study.cells(own, 'quick', families=['paper'])


def test_two_ledgers_stand_side_by_side_or_as_the_study_says(tmp_path):
  toys = toy([])
  for name in 'ab':
    study.reproduce(toys, 'quick', tmp_path / name, say=lambda line: None)
  both = (tmp_path / 'a', tmp_path / 'b')
  written = study.compare(toys, *both, tmp_path / 'out', say=lambda line: None)
  assert {'A-curve.png', 'B-curve.png'} <= set(written)
  text = written['report.md'].read_text()
  assert '**A: Errors**' in text and '**B: Errors**' in text and '## Verdicts' in text
  own = toys._replace(
    differences=lambda a, b: ([tables.records('B minus A', [{'rows': len(a) - len(b)}])], {}, {})
  )
  written = study.compare(own, *both, tmp_path / 'own', say=lambda line: None)
  assert set(written) == {'report.html', 'report.md', 'tables.md', 'tables.txt'}
  assert '**B minus A**' in written['report.md'].read_text()


TRAINED = ('gordon2020', 'guo2019', 'journey2025', 'league', 'spdf2023')
SET_BY_CELLS = {'seed': 7, 'steps': 9, 'prune.weights.schedule': 'cubic(0.3, end=4)'}


@pytest.mark.parametrize('name', SET_BY_CELLS)
@pytest.mark.parametrize('paper', TRAINED)
def test_a_key_that_cells_set_is_refused_or_holds_in_every_cell_of_a_stage(paper, name):
  declared = importlib.import_module(f'experiments.{paper}.study').STUDY
  overrides = {name: SET_BY_CELLS[name]}
  try:
    planned = study.cells(declared, 'smoke', overrides)
  except ValueError as error:
    assert f'--config.{name}={SET_BY_CELLS[name]}' in str(error)
    return
  of = {}
  for cell in planned:
    value = configs.flat(cell.config)[name]
    of.setdefault(cell.labels['stage'], set()).add(value)
  assert {SET_BY_CELLS[name]} in of.values()


@pytest.mark.parametrize('paper', TRAINED)
def test_a_key_that_no_cell_sets_holds_in_all(paper):
  declared = importlib.import_module(f'experiments.{paper}.study').STUDY
  planned = study.cells(declared, 'smoke', {'optimizer.weight_decay': '0.125'})
  assert {configs.flat(cell.config)['optimizer.weight_decay'] for cell in planned} == {0.125}


def test_an_override_of_the_seed_names_the_flag():
  declared = importlib.import_module('experiments.journey2025.study').STUDY
  with pytest.raises(ValueError, match='--config.seed=3: each cell of journey2025.*use --seeds'):
    study.cells(declared, 'smoke', {'seed': '3'})

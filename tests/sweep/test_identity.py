"""What names a cell, and what a grid does when the text, the labels or the model have changed."""

import json
import shutil

import pytest
import tiny_runs

from experiments.gordon2020 import study as gordon
from experiments.see2016 import study as see
from prunejax.data import pydoc
from prunejax.report import ledger
from prunejax.sweep import grid, identity, study
from prunejax.train import inputs, recipe

LABELS = {'stage': 'pretrain', 'arm': 'dense', 'task': '', 'learning_rate': 0.01, 'seed': 0}
SILENT = lambda line: None


def config(root, **changes):
  changes = {'steps': 4, 'checkpoint__every': 0, **changes}
  return tiny_runs.config(False, data__root=str(root), **changes)


def sweep(root, folder, **changes):
  how = {'compiled': tiny_runs.COMPILED, 'one_by_one': True, 'say': SILENT}
  return grid.sweep(config(root, **changes), [{}, {'seed': 1}], folder, name='tiny', **how)


@pytest.fixture
def root(tmp_path):
  """A folder with text and labelled files of its own."""
  shutil.copytree(tiny_runs.home() / 'text', tmp_path / 'data' / 'text')
  shutil.copytree(tiny_runs.home() / 'glue', tmp_path / 'data' / 'glue')
  (tmp_path / 'data' / 'mine').mkdir()
  for name in ('train.tsv', 'dev.tsv'):
    lines = (tmp_path / 'data' / 'glue' / 'CoLA' / name).read_text().splitlines()
    rows = [
      (text, ('no', 'yes')[int(label)]) for _, label, _, text in (x.split('\t') for x in lines)
    ]
    table = ''.join(f'{text}\t{label}\n' for text, label in [('sentence', 'y'), *rows])
    (tmp_path / 'data' / 'mine' / name).write_text(table)
  return tmp_path / 'data'


def edit(path):
  """Changes one letter of a word: the name and the size of the file stay."""
  content = path.read_bytes()
  middle = content.index(b' ', len(content) // 2)
  letter = next(i for i in range(middle, len(content)) if chr(content[i]) in 'aeiou')
  path.write_bytes(
    content[:letter]
    + (b'i' if content[letter : letter + 1] != b'i' else b'u')
    + content[letter + 1 :]
  )


MINE = "labelled('mine/train.tsv', 'mine/dev.tsv', label='y', classes=('no', 'yes'))"
# What is read: the changes of a config, and the file that is edited.
READ = {
  'text': ({}, 'text/003.txt'),
  'labels': ({'data__task': 'glue/cola'}, 'glue/CoLA/train.tsv'),
  'held-out labels': ({'data__task': 'glue/cola'}, 'glue/CoLA/dev.tsv'),
  "labels of one's own": ({'data__task': MINE}, 'mine/dev.tsv'),
  'the text of the vocabulary': ({'data__task': 'glue/cola'}, 'text/003.txt'),
}


@pytest.mark.parametrize('name', READ)
def test_a_name_of_a_new_cell_follows_content_and_not_paths(name, root, tmp_path):
  changes, file = READ[name]
  key = lambda where, known=None, **more: grid.key(
    grid.Cell(LABELS, config(where, **changes, **more)), known
  )
  new, known = {'data__identity': 'content'}, {}
  old, first = key(root), key(root, **new)
  shutil.copytree(root, tmp_path / 'elsewhere')
  assert first != old and key(tmp_path / 'elsewhere', **new) == first
  assert key(root, known, **new) == first
  edit(root / file)
  assert key(root, known, **new) == first  # one plan takes its data for constant
  assert key(root, **new) != first == key(tmp_path / 'elsewhere', **new)
  assert key(root) == old  # cells of 0.1 keep their names


@pytest.mark.parametrize('which', ['model.safetensors', 'config.json', 'vocab.txt'])
def test_a_name_of_a_new_cell_follows_the_model_it_starts_from(which, tmp_path):
  model = tmp_path / 'model'
  shutil.copytree(tiny_runs.finished('pruned').folder / 'model', model)
  shutil.copytree(model, tmp_path / 'copy')
  cell = lambda where: grid.Cell(
    LABELS, config(tiny_runs.home(), init=str(where), data__identity='content')
  )
  first = grid.key(cell(model))
  assert grid.key(cell(tmp_path / 'copy')) == first
  (tmp_path / 'copy' / 'checksums.json').unlink()  # says nothing that the files do not
  assert grid.key(cell(tmp_path / 'copy')) == first
  content = bytearray((model / which).read_bytes())
  content[-3] ^= 1
  (model / which).write_bytes(content)
  assert grid.key(cell(model)) != first


@pytest.mark.parametrize('name', READ)
def test_a_finished_sweep_is_not_given_for_that_of_other_data(name, root, tmp_path):
  changes, file = READ[name]
  rows = sweep(root, tmp_path / 'work', **changes)
  shutil.copytree(root, tmp_path / 'copy')
  assert sweep(tmp_path / 'copy', tmp_path / 'work', **changes) == json.loads(json.dumps(rows))
  edit(tmp_path / 'copy' / file)
  before = (tmp_path / 'work' / 'ledger.jsonl').read_bytes()
  with pytest.raises(ValueError, match='2 cells that read other content of data.*another --workd'):
    sweep(tmp_path / 'copy', tmp_path / 'work', **changes)
  assert (tmp_path / 'work' / 'ledger.jsonl').read_bytes() == before
  assert len(list((tmp_path / 'work' / 'cells').iterdir())) == 2


def test_a_finished_sweep_is_not_given_for_that_of_another_model(root, tmp_path):
  model = tmp_path / 'model'
  shutil.copytree(tiny_runs.finished('pruned').folder / 'model', model)
  sweep(root, tmp_path / 'work', init=str(model))
  other = tiny_runs.finished('other', seed=3).folder / 'model'
  shutil.rmtree(model)
  shutil.copytree(other, model)
  with pytest.raises(ValueError, match='other content of init='):
    sweep(root, tmp_path / 'work', init=str(model))


@pytest.mark.parametrize('stop', ['train 3/12', None])
@pytest.mark.parametrize('name', READ)
def test_a_run_does_not_go_on_with_other_data(name, stop, root, tmp_path):
  changes, file = READ[name]
  run = lambda **how: tiny_runs.train(
    config(root, steps=12, **changes), tmp_path / 'run', **{'say': SILENT, **how}
  )
  if stop:
    tiny_runs.stopped(tmp_path / 'run', stop, data__root=str(root), **changes)
  else:
    done = run()
    assert run() == done
  edit(root / file)
  with pytest.raises(ValueError, match='begun with other content of (its text|data.corpus)'):
    if stop:
      tiny_runs.train(
        tiny_runs.config(data__root=str(root), **changes), tmp_path / 'run', say=SILENT
      )
    else:
      run()


def test_a_finished_run_needs_no_data(root, tmp_path):
  run = lambda: tiny_runs.train(config(root), tmp_path / 'run', say=SILENT)
  done = run()
  shutil.rmtree(root)
  assert run() == done


def test_a_run_does_not_go_on_with_another_vocabulary(root, tmp_path):
  """The cache keeps vocabularies by text and size; a new library may train another one."""
  cache = {'data__cache': str(tmp_path / 'cache'), 'data__root': str(root)}
  tiny_runs.stopped(tmp_path / 'run', 'train 6/12', **cache)
  [path] = (tmp_path / 'cache' / 'vocab').iterdir()
  pieces = path.read_text().splitlines()
  path.write_text('\n'.join([*pieces[:-2], pieces[-1], pieces[-2]]) + '\n')
  with pytest.raises(ValueError, match='begun with other content of its vocabulary:'):
    tiny_runs.train(tiny_runs.config(**cache), tmp_path / 'run', say=SILENT)


def test_a_ledger_of_01_is_gone_on_with_under_its_own_names(root, tmp_path, monkeypatch):
  rows = sweep(root, tmp_path / 'new')
  work = tmp_path / 'old'
  work.mkdir()
  (work / 'grid.json').write_text('{"sweep": "tiny"}')
  old = grid.key(grid.Cell(LABELS, config(root)))
  row = {**rows[0], 'cell': old}
  for name in ('reads', 'vocabulary', 'models', 'text'):
    del row[name]
  row['config'] = {k: v for k, v in row['config'].items() if k != 'data.identity'}
  ledger.append(work / 'ledger.jsonl', row)
  again = sweep(root, work)
  assert [r['cell'] for r in again] == [old, grid.key(grid.Cell(LABELS, config(root, seed=1)))]
  assert identity.of_folder(work) == {} and identity.of_folder(tmp_path / 'new') != {}
  assert identity.of_folder(tmp_path / 'none', reuse=work) == {}  # else nothing could be taken
  assert again[1]['reads'] == {} and again[1]['text'] == rows[1]['text']


def test_a_reproduction_reads_the_packaged_text_unless_told_otherwise(tmp_path, monkeypatch):
  planned = []
  monkeypatch.setattr(grid, 'run', lambda cells, folder, **how: planned.append(cells) or [])
  how = {'say': SILENT}
  gordon.reproduce('smoke', tmp_path / 'a', **how)
  gordon.reproduce('smoke', tmp_path / 'b', overrides={'data.pydoc': 'installed'}, **how)
  packaged, installed = planned
  text_of = lambda cell: inputs.text_of(recipe.data_of(cell.config.data))
  texts = [set(map(text_of, cells)) for cells in planned]
  assert texts[0].isdisjoint(texts[1]) and len(packaged) == len(installed)
  for cells in planned:
    assert all(cell.config.data.identity == 'content' for cell in cells)
    for cell in cells:
      assert cell.parent is None or cell.parent in map(grid.key, cells)
  keys = [set(map(grid.key, cells)) for cells in (*planned, gordon.cells('smoke'))]
  assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2])
  with pytest.raises(ValueError, match='belongs to .*, not to .*data.pydoc'):
    gordon.reproduce('smoke', tmp_path / 'a', overrides={'data.pydoc': 'installed'}, **how)


def test_a_measurement_reads_the_packaged_text_unless_told_otherwise():
  new = {**identity.CONTENT, **identity.PACKAGED}
  old, new = see.plan(see.PRESETS['smoke'], ''), study.cells(see.STUDY, 'smoke', new)
  assert 'pydoc' not in old[0].config['base'] and new[0].config['base']['pydoc'] == 'packaged'
  assert set(new[0].config['reads']) == {'pydoc'} and study.key(new[0]) != study.key(old[0])
  with pytest.raises(ValueError, match='data.pydoc=todays: expected one of installed, packaged'):
    study.cells(see.STUDY, 'smoke', {'data.pydoc': 'todays'})


def toy(root_of):
  """A study of measurements, whose data is one file of its root."""
  return study.Study(
    name='toy1990',
    title='',
    source='',
    presets={'quick': None},
    plan=lambda preset, root: [study.Cell({'seed': s}, {'seed': s}) for s in (0, 1)],
    measure=lambda settings, root, folder, say: {'x': float((root_of / root).read_text())},
    claims=lambda rows: [],
    tables=lambda rows: [],
    figures=lambda rows: {},
    captions={},
    reads=lambda root, pydoc: {'numbers': (root_of / root).read_text()},
  )


def test_measurements_of_other_data_are_refused(tmp_path):
  for name, text in (('a', '1'), ('b', '2'), ('copy', '1')):
    (tmp_path / name).write_text(text)
  reproduce, *_ = study.verbs(toy(tmp_path))
  go = lambda root: reproduce('quick', tmp_path / 'work', overrides={'data.root': root}, say=SILENT)
  go('a')
  before = (tmp_path / 'work' / 'ledger.jsonl').read_bytes()
  row = json.loads(before.splitlines()[0])
  assert row['settings']['reads'] == row['reads'] == {'numbers': '1'}
  go('copy')
  with pytest.raises(ValueError, match='read other data than numbers is now'):
    go('b')
  assert (tmp_path / 'work' / 'ledger.jsonl').read_bytes() == before


@pytest.fixture
def few_libraries(monkeypatch):
  """The text of the installed libraries is that of two small ones."""
  monkeypatch.setattr(pydoc, 'LIBRARIES', {'optax': 'optax', 'absl': 'absl-py'})


def test_libraries_that_have_changed_are_told_of_when_nothing_is_left(few_libraries):
  cell = grid.Cell(LABELS, config('', data__corpus='pydoc', init='nano', data__task='pydoc/order'))
  row = {'cell': grid.key(cell), 'config': grid.public(cell.config), 'text': 'f' * 12}
  check = lambda left, **more: identity.check({row['cell']: cell}, left, [{**row, **more}], 'work')
  [line] = check([], reads={})
  assert '1 of the done have read another text than is there now' in line
  with pytest.raises(ValueError, match='data.task=pydoc/order than is there now'):
    check([row['cell']], reads={})
  today = inputs.text_of(recipe.data_of(cell.config.data))
  assert check([row['cell']], reads={}, text=today) == []
  assert check([], text=identity.text_01(cell.config.data)) == []  # the versions, as 0.1 wrote
  assert check([], text='e' * 12) != []


def test_a_ledger_says_whether_its_text_is_the_one_of_today(few_libraries):
  data = config('', data__corpus='pydoc', data__task='pydoc/order').data
  text = {}
  for data.pydoc in ('installed', 'packaged'):
    text[data.pydoc] = inputs.text_of(recipe.data_of(data))
  row = lambda text, pydoc='installed', **more: {
    'config': {'data.corpus': 'pydoc', 'data.task': 'pydoc/order', 'data.pydoc': pydoc, **more},
    'text': text,
  }
  own = [row(text['installed']), row(text['packaged'], 'packaged')]
  other = [row(text['packaged']), row('f' * 12, 'packaged'), {'reads': {'pydoc': '0' * 12}}]
  unknown = [row(''), {'metrics': {}}, row('a' * 12, **{'data.task': 'glue/cola'})]
  line = identity.of_ledger([*own, *other, *unknown])
  assert line.startswith('of 8 cells 2 read the text that is here today; 3 read another text')
  assert line.endswith('3 do not say which text they read, or read one below data.root')
  assert identity.of_ledger(own) == 'of 2 cells 2 read the text that is here today'


def test_models_are_hashed_by_what_is_read_of_them(tmp_path):
  model = tmp_path / 'model'
  shutil.copytree(inputs.NANO, model)
  first = inputs.model_content(model)
  (model / 'README.md').write_text('other words')
  assert inputs.model_content(model) == first == inputs.model_content(inputs.NANO)
  (model / 'vocab.txt').write_text('another\n')
  assert inputs.model_content(model) != first


def test_nothing_runs_where_a_later_cell_reads_what_is_missing(root, tmp_path):
  changes = [{}, {'data.corpus': 'nowhere'}]
  how = {'compiled': tiny_runs.COMPILED, 'say': SILENT}
  with pytest.raises(FileNotFoundError, match='no text folder .*nowhere'):
    grid.sweep(config(root), changes, tmp_path / 'grid', name='tiny', **how)
  assert not ledger.read(tmp_path / 'grid' / 'ledger.jsonl')
  assert not (tmp_path / 'grid' / 'cells').exists()

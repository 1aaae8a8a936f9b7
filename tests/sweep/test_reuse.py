"""`--reuse`: cells are taken with row and model, not run again, and never taken by mistake."""

import json
import shutil

import pytest
import tiny_runs

from experiments.gordon2020 import study as gordon
from experiments.hassibi1993 import study as hassibi
from prunejax.report import ledger
from prunejax.sweep import grid, reuse

LABELS = {
  'stage': 'pretrain',
  'arm': 'dense',
  'sparsity': 0.0,
  'task': '',
  'seed': 0,
  'learning_rate': 0.01,
}


def cells():
  parent = grid.Cell(LABELS, tiny_runs.config(steps=8))
  key = grid.key(parent)
  return [
    parent,
    grid.Cell({**LABELS, 'seed': 1}, tiny_runs.config(steps=8, seed=1, init=f'cell:{key}'), key),
  ]


@pytest.fixture(scope='module')
def other(tmp_path_factory):
  folder = tmp_path_factory.mktemp('other')
  grid.run(cells()[:1], folder, experiment='a', preset='b', one_by_one=True, say=lambda text: None)
  return folder


def test_a_cell_that_is_taken_is_the_same_and_is_started_from(other, tmp_path):
  said, (parent, child) = [], cells()
  mine = grid.Cell({**LABELS, 'arm': 'before'}, parent.config)
  assert (
    reuse.take([mine, child], tmp_path, other, experiment='c', preset='d', say=said.append) == 1
  )
  theirs, taken = ledger.read(other / 'ledger.jsonl')[0], ledger.read(tmp_path / 'ledger.jsonl')[0]
  labels = {'experiment': 'c', 'preset': 'd', 'arm': 'before', 'reused': 'a b'}
  assert taken == {**theirs, **labels} and '1 cells are taken' in said[0]
  files = {
    path.relative_to(other): path.read_bytes()
    for path in (other / 'cells').rglob('*')
    if path.is_file()
  }
  assert {f: (tmp_path / f).read_bytes() for f in files} == files and any(
    'safetensors' in f.name for f in files
  )
  rows = grid.run(
    [mine, child], tmp_path, experiment='c', preset='d', one_by_one=True, say=said.append
  )
  assert (
    '2 cells, 1 done, 1 left' in said[1] and rows[0] == taken and rows[1]['parent'] == taken['cell']
  )
  # Once more there is nothing to take, and whose run it was stays said when it is handed on.
  assert (
    reuse.take([mine, child], tmp_path, other, experiment='c', preset='d', say=said.append) == 0
  )
  reuse.take([parent], tmp_path / 'third', tmp_path, experiment='e', preset='f', say=said.append)
  assert ledger.read(tmp_path / 'third' / 'ledger.jsonl')[0]['reused'] == 'a b'


def test_a_cell_without_the_model_that_this_grid_keeps_is_not_taken(other, tmp_path):
  parent = cells()[0]
  shutil.copytree(other, tmp_path / 'light')
  shutil.rmtree(tmp_path / 'light' / 'cells' / grid.key(parent) / 'model')
  take = lambda cell, name: reuse.take(
    [cell], tmp_path / name, tmp_path / 'light', experiment='c', preset='d', say=lambda text: None
  )
  assert take(parent, 'kept') == 0
  row = ledger.read(tmp_path / 'light' / 'ledger.jsonl')[0]
  (tmp_path / 'light' / 'ledger.jsonl').write_text(json.dumps({**row, 'epochs': 3}) + '\n')
  assert take(grid.Cell(LABELS, tiny_runs.config(steps=8, keep_model=False)), 'light-too') == 1
  mine = ledger.read(tmp_path / 'light-too' / 'ledger.jsonl')[0]
  assert (
    'epochs' not in mine and not mine['config']['keep_model'] and mine['metrics'] == row['metrics']
  )


def test_a_cell_that_read_another_text_is_not_taken_and_is_told_of(other, tmp_path):
  said, parent = [], cells()[0]
  shutil.copytree(other, tmp_path / 'old')
  row = ledger.read(other / 'ledger.jsonl')[0]
  assert len(row['text']) == 12
  (tmp_path / 'old' / 'ledger.jsonl').write_text(json.dumps({**row, 'text': 'f' * 12}) + '\n')
  old, mine = tmp_path / 'old', tmp_path / 'mine'
  assert reuse.take([parent], mine, old, experiment='c', preset='d', say=said.append) == 0
  assert '1 read another text' in said[-1]
  how = {'experiment': 'a', 'preset': 'b', 'one_by_one': True, 'say': said.append}
  with pytest.raises(ValueError, match='1 cells that read other content of data.corpus=text'):
    grid.run(cells(), old, **how)
  del row['reads']  # as 0.1 wrote it: it cannot be compared exactly
  (tmp_path / 'old' / 'ledger.jsonl').write_text(json.dumps({**row, 'text': 'f' * 12}) + '\n')
  grid.run(cells(), old, **how)
  assert any('1 of the done have read another text' in line for line in said)


def test_what_failed_or_differs_is_not_taken(other, tmp_path):
  row = ledger.read(other / 'ledger.jsonl')[0]
  failed = {**row, 'cell': 'f' * 12, 'failed': 'loss is nan'}
  (tmp_path / 'ledger.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in (row, failed)))
  assert set(reuse.rows(tmp_path)) == {row['cell']}
  unlike = grid.Cell(LABELS, tiny_runs.config(steps=4))
  assert (
    reuse.take(
      [unlike], tmp_path / 'mine', other, experiment='c', preset='d', say=lambda text: None
    )
    == 0
  )


@pytest.mark.parametrize(
  'module, words', [(gordon, 'no finished cell'), (hassibi, 'leave no models')]
)
def test_a_folder_that_holds_nothing_is_told_before_anything_is_written(module, words, tmp_path):
  with pytest.raises(ValueError, match=f'--reuse=.*{words}'):
    module.reproduce(
      'smoke',
      str(tmp_path / 'mine'),
      reuse=str(tmp_path / 'none'),
      names=None,
      sparsities=None,
      seeds=None,
      scale=None,
      rates=None,
      families=None,
    )
  assert not list(tmp_path.iterdir())

"""What `sweep --dry-run` says of the cells that a work directory lacks."""

import json

import pytest
import tiny_runs

from prunejax.cli import command
from prunejax.sweep import grid
from prunejax.topology import dry_run, report

CHANGES = [{'seed': 0}, {'seed': 1}, {'prune.weights.schedule': 'cubic(0.8, end=6)'}]


@pytest.fixture
def plan(tmp_path, capsys):
  """(cells done) -> what the command says of a sweep of three cells; with words of the command."""
  path = tmp_path / 'three.py'
  path.write_text(
    'import tiny_runs\nget_config = lambda arg="": tiny_runs.config()\n'
    f'sweep = lambda: iter({CHANGES!r})\n'
  )
  work = tmp_path / 'work'
  work.mkdir()
  cells = grid.sweep_cells(tiny_runs.config(), CHANGES, work, name='three')

  def say(done, *words):
    rows = [json.dumps({'cell': grid.key(cell), 'metrics': {}}) + '\n' for cell in cells[:done]]
    (work / 'ledger.jsonl').write_text(''.join(rows))
    argv = ['sweep', f'--config={path}', '--dry-run', *words]
    assert command.main([word.format(work=work) for word in argv]) == 0
    return capsys.readouterr().out

  return say


@pytest.mark.parametrize('done', [0, 1, 3])
def test_cells_that_are_done_are_not_counted(done, plan):
  text = plan(done, '--workdir={work}')
  assert f'{3 - done} of 3 cells are missing from the ledger' in text
  assert len([line for line in text.splitlines() if line.startswith('  ')]) == 3 - done
  if done < 3:
    total = next(line.split() for line in text.splitlines() if line.startswith('all'))
    assert total[1] == str(3 - done)
  else:
    assert 'no cells: there is nothing to run' in text


def test_without_a_folder_all_cells_count(plan):
  text = plan(2)
  assert 'missing' not in text and text.count('\n') == 5


@pytest.mark.parametrize(
  'words, done', [(['--workdir={work}'], 3), (['--worker=3', '--workers=4'], 0)]
)
def test_an_empty_share_is_told_plainly(words, done, plan, monkeypatch):
  monkeypatch.setattr(dry_run, 'compile_all', pytest.fail)
  assert 'no cells: there is nothing to run' in plan(done, *words)
  assert 'no cells, so there is nothing to compile' in plan(done, '--topology=cpu', *words)


def test_a_table_of_no_programs_is_refused_by_no_index():
  assert 'nothing to compile' in report.of_requests([], 'none', ['cpu'], say=lambda line: None)


def test_a_table_with_another_ending_is_refused_before_anything_is_compiled(tmp_path, monkeypatch):
  monkeypatch.setattr(dry_run, 'compile_all', pytest.fail)
  with pytest.raises(ValueError, match='ends in .md'):
    report.of_requests([None], '', ['cpu'], out=tmp_path / 'other_ending.json')

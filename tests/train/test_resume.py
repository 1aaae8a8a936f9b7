"""Killed, damaged, poisoned, refused: what a run does when started again."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

import prunejax
from prunejax import __main__ as command
from prunejax.data import pretraining
from prunejax.pruning import criteria


class Stop(Exception):
  pass


def until(words, lines=None):
  """A `say` that raises at the first line with `words`."""

  def say(line):
    if lines is not None:
      lines.append(line)
    if words in line:
      raise Stop

  return say


@pytest.mark.parametrize('words', ['train 6/12', 'train 9/12', 'eval 12/12'])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, words):
  whole, lines = tiny_runs.finished('pruned'), []
  with pytest.raises(Stop):
    tiny_runs.train(tiny_runs.config(), tmp_path, say=until(words))
  result = tiny_runs.train(tiny_runs.config(), tmp_path, say=lines.append)
  assert tiny_runs.plain(result) == tiny_runs.plain(whole.result) and tiny_runs.same_weights(
    tmp_path, whole.folder
  )
  at = {'train 6/12': 4, 'train 9/12': 8, 'eval 12/12': 12}[words]
  assert f'goes on at step {at} of 12' in lines[0] and not any(
    'embeddings/word' in line for line in lines
  )
  assert logged(tmp_path) == logged(whole.folder)  # also the mean over steps before the stop


def logged(folder):
  return [
    {k: v for k, v in row.items() if k != 'steps_per_second'} for row in tiny_runs.rows(folder)
  ]


def test_the_mean_of_a_checkpoint_without_metrics_is_over_the_steps_that_are_left(tmp_path):
  whole = tiny_runs.finished('pruned')
  tiny_runs.stopped(tmp_path, 'train 6/12')
  shutil.rmtree(tmp_path / 'checkpoints' / '4' / 'unlogged')  # as 0.1 saved it
  tiny_runs.train(tiny_runs.config(), tmp_path, say=lambda line: None)
  at = lambda rows: [(row['kind'], row['step']) for row in rows]
  assert at(logged(tmp_path)) == at(logged(whole.folder))
  differ = [a for a, b in zip(logged(tmp_path), logged(whole.folder), strict=True) if a != b]
  assert at(differ) == [('train', 6)]


@pytest.mark.parametrize(
  'words', ['train 6/12', pytest.param('train 9/12', marks=pytest.mark.slow)]
)
def test_weights_go_back_to_where_they_were_after_a_kill_too(tmp_path, words):
  config = tiny_runs.config(optimizer__rewind='every(4, begin=4, until=8)', optimizer__rewind_to=2)
  run = lambda name, **how: tiny_runs.train(
    config, tmp_path / name, **{'say': lambda line: None, **how}
  )
  whole = run('whole')
  with pytest.raises(Stop):
    run('cut', say=until(words))
  assert tiny_runs.plain(run('cut')) == tiny_runs.plain(whole)
  assert tiny_runs.same_weights(tmp_path / 'cut', tmp_path / 'whole')
  plain = tiny_runs.finished('pruned')
  assert not tiny_runs.same_weights(tmp_path / 'whole', plain.folder)


def test_a_row_that_was_cut_by_a_kill_is_written_anew(tmp_path):
  stopped(tmp_path, 'train 6/12')
  with open(tmp_path / 'metrics.jsonl', 'a') as stream:
    stream.write('{"step": 6, "ki')
  tiny_runs.train(tiny_runs.config(), tmp_path, say=lambda line: None)
  assert [row['step'] for row in tiny_runs.rows(tmp_path)] == [3, 6, 9, 12, 12]
  assert tiny_runs.same_weights(tmp_path, tiny_runs.finished('pruned').folder)


def stopped(folder, words='train 12/12'):
  with pytest.raises(Stop):
    tiny_runs.train(tiny_runs.config(), folder, say=until(words))
  return sorted(int(p.name) for p in (folder / 'checkpoints').iterdir())


def damage(folder, step):
  for path in (folder / 'checkpoints' / str(step)).rglob('*'):
    if path.is_file():
      path.write_bytes(b'\0' * 7)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path):
  whole, lines = tiny_runs.finished('pruned'), []
  assert stopped(tmp_path, 'train 9/12') == [4, 8]
  damage(tmp_path, 8)
  result = tiny_runs.train(tiny_runs.config(), tmp_path, title='run', say=lines.append)
  assert (
    lines[0].startswith('run  checkpoint 8 cannot be read (') and 'using the one before' in lines[0]
  )
  assert '\n' not in lines[0] and 'goes on at step 4 of 12' in lines[1]
  assert tiny_runs.plain(result) == tiny_runs.plain(whole.result) and tiny_runs.same_weights(
    tmp_path, whole.folder
  )
  assert (tmp_path / 'damaged-8').is_dir()


def test_when_no_checkpoint_can_be_read_nothing_is_overwritten(tmp_path):
  for step in stopped(tmp_path, 'train 9/12'):
    damage(tmp_path, step)
  before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
  with pytest.raises(
    ValueError, match='no checkpoint in .*checkpoints.* can be read: step 8 .*move that folder away'
  ):
    tiny_runs.train(tiny_runs.config(), tmp_path, say=lambda line: None)
  assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before


def test_another_config_is_refused_and_nothing_overwritten(tmp_path):
  stopped(tmp_path, 'train 6/12')
  before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob('*') if p.is_file()}
  with pytest.raises(ValueError) as error:
    tiny_runs.train(
      tiny_runs.config(optimizer__learning_rate=0.5, seed=9), tmp_path, say=pytest.fail
    )
  assert '(differs in optimizer.learning_rate, seed)' in str(error.value) and str(tmp_path) in str(
    error.value
  )
  assert {
    p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob('*') if p.is_file()
  } == before


def test_a_folder_of_something_else_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  with pytest.raises(ValueError, match='is not empty'):
    tiny_runs.train(tiny_runs.config(), tmp_path, say=pytest.fail)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_a_loss_that_is_not_finite_stops_and_names_the_step(tmp_path, monkeypatch):
  honest = pretraining.batch

  def poisoned(stream, seed, step, *rest, **how):
    batch = honest(stream, seed, step, *rest, **how)
    return {**batch, 'weights': batch['weights'] * (np.nan if step == 6 else 1)}

  monkeypatch.setattr(pretraining, 'batch', poisoned)
  for _ in range(2):  # again from the last good checkpoint, and again it stops
    with pytest.raises(FloatingPointError, match='not finite at step 7; .*last good checkpoint'):
      tiny_runs.train(tiny_runs.config(), tmp_path, say=lambda line: None)
    assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == ['4']
    assert not (tmp_path / 'result.json').exists() and not (tmp_path / 'model').exists()
  monkeypatch.setattr(pretraining, 'batch', honest)
  tiny_runs.train(tiny_runs.config(), tmp_path, say=lambda line: None)
  assert tiny_runs.same_weights(tmp_path, tiny_runs.finished('pruned').folder)


def test_scores_that_are_nan_stop_the_run_name_the_leaf_and_are_not_saved(
  tmp_path, monkeypatch, capsys
):
  def spoilt():
    """|w|, and NaN for one leaf from the fifth step on: the loss of that step is finite."""
    spoil = lambda path, w, step: jnp.where(
      (step >= 4) & ('pooler' in jax.tree_util.keystr(path)), jnp.nan, abs(w)
    )
    score = lambda state, params, *, step, **_: jax.tree_util.tree_map_with_path(
      lambda path, w: spoil(path, w, step), params
    )
    return prunejax.Criterion(lambda params: (), lambda state, params, **_: state, score)

  monkeypatch.setattr(criteria, 'spoilt', spoilt, raising=False)
  monkeypatch.setattr(criteria, '__all__', [*criteria.__all__, 'spoilt'])
  changes = {
    **tiny_runs.PRUNED,
    'prune.weights.criterion': 'spoilt()',
    'prune.weights.schedule': 'cubic(0.5, end=4)',
  }
  argv = tiny_runs.argv('train', tmp_path / 'run', steps=5, checkpoint__every=1)
  argv += [f'--config.{key}={value}' for key, value in changes.items()]
  assert command.main(argv) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(
    "prunejax: scores of 'pooler/kernel' are NaN at step 5, so no mask can rest on them"
  )
  assert max(int(p.name) for p in (tmp_path / 'run' / 'checkpoints').iterdir()) == 4
  assert not (tmp_path / 'run' / 'result.json').exists()


def test_a_copied_work_directory_goes_on_elsewhere(tmp_path):
  stopped(tmp_path / 'here', 'train 9/12')
  shutil.move(tmp_path / 'here', tmp_path / 'there')
  tiny_runs.train(tiny_runs.config(), tmp_path / 'there', say=lambda line: None)
  assert tiny_runs.same_weights(tmp_path / 'there', tiny_runs.finished('pruned').folder)


def test_the_seconds_of_a_run_are_those_of_all_its_parts(tmp_path):
  stopped(tmp_path, 'train 9/12')
  spent = tmp_path / 'spent.json'
  assert 0 < json.loads(spent.read_text())['0'] < 1000
  spent.write_text('{"0": 5000.0}')
  result = tiny_runs.train(tiny_runs.config(), tmp_path, say=lambda line: None)
  assert 5000 < result['seconds'] < 6000 and not spent.exists()

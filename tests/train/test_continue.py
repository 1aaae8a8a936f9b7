"""A finished run trained for more steps, with its optimizer state, in a folder of its own."""

import pytest
import tiny_runs


def train(folder, say=lambda line: None, **changes):
  return tiny_runs.train(tiny_runs.config(**changes), folder, say=say)


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
  # With a saw-tooth and no warm-up, the rate does not depend on the number of steps.
  how = {'optimizer__sawtooth': 6, 'optimizer__warmup': 0.0}
  whole = train(tmp_path / 'whole', steps=12, **how)
  train(tmp_path / 'first', steps=8, **how)
  before = {path: path.read_bytes() for path in (tmp_path / 'first').rglob('*') if path.is_file()}
  rest = train(tmp_path / 'rest', steps=12, continue_from=str(tmp_path / 'first'), **how)
  assert tiny_runs.plain(rest) == tiny_runs.plain(whole)
  assert tiny_runs.same_weights(tmp_path / 'rest', tmp_path / 'whole')
  after = {path: path.read_bytes() for path in (tmp_path / 'first').rglob('*') if path.is_file()}
  assert before == after  # nothing changes in the first run
  steps = [row['step'] for row in tiny_runs.rows(tmp_path / 'rest') if row['kind'] == 'train']
  assert steps == [9, 12]


def test_an_interrupted_continuation_resumes(tmp_path):
  first = str(tmp_path / 'first')
  train(first, steps=8)
  whole = train(tmp_path / 'whole', steps=20, continue_from=first)
  tiny_runs.stopped(tmp_path / 'rest', 'train 15/20', steps=20, continue_from=first)
  lines = []
  rest = train(tmp_path / 'rest', lines.append, steps=20, continue_from=first)
  assert 'goes on at step 12 of 20' in lines[0]
  assert tiny_runs.plain(rest) == tiny_runs.plain(whole)


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'continue_from': 'nowhere'}, "continue_from='nowhere' holds no finished run"),
    ({'steps': 12}, 'has 12 steps already: expected steps above that'),
    ({'seed': 1}, r'another run \(differs in seed\)'),
    ({'batch_size': 4}, r'another run \(differs in batch_size\)'),
    ({'model__hidden_size': 32}, r'differs in model.hidden_size'),
    ({'prune__weights__criterion': 'movement()'}, 'cannot be read: its arrays are not those'),
  ],
)
def test_what_cannot_be_continued_is_refused(changes, words, tmp_path):
  first = tiny_runs.finished('pruned').folder
  changes = {'steps': 20, 'continue_from': str(first), **changes}
  with pytest.raises(ValueError, match=words):
    train(tmp_path / 'rest', **changes)


def test_a_run_without_checkpoints_is_refused(tmp_path):
  train(tmp_path / 'first', steps=8, checkpoint__every=0)
  with pytest.raises(ValueError, match='no checkpoint: .*checkpoint.every above 0'):
    train(tmp_path / 'rest', steps=12, continue_from=str(tmp_path / 'first'))
  assert not (tmp_path / 'first' / 'checkpoints').exists()

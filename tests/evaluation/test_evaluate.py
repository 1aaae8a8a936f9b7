"""The command `evaluate`: texts, tasks, what is resumed, and what is refused."""

import json

import numpy as np
import pytest
import tiny_llama
import tiny_runs

from prunejax import __main__ as command
from prunejax.data import wikitext
from prunejax.evaluation import run


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  home = tmp_path_factory.mktemp('evaluate')
  tiny_llama.write(home / 'model')
  tiny_llama.write(home / 'silent', words=False)
  tiny_llama.write(home / 'classifier', ('classifier',))
  (home / 'wiki.test.raw').write_text(' = A = \n \n the cat sat on the mat \n' * 20)
  (home / 'short.txt').write_text('the cat')
  return home


def evaluate(home, *more, model='model', on=None):
  return command.main(
    ['evaluate', str(home / model), f'--on={on or f"wikitext:{home}/wiki.test.raw"}', *more]
  )


def test_wikitext_is_its_rows_joined_by_two_newlines(home):
  rows = [' = A = \n', '', ' the cat sat on the mat \n'] * 20
  assert wikitext.text(home / 'wiki.test.raw') == '\n\n'.join(rows) == wikitext.text(home)


def test_a_run_that_was_stopped_goes_on(home, capsys, tmp_path):
  out = tmp_path / 'rows.jsonl'
  assert evaluate(home, '--window=16', '--windows=2', f'--out={out}') == 0
  first = capsys.readouterr().out
  assert '2 of ' in first and 'windows of 16' in first and 'perplexity' in first
  early = out.read_text().splitlines()
  assert [json.loads(line)['window'] for line in early[1:]] == [0, 1]
  assert evaluate(home, '--window=16', f'--out={out}') == 0
  assert '2 were measured before' in capsys.readouterr().out
  rows = out.read_text().splitlines()
  assert rows[:3] == early and len(rows) > 4
  where, on = str(home / 'model'), f'wikitext:{home}/wiki.test.raw'
  result = run.evaluate(where, on, window=16, out=str(out), say=lambda line: None)
  assert result['windows'] == len(rows) - 1 and result['tokens'] == 15 * len(rows[1:])
  again = run.evaluate(where, on, window=16, cache=str(tmp_path), say=lambda line: None)
  assert again == result
  assert not list((tmp_path / 'evaluate').iterdir())  # what is done is not kept


def test_text_of_ones_own_and_half_precision(home, tmp_path):
  (tmp_path / 'a.txt').write_text('the cat sat on the mat\n' * 9)
  (tmp_path / 'b.txt').write_text('that is that\n' * 9)
  how = dict(window=16, say=lambda line: None, cache=str(tmp_path / 'cache'))
  exact = run.evaluate(str(home / 'model'), f'text:{tmp_path}', **how)
  half = run.evaluate(str(home / 'model'), f'text:{tmp_path}', dtype='bfloat16', **how)
  assert half['loss'] == pytest.approx(exact['loss'], rel=0.05) and half != exact


def test_a_task_is_scored_on_its_dev_set(home, tmp_path, capsys):
  tiny_runs.write_glue(tmp_path)
  status = evaluate(home, f'--data={tmp_path}', '--window=16', model='classifier', on='glue/cola')
  out = capsys.readouterr()
  assert status == 0, out.err
  assert 'glue/cola, 48 examples' in out.out and 'matthews' in out.out
  assert 'np.float64' not in out.out
  # Without --window: at most the positions of the model, which has fewer than 128.
  assert evaluate(home, f'--data={tmp_path}', model='classifier', on='glue/cola') == 0
  assert evaluate(home) == 0
  assert 'windows of 64' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    ({'on': 'nothing'}, ["--on='nothing'", 'wikitext:FILE']),
    ({'on': 'wikitext:/no/such/file'}, ['/no/such/file']),
    ({'model': 'none'}, ['none']),
    ({'model': 'silent', 'more': ['--window=16']}, ['silent', 'no vocabulary']),
    ({'model': 'classifier', 'more': ['--window=16']}, ['classifier', '--on=glue/TASK']),
    ({'more': ['--window=1']}, ['window=1', 'at least 2']),
    ({'on': 'lm-eval/arc_easy', 'more': ['--window=0']}, ['window=0', 'at least 2']),
    ({'more': ['--window=16', '--stride=17']}, ['stride=17', 'from 1 to the window of 16']),
    ({'more': ['--window=65']}, ['--window=65', '64 positions']),
    ({'more': ['--windows=0']}, ['--windows=0', 'at least 1']),
    ({'more': ['--dtype=float64']}, ["--dtype='float64'", 'float32']),
    ({'on': 'glue/sst3'}, ["unknown task 'glue/sst3'", 'glue/sst2']),
    ({'on': 'glue/sst2', 'more': ['--stride=4']}, ['--stride', 'belong to a text']),
  ],
)
def test_wrong_input_is_one_line(home, capsys, more, words):
  assert evaluate(home, *more.pop('more', ()), **more) == 2
  error = capsys.readouterr().err.strip()
  assert '\n' not in error and all(word in error for word in words), error


def test_a_text_shorter_than_a_window_and_another_files_rows_are_refused(home, capsys, tmp_path):
  assert evaluate(home, '--window=16', on=f'text:{home}/short.txt') == 2
  assert 'fewer than a window of 16' in capsys.readouterr().err
  out = tmp_path / 'rows.jsonl'
  assert evaluate(home, '--window=16', '--windows=1', f'--out={out}') == 0
  before = out.read_bytes()
  assert evaluate(home, '--window=8', '--windows=1', f'--out={out}') == 2
  assert 'holds another evaluation (window, stride differ)' in capsys.readouterr().err
  assert out.read_bytes() == before
  np.testing.assert_equal(before.count(b'\n'), 2)

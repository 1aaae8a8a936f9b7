"""SIGTERM: the step is saved, the status says "start me again", and the run ends unchanged."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import tiny_runs

from prunejax import __main__ as command
from prunejax.sweep import grid
from prunejax.train import evaluate, loop, preemption

PRUNE = [f'--config.{k}={v}' for k, v in tiny_runs.PRUNED.items()]


def term():
  os.kill(os.getpid(), signal.SIGTERM)


def at_line(words, act=term, lines=None):
  """A `say` that acts at the first line with `words`."""
  left = [act]

  def say(line):
    if lines is not None:
      lines.append(line)
    if words in line and left:
      left.pop()()

  return say


@pytest.fixture(autouse=True)
def _handlers():
  before = signal.getsignal(signal.SIGTERM)
  yield
  assert signal.getsignal(signal.SIGTERM) is before, 'a handler stayed behind'


@pytest.mark.parametrize(
  'every, line, at',
  [
    (4, 'train 3/12', 3),
    (5, 'train 12/12', 12),
    (0, 'train 6/12', 6),
    (3, 'train 6/12', 6),
  ],
)
def test_a_preempted_run_saves_its_step_and_goes_on_from_there(tmp_path, every, line, at):
  config = lambda: tiny_runs.config(checkpoint__every=every)
  with (
    preemption.guard(),
    pytest.raises(preemption.Preempted, match=f'step {at} of 12 is saved in .*checkpoints'),
  ):
    tiny_runs.train(config(), tmp_path, say=at_line(line))
  assert str(at) in os.listdir(tmp_path / 'checkpoints')
  lines, whole = [], tiny_runs.finished('pruned')
  result = tiny_runs.train(config(), tmp_path, say=lines.append)
  assert f'goes on at step {at} of 12' in lines[0]
  assert tiny_runs.plain(result) == tiny_runs.plain(whole.result) and tiny_runs.same_weights(
    tmp_path, whole.folder
  )


@pytest.mark.parametrize('every', [0, 5])
def test_a_run_that_is_told_to_stop_in_its_last_evaluation_trains_no_step_again(tmp_path, every):
  config, whole = tiny_runs.config(checkpoint__every=every), tiny_runs.finished('pruned')
  with preemption.guard(), pytest.raises(preemption.Preempted, match='step 12 of 12 is saved in'):
    tiny_runs.train(config, tmp_path, say=at_line('eval 12/12'))
  lines = []
  result = tiny_runs.train(config, tmp_path, say=lines.append)
  assert 'goes on at step 12 of 12' in lines[0] and not any('  train ' in line for line in lines)
  assert tiny_runs.plain(result) == tiny_runs.plain(whole.result)


def test_an_evaluation_that_is_due_when_the_run_is_told_to_stop_is_made(tmp_path):
  config = lambda: tiny_runs.config(eval__every=3, checkpoint__every=5)
  tiny_runs.train(config(), tmp_path / 'whole', say=lambda line: None)
  with preemption.guard(), pytest.raises(preemption.Preempted):
    tiny_runs.train(config(), tmp_path / 'cut', say=at_line('train 6/12'))
  stopped = tiny_runs.rows(tmp_path / 'cut')
  assert [(row['kind'], row['step']) for row in stopped][-1] == ('train', 6)
  tiny_runs.train(config(), tmp_path / 'cut', say=lambda line: None)
  rows = [
    [{k: v for k, v in row.items() if k != 'steps_per_second'} for row in tiny_runs.rows(folder)]
    for folder in (tmp_path / 'whole', tmp_path / 'cut')
  ]
  assert rows[0] == rows[1] and [row['step'] for row in rows[0] if row['kind'] == 'eval'] == [
    3,
    6,
    9,
    12,
  ]


def test_an_evaluation_does_not_hold_up_a_run_that_is_told_to_stop(tmp_path, monkeypatch):
  config = lambda: tiny_runs.config(eval__every=6, checkpoint__every=0, eval__batches=4)
  whole = tiny_runs.train(config(), tmp_path / 'whole', say=lambda line: None)
  scores, read = evaluate.scores, []

  def told(state, data, program, layout):
    def counted(batch):
      out = layout(batch)
      read.append(batch)
      if len(read) == 2:
        term()
      return out

    return scores(state, data, program, counted)

  monkeypatch.setattr(evaluate, 'scores', told)
  with preemption.guard(), pytest.raises(preemption.Preempted, match='step 6 of 12 is saved'):
    tiny_runs.train(config(), tmp_path / 'cut', say=lambda line: None)
  assert len(read) == 2  # of four
  monkeypatch.undo()
  lines = []
  rest = tiny_runs.train(config(), tmp_path / 'cut', say=lines.append)
  assert 'goes on at step 6 of 12' in lines[0]
  assert tiny_runs.plain(rest) == tiny_runs.plain(whole)
  of = lambda name: [
    {k: v for k, v in row.items() if k != 'steps_per_second'}
    for row in tiny_runs.rows(tmp_path / name)
  ]
  assert of('cut') == of('whole')


def test_an_evaluation_that_a_kill_cut_is_made_when_the_run_goes_on(tmp_path):
  class Stop(Exception):
    pass

  def kill():
    raise Stop

  config = lambda: tiny_runs.config(eval__every=4)
  with pytest.raises(Stop):  # step 4 is saved and not scored yet
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loop.evaluate, 'scores', lambda *args: kill())
      tiny_runs.train(config(), tmp_path, say=lambda line: None)
  tiny_runs.train(config(), tmp_path, say=lambda line: None)
  rows = tiny_runs.rows(tmp_path)
  assert [row['step'] for row in rows if row['kind'] == 'eval'] == [4, 8, 12]


def test_outside_the_steps_it_stops_at_once_and_what_was_saved_holds(tmp_path):
  with preemption.guard(), pytest.raises(preemption.Preempted):
    tiny_runs.train(tiny_runs.config(), tmp_path, say=at_line('eval 12/12'))
  lines = []
  tiny_runs.train(tiny_runs.config(), tmp_path, say=lines.append)
  assert 'goes on at step 12 of 12' in lines[0]
  assert tiny_runs.same_weights(tmp_path, tiny_runs.finished('pruned').folder)


@pytest.mark.slow
def test_a_preempted_sweep_goes_on(tmp_path):
  changes = [{}, {'seed': 1}]
  say = at_line('[2/2] pretrain seed 1 seed=1  train 6/12')
  with preemption.guard(), pytest.raises(preemption.Preempted):
    grid.sweep(tiny_runs.config(), changes, tmp_path, name='tiny', one_by_one=True, say=say)
  lines = []
  rows = grid.sweep(
    tiny_runs.config(), changes, tmp_path, name='tiny', one_by_one=True, say=lines.append
  )
  assert (
    lines[0].endswith('1 done, 1 left')
    and any('goes on at step 6' in line for line in lines)
    and len(rows) == 2
  )


def test_a_second_notice_is_not_caught_and_a_late_one_is_passed_on():
  with preemption.guard():
    with pytest.raises(preemption.Preempted):  # by the guard, when the loop has ended
      with preemption.notice() as told:
        assert not told()
        term()
        assert (
          told() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        )  # the next one ends the process
  with preemption.guard():
    with pytest.raises(preemption.Preempted):
      term()


class Dropped:
  """Gets the signal where Python drops what is raised."""

  def __del__(self):
    term()
    time.sleep(0)  # the handler runs here


def in_a_callback_of_the_collector():
  def act(phase, info):
    gc.callbacks.remove(act)
    term()
    time.sleep(0)

  gc.callbacks.append(act)
  gc.collect()


@pytest.mark.parametrize('drop', (Dropped, in_a_callback_of_the_collector))
def test_a_notice_that_python_drops_is_raised_again(drop):
  hook, alarm = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
  with preemption.guard():
    drop()  # nothing is raised here
    with pytest.raises(preemption.Preempted):
      for _ in range(1000):
        time.sleep(0.01)
  assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == (hook, alarm)
  assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_in_another_thread_nothing_is_installed():
  seen = []

  def work():
    with preemption.guard(), preemption.notice() as told:
      seen.append((signal.getsignal(signal.SIGTERM), told()))

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [(before, False)]


def test_the_command_ends_with_one_line_and_the_status_for_start_me_again(
  tmp_path, monkeypatch, capsys
):
  how = {
    **loop.train.__kwdefaults__,
    'title': '',
    'compiled': tiny_runs.COMPILED,
    'say': at_line('train 6/12'),
  }
  monkeypatch.setattr(loop.train, '__kwdefaults__', how)
  argv = tiny_runs.argv('train', tmp_path / 'run') + PRUNE
  assert command.main(argv) == preemption.RESTART == 75
  [line] = capsys.readouterr().err.splitlines()
  assert 'step 6 of 12 is saved in' in line and line.endswith(
    'run the same command again to continue'
  )
  assert command.main(argv) == 0 and "'mlm_accuracy'" in capsys.readouterr().out


@pytest.mark.slow
def test_of_two_processes_that_train_as_one_both_stop_at_one_step(tmp_path):
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': tiny_runs.QUICK_COMPILE}
  argv = tiny_runs.argv('train', tmp_path / 'run', steps=100_000, checkpoint__every=0, log__every=3)
  jobs = [
    subprocess.Popen(
      [sys.executable, '-m', 'prunejax', *argv, f'--distributed=localhost:{port},{i},2'],
      env=environment,
      text=True,
      cwd=tiny_runs.ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
    )
    for i in range(2)
  ]
  for line in jobs[0].stdout:
    if 'train 6/' in line:
      jobs[1].send_signal(signal.SIGTERM)  # one is told, both know
      break
  said = [job.communicate(timeout=300)[1] for job in jobs]
  assert [job.returncode for job in jobs] == [preemption.RESTART] * 2, said
  [step] = [name for name in os.listdir(tmp_path / 'run' / 'checkpoints') if name.isdigit()]
  assert all(
    f'told to stop by SIGTERM: step {step} of 100000 is saved in' in error for error in said
  )

"""A disk that is full, or a quota that is used up: one line, and a later run with room resumes."""

import errno
import logging
import os
import subprocess
import sys
import threading

import pytest
import tiny_runs

from prunejax.train import full_disk, metrics_log, preemption

# A limit on the size of files acts as a full disk does: the write that passes it fails.
LIMITED = """
import resource, sys
from prunejax import __main__ as command
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(command.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize('most, board', [(100, False), (6000, False), (6000, True)])
def test_one_line_and_a_later_run_with_room_resumes(tmp_path, most, board):
  whole = tiny_runs.finished('pruned')
  given = tiny_runs.argv('train', tmp_path / 'run', **{'log.tensorboard': board})
  given += [f'--config.{key}={value}' for key, value in tiny_runs.PRUNED.items()]
  full = subprocess.run(
    [sys.executable, '-c', LIMITED, str(most), *given],
    capture_output=True,
    text=True,
    cwd=tiny_runs.ROOT,
    timeout=300,
  )
  assert full.returncode == 2, full.stderr
  lines = full.stderr.strip().splitlines()
  assert len(lines) == 1 and lines[0].startswith('prunejax: '), full.stderr[-3000:]
  assert str(tmp_path / 'run') in lines[0] and os.strerror(errno.EFBIG) in lines[0]
  result = tiny_runs.train(tiny_runs.config(), tmp_path / 'run')
  assert tiny_runs.plain(result) == tiny_runs.plain(whole.result)
  assert tiny_runs.same_weights(tmp_path / 'run', whole.folder)


def test_another_error_stays_what_it_is():
  for error in (OSError(errno.EACCES, 'denied'), ValueError('a wrong value'), KeyError('a')):
    with pytest.raises(type(error)) as raised, full_disk.one_error('run'):
      raise error
    assert raised.value is error


def test_a_full_disk_is_found_wherever_it_is_said(caplog):
  for inner in (
    OSError(errno.EDQUOT, 'x'),
    ValueError('RESOURCE_EXHAUSTED: No space left on device'),
  ):
    with pytest.raises(OSError, match="'run'.*resumes") as raised, full_disk.one_error('run'):
      try:
        raise inner
      except Exception as error:
        raise RuntimeError('a save failed') from error
    assert raised.value.errno == errno.ENOSPC
    logging.getLogger('absl').error('failed', exc_info=inner)
  logging.getLogger('absl').error('something else')
  assert [record.message for record in caplog.records] == ['something else']


@pytest.mark.parametrize('late, heard', [('Event loop is closed', 0), ('a wrong value', 1)])
def test_what_orbax_says_after_a_command_has_ended_is_not_heard(monkeypatch, late, heard):
  said = []
  monkeypatch.setattr(sys, 'unraisablehook', lambda args: said.append(str(args.exc_value)))
  with pytest.raises(OSError, match='no space'), preemption.guard(), full_disk.one_error('run'):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  class Late:
    def __del__(self):
      raise RuntimeError(late)

  Late()
  assert said == [late] * heard


def test_the_log_stops_when_its_thread_met_a_full_disk(tmp_path, capfd):
  with pytest.raises(OSError, match=str(tmp_path)), full_disk.one_error(tmp_path) as full:
    log = metrics_log.Log(tmp_path, 'run', 9, say=lambda line: None, full=full)

    def writes():
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    thread = threading.Thread(target=writes)
    thread.start()
    thread.join()
    log.write(1, 'train', {'loss': 1.0})
  assert capfd.readouterr().err == ''


def test_what_others_print_is_theirs_again_afterwards():
  hooks = threading.excepthook, sys.unraisablehook
  filters = [list(logging.getLogger(name).filters) for name in full_disk.LOGGERS]
  with full_disk.one_error('run') as full:
    assert threading.excepthook is not hooks[0]
  assert full == [] and (threading.excepthook, sys.unraisablehook) == hooks
  assert [logging.getLogger(name).filters for name in full_disk.LOGGERS] == filters

"""The command line, started again and again from one process that has all its imports behind it.

A start takes milliseconds, not seconds. Nothing of jax's runtime exists before the fork, so a child is as good as new.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time

WAIT = 'import sys; from prunejax.bench import forks; sys.exit(forks.serve())'


def serve():
  """Reads [arguments, file for what it says] a line; forks, says the child's number, and later its status."""
  from prunejax import __main__ as command

  for name in (*command.TRAIN, 'prunejax.sweep.grid', 'prunejax.train.export'):
    importlib.import_module(name)
  print('ready', flush=True)
  for line in sys.stdin:
    argv, said = json.loads(line)
    child = os.fork()
    if not child:
      _child(command, argv, said)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
  return 0


def _child(command, argv, said):
  status = 1
  try:
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for handle, to in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
      os.dup2(to, handle)
    status = command.main(argv)
    sys.stdout.flush()
  finally:
    os._exit(status)


class Server:
  """A process that forks; one child at a time."""

  def __init__(self, folder, environment):
    self._process = subprocess.Popen(
      [sys.executable, '-c', WAIT],
      cwd=folder,
      env=environment,
      text=True,
      bufsize=1,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
    )
    if self._process.stdout.readline() != 'ready\n':
      raise RuntimeError('the process that starts the others did not come up')

  def start(self, argv, said):
    self._process.stdin.write(json.dumps([argv, str(said)]) + '\n')
    return Child(int(self._process.stdout.readline()), self._process.stdout)

  def close(self):
    self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()


class Child:
  """What is asked of a subprocess.Popen here."""

  def __init__(self, pid, answers):
    self.pid, self.returncode, self._answers = pid, None, answers

  def poll(self):
    if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
      self.returncode = int(self._answers.readline())
    return self.returncode

  def wait(self, timeout=float('inf')):
    until = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() >= until:
        raise subprocess.TimeoutExpired('fork', timeout)
      time.sleep(min(0.002, max(until - time.monotonic(), 0)))
    return self.returncode

  def send_signal(self, number):
    if self.poll() is None:
      with contextlib.suppress(ProcessLookupError):  # it ended, and its answer is on the way
        os.kill(self.pid, number)

  def kill(self):
    self.send_signal(signal.SIGKILL)

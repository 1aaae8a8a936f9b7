"""Starts the command line again and again from one process that has imported everything.

A start takes milliseconds, not seconds. Nothing of jax's runtime exists before the fork, so a child
behaves like a new process.
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
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import IO

# The program of the server. It hands the command in, so that no bench imports the command line.
PROGRAM = (
  'from prunejax.cli import command, extras; from prunejax.bench import fork_server;'
  " fork_server.serve(command.main, extras.REQUIRED['train'])"
)


def serve(command: Callable[[list[str]], int], preloaded: Sequence[str]):
  """Forks a child for each line of stdin, [arguments, output file] in JSON.

  It prints 'ready' once, then the process id of each child and, when the child ends, its status.

  Args:
    command: arguments -> exit status, called in each child.
    preloaded: names of modules to import before the first fork.
  """
  for name in (*preloaded, 'prunejax.sweep.grid', 'prunejax.train.export'):
    importlib.import_module(name)
  print('ready', flush=True)
  for line in sys.stdin:
    argv, output = json.loads(line)
    child = os.fork()
    if not child:
      _run_child(command, argv, output)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run_child(command, argv, output):
  """Runs the command with its output appended to a file, and ends the process."""
  status = 1
  try:
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for handle, target in ((0, os.open(os.devnull, os.O_RDONLY)), (1, stream), (2, stream)):
      os.dup2(target, handle)
    status = command(argv)
    sys.stdout.flush()
  finally:
    os._exit(status)


class Server:
  """A process that forks one child at a time."""

  def __init__(self, folder: PathLike | str, environment: Mapping[str, str]):
    """Starts the process.

    Args:
      folder: its working directory.
      environment: its environment variables.

    Raises:
      RuntimeError: it ended before it was ready.
    """
    self._process = subprocess.Popen(
      [sys.executable, '-c', PROGRAM],
      cwd=folder,
      env=environment,
      text=True,
      bufsize=1,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
    )
    if self._process.stdout.readline() != 'ready\n':
      raise RuntimeError('the fork server ended before it was ready')

  def start(self, argv: list[str], output: PathLike | str) -> 'Child':
    """Forks a child.

    Args:
      argv: the arguments of its command.
      output: file to which it appends what it prints.

    Returns:
      The child.
    """
    self._process.stdin.write(json.dumps([argv, str(output)]) + '\n')
    return Child(int(self._process.stdout.readline()), self._process.stdout)

  def close(self):
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()


class Child:
  """A forked child, with the methods of subprocess.Popen that the bench `kill` uses."""

  def __init__(self, pid: int, answers: IO[str]):
    """Watches a child.

    Args:
      pid: its process id.
      answers: stream on which the server prints the child's status.
    """
    self.pid, self.returncode, self._answers = pid, None, answers

  def poll(self) -> int | None:
    """Returns the exit status, or None while the child runs."""
    if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
      self.returncode = int(self._answers.readline())
    return self.returncode

  def wait(self, timeout: float = float('inf')) -> int:
    """Waits for the child and returns its exit status.

    Raises:
      subprocess.TimeoutExpired: it still runs after `timeout` seconds.
    """
    until = time.monotonic() + timeout
    while self.poll() is None:
      if time.monotonic() >= until:
        raise subprocess.TimeoutExpired('fork', timeout)
      time.sleep(min(0.002, max(until - time.monotonic(), 0)))
    return self.returncode

  def send_signal(self, number: int):
    """Sends a signal, if the child still runs."""
    if self.poll() is None:
      with contextlib.suppress(ProcessLookupError):  # it has ended; its status is on the way
        os.kill(self.pid, number)

  def kill(self):
    """Sends SIGKILL."""
    self.send_signal(signal.SIGKILL)

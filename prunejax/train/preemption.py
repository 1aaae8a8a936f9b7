"""SIGTERM, which a preempted machine gets: end the step, save, and exit with "start me again"."""

import contextlib
import itertools
import os
import signal
import sys
import threading

import jax
from jax.experimental import multihost_utils

RESTART = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command resumes
SOON = 0.05  # seconds until a dropped Preempted is raised again

_asked = itertools.count(1)


class Preempted(BaseException):
  """The command was told to stop, and its state is saved.

  It is no Exception, so that no handler on the way out takes it for an error.
  """


@contextlib.contextmanager
def guard():
  """Surrounds a command: SIGTERM raises Preempted in the main thread at once; a second kills it."""
  with _handler(_raise), _raised_again():
    yield


@contextlib.contextmanager
def notice():
  """Surrounds a loop that can save: SIGTERM waits until the loop asks.

  A SIGTERM that the loop did not ask for takes effect when the loop ends. A second SIGTERM, like an
  interrupt from the keyboard, ends the process at once. Waves in threads end after they have saved.

  Yields:
    A function () -> bool, to be called once after each call of the step. Of several processes all
    get True at the same call, whichever of them got the signal.
  """
  if jax.process_count() > 1:
    # JAX's own service handles the signal there. It counts calls, and a count may never go back.
    yield lambda: multihost_utils.reached_preemption_sync_point(next(_asked))
    return
  stop = threading.Event()
  with _handler(stop.set):
    yield stop.is_set
  if stop.is_set():
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _handler(act):
  """Lets SIGTERM call `act` once; the handler of before is put back at the end."""
  if threading.current_thread() is not threading.main_thread():
    yield  # Python handles signals in the main thread only
    return

  def once(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    act()

  before = signal.signal(signal.SIGTERM, once)
  try:
    yield
  finally:
    # None: a handler that Python did not install, and cannot put back.
    signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _raised_again():
  """Raises Preempted once more where Python dropped it.

  A signal may come while a `__del__` or a callback of the garbage collector runs; JAX has one. What
  is raised there only reaches `sys.unraisablehook`. The hook is a part of that callback, so it sets
  an alarm that raises after it.
  """
  if threading.current_thread() is not threading.main_thread() or not hasattr(signal, 'setitimer'):
    yield
    return
  report = sys.unraisablehook

  def hook(dropped):
    if issubclass(dropped.exc_type, Preempted):
      signal.setitimer(signal.ITIMER_REAL, SOON)
    else:
      report(dropped)

  before = signal.signal(signal.SIGALRM, lambda number, frame: _raise())
  sys.unraisablehook = hook
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
    if sys.unraisablehook is hook:  # not where `full_disk` put a hook over it that is to stay
      sys.unraisablehook = report


def _raise():
  raise Preempted('SIGTERM')

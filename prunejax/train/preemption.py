"""SIGTERM, as a preempted machine gets it: end the step, save, and leave with a status that means "start me again"."""

import contextlib
import itertools
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

RESTART = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on

_asked = itertools.count(1)


class Preempted(BaseException):
  """The command was told to stop, and what it had is saved. Not an Exception: nobody mends it on the way out."""


@contextlib.contextmanager
def guard():
  """Around a whole command: SIGTERM raises Preempted at once, wherever the main thread is. A second one ends it."""
  with _handler(_raise):
    yield


@contextlib.contextmanager
def notice():
  """Around a loop that can save: SIGTERM waits until the loop asks.

  Yields asked() -> bool, to be called once after each step. Over several processes all of them get True at the same
  call, whichever of them was told. A notice that nobody asked for is passed on when the loop ends. A second SIGTERM,
  like an interrupt from the keyboard, ends the process at once.
  """
  if jax.process_count() > 1:
    # JAX's own service has the signal there. It knows a step by its number, which may never go back.
    yield lambda: multihost_utils.reached_preemption_sync_point(next(_asked))
    return
  told = threading.Event()
  with _handler(told.set):
    yield told.is_set
  if told.is_set():
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _handler(act):
  """SIGTERM calls `act` once; after that, and after this, the handler is what it was before."""
  if threading.current_thread() is not threading.main_thread():
    yield  # Python hears signals in the main thread only: whoever runs there decides
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


def _raise():
  raise Preempted('SIGTERM')

"""Waves of members that train at a time, each in a thread of its own.

The operations of a small model leave cores idle, and so does what is done between its steps. The
threads of one process share what is compiled.
"""

import concurrent.futures
import functools
import math
import threading
import time
from collections.abc import Callable, Sequence

from prunejax.train import preemption


def divided(runs: Sequence, width: int, at_a_time: int = 1) -> list[Sequence]:
  """Divides runs into waves.

  Args:
    runs: in the order of their lengths.
    width: the most runs of a wave.
    at_a_time: waves that train at a time. If several do, there are as many waves each time, and
      each has runs of all lengths, so that they end at about one time.
  """
  if at_a_time == 1:
    return [runs[i : i + width] for i in range(0, len(runs), width)]
  count = min(math.ceil(len(runs) / width / at_a_time) * at_a_time, len(runs))
  return [runs[i::count] for i in range(count)]


class Clock:
  """The time of waves that train at a time: each gets an equal share of the seconds that pass.

  Attributes:
    at_work: how many waves train now.
  """

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self._clock, self._lock = clock, threading.RLock()
    self._read, self._shared, self.at_work = clock(), 0.0, 0

  def now(self) -> float:
    """Returns the seconds that a wave has got since this clock was made."""
    with self._lock:
      read = self._clock()
      self._shared += (read - self._read) / max(self.at_work, 1)
      self._read = read
      return self._shared

  def count(self, more: int):
    """Says that so many waves more train from now on."""
    with self._lock:
      self.now()
      self.at_work += more


def side_by_side(waves: Sequence[Callable], at_a_time: int, calls: dict[str, Callable]):
  """Trains waves in threads. Where one ends with an error, the others save and stop.

  Args:
    waves: each is a function that takes `calls` and two keywords more: `told`, () -> whether to
      save and stop, and `now`, () -> seconds of which it has its share.
    at_a_time: the most that train at a time.
    calls: {keyword: function}. No two waves call any of them at once.

  Raises:
    preemption.Preempted: SIGTERM came, and all waves that were begun have saved.
    Exception: the first in time that is not Preempted, with what other waves raised in its notes.
  """
  broken, lock, errors, clock = threading.Event(), threading.RLock(), [], Clock()

  def one_at_once(call):
    @functools.wraps(call)
    def locked(*args, **how):
      with lock:
        return call(*args, **how)

    return locked

  calls = {name: one_at_once(call) for name, call in calls.items()}

  def train(wave, told):
    if told():
      return
    clock.count(1)
    try:
      wave(**calls, told=told, now=clock.now)
    except BaseException as error:
      errors.append(error)
      broken.set()
    finally:
      clock.count(-1)

  with (
    preemption.notice() as asked,
    concurrent.futures.ThreadPoolExecutor(at_a_time, 'wave') as threads,
  ):
    told = lambda: asked() or broken.is_set()
    try:
      ended = [threads.submit(train, wave, told) for wave in waves]
      concurrent.futures.wait(ended)
    except BaseException:  # Ctrl-C
      broken.set()
      raise
    if errors:
      # Those that were told to stop are not the reason.
      first = min(errors, key=lambda error: isinstance(error, preemption.Preempted))
      for other in errors:
        if other is not first and not isinstance(other, preemption.Preempted):
          first.add_note(f'another wave ended with {type(other).__name__}: {other}')
      raise first

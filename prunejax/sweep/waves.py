"""Waves of members that train at a time, each in a thread of its own.

The operations of a small model leave cores idle, and so does what is done between its steps. The
threads of one process share what is compiled.
"""

import concurrent.futures
import functools
import math
import threading
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


def side_by_side(waves: Sequence[Callable], at_a_time: int, calls: dict[str, Callable]):
  """Trains waves in threads. Where one ends with an error, the others save and stop.

  Args:
    waves: each is a function that takes `calls` and two keywords more: `asked`, () -> whether to
      save and stop, and `waves`, () -> how many of them train now.
    at_a_time: the most that train at a time.
    calls: {keyword: function}. No two waves call any of them at once.

  Raises:
    preemption.Preempted: SIGTERM came, and all waves that were begun have saved.
    Exception: as the first wave raised it.
  """
  broken, lock, begun = threading.Event(), threading.RLock(), []

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
    begun.append(wave)
    try:
      wave(**calls, asked=told, waves=lambda: len(begun))
    except BaseException:
      broken.set()
      raise
    finally:
      begun.remove(wave)

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
    errors = [error for one in ended if (error := one.exception())]
    # Those that were told to stop are not the reason.
    errors.sort(key=lambda error: isinstance(error, preemption.Preempted))
    if errors:
      raise errors[0]

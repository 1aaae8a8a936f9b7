"""What programs take: how often XLA compiles, what they hold in memory, and what is left."""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

COMPILED = '/jax/core/compile/backend_compile_duration'  # JAX's event for each program compiled


class Compiles:
  """`count` programs compiled since the start, in `seconds`."""

  def __init__(self):
    self.count, self.seconds = 0, 0.0


@contextlib.contextmanager
def compiles() -> Iterator[Compiles]:
  """Counts what is compiled inside: yields a `Compiles` that grows."""
  counted = Compiles()

  def listen(event, seconds, **_):
    if event == COMPILED:
      counted.count, counted.seconds = counted.count + 1, counted.seconds + seconds

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield counted
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def held(compiled: Any) -> float:
  """Returns the bytes on one device while a compiled program runs; 0 where XLA does not tell.

  They are the arguments, the results that do not reuse their memory, and the temporaries.
  """
  if isinstance(compiled, TooLarge):
    return compiled.bytes
  m = compiled.memory_analysis()
  if m is None:
    return 0
  return (
    m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
  )


class TooLarge(NamedTuple):
  """A program that a compiler refused, and the bytes on one device that it would have held."""

  bytes: float


def too_large(error: BaseException) -> TooLarge | None:
  """Returns what a compiler says of a program that the memory of its device cannot hold.

  A TPU refuses such a program when it is compiled; a CPU and a GPU fail when it runs.

  Args:
    error: of `lower().compile()`.

  Returns:
    The bytes, infinite where the message does not name them; None for another error.
  """
  text = str(error)
  if 'RESOURCE_EXHAUSTED' not in text and 'Ran out of memory' not in text:
    return None
  used = re.search(r'Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? ?hbm', text)
  scale = {'': 0, 'K': 10, 'M': 20, 'G': 30, 'T': 40}
  return TooLarge(float(used[1]) * 2 ** scale[used[2]] if used else float('inf'))


def free_bytes() -> int:
  """Returns the bytes that arrays may still take on a device.

  On a CPU this is a device's share of what the host, and its container, has left.
  """
  stats = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  free = [_host()]
  limit, used = (_number(f'/sys/fs/cgroup/memory.{name}') for name in ('max', 'current'))
  if limit is not None and used is not None:
    free.append(limit - used)
  return min(free) // jax.local_device_count()


def _host():
  """MemAvailable where there is /proc, else the free pages."""
  try:
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith('MemAvailable'))
  except (OSError, StopIteration):
    return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')


def _number(path):
  try:
    return int(pathlib.Path(path).read_text())
  except (OSError, ValueError):
    return None

"""What programs take, measured: how often XLA compiles, what a compiled program holds in memory, what is left of it."""

import contextlib
import os
import pathlib

import jax

COMPILED = '/jax/core/compile/backend_compile_duration'  # JAX tells it once for every program that XLA compiles


class Compiles:
  """`count` programs compiled since the start, in `seconds`."""

  def __init__(self):
    self.count, self.seconds = 0, 0.0


@contextlib.contextmanager
def compiles():
  """Counts what is compiled inside: yields a `Compiles` that grows."""
  told = Compiles()

  def hear(event, seconds, **_):
    if event == COMPILED:
      told.count, told.seconds = told.count + 1, told.seconds + seconds

  jax.monitoring.register_event_duration_secs_listener(hear)
  try:
    yield told
  finally:
    jax.monitoring.unregister_event_duration_listener(hear)


def held(compiled):
  """Bytes on one device while a compiled program runs: arguments, results that do not reuse them, temporaries.

  0 where XLA does not tell.
  """
  m = compiled.memory_analysis()
  if m is None:
    return 0
  return (
    m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes + m.temp_size_in_bytes
  )


def free_bytes():
  """Bytes that arrays may still take: of one device, or a device's share of the host (and its container)."""
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

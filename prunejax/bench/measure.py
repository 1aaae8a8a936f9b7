"""How a figure is taken: candidates in rotation in one process, medians, and ratios of neighbours in time."""

import os
import pathlib
import platform
import re
import time
from typing import NamedTuple

import jax
import numpy as np

from prunejax.sweep import grid
from prunejax.sweep.resources import free_bytes

GIB = 2**30


class Times(NamedTuple):
  """Seconds of one candidate, one a round."""

  rounds: tuple

  @property
  def median(self):
    return float(np.median(self.rounds))

  def __str__(self):
    return f'{clock(self.median)} ({clock(min(self.rounds))} to {clock(max(self.rounds))}, {len(self.rounds)} rounds)'


def clock(seconds) -> str:
  """'3.21 s', '12.3 ms', '45.6 us'."""
  for scale, unit in ((1, 's'), (1e-3, 'ms'), (1e-6, 'us')):
    if seconds >= scale:
      return f'{seconds / scale:.3g} {unit}'
  return f'{seconds * 1e9:.3g} ns'


def interleaved(candidates, rounds=7, seconds=60.0):
  """{name: Times} of {name: function without arguments}.

  Every round calls each candidate once and waits for what it returns, in an order that moves on by one a round, so
  that whatever else the machine does meets all of them alike. Each is called once before, untimed. After three
  rounds no new one starts once `seconds` are over.
  """
  taken = {name: [] for name in candidates}
  for call in candidates.values():
    jax.block_until_ready(call())
  names, began = list(candidates), time.perf_counter()
  for number in range(rounds):
    if number >= 3 and time.perf_counter() - began > seconds:
      break
    for name in names[number % len(names) :] + names[: number % len(names)]:
      start = time.perf_counter()
      jax.block_until_ready(candidates[name]())
      taken[name].append(time.perf_counter() - start)
  return {name: Times(tuple(times)) for name, times in taken.items()}


def ratio(a: Times, b: Times) -> float:
  """The median over rounds of a's time over b's: what slows one round slows both, and falls out."""
  return float(np.median(np.divide(a.rounds, b.rounds)))


def carried(step, state, next_of=lambda out: out):
  """A candidate for a step that donates its state, again and again; `next_of` finds the state in what it returns."""
  box = [state]

  def call():
    out = step(box[0])
    box[0] = next_of(out)
    return out

  return call


def compiled(fn, *args, **how):
  """`fn` compiled for the shapes of `args`: callable, and asked for its memory. `how` is for `jax.jit`."""
  return jax.jit(fn, **how).lower(*args).compile()


def temporary(program):
  """Bytes that a compiled program needs beside its inputs and outputs, or None where XLA does not tell."""
  analysis = program.memory_analysis()
  return getattr(analysis, 'temp_size_in_bytes', None)


def nbytes(tree) -> int:
  """Bytes of all arrays (or shapes) of a tree."""
  return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def row(name, value, unit, target='', detail='', *, where=True):
  """One line of the table.

  Args:
    name: what was measured.
    value: a number, or None when it could not be.
    unit: its unit.
    target: '<= 5', '>= 150' or ''.
    detail: how it came about.
    where: False when the target is meant for another kind of machine.
  """
  value = None if value is None else float(value)
  ok = meets(value, target) if target and where and value is not None else None
  return {'name': name, 'value': value, 'unit': unit, 'target': target, 'ok': ok, 'detail': detail}


def meets(value, target) -> bool:
  """Whether a number meets a target such as '<= 5' or '>= 0.5'. Raises ValueError for another form."""
  found = re.fullmatch(r'(<=|>=|<|>|==) *([-+.\de]+)', target)
  if not found:
    raise ValueError(f'target {target!r}: expected a comparison with a number, such as "<= 5"')
  limit = float(found[2])
  return {
    '<=': value <= limit,
    '>=': value >= limit,
    '<': value < limit,
    '>': value > limit,
    '==': value == limit,
  }[found[1]]


def on_gpu() -> bool:
  return jax.default_backend() in ('gpu', 'cuda', 'rocm')


def cores() -> int:
  """Cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def lacks(bytes_needed) -> str:
  """'' when an array of that many bytes fits with a tenth to spare, else what is missing."""
  free = free_bytes()
  if bytes_needed * 1.1 <= free:
    return ''
  return f'not run: needs {bytes_needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free'


def kind() -> str:
  """The name of a kind of machine, fit for a file: 'cpu-2-cores', 'nvidia-h200-x1'."""
  device = re.sub(r'[^a-z0-9]+', '-', jax.devices()[0].device_kind.lower()).strip('-')
  return (
    f'{device}-{cores()}-cores'
    if jax.default_backend() == 'cpu'
    else f'{device}-x{jax.device_count()}'
  )


def machine() -> dict:
  """What the figures hold for: devices, cores, memory, versions. No path and no name of a host."""
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') if hasattr(os, 'sysconf') else 0
  return {
    'kind': kind(),
    'device': grid.device(),
    'processor': _processor(),
    'cores': cores(),
    'ram_gib': round(pages / GIB),
    'versions': grid.versions(),
  }


def _processor():
  info = pathlib.Path('/proc/cpuinfo')
  found = (
    re.search(r'^model name\s*:\s*(.+)$', info.read_text(), re.MULTILINE) if info.exists() else None
  )
  return found[1].strip() if found else platform.machine()

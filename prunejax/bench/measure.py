"""Times candidates in rotation in one process, and makes the rows of a table of results."""

import os
import pathlib
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from prunejax.report import rounding
from prunejax.sweep import grid
from prunejax.sweep.resources import free_bytes

GIB = 2**30


class Times(NamedTuple):
  """The seconds that one candidate took in each round."""

  rounds: tuple[float, ...]

  @property
  def median(self) -> float:
    """The median over rounds, in seconds."""
    return float(np.median(self.rounds))

  @property
  def best(self) -> float:
    """The least over rounds, in seconds: what the machine can do."""
    return min(self.rounds)

  def __str__(self) -> str:
    """Formats the median and the span: '3 s (1 s to 10 s, 3 rounds)'."""
    span = f'{clock(min(self.rounds))} to {clock(max(self.rounds))}'
    return f'{clock(self.median)} ({span}, {len(self.rounds)} rounds)'


def clock(seconds: float) -> str:
  """Formats a time: '1,234 s', '3.21 s', '12.3 ms', '45.6 us'."""
  return rounding.scaled(seconds, ((1, 's'), (1e-3, 'ms'), (1e-6, 'us'), (1e-9, 'ns')))


def interleaved(
  candidates: Mapping[str, Callable[[], Any]], rounds: int = 7, seconds: float = 60.0
) -> dict[str, Times]:
  """Times candidates against each other.

  Each round calls every candidate once and waits for its result. The order is rotated by one from
  round to round, so that other load on the machine affects all candidates alike. Each candidate is
  called once before, untimed.

  Args:
    candidates: {name: function without arguments}.
    rounds: most rounds.
    seconds: after three rounds, no new one starts once this time is over.

  Returns:
    {name: its times}.
  """
  taken = {name: [] for name in candidates}
  for call in candidates.values():
    jax.block_until_ready(call())
  names, began = list(candidates), time.perf_counter()
  for i in range(rounds):
    if i >= 3 and time.perf_counter() - began > seconds:
      break
    for name in names[i % len(names) :] + names[: i % len(names)]:
      start = time.perf_counter()
      jax.block_until_ready(candidates[name]())
      taken[name].append(time.perf_counter() - start)
  return {name: Times(tuple(times)) for name, times in taken.items()}


def ratio(a: Times, b: Times) -> float:
  """Returns the median over rounds of a's time over b's. Load that slows a round cancels out."""
  return float(np.median(np.divide(a.rounds, b.rounds)))


def carried(
  step: Callable[[Any], Any], state: Any, next_of: Callable[[Any], Any] = lambda result: result
) -> Callable[[], Any]:
  """Makes a candidate of a step that donates its state.

  Args:
    step: state -> result.
    state: of the first call.
    next_of: result -> state of the next call.

  Returns:
    A function without arguments, which takes one step each time.
  """
  current = [state]

  def call():
    result = step(current[0])
    current[0] = next_of(result)
    return result

  return call


def compiled(fn: Callable, *args, **options) -> jax.stages.Compiled:
  """Compiles a function for the shapes of its arguments.

  Args:
    fn: the function.
    *args: arrays or shapes.
    **options: of `jax.jit`.

  Returns:
    The compiled program, which can be called.
  """
  return jax.jit(fn, **options).lower(*args).compile()


def temporary(program: jax.stages.Compiled) -> int | None:
  """Returns the bytes a program needs beside its inputs and outputs; None if unknown to XLA."""
  return getattr(program.memory_analysis(), 'temp_size_in_bytes', None)


def nbytes(tree: Any) -> int:
  """Returns the bytes of all arrays or shapes of a tree."""
  return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def row(
  name: str,
  value: float | None,
  unit: str,
  target: str = '',
  detail: str = '',
  *,
  where: bool = True,
) -> dict:
  """Makes one line of the table.

  Args:
    name: what was measured.
    value: a number, or None when it could not be measured.
    unit: of the value.
    target: '<= 5', '>= 150' or ''.
    detail: how it was measured.
    where: False when the target is meant for another kind of machine.

  Returns:
    A dict of these, and `ok`: whether the target is met, None where it does not apply.

  Raises:
    ValueError: a target of another form.
  """
  value = None if value is None else float(value)
  ok = meets(value, target) if target and where and value is not None else None
  return {'name': name, 'value': value, 'unit': unit, 'target': target, 'ok': ok, 'detail': detail}


def at_size(row: dict, size: str, target_sizes: Sequence[str]) -> dict:
  """Removes the target of a row that was measured at a size without one.

  Args:
    row: a row of `row`.
    size: the size it was measured at.
    target_sizes: the sizes that its target is meant for.

  Returns:
    The row. At another size it has no target and no verdict, and its detail names the sizes of the
    target.
  """
  if not row['target'] or size in target_sizes:
    return row
  note = f'no target at {size} ({", ".join(target_sizes)}: {row["target"]})'
  detail = '; '.join(filter(None, (note, row['detail'])))
  return {**row, 'target': '', 'ok': None, 'detail': detail}


def meets(value: float, target: str) -> bool:
  """Compares a number with a target.

  Args:
    value: the number.
    target: a comparison with a number, such as '<= 5' or '>= 0.5'.

  Returns:
    Whether the number meets the target.

  Raises:
    ValueError: a target of another form.
  """
  parts = re.fullmatch(r'(<=|>=|<|>|==) *([-+.\de]+)', target)
  if not parts:
    raise ValueError(f'target {target!r}: expected a comparison with a number, such as "<= 5"')
  limit = float(parts[2])
  return {
    '<=': value <= limit,
    '>=': value >= limit,
    '<': value < limit,
    '>': value > limit,
    '==': value == limit,
  }[parts[1]]


def on_gpu() -> bool:
  """Returns whether jax computes on a GPU."""
  return jax.default_backend() in ('gpu', 'cuda', 'rocm')


def cores() -> int:
  """Returns the number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def lacks(bytes_needed: float) -> str:
  """Returns '' when so many bytes fit with a tenth to spare, otherwise what is missing."""
  free = free_bytes()
  if bytes_needed * 1.1 <= free:
    return ''
  return f'not run: needs {bytes_needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free'


def kind() -> str:
  """Returns the kind of this machine as part of a file name: 'cpu-2-cores', 'nvidia-h200-x1'."""
  device = re.sub(r'[^a-z0-9]+', '-', jax.devices()[0].device_kind.lower()).strip('-')
  return (
    f'{device}-{cores()}-cores'
    if jax.default_backend() == 'cpu'
    else f'{device}-x{jax.device_count()}'
  )


def machine() -> dict:
  """Describes this machine: devices, cores, memory, versions. It names no path and no host."""
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
  text = info.read_text() if info.exists() else ''
  model = re.search(r'^model name\s*:\s*(.+)$', text, re.MULTILINE)
  return model[1].strip() if model else platform.machine()

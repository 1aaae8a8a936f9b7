"""Several processes that train as one: how they find each other, and which of them writes.

Every process runs the same command. All of them compute, and save their part of a checkpoint. Only
the first one writes the other files and prints. All of them need to see the work directory.
"""

import os
import socket
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID', 'JAX_NUM_PROCESSES')
ACCEPTED = (
  "'auto' (Cloud TPU, Slurm, Open MPI, Kubernetes) or 'HOST:PORT,INDEX,COUNT', where HOST:PORT is a"
  ' free port of process 0'
)
PATIENCE = 300  # seconds


def start(how: str = '', patience: float = PATIENCE):
  """Joins this process to the others of its command. Call it once, before anything else of jax.

  Args:
    how: 'auto' lets jax read the cluster's own variables. 'HOST:PORT,INDEX,COUNT' names a port of
      process 0, this process (from 0) and the number of processes. '' takes the same three from
      JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID and JAX_NUM_PROCESSES, and does nothing if they are
      not set. With a COUNT of 1 nothing is done.
    patience: seconds to wait for the others.

  Raises:
    ValueError: `how` or the variables make no sense.
    ConnectionError: the others did not come.
  """
  if how == 'auto':
    try:
      jax.distributed.initialize(initialization_timeout=int(patience))
    except ValueError as error:
      raise ValueError(
        f'--distributed: no cluster was found ({error}); expected a Cloud TPU, Slurm, Open MPI or'
        f' Kubernetes job, or {ACCEPTED}'
      ) from error
    return
  origin, address, index, count = _place(how)
  if count == 1:
    return
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise ValueError(f'{origin}: {address!r} is not HOST:PORT')
  if not 0 <= index < count:
    raise ValueError(f'{origin}: process {index} of {count}; they count from 0')
  # If a process is missing, jax ends the others with a page of C++. So check that all are there.
  (_await_others if index == 0 else _report)(
    host, int(port), index, count, time.monotonic() + patience
  )
  jax.distributed.initialize(address, count, index, initialization_timeout=int(patience))


def _place(how):
  """(where the rest comes from, HOST:PORT, index, count)."""
  if how:
    origin, words = f'--distributed={how}', how.split(',')
  else:
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given:
      return '', '', 0, 1
    lacking = [name for name in VARIABLES if name not in given]
    if lacking:
      # Otherwise every process would train alone, all into one folder.
      raise ValueError(
        f'{" and ".join(given)} set, but not {" and ".join(lacking)}: set all three, or'
        ' --distributed'
      )
    origin, words = ', '.join(VARIABLES), [given[name] for name in VARIABLES]
  try:
    address, index, count = words
    return origin, address, int(index), int(count)
  except ValueError:
    raise ValueError(f'{origin}: expected {ACCEPTED}') from None


def _await_others(host, port, index, count, until):
  """Process 0: opens the port, and returns when every other process has called."""
  missing = set(range(1, count))
  family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
  try:
    server = socket.create_server(
      ('', port), family=family, dualstack_ipv6=family == socket.AF_INET6
    )
  except OSError as error:
    raise ConnectionError(
      f'process 0 cannot open port {port}: {error.strerror or error}'
    ) from error
  calls = []
  with server:
    while missing:
      server.settimeout(max(until - time.monotonic(), 0.01))
      try:
        call, _ = server.accept()
        call.settimeout(1)
        word = call.recv(16)
      except OSError:
        if time.monotonic() < until:
          continue
        raise ConnectionError(
          f'process 0 waited at port {port}, and of {count} processes {sorted(missing)} did not'
          ' come'
        ) from None
      if word.strip().isdigit() and int(word) in missing:
        missing.remove(int(word))
        calls.append(call)
      else:
        call.close()  # no process of ours
    for call in calls:
      call.sendall(b'go')
      call.recv(1)  # the others close first, so that the port is free for jax
      call.close()


def _report(host, port, index, count, until):
  """Any other process: calls process 0 until it answers, and returns when all are there."""
  while True:
    try:
      with socket.create_connection(
        (host, port), timeout=max(until - time.monotonic(), 0.01)
      ) as call:
        call.sendall(f'{index:<16}'.encode())
        call.settimeout(max(until - time.monotonic(), 0.01))
        if call.recv(2) == b'go':
          return
        raise ConnectionError('it hung up')
    except OSError as error:
      if time.monotonic() >= until:
        raise ConnectionError(
          f'process {index} of {count} could not reach process 0 at {host}:{port}'
          f' ({error.strerror or error}); is it started, and is that port open?'
        ) from error
      time.sleep(0.2)


def first() -> bool:
  """Returns whether this is the process that writes: the only one, or number 0."""
  return jax.process_index() == 0


def together(name: str):
  """Waits until every process has come here.

  Args:
    name: of this place, the same in all processes.
  """
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def everywhere(flag: bool) -> bool:
  """Returns whether `flag` is true in every process."""
  if jax.process_count() == 1:
    return bool(flag)
  return bool(multihost_utils.process_allgather(np.array(bool(flag))).all())


def agreed(flags) -> list[bool]:
  """Returns the `flags` of process 0, for a choice that all processes must make alike.

  Args:
    flags: booleans, the same number in every process.
  """
  if jax.process_count() == 1:
    return list(flags)
  return [bool(flag) for flag in multihost_utils.broadcast_one_to_all(np.array(flags, bool))]

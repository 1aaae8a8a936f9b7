"""Several processes that train as one: how they find each other, and who writes.

Every process runs the same command. All of them compute, and save their part of a checkpoint; only the first writes
the other files and prints. The work directory has to be one that all of them see.
"""

import os
import socket
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_PROCESS_ID', 'JAX_NUM_PROCESSES')
ACCEPTED = (
  "'auto' (Cloud TPU, Slurm, Open MPI, Kubernetes) or 'HOST:PORT,INDEX,COUNT', where HOST:PORT is a free port of"
  ' process 0'
)
PATIENCE = 300  # seconds


def start(how='', patience=PATIENCE):
  """Joins this process to the others of its command. To be called before anything else of jax, once.

  Args:
    how: 'auto' lets jax read the cluster's own variables, 'HOST:PORT,INDEX,COUNT' names the place of process 0, this
      process (from 0) and how many there are; '' takes the same three from JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID
      and JAX_NUM_PROCESSES when they are set, and does nothing when they are not. With a COUNT of 1 nothing is done.
    patience: seconds to wait for the others.

  Raises:
    ValueError: `how` or the variables make no sense. ConnectionError: the others did not come.
  """
  if how == 'auto':
    try:
      jax.distributed.initialize(initialization_timeout=int(patience))
    except ValueError as error:
      raise ValueError(
        f'--distributed: no cluster was found ({error}); expected a Cloud TPU, Slurm, Open MPI or Kubernetes job, or'
        f' {ACCEPTED}'
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
  # Where a process is missing, jax itself ends the others with a page of C++: see to it here that all are there.
  (_await_others if index == 0 else _report)(
    host, int(port), index, count, time.monotonic() + patience
  )
  jax.distributed.initialize(address, count, index, initialization_timeout=int(patience))


def _place(how):
  """(where it was said, HOST:PORT, index, count)."""
  if how:
    origin, words = f'--distributed={how}', how.split(',')
  else:
    given = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not given:
      return '', '', 0, 1
    lacking = [name for name in VARIABLES if name not in given]
    if lacking:
      # To train alone here would be to train as often as there are processes, all into one folder.
      raise ValueError(
        f'{" and ".join(given)} set, but not {" and ".join(lacking)}: set all three, or --distributed'
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
          f'process 0 waited at port {port}, and of {count} processes {sorted(missing)} did not come'
        ) from None
      if word.strip().isdigit() and int(word) in missing:
        missing.remove(int(word))
        calls.append(call)
      else:
        call.close()  # no process of ours
    for call in calls:
      call.sendall(b'go')
      call.recv(1)  # they hang up first, so that the port is free for jax
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
          f'process {index} of {count} could not reach process 0 at {host}:{port} ({error.strerror or error});'
          ' is it started, and is that port open?'
        ) from error
      time.sleep(0.2)


def first() -> bool:
  """True for the process that writes: the only one, or number 0."""
  return jax.process_index() == 0


def together(name):
  """Returns when every process has come here. name: of the place, the same in all."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def everywhere(flag) -> bool:
  """Whether `flag` is true in every process."""
  if jax.process_count() == 1:
    return bool(flag)
  return bool(multihost_utils.process_allgather(np.array(bool(flag))).all())


def agreed(flags) -> list[bool]:
  """What process 0 has in `flags`, a list of booleans of one length everywhere: a choice all have to make alike."""
  if jax.process_count() == 1:
    return list(flags)
  return [bool(flag) for flag in multihost_utils.broadcast_one_to_all(np.array(flags, bool))]

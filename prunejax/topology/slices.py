"""The chips that a program is compiled for: a TPU slice that need not be here, or this machine."""

import importlib.util
import math
import re
from typing import Any, NamedTuple

from prunejax.topology import chips

FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
OWN = ('cpu', 'gpu')
# libtpu compiles; nothing looks for a TPU, or for the services of a TPU machine.
ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'JAX_PLATFORMS': 'cpu',
}
ACCEPTED = (
  f'v5e:AxB or v6e:AxB with AxB one of {", ".join(FLAT)}; v5p:AxBxC, such as v5p:2x2x1 or'
  f' v5p:4x4x4; or {" or ".join(OWN)}, the devices of this machine'
)


class Slice(NamedTuple):
  """Devices to compile for.

  Attributes:
    name: as the command line has it.
    chip: the peaks of one chip.
    devices: devices of jax; those of a TPU slice can be compiled for and nothing else.
    hosts: machines that hold them.
  """

  name: str
  chip: chips.Chip
  devices: list[Any]
  hosts: int


def check(name: str):
  """Checks the name of a topology without importing jax.

  Raises:
    ValueError: it is unknown, or libtpu is missing.
  """
  if name in OWN:
    return
  kind, _, shape = name.partition(':')
  flat = kind in ('v5e', 'v6e') and shape in FLAT
  deep = kind == 'v5p' and re.fullmatch(r'[1-9]\d?x[1-9]\d?x[1-9]\d?', shape)
  if not flat and not (deep and math.prod(_axes(shape)) % 4 == 0):
    raise ValueError(f'--topology={name}: expected {ACCEPTED}')
  if importlib.util.find_spec('libtpu') is None:
    raise ValueError(
      f'--topology={name} needs libtpu, which compiles where no TPU is:'
      " python -m pip install -e '.[tpu]'"
    )


def size(name: str) -> int | None:
  """Returns the number of chips that a checked name says; None for the devices of this machine."""
  return None if name in OWN else math.prod(_axes(name.partition(':')[2]))


def _axes(shape):
  return [int(length) for length in shape.split('x')]


def environment(name: str) -> dict[str, str]:
  """Returns what the environment of a process needs that compiles for a topology.

  It is read when jax is imported.
  """
  if name in OWN:
    # A worker must leave the memory of a GPU to others.
    return {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} | (
      {'JAX_PLATFORMS': 'cpu'} if name == 'cpu' else {}
    )
  return ENVIRONMENT


def find(name: str, peaks: dict | None = None) -> Slice:
  """Returns the slice of a name that `check` has passed.

  Args:
    name: of a topology.
    peaks: the chip of this machine, a dict of `chips.Chip`, where it is known already.

  Raises:
    ValueError: the compiler, or this machine, has no such devices.
  """
  import jax

  if name in OWN:
    try:
      devices = jax.devices(name)
    except RuntimeError as error:
      raise ValueError(f'--topology={name}: this machine has none ({_line(error)})') from None
    chip = chips.Chip(**peaks) if peaks else _own_chip(devices[0])
    return Slice(name, chip, devices, jax.process_count())
  from jax.experimental import topologies

  # The compiler takes hosts of 2x2 chips unless it is told otherwise.
  lone = {'chips_per_host_bounds': (1, 1, 1)} if size(name) == 1 else {}
  try:
    devices = list(topologies.get_topology_desc(name, platform='tpu', **lone).devices)
  except Exception as error:  # libtpu raises errors of its own
    raise ValueError(
      f'--topology={name}: libtpu has no such slice ({_line(error)}); expected {ACCEPTED}'
    ) from None
  chip = chips.CHIPS[name.partition(':')[0]]
  return Slice(name, chip, devices, len({device.process_index for device in devices}))


def _own_chip(device):
  known = chips.of_device(device.device_kind)
  if known is not None:
    return known
  from prunejax.topology import own

  return own.measured(device)


def _line(error):
  return ' '.join(str(error).split())[:200]

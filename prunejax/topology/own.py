"""Peaks of a device that no datasheet here describes: measured, in a few seconds."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prunejax.sweep import resources
from prunejax.topology import chips

SIDES = (512, 1024, 2048)
READ = 2**27  # bytes, more than caches hold
SECONDS = 0.3


def measured(device: jax.Device) -> chips.Chip:
  """Measures the best rates of matrix products and of a copy on a device.

  Args:
    device: a local device.

  Returns:
    Its peaks, which count for one device. The rate between devices is 0: unknown.
  """
  rates = {
    dtype: max(_product_rate(device, dtype, side) for side in SIDES)
    for dtype in (jnp.float32, jnp.bfloat16)
  }
  return chips.Chip(
    device.device_kind,
    (device.device_kind,),
    flops=rates[jnp.bfloat16],
    flops_float32=rates[jnp.float32],
    memory=float(resources.free_bytes()),
    bandwidth=_copy_rate(device),
    links=0.0,
    source='measured here just now: the best of a few runs; the memory is what is free',
  )


def _product_rate(device, dtype, side):
  x = jax.device_put(jnp.ones((side, side), dtype), device)
  return 2 * side**3 / _best(jax.jit(lambda a: a @ a).lower(x).compile(), x)


def _copy_rate(device):
  x = jax.device_put(jnp.ones(READ // 4, jnp.float32), device)
  return 2 * READ / _best(jax.jit(lambda a: a + 1).lower(x).compile(), x)


def _best(call: Callable, x) -> float:
  """Seconds of the fastest of the calls that fit into SECONDS."""
  jax.block_until_ready(call(x))
  began, best = time.perf_counter(), float('inf')
  while time.perf_counter() - began < SECONDS:
    start = time.perf_counter()
    jax.block_until_ready(call(x))
    best = min(best, time.perf_counter() - start)
  return best

"""Checksums of arrays, the same on any mesh: a saved state is checked by them when it is read."""

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning.paths import path_name

GOLDEN = 0x9E3779B9
SMALL = 2**20  # bytes; up to here numpy is faster than compiling a program
WIDTHS = {1: 'uint8', 2: 'uint16', 4: 'uint32'}


def sums(tree) -> dict:
  """Returns {path: checksum} of every leaf of a tree of arrays."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  numbers = jax.device_get([total_here(x) if _small(x) else total(x) for _, x in leaves])
  return {path_name(path): int(number) for (path, _), number in zip(leaves, numbers, strict=True)}


@jax.jit
def total(leaf):
  """Returns the sum modulo 2^32 of a hash of each element's bits and position, uint32 [].

  All numbers are integers, so neither the order of adding nor the layout changes the sum. The hash
  is the finaliser of MurmurHash3, a bijection: one changed element always changes the sum, and any
  other damage goes unseen once in 2^32.
  """
  if leaf.dtype == jnp.bool_:
    bits = leaf.astype(jnp.uint32)
  elif leaf.dtype.itemsize == 8:
    halves = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    bits = mixed(halves[..., 0]) + 3 * mixed(halves[..., 1])
  else:
    bits = jax.lax.bitcast_convert_type(leaf, WIDTHS[leaf.dtype.itemsize]).astype(jnp.uint32)
  place, stride = jnp.zeros(leaf.shape, jnp.uint32), GOLDEN
  for axis in reversed(range(leaf.ndim)):
    place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * np.uint32(stride % 2**32)
    stride *= leaf.shape[axis]
  return jnp.sum(mixed(bits ^ place), dtype=jnp.uint32)


def total_here(leaf):
  """Returns `total`, computed by numpy."""
  flat = np.ascontiguousarray(leaf).reshape(-1)
  if flat.dtype.itemsize == 8:
    halves = flat.view(np.uint32).reshape(-1, 2)
    bits = mixed(halves[:, 0]) + np.uint32(3) * mixed(halves[:, 1])
  else:
    bits = flat.view(WIDTHS[flat.dtype.itemsize]).astype(np.uint32)
  return mixed(bits ^ (np.arange(flat.size, dtype=np.uint32) * np.uint32(GOLDEN))).sum(
    dtype=np.uint32
  )


def mixed(x):
  """Returns a bijection of uint32: each bit of the input changes about half of the output's."""
  x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def _small(leaf):
  return leaf.nbytes <= SMALL and getattr(leaf, 'is_fully_addressable', True)

"""Factorisations and solves of single matrices, which `vmap` runs one after the other on a CPU.

jaxlib up to 0.10 hands the parts of a batched LAPACK call to the thread pool that the call itself
runs in, and waits for them. As many such calls beside each other as the pool has threads wait for
ever. A call with one matrix does all of its work itself. So on a CPU a batch becomes a loop, and on
other devices it stays one call. Nothing else in this package may call `jnp.linalg` on arrays of
jax.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def one_after_the_other(fn: Callable) -> Callable:
  """Makes a function of single matrices into one whose `vmap` is a loop on a CPU.

  Args:
    fn: (arrays) -> array or pytree of arrays.
  """

  @jax.custom_batching.custom_vmap
  def single(*arrays):
    return fn(*arrays)

  @single.def_vmap
  def mapped(size, is_mapped, *arrays):
    arrays = [
      array if flag else jnp.broadcast_to(array, (size, *array.shape))
      for array, flag in zip(arrays, is_mapped, strict=True)
    ]
    loop = lambda *arrays: lax.map(lambda one: single(*one), arrays)
    out = lax.platform_dependent(*arrays, cpu=loop, default=jax.vmap(fn))
    return out, jax.tree.map(lambda _: True, out)

  return single


@one_after_the_other
def cholesky(matrix: jax.Array) -> jax.Array:
  """Computes L with L L^T = `matrix`, L lower triangular [n, n]."""
  return jnp.linalg.cholesky(matrix)


@one_after_the_other
def inverse_of_upper(upper: jax.Array) -> jax.Array:
  """Computes the inverse of an upper triangular matrix [n, n]."""
  return jax.scipy.linalg.solve_triangular(upper, jnp.eye(upper.shape[-1], dtype=upper.dtype))


@one_after_the_other
def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
  """Solves `matrix` x = `right`, x [n]."""
  return jnp.linalg.solve(matrix, right)


@one_after_the_other
def thin_svd(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Computes U [m, k], the singular values [k] and V^T [k, n], with k = min(m, n)."""
  return tuple(jnp.linalg.svd(matrix, full_matrices=False))


@one_after_the_other
def orthonormal(matrix: jax.Array) -> jax.Array:
  """Computes Q [m, min(m, n)] of the QR decomposition of `matrix`."""
  return jnp.linalg.qr(matrix)[0]

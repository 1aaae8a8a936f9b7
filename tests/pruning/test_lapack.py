"""Decompositions under `vmap`: the numbers of each matrix alone, and no starved thread pool."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax
from prunejax.pruning import lapack

HERE = pathlib.Path(__file__).parent
LIMIT = 240  # seconds; on two idle cores a program takes 25


@pytest.mark.slow
@pytest.mark.parametrize('which', ['stacked', 'members'])
def test_decompositions_beside_each_other_end_on_two_cores(which):
  kept = {key: value for key, value in os.environ.items() if key != 'XLA_FLAGS'}
  done = subprocess.run(
    [sys.executable, str(HERE / 'lapack_program.py'), which],
    env={**kept, 'PJRT_NPROC': '2', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=LIMIT,
  )
  assert done.stdout.split() == ['done'], done.stderr


@pytest.mark.parametrize(
  'fn, wanted',
  [
    (lapack.cholesky, jnp.linalg.cholesky),
    (
      lapack.inverse_of_upper,
      lambda m: jax.scipy.linalg.solve_triangular(m, jnp.eye(5, dtype=m.dtype)),
    ),
    (lambda m: lapack.solve(m, m[0]), lambda m: jnp.linalg.solve(m, m[0])),
    (lapack.thin_svd, lambda m: tuple(jnp.linalg.svd(m, full_matrices=False))),
    (lapack.orthonormal, lambda m: jnp.linalg.qr(m)[0]),
  ],
)
def test_each_matrix_of_a_batch_gets_the_bits_that_it_gets_alone(fn, wanted):
  draw = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
  matrices = jnp.asarray(draw @ draw.swapaxes(-1, -2) + np.eye(5, dtype=np.float32))
  batched = jax.jit(jax.vmap(jax.vmap(fn)))(matrices)
  alone = [[jax.jit(wanted)(matrices[i, j]) for j in range(3)] for i in range(2)]
  stack = lambda *leaves: np.stack(leaves).reshape(2, 3, *leaves[0].shape)
  expected = jax.tree.map(stack, *[one for row in alone for one in row])
  jax.tree.map(np.testing.assert_array_equal, batched, expected)
  # On a CPU no call of LAPACK holds more than one matrix.
  text = jax.jit(jax.vmap(jax.vmap(fn))).lower(matrices).as_text()
  calls = [line for line in text.splitlines() if '@lapack_' in line]
  assert calls and not any(re.search(r'tensor<(2x)?3x\d+x\d+xf32>', line) for line in calls)


def test_a_batch_stays_one_call_on_other_devices():
  matrices = jnp.stack([jnp.eye(5)] * 3)
  traced = jax.jit(jax.vmap(lapack.cholesky)).trace(matrices)
  texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ('cpu', 'tpu')}
  assert 'while' in texts['cpu'] and 'while' not in texts['tpu']
  assert re.search(r'cholesky.*tensor<3x5x5xf32>', texts['tpu'])


def test_only_one_file_of_the_package_decomposes_arrays_of_jax():
  package = pathlib.Path(prunejax.__file__).parent
  decomposes = re.compile(r'\b(jnp|jax\.numpy|jax\.scipy|lax|jax\.lax|jsp)\.linalg\b')
  users = [path.name for path in package.rglob('*.py') if decomposes.search(path.read_text())]
  assert users == ['lapack.py']

"""Settings that must stand before jax is imported, and the order of the files."""

import os
import subprocess
import sys

# Several forced host devices on few cores can wait for each other for ever with the default number
# of threads.
os.environ.setdefault('PJRT_NPROC', '16')

# The suite compiles thousands of programs and runs each for a few steps: quick code matters less
# than quick compiling. Without fusion emitters two programs that compute the same may differ in the
# last bit: tests of bits do with `exact`.
EXACT = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
QUICK = (f'{EXACT} --xla_cpu_use_fusion_emitters=false', EXACT)
# Files that take a minute or more: a worker that begins one last is waited for.
LONG = (
  'test_reproduce',
  'test_mesh',
  'test_population',
  'test_paper_preset',
  'test_processes',
  'test_sharding',
  'test_selection',
  'test_bench',
  'test_laws',
  'test_train',
  'test_pydoc',
)


def _known(flags):
  """Whether this jax takes them: XLA ends the process at a flag that it does not know."""
  tried = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    capture_output=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
  )
  return tried.returncode == 0


if 'XLA_FLAGS' not in os.environ:  # nor in a worker's, which has what the first process found
  os.environ['XLA_FLAGS'] = next((flags for flags in QUICK if _known(flags)), '')


def pytest_collection_modifyitems(items):
  place = {name: i for i, name in enumerate(LONG)}
  items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))

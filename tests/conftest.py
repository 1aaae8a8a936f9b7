"""Settings that must precede the import of jax, and the order of the test files."""

import ctypes
import gc
import os
import pathlib
import re
import subprocess
import sys

import pytest

# With the default number of threads, several forced host devices on few cores can deadlock.
os.environ.setdefault('PJRT_NPROC', '16')

# The suite compiles thousands of programs and runs each for a few steps, so quick compiling matters
# more than quick code. Without fusion emitters, two programs that compute the same value may differ
# in the last bit. Tests that compare bits have the mark `exact`.
# One object file a program compiles faster on few cores and takes fewer memory maps.
EXACT = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  ' --xla_cpu_parallel_codegen_split_count=1'
)
QUICK = (f'{EXACT} --xla_cpu_use_fusion_emitters=false', EXACT)
# Share of the memory maps that a process may have; programs that many files share are few of them.
MANY_MAPS = 0.2
# Files that take longest run first, so that no worker starts one at the end: those of whole runs,
# which are slow, and those that compile most.
LONG = (
  'test_reproduce',
  'test_mesh',
  'test_exact',
  'test_guo2019',
  'test_league',
  'test_processes',
  'test_paper_preset',
  'test_sharding',
  'test_bench',
  'test_selection',
  'test_kernel_layout',
  'test_laws',
  'test_population',
  'test_faults',
  'test_pages',
  'test_train',
  'test_core_edges',
  'test_command',
  'test_start',
  'test_resume',
  'test_methods',
  'test_identity',
)


def _known(flags):
  """Whether this jax accepts the flags: XLA ends the process at an unknown flag."""
  tried = subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    capture_output=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
  )
  return tried.returncode == 0


if 'XLA_FLAGS' not in os.environ:  # nor in a worker's, which has what the first process found
  os.environ['XLA_FLAGS'] = next((flags for flags in QUICK if _known(flags)), '')


def pytest_collection_finish():
  """Keeps what has been imported out of every later search for garbage, which takes a tenth."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope='session', autouse=True)
def shared_programs():
  """Runs of a session share the programs that they compile, those of commands among them."""
  tiny_runs = sys.modules.get('tiny_runs')
  if tiny_runs is None:  # no test trains
    yield
    return
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tiny_runs.program.Compiled, 'empty', lambda: tiny_runs.COMPILED)
    yield


@pytest.fixture(scope='module', autouse=True)
def room_for_programs():
  """Forgets compiled programs after a file that leaves many, so that later files can compile."""
  yield
  memory_maps = sys.modules.get('prunejax.train.memory_maps')
  if memory_maps is not None and memory_maps.share() > MANY_MAPS:
    for programs in sys.modules['tiny_runs'].COMPILED if 'tiny_runs' in sys.modules else ():
      programs.clear()
    sys.modules['jax'].clear_caches()
    gc.collect()
    # glibc keeps what compilers gave back, some gigabytes.
    getattr(ctypes.CDLL(None), 'malloc_trim', lambda _: 0)(0)


def _slow():
  """A pattern of the node ids in slow.txt."""
  lines = (pathlib.Path(__file__).parent / 'slow.txt').read_text().splitlines()
  rows = [re.escape(line).replace(r'\*', '.*') for line in lines if not line.startswith('#')]
  return re.compile(f'(?:tests/)?(?:{"|".join(rows)})')


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m leaves out
def pytest_collection_modifyitems(items):
  slow = _slow()
  for item in items:
    if slow.fullmatch(item.nodeid):
      item.add_marker(pytest.mark.slow)
  place = {name: i for i, name in enumerate(LONG)}
  items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))

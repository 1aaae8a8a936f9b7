"""Compiles every program of a grid for a topology and reports what each would take.

Each program is compiled in a process of its own. An answer is kept by the text of its program, so a
command that was killed goes on where it stopped.
"""

import concurrent.futures
import os
import pathlib
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from prunejax import files
from prunejax.topology import slices
from prunejax.train import console

WORKER = 'prunejax.topology.worker'
NEEDS = 6 * 2**30  # bytes of this machine that compiling BERT-Base for a TPU takes, and more


def compile_all(
  requests: Sequence,
  topology: str,
  *,
  cache: str = '',
  builder: str = 'prunejax.topology.programs',
  say: Callable[[str], None] = console.say,
) -> list[dict]:
  """Compiles programs, several at a time where this machine has the cores and the memory.

  Args:
    requests: `programs.Request`s, or what another builder takes; each has a `title`.
    topology: a name that `slices.check` has passed.
    cache: the folder of answers; '' for `cache_dir`.
    builder: see `worker.respond`.
    say: prints a line for each program.

  Returns:
    What `worker.respond` returns, for each request in order.

  Raises:
    ValueError: a worker found no such slice.
  """
  cache = cache or str(cache_dir())
  began, done, peaks, workers = time.perf_counter(), [], {}, set()
  jobs = _jobs(len(requests), topology)
  say(f'{topology}: {len(requests)} programs to compile, {jobs} at a time')

  def one(request):
    asked = {'topology': topology, 'request': request, 'cache': cache, 'builder': builder}
    answer = _asked({**asked, 'peaks': peaks.get(topology)}, workers)
    if topology in slices.OWN and 'chip' in answer:
      peaks[topology] = answer['chip']  # measured once for all programs of a table
    done.append(answer)
    took = f'{answer["seconds"]:.0f} s' + (', known' if answer.get('cached') else '')
    verdict = answer['reason'] or 'compiles'
    left = (time.perf_counter() - began) / len(done) * (len(requests) - len(done))
    pace = f'  about {console.clock(left)} left' if len(done) < len(requests) else ''
    say(f'  [{len(done)}/{len(requests)}] {request.title}: {verdict} ({took}){pace}')
    return answer

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    try:
      return list(pool.map(one, requests))
    except BaseException:  # SIGTERM and Ctrl-C too: no worker goes on without its command
      pool.shutdown(wait=False, cancel_futures=True)
      for process in list(workers):
        process.kill()
      raise


def cache_dir() -> pathlib.Path:
  """Returns the folder of answers: `compiled` in $PRUNEJAX_CACHE or ~/.cache/prunejax."""
  home = os.environ.get('PRUNEJAX_CACHE') or pathlib.Path.home() / '.cache' / 'prunejax'
  return pathlib.Path(home) / 'compiled'


def _jobs(count, topology):
  """How many programs are compiled at a time."""
  if topology in slices.OWN:
    return 1  # the devices are shared, and a CPU is measured
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  try:
    free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (ValueError, OSError, AttributeError):
    free = NEEDS
  return max(1, min(count, cores, free // NEEDS))


def _asked(asked: dict, workers: set):
  """The answer of a worker process; a process that dies is an answer too.

  Args:
    asked: the arguments of `worker.respond`.
    workers: gets the process as long as it runs.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'answer.json'
    began = time.perf_counter()
    process = subprocess.Popen(
      [sys.executable, '-m', WORKER, path],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      env=_environment(asked['topology']),
    )
    workers.add(process)
    _, errors = process.communicate(pickle.dumps(asked))
    workers.discard(process)
    if path.exists():
      return files.read_json(path)
    lines = errors.decode(errors='replace').strip().splitlines()
    last = ' '.join(lines[-1].split())[:300] if lines else ''
    status = process.returncode
    why = f'signal {-status}' if status < 0 else last or f'status {status}'
    if wrong := next((line for line in lines if line.startswith('ValueError: --topology=')), ''):
      raise ValueError(wrong.removeprefix('ValueError: '))
    seconds = round(time.perf_counter() - began, 1)
    return {'reason': f'the compiler ended with {why}', 'seconds': seconds}


def _environment(topology):
  """The environment of a worker, which finds this package where it is."""
  root = str(pathlib.Path(__file__).resolve().parents[2])
  path = os.pathsep.join(filter(None, (root, os.environ.get('PYTHONPATH', ''))))
  return {
    **os.environ,
    **slices.environment(topology),
    'PYTHONPATH': path,
    'TRANSFORMERS_VERBOSITY': 'error',
  }

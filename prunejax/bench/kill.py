"""Kills a sweep at random moments, again and again, and checks that its results do not change.

The real command runs in its own process: a sweep of two runs that save every second step, as one
program or one by one. It is killed while it starts, trains, saves a checkpoint, writes a model or
writes the ledger, sometimes with SIGTERM instead. A process that will be killed at its start is a
new one; any other is forked from a process that has imported everything.
"""

import collections
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from prunejax import files
from prunejax.bench import fork_server, measure, sizes
from prunejax.report import ledger
from prunejax.train import preemption

TARGET_SIZES = tuple(sizes.SIZES)  # a sweep has to survive at any size
ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """
from configs import base
from prunejax.train import configs

def get_config(arg):
  return configs.override(base.get_config(), {changes})

def sweep():
  yield {{}}
  yield {{'seed': 1}}
"""
CHANGES = {
  'model.hidden_size': 16,
  'model.num_hidden_layers': 1,
  'model.num_attention_heads': 2,
  'model.intermediate_size': 32,
  'model.max_position_embeddings': 16,
  'model.dropout': 0.1,
  'data.corpus': 'text',
  'data.vocab_size': 90,
  'data.seq_len': 16,
  'data.max_predictions': 4,
  'prune.weights.criterion': 'movement()',
  'prune.weights.schedule': 'cubic(0.5, end=8)',
  'prune.weights.when': 'every(3)',
  'batch_size': 4,
  'eval.batches': 2,
  'eval.batch_size': 4,
  'checkpoint.every': 2,
  'log.every': 3,
  'log.tensorboard': False,
  'log.who_pays': False,
}
WORDS = (
  'the a red old small tall kind cat dog bird tree house sees finds likes takes near under over'
).split()

SAVED = 10  # kills between two times that the rows so far are told
OUTPUT = 'output.txt'  # what the processes print
SHARES = (0.2, 0.25, 0.25, 0.15, 0.15)  # of the moments below, in their order
OPTIONS = ((), ('--one-by-one',))
# Fields of a row that depend on how it was computed: a member that is left over continues alone,
# with the same numbers.
COST = ('time', 'seconds', 'device_seconds', 'members', 'batching')


class Moment(NamedTuple):
  """When to kill: up to `spread` seconds after `watch` returns something new."""

  watch: Callable[[pathlib.Path], object] | None  # of the work directory; None: from the start on
  spread: float


def _moments(startup, training):
  """{name: moment}, for a start and a training of so many seconds."""
  count = lambda pattern: lambda work: sorted(str(p) for p in work.glob(pattern))
  return {
    'start-up': Moment(None, startup),
    'steps': Moment(
      lambda work: [p.stat().st_mtime_ns for p in work.glob('cells/*/metrics.jsonl')], training / 2
    ),
    'checkpoint': Moment(count('*/*/checkpoints/*tmp*'), 0.03),
    'model': Moment(count('cells/*/.model*'), 0.02),
    'ledger': Moment(
      lambda work: [*count('cells/*/result.json')(work), _size(work / 'ledger.jsonl')], 0.01
    ),
  }


def run(
  size: str, say: Callable[[str], None], times: int | None = None, **options
) -> Iterator[dict]:
  """Kills sweeps and compares how they end with one that was left alone.

  Args:
    size: a name of `sizes.SIZES`; 'tiny' takes fewer steps.
    say: prints one line.
    times: how often to kill; None for 20.
    **options: not used.

  Yields:
    Rows: kills and the moments they hit, sweeps that ended differently, damaged checkpoints, the
    status after SIGTERM, the time a kill takes. They come after every tenth kill and at the end,
    and replace the earlier ones.
  """
  del options
  times, rng, began = times or 20, np.random.default_rng(0), time.perf_counter()
  with tempfile.TemporaryDirectory(prefix='prunejax-kill-') as scratch:
    home = _home(pathlib.Path(scratch), 10 if size == 'tiny' else 30)
    with contextlib.closing(fork_server.Server(ROOT, _environment(home))) as server:
      startup = time.perf_counter() - began
      expected, training = {}, {}  # of a sweep that is left alone, by its options
      kills, sweeps, damaged, different = 0, 0, 0, []
      hits, statuses = collections.Counter(), collections.Counter()
      while kills < times:
        work, chosen, status = home / f'work{sweeps}', OPTIONS[sweeps % 2], None
        if chosen not in expected:
          alone = home / f'alone{len(chosen)}'
          training[chosen] = _run_alone(home, server, alone, chosen)
          expected[chosen] = outcome(alone)
        moments = _moments(startup, training[chosen])
        while status != 0:
          kill = kills < times and rng.random() < 0.95
          name = rng.choice(list(moments), p=SHARES)
          number = signal.SIGTERM if name != 'start-up' and rng.random() < 0.2 else signal.SIGKILL
          forked = not kill or moments[name].watch
          process = _start(home, work, chosen, server if forked else None)
          if not kill:
            status = _check(home, process.wait())
            continue
          status = _kill(home, process, work, moments[name], number, rng)
          if status == 0:
            continue
          kills += 1
          hits[name] += 1
          # A SIGTERM after the last row was written: there is nothing to start again for.
          late = status == -signal.SIGTERM and len(outcome(work)) == len(expected[chosen])
          statuses[number.name, preemption.RESTART if late else status] += 1
          if kills % SAVED == 0 and kills < times:
            say(f'  {kills} of {times} kills')
            yield from _rows(hits, statuses, sweeps, damaged, different, began)
        sweeps += 1
        damaged += len(list(work.glob('*/*/damaged-*')))
        different += [
          f'{work.name} {" ".join(chosen)}: {difference}'
          for difference in differences(expected[chosen], outcome(work))
        ]
  yield from _rows(hits, statuses, sweeps, damaged, different, began)


def _rows(hits, statuses, sweeps, damaged, different, began):
  """The rows of the kills so far; `sweeps` are those that have ended."""
  kills = hits.total()
  by_signal = collections.Counter()
  for (name, _), count in statuses.items():
    by_signal[name] += count
  where = ', '.join(f'{count} {name}' for name, count in sorted(hits.items()))
  how = f'{by_signal["SIGKILL"]} by kill -9, {by_signal["SIGTERM"]} by SIGTERM'
  yield measure.row('kills', kills, 'times', detail=f'at {where}; {how}')
  compared = 'ledger (numbers, mask hashes), weights and logged steps compared bit for bit'
  yield measure.row(
    'sweeps that ended differently',
    len(different),
    f'of {sweeps}',
    '== 0',
    '; '.join(different)[:300] or f'{compared} with a sweep left alone',
  )
  yield measure.row(
    'damaged checkpoints', damaged, '', detail='reported, set aside, and the one before used'
  )
  yield measure.row(
    f'SIGTERM that ended with {preemption.RESTART}',
    statuses['SIGTERM', preemption.RESTART],
    f'of {by_signal["SIGTERM"]}',
    f'== {by_signal["SIGTERM"]}',
  )
  yield measure.row(
    'time of a kill',
    (time.perf_counter() - began) / max(kills, 1),
    's',
    detail='start-up included',
  )


def _home(folder, steps):
  """Writes a corpus of sixty words and the config; returns the folder."""
  rng = np.random.default_rng(0)
  (folder / 'text').mkdir()
  for i in range(30):
    sentences = [' '.join(rng.choice(WORDS, 7)).capitalize() + '.' for _ in range(10)]
    (folder / 'text' / f'{i:02}.txt').write_text(' '.join(sentences))
  changes = {
    **CHANGES,
    'steps': steps,
    'data.root': str(folder),
    'data.cache': str(folder / 'cache'),
  }
  (folder / 'killed.py').write_text(CONFIG.format(changes=changes))
  return folder


def _environment(home):
  """Environment of the processes, which share compiled programs to start faster."""
  quick = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {quick}',
    'JAX_COMPILATION_CACHE_DIR': str(home / 'programs'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }


def _start(home, work, chosen, server=None):
  """Starts the sweep into the folder `work`; in a new process, if there is no server."""
  argv = ['sweep', f'--config={home}/killed.py', f'--workdir={work}', *chosen]
  if server:
    return server.start(argv, home / OUTPUT)
  with open(home / OUTPUT, 'ab') as output:
    command = [sys.executable, '-m', 'prunejax', *argv]
    return subprocess.Popen(command, cwd=ROOT, env=_environment(home), stdout=output, stderr=output)


def _run_alone(home, server, work, chosen):
  """Runs a sweep to its end, which compiles its programs; the seconds from its first step on."""
  process, first_step = _start(home, work, chosen, server), None
  while process.poll() is None:
    time.sleep(0.005)
    if first_step is None and list(work.glob('cells/*/metrics.jsonl')):
      first_step = time.perf_counter()
  _check(home, process.returncode)
  return time.perf_counter() - first_step


def _kill(home, process, work, moment, number, rng):
  """Sends a signal at a moment; returns the exit status, 0 if the process had ended before."""
  if moment.watch:
    before = moment.watch(work)
    while process.poll() is None and moment.watch(work) == before:
      time.sleep(0.001)
  try:
    process.wait(rng.random() * moment.spread)
  except subprocess.TimeoutExpired:
    process.send_signal(number)
  process.wait()
  return _check(home, process.returncode, {-signal.SIGKILL, -signal.SIGTERM, preemption.RESTART})


def _check(home, status, expected=()):
  """Returns the exit status, if it is 0 or expected; otherwise raises with the last output."""
  if status and status not in expected:
    lines = (home / OUTPUT).read_text(errors='replace').splitlines()
    raise RuntimeError(f'the sweep ended with status {status}: {" | ".join(lines[-3:])}')
  return status


def outcome(work: pathlib.Path) -> dict[str, object]:
  """Collects the results of a finished sweep that do not depend on how it was computed.

  Args:
    work: its work directory.

  Returns:
    {name: value or sha256} of the fields of ledger rows, the files of models and the logged steps.
  """
  collected = {}
  for row in ledger.read(work / 'ledger.jsonl'):
    cell = work / 'cells' / row['cell']
    collected |= {f'row {row["cell"]} {k}': v for k, v in row.items() if k not in COST}
    for path in sorted((cell / 'model').iterdir()):
      digest = hashlib.sha256(files.read(path, 2**40)).hexdigest()
      collected[f'{row["cell"]}/{path.name}'] = digest
    lines = map(json.loads, files.read(cell / 'metrics.jsonl').splitlines())
    collected[f'{row["cell"]} logged'] = [(line['kind'], line['step']) for line in lines]
  return collected


def differences(expected: dict[str, object], other: dict[str, object]) -> list[str]:
  """Compares two outcomes.

  Args:
    expected: of `outcome`.
    other: of `outcome`.

  Returns:
    Names whose values differ or that only one has, each with both values, shortened.
  """
  names = sorted(expected.keys() | other.keys())
  return [
    f'{name} ({str(expected.get(name))[:99]} / {str(other.get(name))[:99]})'
    for name in names
    if expected.get(name) != other.get(name)
  ]


def _size(path):
  return path.stat().st_size if path.exists() else 0

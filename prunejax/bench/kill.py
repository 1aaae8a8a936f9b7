"""`kill -9` at random moments, again and again, then on: does a sweep end as if nothing had happened?

The real command in a process of its own, a sweep of two runs that save every second step, as one program or one by one.
It is struck while it starts, steps, saves a checkpoint, writes a model, writes the ledger; with SIGTERM now and then
instead. A process that is to be struck while it starts is started by hand, any other is forked from one that has the
imports done.
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
from typing import NamedTuple

import numpy as np

from prunejax import files
from prunejax.bench import forks, measure
from prunejax.report import ledger
from prunejax.train import preemption

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
WORDS = 'the a red old small tall kind cat dog bird tree house sees finds likes takes near under over'.split()

SHARES = (0.2, 0.25, 0.25, 0.15, 0.15)  # of the moments below, in their order
WAYS = ((), ('--one-by-one',))
# What a row says of the way it came about: a member that is left alone goes on by itself, with the same numbers.
COST = ('time', 'seconds', 'device_seconds', 'members', 'batching')


class Moment(NamedTuple):
  """When to strike: after something is seen in the work directory, so many seconds later at most."""

  seen: object  # work directory -> something that changes
  spread: float


def _moments(startup, training):
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


def run(size, say, times=None, **_):
  """Rows of the table: strikes, the moments they hit, and the sweeps that ended otherwise than the one left alone."""
  times, rng, began = times or 20, np.random.default_rng(0), time.perf_counter()
  with (
    tempfile.TemporaryDirectory(prefix='prunejax-kill-') as scratch,
    contextlib.ExitStack() as stack,
  ):
    home = _home(pathlib.Path(scratch), 10 if size == 'tiny' else 30)
    server = stack.enter_context(contextlib.closing(forks.Server(ROOT, _environment(home))))
    startup, whole, training = time.perf_counter() - began, {}, {}
    done, hit, ends, other, sweeps, damaged = (
      0,
      collections.Counter(),
      collections.Counter(),
      [],
      0,
      0,
    )
    while done < times:
      work, status, way = home / f'work{sweeps}', -9, WAYS[sweeps % 2]
      if way not in whole:
        training[way] = _alone(home, server, home / f'whole{len(way)}', way)
        whole[way] = outcome(home / f'whole{len(way)}')
      moments = _moments(startup, training[way])
      while status != 0:
        strike = done < times and rng.random() < 0.95
        name = rng.choice(list(moments), p=SHARES)
        notice = signal.SIGTERM if name != 'start-up' and rng.random() < 0.2 else signal.SIGKILL
        process = _start(home, work, way, server if not strike or moments[name].seen else None)
        status = (
          _struck(home, process, work, moments[name], notice, rng)
          if strike
          else _end(home, process)
        )
        if strike and status != 0:
          done += 1
          hit[name] += 1
          # Told when all was done but the farewell: nothing is left to start again for.
          over = status == -signal.SIGTERM and len(outcome(work)) == len(whole[way])
          ends[notice.name, preemption.RESTART if over else status] += 1
          if done % 10 == 0:
            say(
              f'  {done} of {times} strikes, {sweeps} sweeps ended, {len(other)} otherwise than the one left alone'
            )
      sweeps += 1
      damaged += len(list(work.glob('*/*/damaged-*')))
      other += [
        f'{work.name} {" ".join(way)}: {what}' for what in differences(whole[way], outcome(work))
      ]
  killed = sum(n for (name, _), n in ends.items() if name == 'SIGKILL')
  told = {status: n for (name, status), n in ends.items() if name == 'SIGTERM'}
  where = ', '.join(f'{n} {name}' for name, n in sorted(hit.items()))
  by = f'{killed} by kill -9, {sum(told.values())} by SIGTERM'
  yield measure.row('strikes', done, 'times', detail=f'at {where}; {by}')
  yield measure.row(
    'sweeps that ended otherwise',
    len(other),
    f'of {sweeps}',
    '== 0',
    '; '.join(other)[:300]
    or 'ledger (numbers, mask hashes), weights and logged steps compared bit for bit with the sweep left alone',
  )
  yield measure.row(
    'checkpoints found damaged', damaged, '', detail='named, set aside, and the one before used'
  )
  yield measure.row(
    f'SIGTERM that ended with {preemption.RESTART}',
    told.get(preemption.RESTART, 0),
    f'of {sum(told.values())}',
    f'== {sum(told.values())}',
  )
  yield measure.row(
    'time of a strike',
    (time.perf_counter() - began) / max(done, 1),
    's',
    detail='start-up included',
  )


def _home(folder, steps):
  """A corpus of sixty words, the config, and a place for compiled programs: a start is what takes the time."""
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
  """Of the processes; a program is compiled once, in a hurry, and read again by all."""
  hurry = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {hurry}',
    'JAX_COMPILATION_CACHE_DIR': str(home / 'programs'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
  }


def _start(home, work, way, server=None):
  argv = ['sweep', f'--config={home}/killed.py', f'--workdir={work}', *way]
  if server:
    return server.start(argv, home / 'said.txt')
  with open(home / 'said.txt', 'ab') as said:
    command = [sys.executable, '-m', 'prunejax', *argv]
    return subprocess.Popen(command, cwd=ROOT, env=_environment(home), stdout=said, stderr=said)


def _alone(home, server, work, way):
  """Runs a sweep to its end, which also makes its programs; the seconds from its first step to its end."""
  process, seen = _start(home, work, way, server), None
  while process.poll() is None:
    time.sleep(0.005)
    seen = seen or (time.perf_counter() if list(work.glob('cells/*/metrics.jsonl')) else None)
  _check(home, process.returncode)
  return time.perf_counter() - seen


def _end(home, process):
  process.wait()
  return _check(home, process.returncode)


def _struck(home, process, work, moment, notice, rng):
  """The status of a process that was struck at a moment, or was done before: 0."""
  before = moment.seen and moment.seen(work)
  while moment.seen and process.poll() is None and moment.seen(work) == before:
    time.sleep(0.001)
  try:
    process.wait(rng.random() * moment.spread)
  except subprocess.TimeoutExpired:
    process.send_signal(notice)
  process.wait()
  return _check(home, process.returncode, {-signal.SIGKILL, -signal.SIGTERM, preemption.RESTART})


def _check(home, status, expected=()):
  if status and status not in expected:
    said = (home / 'said.txt').read_text(errors='replace').splitlines()
    raise RuntimeError(f'the sweep ended with status {status}: {" | ".join(said[-3:])}')
  return status


def outcome(work) -> dict:
  """What a finished sweep leaves, without what it cost: {what: its content or digest}."""
  found = {}
  for row in ledger.read(work / 'ledger.jsonl'):
    found |= {f'row {row["cell"]} {k}': v for k, v in row.items() if k not in COST}
    for path in sorted((work / 'cells' / row['cell'] / 'model').iterdir()):
      found[f'{row["cell"]}/{path.name}'] = hashlib.sha256(files.read(path, 2**40)).hexdigest()
    logged = files.read(work / 'cells' / row['cell'] / 'metrics.jsonl').splitlines()
    found[f'{row["cell"]} logged'] = [
      (line['kind'], line['step']) for line in map(json.loads, logged)
    ]
  return found


def differences(whole, other) -> list:
  """What two outcomes do not share, and where they are short, how they differ."""
  names = sorted(name for name in whole.keys() | other.keys() if whole.get(name) != other.get(name))
  return [f'{name} ({str(whole.get(name))[:99]} / {str(other.get(name))[:99]})' for name in names]


def _size(path):
  return path.stat().st_size if path.exists() else 0

"""Seconds, memory and perplexity of one pruning beside a plain PyTorch program, on one machine.

  python -m experiments.oneshot2023.side_by_side --root=DATA --torch=PYTHON --out=FILE.json

Both programs get the same tokens, one after the other, in processes of their own. PYTHON is an
interpreter with torch, transformers and gguf.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

REFERENCE = pathlib.Path(__file__).with_name('torch_reference.py')


def main():
  """Runs both programs, or one part of ours."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--root')
  parser.add_argument('--torch')
  parser.add_argument('--out')
  parser.add_argument('--segments', type=int, default=8)
  parser.add_argument('--length', type=int, default=512)
  parser.add_argument('--windows', type=int, default=8)
  parser.add_argument('--parts', default='prune,evaluate')
  parser.add_argument('--threads', type=int, default=0)
  parser.add_argument('--ours', nargs=3, metavar=('PART', 'MODEL', 'TOKENS'))
  args = parser.parse_args()
  if args.ours:
    return _ours(*args.ours)
  from experiments.oneshot2023 import smollm2
  from prunejax.models import installed

  model = str(installed.find(smollm2.MODEL))
  rows = []
  with tempfile.TemporaryDirectory() as scratch:
    tokens = pathlib.Path(scratch) / 'tokens.npz'
    test = smollm2._test_tokens(args.root)
    np.savez(
      tokens,
      segments=smollm2._segments(args.root, args.segments, args.length, 0),
      windows=test[: args.windows * smollm2.WINDOW].reshape(args.windows, smollm2.WINDOW),
    )
    threads = [f'--threads={args.threads}'] if args.threads else []
    for part in args.parts.split(','):
      commands = {
        'prunejax': [sys.executable, '-m', __spec__.name, '--ours', part, model, str(tokens)],
        'PyTorch': [
          args.torch,
          str(REFERENCE),
          model,
          str(tokens),
          f'--part={part}',
          *threads,
        ],
      }
      for name, command in commands.items():
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append({'program': name, 'part': part, **json.loads(done.stdout.splitlines()[-1])})
        print(json.dumps(rows[-1]), flush=True)
  sizes = {k: getattr(args, k) for k in ('segments', 'length', 'windows', 'threads')}
  if args.out:
    found = {**sizes, 'rows': rows, 'ours over PyTorch': _ratios(rows)}
    pathlib.Path(args.out).write_text(json.dumps(found, indent=1) + '\n')


def _ratios(rows) -> dict:
  """{part: {what was measured: ours divided by that of PyTorch}}."""
  measured = {(row['program'], row['part']): row for row in rows}
  return {
    part: {
      key: round(value / measured['PyTorch', part][key], 3)
      for key, value in row.items()
      if key not in ('program', 'part', 'sparsity')
    }
    for (program, part), row in measured.items()
    if program == 'prunejax'
  }


def _ours(part, where, tokens):
  """One part of our side; the last line is JSON."""
  import prunejax
  from prunejax import oneshot
  from prunejax.evaluation import perplexity
  from prunejax.oneshot import decoders
  from prunejax.train import saved_model

  given = dict(np.load(tokens))
  # As the command does, pruning leaves the model in its file and writes each block when it is done.
  model = saved_model.load(where, parts=part == 'prune')
  out, start = {}, time.perf_counter()
  if part == 'prune':
    pruned = oneshot.prune(
      decoders.of_size(model.size),
      model.params,
      given['segments'].astype(np.int32),
      criterion=prunejax.sparsegpt(),
      sparsity=0.5,
      folder=pathlib.Path(tokens).with_name('state'),
      settings={'model': where},
      say=lambda line: print(line, flush=True),
    )
    removed, weights = (sum(row[key] for row in pruned.rows) for key in ('removed', 'weights'))
    out = {'prune_seconds': time.perf_counter() - start, 'sparsity': removed / weights}
  else:
    windows = given['windows'].astype(np.int32)
    score = perplexity.scorer(perplexity.running(model.size, model.params))
    losses, ends = [], [start]
    for window in windows:
      losses.append(float(score(window).mean()))
      ends.append(time.perf_counter())
    seconds = ends[-1] - start
    out = {
      'perplexity': float(np.exp(np.mean(losses))),
      'evaluate_seconds': seconds,
      'tokens_per_second': windows.size / seconds,
      'window_seconds': float(np.median(np.diff(ends)[1:])),  # the first one compiles
    }
  out['peak_gib'] = _peak_gib()
  print(json.dumps(out))


def _peak_gib() -> float:
  """The most memory that this program has held. `ru_maxrss` would count what its parent held."""
  status = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(r'VmHWM:\s*(\d+) kB', status)[1]) / 2**20


if __name__ == '__main__':
  main()

"""A text of sixty words, a model of width sixteen and its config, for the tests of training."""

import atexit
import functools
import json
import os
import pathlib
import shutil
import tempfile
from typing import NamedTuple

import numpy as np
import safetensors.numpy

import prunejax
from configs import base
from prunejax.train import checkpoint, configs, loop, optimizer, program, recipe, sharding

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE = {
  'model.hidden_size': 16,
  'model.num_hidden_layers': 1,
  'model.num_attention_heads': 2,
  'model.intermediate_size': 32,
  'model.max_position_embeddings': 16,
  'model.dropout': 0.0,
  'model.initializer': 'fan_in',
}
SHORT = {
  'data.corpus': 'text',
  'data.vocab_size': 120,
  'data.seq_len': 16,
  'data.predict': 0.3,
  'data.max_predictions': 5,
  'data.pairs': 'first',  # as the packaged configs
  'optimizer.learning_rate': 1e-2,
  'steps': 12,
  'batch_size': 8,
  'eval.batches': 2,
  'eval.batch_size': 8,
  'checkpoint.every': 4,
  'log.every': 3,
  'log.tensorboard': False,
  'log.who_pays': False,
}
QUICK_COMPILE = os.environ.get('XLA_FLAGS', '')  # see conftest.py
EXACT_COMPILE = QUICK_COMPILE.replace('--xla_cpu_use_fusion_emitters=false', '')
PRUNED = {'prune.weights.schedule': 'cubic(0.5, end=6)', 'prune.weights.when': 'every(2)'}


@functools.cache
def home():
  """A folder that is removed at the end of the test session; `text` in it is the corpus."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='prunejax-tests-'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  write_text(folder / 'text')
  write_glue(folder)
  return folder


def write_text(folder, documents=40, seed=0):
  """Documents of twelve sentences, one per file; each word is informative about the next."""
  rng = np.random.default_rng(seed)
  words = [
    a + b for a in 'b d f g k l m n p r s t'.split() for b in ('a', 'eni', 'oru', 'ist', 'u')
  ]
  folder.mkdir(parents=True)
  for i in range(documents):
    sentences = []
    for _ in range(12):
      at = rng.integers(len(words))
      chosen = [words[(at + 7 * j + rng.integers(3)) % len(words)] for j in range(8)]
      sentences.append(' '.join(chosen).capitalize() + '.')
    (folder / f'{i:03}.txt').write_text(' '.join(sentences) + '\n')
  return folder


def overrides(**changes):
  """Flat overrides of a tiny run; `a__b=value` is the key a.b."""
  shared = {'data.root': str(home()), 'data.cache': str(home() / 'cache')}
  return {**SIZE, **SHORT, **shared, **{k.replace('__', '.'): v for k, v in changes.items()}}


def config(pruned=True, **changes):
  """The ConfigDict of a tiny run."""
  return configs.override(base.get_config(), {**(PRUNED if pruned else {}), **overrides(**changes)})


COMPILED = program.Compiled.empty()  # programs that the runs of this process share


def train(config, folder, **how):
  """`loop.train` of a config, with the programs that other tests have compiled."""
  return loop.train(recipe.resolve(config), folder, **{'compiled': COMPILED, **how})


class Run(NamedTuple):
  """A finished run: its folder, its result and its printed lines."""

  folder: pathlib.Path
  result: dict
  lines: list


@functools.cache
def finished(name, pruned=True, **changes):
  """A run that tests share, trained once in a session in home()/name."""
  lines, folder = [], home() / 'runs' / name
  result = train(config(pruned, **changes), folder, title=name, say=lines.append)
  return Run(folder, result, lines)


class _Stop(Exception):
  pass


def stopped(folder, words, **changes):
  """Stops a run in `folder` at the first line with `words`, and returns `folder`."""

  def say(line):
    if words in line:
      raise _Stop

  try:
    train(config(**changes), folder, say=say)
  except _Stop:
    return folder
  raise AssertionError(f'no line has {words!r}')


def newest(folder):
  """(step, hash of the masks) of the newest checkpoint of a run, read on the devices at hand."""
  resolved = recipe.resolve(config())
  tx = optimizer.make(resolved)
  functions = program.build(resolved, *program.read_inputs(resolved), tx, COMPILED)
  abstract = program.abstract_state(resolved, functions, tx)
  manager = checkpoint.manager(folder / 'checkpoints', keep=9)
  shardings = sharding.shard(abstract, sharding.make_mesh())
  state, damaged = checkpoint.restore(manager, abstract, shardings)
  manager.close()
  assert damaged == []
  return int(state['step']), prunejax.mask_hash(
    prunejax.get_masks(state['opt_state'], state['params'])
  )


def weights(folder):
  """The exported model as one flat dict of arrays."""
  return safetensors.numpy.load_file(folder / 'model' / 'model.safetensors')


def same_weights(a, b):
  """Whether two exported models are equal bit for bit."""
  a, b = weights(a), weights(b)
  assert a.keys() == b.keys()
  return all(np.array_equal(a[name].view(np.int32), b[name].view(np.int32)) for name in a)


def plain(run):
  """The result of a run without its time."""
  return {k: v for k, v in run.items() if k != 'seconds'}


def write_glue(folder, rows=48, seed=0):
  """A CoLA folder in GLUE's layout: the first word tells the label."""
  rng = np.random.default_rng(seed)
  (folder / 'glue' / 'CoLA').mkdir(parents=True)
  for split in ('train', 'dev'):
    lines = []
    for label in rng.integers(0, 2, rows):
      text = ' '.join([('ba', 'tu')[label], *rng.choice(['deni', 'foru', 'gist', 'ku'], 4)])
      lines.append(f'made\t{label}\t{"" if label else "*"}\t{text}.\n')
    (folder / 'glue' / 'CoLA' / f'{split}.tsv').write_text(''.join(lines))
  return folder


def argv(verb, workdir, **changes):
  """The arguments of a command line with the same overrides."""
  keys = [f'--config.{k}={v}' for k, v in overrides(**changes).items()]
  return [verb, '--config=configs/base.py', f'--workdir={workdir}', *keys]


def rows(folder):
  """metrics.jsonl, parsed."""
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]

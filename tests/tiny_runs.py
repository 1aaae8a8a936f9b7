"""A text of sixty words, a model of sixteen units and its config: what tests of training share."""

import atexit
import functools
import json
import pathlib
import shutil
import tempfile

import numpy as np

from configs import base
from prunejax.train import configs

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
  'optimizer.learning_rate': 1e-2,
  'steps': 12,
  'batch_size': 8,
  'eval.batches': 2,
  'eval.batch_size': 8,
  'checkpoint.every': 4,
  'log.every': 3,
  'log.tensorboard': False,
}
PRUNED = {'prune.weights.schedule': 'cubic(0.5, end=6)', 'prune.weights.when': 'every(2)'}


@functools.cache
def home():
  """A folder of this test session, taken away at its end; `text` in it is the corpus."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='prunejax-tests-'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  write_text(folder / 'text')
  return folder


def write_text(folder, documents=40, seed=0):
  """Documents of twelve sentences, one a file, in which a word tells something of the next one."""
  rng = np.random.default_rng(seed)
  words = [a + b for a in 'b d f g k l m n p r s t'.split() for b in ('a', 'eni', 'oru', 'ist', 'u')]
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


def argv(verb, workdir, **changes):
  """The same as a command line."""
  keys = [f'--config.{k}={v}' for k, v in overrides(**changes).items()]
  return [verb, '--config=configs/base.py', f'--workdir={workdir}', *keys]


def rows(folder):
  """metrics.jsonl, parsed."""
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]

"""Whether the input pipeline keeps ahead of the step, from the tokenised cache on."""

import functools
import pathlib
import tempfile
import time

import jax
import numpy as np

from prunejax.bench import measure, train
from prunejax.data import wordpiece
from prunejax.train import inputs, optimizer
from prunejax.train import program as programs

DOCUMENTS = {'tiny': 40, 'small': 400, 'base': 4000, 'large': 4000}
STEPS = {'tiny': 4, 'small': 40, 'base': 200, 'large': 200}
RECIPE = {32: inputs.pretraining.Recipe(32, 0.15, 5), 128: inputs.pretraining.Recipe(128, 0.15, 20)}


def run(size, say, **options):
  """Rows: examples a second of both kinds of input and of the packaged model's step; how long steps waited."""
  del options
  with tempfile.TemporaryDirectory(prefix='prunejax-bench-') as folder:
    say(f'  writing and tokenising {DOCUMENTS[size]} documents')
    tokenizer = wordpiece.load(inputs.NANO)
    write(pathlib.Path(folder), wordpiece.pieces(tokenizer), DOCUMENTS[size])
    shared = dict(root=folder, cache=folder, seed=0)
    pretraining = {
      (rows, length): inputs.pretraining_data(
        tokenizer, 'text', RECIPE[length], batch_size=rows, eval_batches=1, eval_size=8, **shared
      ).train
      for rows, length in ((32, 32), (32, 128), (256, 128))
    }
    finetuning = inputs.finetuning_data(
      tokenizer, 'glue/cola', seq_len=32, examples=0, batch_size=32, eval_size=8, **shared
    ).train
    rates = {}
    for name, rows, batch in [
      *((f'pre-training, batch {rows} x {length}', rows, batch) for (rows, length), batch in pretraining.items()),
      ('fine-tuning, batch 32 x 32', 32, finetuning),
    ]:
      rates[name] = rows / _seconds(batch, STEPS[size])
      yield measure.row(f'{name}, made', rates[name], 'examples/s', '', 'one thread, from the tokenised cache')
    say('  the packaged model')
    yield from _fed(pretraining[32, 32], STEPS[size], rates['pre-training, batch 32 x 32'])
    yield from _slow(pretraining[256, 128], STEPS[size] // 4 + 2)


def _fed(batch, steps, made):
  """Rows of the packaged model's step: what it uses when inputs cost nothing, what it waits for when they are made."""
  same = batch(0)
  step, _ = _nano(same)
  taken = measure.interleaved({'step': lambda: step(same)}, rounds=max(steps // 2, 3), seconds=20)['step']
  used = len(same['input_ids']) / taken.median
  yield measure.row(
    'pre-training, made against used', made / used, 'x the step', '>= 1',
    f'the packaged model uses {used:,.0f} examples/s: {taken} a step, its batch in memory',
  )
  yield _waits('pre-training, packaged model', *waiting(step, batch, steps))


def _slow(batch, steps):
  """A step that takes no core: as on an accelerator, which needs some 40 ms for as many tokens of BERT-Base."""
  waits = waiting(lambda _: time.sleep(0.02), batch, steps)
  yield _waits('pre-training, batch 256 x 128, a step of 20 ms elsewhere', *waits)


def waiting(step, batch, steps):
  """(seconds that each step after the first waited for its batch, seconds of all of them)."""
  waits, ready = [], inputs.prefetch(batch, 0, steps)
  jax.block_until_ready(step(next(ready)))
  began = time.perf_counter()
  for _ in range(1, steps):
    start = time.perf_counter()
    given = next(ready)
    waits.append(time.perf_counter() - start)
    jax.block_until_ready(step(given))
  return np.array(waits), time.perf_counter() - began


def _waits(name, waits, total):
  share = 100 * waits.sum() / total
  return measure.row(
    f'{name}, waited', share, '% of the time', '<= 1',
    f'{len(waits)} steps after the first: the median waited {measure.clock(np.median(waits))},'
    f' the longest {measure.clock(waits.max())}, of {measure.clock(total / len(waits))} a step',
  )


def _seconds(batch, steps):
  """Median seconds to make one batch; the first, which sets up an epoch, is not counted."""
  times = []
  for step in range(steps + 1):
    start = time.perf_counter()
    batch(step)
    times.append(time.perf_counter() - start)
  return float(np.median(times[1:]))


def _nano(batch):
  """The packaged model's step, batch -> metrics, as `loop.train` takes it."""
  changes = dict(init='nano', model__dropout=0.0, model__initializer='fan_in', data__seq_len=32)
  config = train.config_of('tiny', **changes, data__max_predictions=5)
  source = inputs.source('nano', None, '', 0, '', None, None)
  tx = optimizer.make(config)
  return train.stepping(config, tx, programs.build(config, source, inputs.Data(None, None, None, None, 0), tx), batch)


def write(folder, pieces, documents):
  """`documents` texts of the vocabulary's own words in folder/text, and a CoLA table of as many rows."""
  rng = np.random.default_rng(0)
  words = np.array([piece for piece in pieces if piece.isalpha() and piece.isascii() and len(piece) > 1])
  sentence = functools.partial(_sentence, rng, words)
  (folder / 'text').mkdir()
  with open(folder / 'text' / 'wiki_00', 'w', encoding='utf-8') as shard:
    for number in range(documents):
      shard.write(f'<doc id="{number}">\n' + ' '.join(sentence() for _ in range(20)) + '\n</doc>\n')
  (folder / 'glue' / 'CoLA').mkdir(parents=True)
  for split in ('train', 'dev'):
    table = ''.join(f'made\t{i % 2}\t\t{sentence()}\n' for i in range(documents))
    (folder / 'glue' / 'CoLA' / f'{split}.tsv').write_text(table)


def _sentence(rng, words):
  return ' '.join(rng.choice(words, 12)).capitalize() + '.'

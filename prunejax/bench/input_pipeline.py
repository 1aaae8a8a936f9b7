"""Measures whether the input pipeline, from the tokenised cache on, is faster than the step."""

import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from prunejax.bench import measure, train_step
from prunejax.data import wordpiece
from prunejax.train import inputs, loop, optimizer
from prunejax.train import program as programs

DOCUMENTS = {'tiny': 40, 'small': 400, 'base': 4000, 'large': 4000}
ROWS = {'tiny': 2, 'small': 32, 'base': 32, 'large': 32}
STEPS = {'tiny': 4, 'small': 40, 'base': 100, 'large': 100}
RECIPE = {32: inputs.pretraining.Recipe(32, 0.15, 5), 128: inputs.pretraining.Recipe(128, 0.15, 20)}


def run(size: str, say: Callable[[str], None], **options) -> Iterator[dict]:
  """Measures how fast inputs are made and used, and how long steps wait for them.

  Args:
    size: a name of `sizes.SIZES`: number of documents, batch size, steps.
    say: prints one line.
    **options: not used.

  Yields:
    Rows: examples a second of both kinds of input; the packaged model's step; the time it waits.
  """
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
      for rows, length in ((ROWS[size], 32), (32, 128), (256, 128))
    }
    finetuning = inputs.finetuning_data(
      tokenizer, 'glue/cola', seq_len=32, examples=0, batch_size=32, eval_size=8, **shared
    ).train
    rates = {}
    for name, rows, batch in [
      *(
        (f'pre-training, batch {rows} x {length}', rows, batch)
        for (rows, length), batch in pretraining.items()
      ),
      ('fine-tuning, batch 32 x 32', 32, finetuning),
    ]:
      rates[name] = rows / _seconds(batch, STEPS[size])
      yield measure.row(
        f'{name}, made', rates[name], 'examples/s', '', 'one thread, from the tokenised cache'
      )
    say('  the packaged model')
    rows = ROWS[size]
    yield from _fed(
      pretraining[rows, 32], rows, STEPS[size], rates[f'pre-training, batch {rows} x 32'], folder
    )
    yield from _slow(pretraining[256, 128], STEPS[size] // 4 + 2)


def _fed(batch, rows, steps, made, folder):
  """Rows of the packaged model's step: examples it uses, time it waits, its rate in a whole run."""
  same = batch(0)
  run = _nano(folder, rows, steps)
  step, _ = train_step.stepping(*_built(run), same)
  rounds = max(steps // 2, 3)
  times = measure.interleaved({'step': lambda: step(same)}, rounds, seconds=15)['step']
  used = rows / times.median
  yield measure.row(
    'pre-training, made against used',
    made / used,
    'x the step',
    '>= 1',
    f'the packaged model uses {used:,.0f} examples/s: {times} a step, its batch in memory',
  )
  yield _waits('pre-training, packaged model', *waiting(step, batch, steps))
  pairs = []
  for turn in range(3):
    began = time.perf_counter()
    for _ in range(steps):
      metrics = step(same)
    jax.block_until_ready(metrics)
    alone = steps / (time.perf_counter() - began)
    pairs.append((alone, _whole_run(run, pathlib.Path(folder) / f'run-{turn}')))
  alone, whole = np.median(pairs, axis=0)
  yield measure.row(
    'a whole run, packaged model',
    np.median([b / a for a, b in pairs]),
    'x the bare step',
    '>= 0.95',
    f'loop.train with inputs, log lines and TensorBoard, {whole:.1f} steps/s; its step alone on'
    f' one batch, {alone:.1f}; {len(pairs)} turns of {steps} steps',
  )


def _whole_run(run, folder):
  """Steps a second of `loop.train` after its first step, from its own log."""
  loop.train(run, folder, say=lambda line: None)
  rows = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  return [
    row['steps_per_second'] for row in rows if row['kind'] == 'train' and 'steps_per_second' in row
  ][-1]


def _slow(batch, steps):
  """Row of a step that takes no core, as on an accelerator (40 ms for a BERT-Base)."""
  waits = waiting(lambda _: time.sleep(0.02), batch, steps)
  yield _waits('pre-training, batch 256 x 128, a step of 20 ms elsewhere', *waits)


def waiting(
  step: Callable[[Any], Any], batch: Callable[[int], Any], steps: int
) -> tuple[np.ndarray, float]:
  """Measures how long steps wait for their batches.

  Args:
    step: batch -> anything.
    batch: step number -> batch.
    steps: how many; the first is not measured.

  Returns:
    The seconds that each step waited, and the seconds of all steps together.
  """
  waits, batches = [], inputs.prefetch(batch, 0, steps)
  jax.block_until_ready(step(next(batches)))
  began = time.perf_counter()
  for _ in range(1, steps):
    start = time.perf_counter()
    current = next(batches)
    waits.append(time.perf_counter() - start)
    jax.block_until_ready(step(current))
  return np.array(waits), time.perf_counter() - began


def _waits(name, waits, total):
  share = 100 * waits.sum() / total
  return measure.row(
    f'{name}, waited',
    share,
    '% of the time',
    '<= 1',
    f'{len(waits)} steps after the first: median wait {measure.clock(np.median(waits))},'
    f' longest {measure.clock(waits.max())}, of {measure.clock(total / len(waits))} a step',
  )


def _seconds(batch, steps):
  """Median seconds to make one batch. The first, which sets up an epoch, is not counted."""
  times = []
  for step in range(steps + 1):
    start = time.perf_counter()
    batch(step)
    times.append(time.perf_counter() - start)
  return float(np.median(times[1:]))


def _nano(folder, rows, steps):
  """The recipe of the packaged model on the text of `write`."""
  return train_step.recipe_of(
    'tiny',
    init='nano',
    model__dropout=0.0,
    model__initializer='fan_in',
    steps=steps,
    batch_size=rows,
    data__corpus='text',
    data__root=str(folder),
    data__cache=str(folder),
    data__seq_len=32,
    data__max_predictions=5,
    keep_model=False,
    eval__batches=1,
    eval__batch_size=rows,
    checkpoint__every=0,
    log__every=max(steps // 10, 1),
  )


def _built(run):
  """(recipe, tx, program), as `train_step.stepping` takes them."""
  tx = optimizer.make(run)
  source, data = programs.read_inputs(run)
  return run, tx, programs.build(run, source, data, tx)


def write(folder: pathlib.Path, pieces: Iterable[str], documents: int):
  """Writes random text in folder/text and a CoLA table in folder/glue.

  Args:
    folder: where to write.
    pieces: the vocabulary whose words are used.
    documents: number of documents, and of rows of the table.
  """
  rng = np.random.default_rng(0)
  words = np.array(
    [piece for piece in pieces if piece.isalpha() and piece.isascii() and len(piece) > 1]
  )
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

"""What a run reads: the model's size, vocabulary and weights, and its batches. Plain arguments in, numpy out."""

import functools
import pathlib
from typing import Any, NamedTuple

import grain
import numpy as np
import tokenizers

from prunejax import files
from prunejax.data import corpus, finetuning, pretraining, pydoc, tasks, wordpiece
from prunejax.train import families

NANO = pathlib.Path(__file__).parent.parent / 'models' / 'nano'


class Source(NamedTuple):
  """Where a model comes from. `folder` is None for a fresh one."""

  size: Any
  tokenizer: Any
  folder: pathlib.Path | None


class Data(NamedTuple):
  """Batches of one run. `train(step)` is a pure function; `held_out()` and `train_set()` iterate once over theirs."""

  train: Any
  held_out: Any
  train_set: Any  # None in pre-training
  task: Any  # tasks.Task, None in pre-training
  rows: int  # examples or windows to train on
  majority: float | None = None  # held-out accuracy of always saying the commonest class


def text_of(data):
  """Twelve hex digits that change with the text that the group `data` of a config names, as it is on this machine.

  '' where its name says which text it is: TFDS, GLUE, the other data sets.
  """
  if data.task:
    return pydoc.signature()[:12] if data.task.startswith('pydoc/') else ''
  local = '+'.join(
    source.name for source in corpus.sources(data.corpus) if not source.name.startswith('tfds:')
  )
  if not local:
    return ''
  encoding = data.get('encoding', 'utf-8')  # configs written before there was this key lack it
  return corpus.key(local, data.root or None, data.cache or None, encoding=encoding)[-12:]


def folder_of(init):
  """'nano' is the model in the package; anything else is a folder."""
  if init == 'nano':
    if not (NANO / 'model.safetensors').exists():
      raise FileNotFoundError(
        "init='nano': this copy of prunejax has no packaged model; train it with configs/nano.py"
      )
    return NANO
  folder = pathlib.Path(files.local(files.path(init)))
  if not folder.is_dir():
    raise FileNotFoundError(
      f"init={init!r} is no folder: expected 'nano', or a folder with config.json, model.safetensors and the vocabulary"
      ' as Hugging Face has them'
    )
  return folder


def source(
  init, fresh_size, vocab, vocab_size, corpus_spec, root, cache, kind='bert', encoding='utf-8'
) -> Source:
  """Finds size and vocabulary: the folder's when `init` names one, else `fresh_size` (`kinds.SIZE_KEYS`) of a `kind` of
  model and `vocab` or a trained one."""
  if init:
    folder = folder_of(init)
    of = families.in_folder(folder)
    tokenizer = of.words.load(vocab or folder)
    size = of.files.read_size(folder)
  else:
    folder, of = None, families.KINDS[kind]
    tokenizer = (
      of.words.load(vocab)
      if vocab
      else trained(corpus_spec, vocab_size, root, cache, of.words, encoding)
    )
    size = families.fresh_size(of, fresh_size, tokenizer.get_vocab_size())
  if tokenizer.get_vocab_size() != size.vocab_size:
    raise ValueError(
      f'the vocabulary {str(vocab or folder)!r} has {tokenizer.get_vocab_size()} pieces, the model {size.vocab_size}'
    )
  return Source(families.read_only(of, size), tokenizer, folder)


def trained(spec, vocab_size, root, cache, words=wordpiece, encoding='utf-8'):
  """A vocabulary of the module `words` trained on the corpus, once: the cache keeps it."""
  name = f'{corpus.key(spec, root, cache, encoding=encoding)}-{vocab_size}'
  path = corpus.cache_dir(cache) / 'vocab' / f'{name}.{"txt" if words is wordpiece else "json"}'
  if path.exists():
    return words.load(path)
  lines = corpus.lines(spec, root=root, cache=cache, encoding=encoding)
  tokenizer = words.train(lines, vocab_size)
  text = (
    ''.join(piece + '\n' for piece in words.pieces(tokenizer))
    if words is wordpiece
    else tokenizer.to_str()
  )
  files.create(path, text)
  return words.load(path)  # of several processes that trained one, all take the first


def pretraining_data(
  tokenizer,
  spec,
  recipe,
  *,
  root,
  cache,
  seed,
  batch_size,
  eval_batches,
  eval_size,
  part=(0, 1),
  how=pretraining,
  encoding='utf-8',
):
  """Batches from a corpus: of those to train on `part` (index, count), held-out ones whole.

  how: the module that makes examples: data.pretraining, or data.causal for a decoder.
  """
  words = tokenizer.to_str()
  key = corpus.key(spec, root, cache, encoding=encoding)
  train, held = (
    _stream(how, words, spec, split, recipe, root, cache, encoding, key)
    for split in ('train', 'validation')
  )

  def held_out():
    # Always the same held-out examples, whatever the run's seed: losses of different runs can be compared.
    for i in range(eval_batches):
      yield how.batch(held, 0, i, eval_size)

  batch = lambda step: how.batch(train, seed, step, batch_size, *part)
  return Data(batch, held_out, None, None, len(train.windows))


def finetuning_data(
  tokenizer, name, *, root, cache, seq_len, examples, seed, batch_size, eval_size, part=(0, 1)
):
  """Batches of a labelled task, as above. `examples` > 0 trains on that many, drawn by `seed`."""
  task = tasks.get(name)
  words = tokenizer.to_str()
  train, held = (
    _encoded(words, name, split, seq_len, root, cache) for split in ('train', 'validation')
  )
  if examples:
    train = finetuning.subset(train, examples, seed)
  batch = lambda step: finetuning.batch(train, seed, step, batch_size, *part)
  return Data(
    batch,
    lambda: finetuning.eval_batches(held, eval_size),
    lambda: finetuning.eval_batches(train, eval_size),
    task,
    len(train['label']),
    float(np.bincount(held['label']).max() / len(held['label'])) if task.classes else None,
  )


# The runs of a grid share their inputs, and what a tokenizer is written as says all about it: each is made once a
# process.
@functools.lru_cache(maxsize=8)
def _stream(how, words, spec, split, recipe, root, cache, encoding, key):
  del key  # it tells one text from another under the same name
  tokenizer = tokenizers.Tokenizer.from_str(words)
  part = corpus.load(spec, split, tokenizer, root=root, cache=cache, encoding=encoding)
  return how.stream(part, tokenizer, recipe)


@functools.lru_cache(maxsize=32)
def _encoded(words, name, split, seq_len, root, cache):
  examples = tasks.load(name, split, root=root, cache=cache)
  return finetuning.encode(examples, tokenizers.Tokenizer.from_str(words), seq_len)


def prefetch(batch, start, stop):
  """Batches start .. stop, made ahead of the step by one thread. The position is the step: nothing else to save."""
  if start >= stop:
    return iter(())
  dataset = grain.MapDataset.range(start, stop).map(lambda step: batch(int(step)))
  return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

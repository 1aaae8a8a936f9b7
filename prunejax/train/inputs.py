"""What a run reads: the model's size, vocabulary and weights, and its batches. Plain arguments in, numpy out."""

import functools
import pathlib
from typing import Any, NamedTuple

import grain
import numpy as np
import transformers

from prunejax import files
from prunejax.data import corpus, finetuning, pretraining, tasks, wordpiece
from prunejax.models import bert_hf

NANO = pathlib.Path(__file__).parent.parent / 'models' / 'nano'

FIELDS = (
  'vocab_size', 'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size', 'type_vocab_size',
  'max_position_embeddings', 'hidden_act', 'layer_norm_eps', 'initializer_range', 'hidden_dropout_prob',
  'attention_probs_dropout_prob', 'classifier_dropout',
)


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


def folder_of(init):
  """'nano' is the model in the package; anything else is a folder."""
  if init == 'nano':
    if not (NANO / 'model.safetensors').exists():
      raise FileNotFoundError("init='nano': this copy of prunejax has no packaged model; train it with configs/nano.py")
    return NANO
  return pathlib.Path(files.local(files.path(init)))


def source(init, fresh_size, vocab, vocab_size, corpus_spec, root, cache) -> Source:
  """Finds size and vocabulary: the folder's when `init` names one, else `fresh_size` and `vocab` or a trained one."""
  if init:
    folder = folder_of(init)
    tokenizer = wordpiece.load(vocab or folder)
    size = bert_hf.read_size(folder)
  else:
    folder = None
    tokenizer = wordpiece.load(vocab) if vocab else trained(corpus_spec, vocab_size, root, cache)
    size = transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), **fresh_size)
  if tokenizer.get_vocab_size() != size.vocab_size:
    raise ValueError(
      f'the vocabulary {str(vocab or folder)!r} has {tokenizer.get_vocab_size()} pieces, the model {size.vocab_size}'
    )
  # Only what the model reads: two folders of one size are one program.
  return Source(size_of({field: getattr(size, field) for field in FIELDS}), tokenizer, folder)


def size_of(fields):
  """A BertConfig from a dict of its fields."""
  return transformers.BertConfig(**fields)


def trained(spec, vocab_size, root, cache):
  """A vocabulary trained on the corpus, once: the cache keeps it."""
  path = corpus.cache_dir(cache) / 'vocab' / f'{corpus.key(spec, root, cache)}-{vocab_size}.txt'
  if path.exists():
    return wordpiece.load(path)
  tokenizer = wordpiece.train(corpus.lines(spec, root=root, cache=cache), vocab_size)
  files.create(path, ''.join(piece + '\n' for piece in wordpiece.pieces(tokenizer)))
  return wordpiece.load(path)  # of several processes that trained one, all take the first


def pretraining_data(
  tokenizer, spec, recipe, *, root, cache, seed, batch_size, eval_batches, eval_size, part=(0, 1)
):
  """Batches of BERT's objective from a corpus: of those to train on `part` (index, count), held-out ones whole."""
  pieces = tuple(wordpiece.pieces(tokenizer))
  train, held = (_stream(pieces, spec, split, recipe, root, cache) for split in ('train', 'validation'))

  def held_out():
    # Always the same held-out examples, whatever the run's seed: losses of different runs can be compared.
    for i in range(eval_batches):
      yield pretraining.batch(held, 0, i, eval_size)

  batch = lambda step: pretraining.batch(train, seed, step, batch_size, *part)
  return Data(batch, held_out, None, None, len(train.windows))


def finetuning_data(tokenizer, name, *, root, cache, seq_len, examples, seed, batch_size, eval_size, part=(0, 1)):
  """Batches of a labelled task, as above. `examples` > 0 trains on that many, drawn by `seed`."""
  task = tasks.get(name)
  pieces = tuple(wordpiece.pieces(tokenizer))
  train, held = (_encoded(pieces, name, split, seq_len, root, cache) for split in ('train', 'validation'))
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


# The runs of a grid share their inputs, and a vocabulary says all about a tokenizer: each is made once a process.
@functools.lru_cache(maxsize=8)
def _stream(pieces, spec, split, recipe, root, cache):
  tokenizer = wordpiece.from_vocab(list(pieces))
  return pretraining.stream(corpus.load(spec, split, tokenizer, root=root, cache=cache), tokenizer, recipe)


@functools.lru_cache(maxsize=32)
def _encoded(pieces, name, split, seq_len, root, cache):
  examples = tasks.load(name, split, root=root, cache=cache)
  return finetuning.encode(examples, wordpiece.from_vocab(list(pieces)), seq_len)


def prefetch(batch, start, stop):
  """Batches start .. stop, made ahead of the step by one thread. The position is the step: nothing else to save."""
  if start >= stop:
    return iter(())
  dataset = grain.MapDataset.range(start, stop).map(lambda step: batch(int(step)))
  return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

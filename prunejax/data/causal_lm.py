"""Examples for causal language modelling (Radford et al. 2019): windows, and the next tokens.

A batch is a pure function of (corpus, recipe, seed, step). Nothing is stored and nothing is
rewound. The global batch is drawn whole and each process keeps its rows, so the examples do not
change with the number of processes.

All documents form a ring, with <|endoftext|> after each. Each epoch cuts the ring into windows of
`seq_len` tokens, from a random start of its own and in a random order of its own. A window may
span several documents; attention crosses their borders, as in GPT-2.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.data import bpe, pretraining
from prunejax.data import corpus as corpus_lib


class Recipe(NamedTuple):
  """How examples are made.

  Attributes:
    seq_len: tokens read, and tokens predicted, of an example.
  """

  seq_len: int = 128


class Stream(NamedTuple):
  """A corpus from which batches are drawn, see `stream`.

  Attributes:
    corpus: the tokens.
    recipe: how examples are made.
    windows: numbers of the windows of one epoch.
    starts: int64 [documents + 1], where each document starts in the ring; the last entry is the
      length of the ring.
    end: the id of <|endoftext|>, see `bpe.end`.
  """

  corpus: corpus_lib.Corpus
  recipe: Recipe
  windows: range
  starts: np.ndarray
  end: int


def stream(corpus: corpus_lib.Corpus, tokenizer: Tokenizer, recipe: Recipe) -> Stream:
  """Lays the documents out as a ring.

  Args:
    corpus: one split of a tokenised corpus.
    tokenizer: the byte-level BPE tokenizer of the corpus.
    recipe: how examples are made.

  Returns:
    What `batch` draws from.

  Raises:
    ValueError: a `seq_len` below 2; a tokenizer without a token of `bpe.ENDS`.
  """
  if recipe.seq_len < 2:
    raise ValueError(f'data.seq_len={recipe.seq_len}: expected at least 2')
  end = tokenizer.token_to_id(bpe.end(tokenizer))
  starts = corpus.documents + np.arange(len(corpus.documents))
  return Stream(corpus, recipe, range(max(int(starts[-1]) // recipe.seq_len, 1)), starts, end)


def batch(
  stream: Stream,
  seed: int,
  step: int,
  batch_size: int,
  process: int = 0,
  processes: int = 1,
  permutation: Callable[[int, int, int], np.ndarray] = pretraining.permutation,
) -> dict[str, np.ndarray]:
  """Draws the examples of one step.

  Args:
    stream: what `stream` returned.
    seed: seed of the order of examples.
    step: number of the step, from 0.
    batch_size: examples of all processes together.
    process: index of this process.
    processes: number of processes.
    permutation: as in `pretraining.batch`.

  Returns:
    dict of arrays [batch_size / processes, seq_len]: `input_ids`, `segment_ids` (all 0) and
    `targets` (the token after each) int32, `valid` bool (all True).
  """
  length, ring = stream.recipe.seq_len, int(stream.starts[-1])
  count, first = len(stream.windows), step * batch_size
  windows = pretraining.order(count, seed, first, batch_size, permutation)
  epochs = np.arange(first, first + batch_size) // count
  begin = {epoch: _epoch_start(ring, seed, epoch) for epoch in np.unique(epochs).tolist()}
  starts = np.array([begin[epoch] for epoch in epochs.tolist()]) + windows * length
  mine = slice(process * batch_size // processes, (process + 1) * batch_size // processes)
  tokens = _read(stream, (starts[mine, None] + np.arange(length + 1)) % ring)
  return {
    'input_ids': tokens[:, :-1].copy(),
    'segment_ids': np.zeros((len(tokens), length), np.int32),
    'valid': np.ones((len(tokens), length), bool),
    'targets': tokens[:, 1:].copy(),
  }


def shapes(recipe: Recipe, rows: int) -> dict[str, tuple]:
  """Returns {name: (shape, dtype)} of a batch of `rows` examples, without drawing one."""
  tokens = (rows, recipe.seq_len)
  names = {'input_ids': np.int32, 'segment_ids': np.int32, 'valid': np.bool_, 'targets': np.int32}
  return {name: (tokens, dtype) for name, dtype in names.items()}


def _epoch_start(ring, seed, epoch):
  """Position in the ring at which the windows of an epoch start."""
  return int(np.random.default_rng([seed, epoch, 2]).integers(ring))


def _read(stream, positions):
  """The tokens at `positions` of the ring."""
  document = np.searchsorted(stream.starts, positions, side='right') - 1
  is_end = positions == stream.starts[document + 1] - 1
  # As many <|endoftext|> stand before a position as documents do.
  index = np.where(is_end, 0, positions - document)
  return np.where(is_end, stream.end, stream.corpus.tokens[index].astype(np.int32))

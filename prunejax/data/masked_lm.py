"""Examples for masked language modelling without pairs, as RoBERTa and ModernBERT are trained.

A batch is a pure function of (corpus, recipe, seed, step), and its examples do not change with the
number of processes. Windows are those of causal_lm.py: documents form a ring, with the separator
after each, and an example may span several of them (FULL-SENTENCES of Liu et al. 2019).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.data import causal_lm, encoder_bpe, pretraining
from prunejax.data import corpus as corpus_lib


class Recipe(NamedTuple):
  """How examples are made.

  Attributes:
    seq_len: tokens of an example, the two special ones around it included.
    rate: share of tokens to predict (RoBERTa 0.15, ModernBERT 0.3). Of those, 80 % become the
      mask token, 10 % a random piece, and 10 % stay.
    max_predictions: most predictions of an example, the width of `positions`.
  """

  seq_len: int = 128
  rate: float = 0.15
  max_predictions: int = 20


class Stream(NamedTuple):
  """A corpus from which batches are drawn, see `stream`.

  Attributes:
    ring: the `causal_lm.Stream` of windows of `seq_len` - 2 tokens.
    recipe: how examples are made.
    ids: ids of the first token, the last token and the mask.
    ordinary: ids that are no special pieces, of which random ones are drawn.
  """

  ring: causal_lm.Stream
  recipe: Recipe
  ids: tuple
  ordinary: np.ndarray

  @property
  def windows(self):
    """Numbers of the windows of one epoch."""
    return self.ring.windows


def stream(corpus: corpus_lib.Corpus, tokenizer: Tokenizer, recipe: Recipe) -> Stream:
  """Lays the documents out as a ring.

  Args:
    corpus: one split of a tokenised corpus.
    tokenizer: the byte-level BPE tokenizer of the corpus, of an encoder.
    recipe: how examples are made.

  Returns:
    What `batch` draws from.

  Raises:
    ValueError: a `seq_len` below 8; a `rate` outside (0, 1); a tokenizer without special pieces.
  """
  if recipe.seq_len < 8:
    raise ValueError(
      f'data.seq_len={recipe.seq_len}: expected at least 8, of which two are special'
    )
  if not 0 < recipe.rate < 1:
    raise ValueError(f'data.predict={recipe.rate}: expected a share of tokens between 0 and 1')
  special = encoder_bpe.kind(tokenizer)
  if special is None:
    raise ValueError(
      f'the vocabulary ({tokenizer.get_vocab_size()} pieces) lacks special pieces:'
      f' {encoder_bpe.EXPECTED}'
    )
  ids = tuple(tokenizer.token_to_id(piece) for piece in (special.cls, special.sep, special.mask))
  never = {tokenizer.token_to_id(piece) for piece in special[:5]}
  ordinary = np.array([i for i in range(tokenizer.get_vocab_size()) if i not in never], np.int32)
  length = recipe.seq_len - 2
  starts = corpus.documents + np.arange(len(corpus.documents))
  windows = range(max(int(starts[-1]) // length, 1))
  ring = causal_lm.Stream(corpus, causal_lm.Recipe(length), windows, starts, ids[1])
  return Stream(ring, recipe, ids, ordinary)


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

  The arguments are those of `pretraining.batch`.

  Returns:
    dict of arrays, b = batch_size / processes: `input_ids` and `segment_ids` (all 0) int32 and
    `valid` bool (all True) [b, seq_len]; `positions` and `targets` int32 and `weights` float32
    [b, max_predictions], weight 0 at padding.
  """
  recipe, rng = stream.recipe, np.random.default_rng([seed, step, 4])
  plain = causal_lm.batch(stream.ring, seed, step, batch_size, permutation=permutation)['input_ids']
  first, last, blank = stream.ids
  edge = lambda token: np.full((batch_size, 1), token, np.int32)
  ids = np.concatenate([edge(first), plain, edge(last)], axis=1)
  text = np.ones(ids.shape, bool)
  text[:, [0, -1]] = False
  arrays = predicted(ids, text & (ids != last), recipe, rng, blank, stream.ordinary)
  arrays |= {
    'segment_ids': np.zeros(ids.shape, np.int32),
    'valid': np.ones(ids.shape, bool),
  }
  mine = slice(process * batch_size // processes, (process + 1) * batch_size // processes)
  return {name: array[mine] for name, array in arrays.items()}


def shapes(recipe: Recipe, rows: int) -> dict[str, tuple]:
  """Returns {name: (shape, dtype)} of a batch of `rows` examples, without drawing one."""
  every = pretraining.shapes(recipe, rows)
  del every['is_random']
  return every


def predicted(ids, text, recipe, rng, blank, ordinary) -> dict[str, np.ndarray]:
  """Hides tokens that are to be predicted.

  Args:
    ids: int32 [b, length].
    text: bool [b, length], True where a token may be predicted.
    recipe: has `rate` and `max_predictions`.
    rng: draws which tokens, and what stands in their place.
    blank: the id of the mask token.
    ordinary: ids of which random ones are drawn.

  Returns:
    dict of `input_ids`, `positions`, `targets` and `weights`, see `batch`.
  """
  key = np.where(text, rng.random(ids.shape), 2.0)
  wanted = np.clip(np.rint(text.sum(1) * recipe.rate), 1, recipe.max_predictions).astype(np.int64)
  wanted = np.minimum(wanted, text.sum(1))
  chosen = np.argsort(key, axis=1)[:, : recipe.max_predictions]
  real = np.arange(chosen.shape[1]) < wanted[:, None]
  positions = np.sort(np.where(real, chosen, ids.shape[1]), axis=1)
  real = positions < ids.shape[1]
  positions = np.where(real, positions, 0)
  targets = np.where(real, np.take_along_axis(ids, positions, axis=1), 0)
  draw = rng.random(positions.shape)
  random_piece = rng.choice(ordinary, positions.shape)
  replacement = np.where(draw < 0.8, blank, np.where(draw < 0.9, random_piece, targets))
  # What pads the positions is written to one more column.
  corrupt = np.concatenate([ids, np.zeros((len(ids), 1), ids.dtype)], axis=1)
  np.put_along_axis(corrupt, np.where(real, positions, ids.shape[1]), replacement, axis=1)
  pad = recipe.max_predictions - positions.shape[1]
  widen = lambda x, dtype: np.pad(x, ((0, 0), (0, pad))).astype(dtype)
  return {
    'input_ids': corrupt[:, :-1].astype(np.int32),
    'positions': widen(positions, np.int32),
    'targets': widen(targets, np.int32),
    'weights': widen(real, np.float32),
  }

"""Examples for permutation language modelling (Yang et al. 2019, section 2.2).

A batch is a pure function of (corpus, recipe, seed, step), and its examples do not change with the
number of processes. An example is `A <sep> B <sep> <cls>`: windows and segments are those of
pretraining.py, but nothing is asked about whether B follows A.

Spans of 1 to 5 tokens are predicted (section 2.6: about one token in K). A random order of the
tokens says what each of them may see: a predicted token sees the text that is not predicted, and
what is predicted earlier in the order.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.data import corpus as corpus_lib
from prunejax.data import pretraining, unigram

LONGEST = 5  # tokens of a span; a span of n is drawn with a chance proportional to 1 / n
ALPHA = 6  # a span of n tokens lies in a context of 6 n (the paper's K)


class Recipe(NamedTuple):
  """How examples are made.

  Attributes:
    seq_len: tokens of an example, the three special ones included (the paper's 512).
    predictions: tokens to predict of an example (the paper's 85 of 512).
    other: share of examples whose segment B is from another document (0.5).
    memory: tokens before the window whose hidden states the model remembers (the paper's 384),
      if the document has as many; 0 for none.
    matched: as in `pretraining.Recipe`.
  """

  seq_len: int = 128
  predictions: int = 21
  other: float = 0.5
  memory: int = 0
  matched: bool = True


class Stream(NamedTuple):
  """A corpus from which batches are drawn, see `stream`.

  Attributes:
    pairs: a `pretraining.Stream` of the same windows.
    recipe: how examples are made.
    first: int64 [n], the first token of the document of each window.
    ids: ids of <sep>, <cls> and <pad>.
  """

  pairs: pretraining.Stream
  recipe: Recipe
  first: np.ndarray
  ids: tuple

  @property
  def windows(self):
    """The first token of each window."""
    return self.pairs.windows


def stream(corpus: corpus_lib.Corpus, tokenizer: Tokenizer, recipe: Recipe) -> Stream:
  """Divides every document into windows of the token budget, which is `seq_len` - 3.

  Args:
    corpus: one split of a tokenised corpus.
    tokenizer: the Unigram tokenizer of the corpus.
    recipe: how examples are made.

  Returns:
    What `batch` draws from.

  Raises:
    ValueError: a `seq_len` below 8; more predictions than half of the tokens, or none.
  """
  if recipe.seq_len < 8:
    raise ValueError(
      f'data.seq_len={recipe.seq_len}: expected at least 8, of which three are special'
    )
  if not 1 <= recipe.predictions <= recipe.seq_len // 2:
    raise ValueError(
      f'data.max_predictions={recipe.predictions}: expected 1 to half of'
      f' data.seq_len={recipe.seq_len}'
    )
  budget = recipe.seq_len - 3
  length = np.diff(corpus.documents)
  count = np.maximum(length // budget, 1)
  nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
  ids = tuple(tokenizer.token_to_id(piece) for piece in ('<sep>', '<cls>', '<pad>'))
  how = pretraining.Recipe(
    recipe.seq_len, next_sentence=recipe.other, short=0.0, matched=recipe.matched
  )
  starts = np.repeat(corpus.documents[:-1], count)
  pairs = pretraining.Stream(
    corpus,
    how,
    windows=starts + nth * budget,
    slack=np.repeat(np.maximum(length - count * budget, 0), count),
    ends=np.repeat(corpus.documents[1:], count),
    word_start=np.array(unigram.word_starts(tokenizer)),
    pieces=tokenizer.get_vocab_size(with_added_tokens=False),
    ids=ids,
  )
  return Stream(pairs, recipe, starts, ids)


def shapes(recipe: Recipe, rows: int) -> dict[str, tuple]:
  """Returns {name: (shape, dtype)} of a batch of `rows` examples, without drawing one."""
  length, memory = recipe.seq_len, (rows, recipe.memory)
  plain = pretraining.Recipe(length, max_predictions=recipe.predictions)
  every = pretraining.shapes(plain, rows) | {'permuted': ((rows, length, length), np.bool_)}
  del every['is_random']
  if recipe.memory:
    every |= {'memory_ids': (memory, np.int32), 'memory_valid': (memory, np.bool_)}
  return every


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
    dict of arrays, b = batch_size / processes: `input_ids` and `segment_ids` int32 and `valid` bool
    [b, seq_len], padded on the left; `permuted` bool [b, seq_len, seq_len], True where the first
    token may not see the second; `positions` and `targets` int32 and `weights` float32
    [b, predictions], weight 0 at padding; with a memory, `memory_ids` int32 and `memory_valid` bool
    [b, memory].
  """
  recipe, pairs = stream.recipe, stream.pairs
  rng = np.random.default_rng([seed, step, 3])
  window = pretraining.order(len(pairs.windows), seed, step * batch_size, batch_size, permutation)
  segments = pretraining.segments(pairs, window, rng)
  arrays = _assembled(stream, *segments)
  text = arrays['valid'] & (arrays['segment_ids'] < 2) & ~arrays.pop('separator')
  chosen = np.stack([_spans(row, recipe.predictions, rng) for row in text])
  arrays |= _targets(arrays['input_ids'], chosen, recipe.predictions)
  arrays['permuted'] = permuted(chosen, text, rng)
  if recipe.memory:
    arrays |= _memory(stream, window, segments[0])
  mine = slice(process * batch_size // processes, (process + 1) * batch_size // processes)
  return {name: array[mine] for name, array in arrays.items()}


def permuted(chosen: np.ndarray, text: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Draws an order of the tokens of each example, and says what it hides.

  Args:
    chosen: bool [b, length], True where a token is predicted.
    text: bool [b, length], True at tokens that are not special.
    rng: draws the order.

  Returns:
    bool [b, length, length], True where token i may not see token j. Text that is not predicted is
    seen by all. Predicted and special tokens are seen by those that come later; a special token
    sees itself, and a predicted one does not.
  """
  order = rng.permuted(np.broadcast_to(np.arange(chosen.shape[1]), chosen.shape), axis=1)
  open_to_all = text & ~chosen
  place = np.where(open_to_all, -1, order)
  # A predicted token stands at its place; any other sees its own place too.
  own = np.where(chosen, place, place + 1)
  return (own[:, :, None] <= place[:, None, :]) & ~open_to_all[:, None, :]


def _assembled(stream, first, first_length, second, second_length):
  """A <sep> B <sep> <cls>, padded on the left."""
  sep, cls, pad = stream.ids
  length, tokens = stream.recipe.seq_len, stream.pairs.corpus.tokens
  used = first_length + second_length + 3
  column = np.arange(length) - (length - used)[:, None]
  a, b = first_length[:, None], second_length[:, None]
  in_first = (column >= 0) & (column < a)
  in_second = (column > a) & (column <= a + b)
  at = np.where(in_first, first[:, None] + column, second[:, None] + column - a - 1)
  ids = tokens[np.clip(at, 0, len(tokens) - 1)].astype(np.int32)
  special = np.where(column < 0, pad, np.where(column == a + b + 2, cls, sep))
  segment = np.where(column <= a, 0, np.where(column <= a + b + 1, 1, 2))
  return {
    'input_ids': np.where(in_first | in_second, ids, special).astype(np.int32),
    'segment_ids': np.where(column < 0, unigram.PADDING, segment).astype(np.int32),
    'valid': column >= 0,
    'separator': (column >= 0) & ~(in_first | in_second),
  }


def _spans(text, wanted, rng):
  """Bool [length]: the tokens of one example that are predicted, in spans."""
  places = np.flatnonzero(text)
  wanted = min(wanted, len(places) // 2)
  chance = 1 / np.arange(1, LONGEST + 1)
  chosen, at = np.zeros(len(text), bool), 0
  while at < len(places) and chosen.sum() < wanted:
    span = int(rng.choice(LONGEST, p=chance / chance.sum())) + 1
    before = int(rng.integers(span * ALPHA - span + 1))
    here = places[at + before : at + before + span][: wanted - int(chosen.sum())]
    chosen[here] = True
    at += span * ALPHA
  if missing := wanted - int(chosen.sum()):
    left = places[~chosen[places]]
    chosen[rng.permutation(left)[:missing]] = True
  return chosen


def _targets(ids, chosen, predictions):
  """Positions, targets and weights of the tokens that are predicted."""
  positions = np.sort(np.where(chosen, np.arange(ids.shape[1]), ids.shape[1]), axis=1)
  positions = positions[:, :predictions]
  real = positions < ids.shape[1]
  positions = np.where(real, positions, 0)
  return {
    'positions': positions.astype(np.int32),
    'targets': np.where(real, np.take_along_axis(ids, positions, axis=1), 0).astype(np.int32),
    'weights': real.astype(np.float32),
  }


def _memory(stream, window, first):
  """The tokens before each example, in its document."""
  size, tokens = stream.recipe.memory, stream.pairs.corpus.tokens
  at = first[:, None] - size + np.arange(size)
  there = at >= stream.first[window][:, None]
  ids = np.where(there, tokens[np.clip(at, 0, len(tokens) - 1)], stream.ids[2])
  return {'memory_ids': ids.astype(np.int32), 'memory_valid': there}

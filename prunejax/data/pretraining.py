"""BERT's pre-training examples (Devlin et al. 2019, appendix A), drawn from token arrays.

A batch is a pure function of (corpus, recipe, seed, step). Nothing is stored and nothing is
rewound. The global batch is drawn whole and each process keeps its rows, so the examples do not
change with the number of processes.

Two things differ from the published script, both for the sake of short sequences. Segments go on to
the token budget instead of ending with a sentence. A window without a sentence boundary is divided
at a word boundary. So segment B may start within a sentence. A random B must then start within a
sentence too, or the start of B would give away whether B is random.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.data import corpus as corpus_lib
from prunejax.data import wordpiece

DRAWS = 8  # windows drawn to find one in which a random segment B can start as the true one does


class Recipe(NamedTuple):
  """How examples are made.

  Attributes:
    seq_len: tokens of an example, special ones included.
    rate: share of tokens to predict (BERT: 0.15). Of those, 80 % become [MASK], 10 % a random
      piece, and 10 % stay.
    max_predictions: most predictions of an example, the width of `positions` (BERT: 20 at 128).
    next_sentence: share of examples whose segment B is random, from another document (BERT: 0.5).
    short: share of examples cut to a random length (BERT: 0.1).
    matched: whether a random B starts as the true one does: with a sentence, or with a word within
      one. If False, it starts with the first sentence of its window, or with the first token of a
      window without one, which may lie within a word. That gives random segments away in short
      windows, many of which start no sentence; in windows of 128 tokens it hardly does.
  """

  seq_len: int = 128
  rate: float = 0.15
  max_predictions: int = 20
  next_sentence: float = 0.5
  short: float = 0.1
  matched: bool = True


class Stream(NamedTuple):
  """A corpus from which batches are drawn, see `stream`.

  Attributes:
    corpus: the tokens.
    recipe: how examples are made.
    windows: int64 [n], first token of each window.
    slack: int64 [n], how far each window can move forward within its document.
    ends: int64 [n], end of the document of each window.
    word_start: bool [vocabulary], False for pieces within a word such as '##ing'.
    pieces: the number of pieces, without added tokens, of which random ones are drawn.
    ids: ids of [CLS], [SEP], [MASK] and of the first ordinary piece.
  """

  corpus: corpus_lib.Corpus
  recipe: Recipe
  windows: np.ndarray
  slack: np.ndarray
  ends: np.ndarray
  word_start: np.ndarray
  pieces: int
  ids: tuple


def stream(corpus: corpus_lib.Corpus, tokenizer: Tokenizer, recipe: Recipe) -> Stream:
  """Divides every document into windows of the token budget, which is `seq_len` - 3.

  Args:
    corpus: one split of a tokenised corpus.
    tokenizer: the WordPiece tokenizer of the corpus.
    recipe: how examples are made.

  Returns:
    What `batch` draws from.

  Raises:
    ValueError: a `seq_len` below 8; a `rate` outside (0, 1).
  """
  if recipe.seq_len < 8:
    raise ValueError(
      f'data.seq_len={recipe.seq_len}: expected at least 8, of which three are special'
    )
  if not 0 < recipe.rate < 1:
    raise ValueError(f'data.predict={recipe.rate}: expected a share of tokens between 0 and 1')
  budget = recipe.seq_len - 3
  length = np.diff(corpus.documents)
  count = np.maximum(length // budget, 1)
  nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
  pieces, all_ids = wordpiece.pieces(tokenizer), tokenizer.get_vocab(with_added_tokens=True)
  word_start = np.ones(max(len(pieces), *(i + 1 for i in all_ids.values())), bool)
  word_start[: len(pieces)] = [not p.startswith('##') for p in pieces]  # an added token is a word
  ids = tuple(tokenizer.token_to_id(p) for p in ('[CLS]', '[SEP]', '[MASK]'))
  return Stream(
    corpus,
    recipe,
    windows=np.repeat(corpus.documents[:-1], count) + nth * budget,
    slack=np.repeat(np.maximum(length - count * budget, 0), count),
    ends=np.repeat(corpus.documents[1:], count),
    word_start=word_start,
    pieces=len(pieces),
    ids=(*ids, max(tokenizer.token_to_id(p) for p in wordpiece.SPECIAL) + 1),
  )


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
  """Returns the order of the windows in an epoch, int64 [count]."""
  return np.random.default_rng([seed, epoch, 1]).permutation(count)


def batch(
  stream: Stream,
  seed: int,
  step: int,
  batch_size: int,
  process: int = 0,
  processes: int = 1,
  permutation: Callable[[int, int, int], np.ndarray] = permutation,
) -> dict[str, np.ndarray]:
  """Draws the examples of one step.

  Args:
    stream: what `stream` returned.
    seed: seed of the examples and of their order.
    step: number of the step, from 0.
    batch_size: examples of all processes together.
    process: index of this process.
    processes: number of processes.
    permutation: the function of that name, or one that remembers its last results.

  Returns:
    dict of arrays, b = batch_size / processes: `input_ids` and `segment_ids` int32 and `valid` bool
    [b, seq_len]; `positions` and `targets` int32 and `weights` float32 [b, max_predictions], weight
    0 at padding; `is_random` int32 [b], 1 if segment B does not follow A.
  """
  rng = np.random.default_rng([seed, step])
  window = order(len(stream.windows), seed, step * batch_size, batch_size, permutation)
  *segments, is_random = _segments(stream, window, rng)
  arrays = _assemble(stream, *segments, rng)
  arrays['is_random'] = is_random.astype(np.int32)
  mine = slice(process * batch_size // processes, (process + 1) * batch_size // processes)
  return {name: array[mine] for name, array in arrays.items()}


def segments(stream: Stream, window: np.ndarray, rng: np.random.Generator) -> tuple:
  """Draws the two segments of each example.

  Args:
    stream: what `stream` returned.
    window: int [b], windows.
    rng: draws where segments begin and end.

  Returns:
    (first token of A, its length, first token of B, its length), each int [b].
  """
  return _segments(stream, window, rng)[:4]


def _segments(stream, window, rng):
  """`segments`, and whether B is random."""
  recipe, batch_size = stream.recipe, len(window)
  budget = recipe.seq_len - 3
  shift = (rng.random(batch_size) * (stream.slack[window] + 1)).astype(np.int64)
  start = stream.windows[window] + shift
  length = np.minimum(stream.ends[window] - start, budget)
  short = rng.random(batch_size) < recipe.short
  length = np.where(short, np.minimum(rng.integers(4, budget + 1, batch_size), length), length)
  first_length = _first_length(stream, start, length, rng)
  is_random = rng.random(batch_size) < recipe.next_sentence
  second, second_length = start + first_length, length - first_length
  rows = np.flatnonzero(is_random) if recipe.matched else np.arange(batch_size)
  draw = _matched_start if recipe.matched else _sentence_start
  other, room = draw(stream, window[rows], second[rows], rng)
  second[rows] = np.where(is_random[rows], other, second[rows])
  second_length[rows] = np.where(
    is_random[rows], np.minimum(second_length[rows], room), second_length[rows]
  )
  return start, first_length, second, second_length, is_random


def shapes(recipe: Recipe, rows: int) -> dict[str, tuple]:
  """Returns {name: (shape, dtype)} of a batch of `rows` examples, without drawing one."""
  tokens, predicted = (rows, recipe.seq_len), (rows, recipe.max_predictions)
  return {
    'input_ids': (tokens, np.int32),
    'segment_ids': (tokens, np.int32),
    'valid': (tokens, np.bool_),
    'positions': (predicted, np.int32),
    'targets': (predicted, np.int32),
    'weights': (predicted, np.float32),
    'is_random': ((rows,), np.int32),
  }


def order(
  count: int,
  seed: int,
  first: int,
  size: int,
  permutation: Callable[[int, int, int], np.ndarray] = permutation,
) -> np.ndarray:
  """Returns the windows of examples `first` to `first + size - 1`, int64 [size].

  Each epoch is a new permutation of the `count` windows.
  """
  example = np.arange(first, first + size)
  windows = np.empty(size, np.int64)
  for epoch in np.unique(example // count):
    rows = example // count == epoch
    windows[rows] = permutation(count, seed, int(epoch))[example[rows] % count]
  return windows


def _first_length(stream, start, length, rng):
  """Lengths of segments A, [b].

  A ends at a random sentence boundary of the window; without one, at a random word boundary;
  without one, in the middle.
  """
  offset = np.arange(stream.recipe.seq_len - 3)
  position = np.minimum(start[:, None] + offset, len(stream.corpus.tokens) - 1)
  inside = (offset >= 2) & (offset <= length[:, None] - 2)
  sentence = stream.corpus.starts[position] & inside
  word = stream.word_start[stream.corpus.tokens[position]] & inside
  key = rng.random(position.shape)
  key = np.where(
    sentence, 2 + key, np.where(word, 1 + key, np.where(offset == length[:, None] // 2, 0.5, 0))
  )
  return key.argmax(axis=1)


def _sentence_start(stream, window, true_start, rng):
  """Draws where random segments B start: (position, tokens to the end of the document), int [b].

  Each is in another document than `window`, unless the corpus has only one. It is the first
  sentence of a random window, or the first token of a window in which no sentence starts.
  """
  del true_start
  other = _other_windows(stream, window, rng)
  position, near = _positions(stream, other)
  start = stream.windows[other] + (stream.corpus.starts[position] & near).argmax(axis=-1)
  return start, stream.ends[other] - start


def _matched_start(stream, window, true_start, rng):
  """As `_sentence_start`, but each starts as the true segment B does, at `true_start` int [b].

  A segment starts with a sentence, with a word within a sentence, or within a word. The first of
  DRAWS random windows with such positions gives one of them at random. If there is none, the first
  window gives one that starts a word.
  """
  rows = np.arange(len(window))

  def boundary(position):  # 2: a sentence starts, 1: a word starts, 0: within a word
    level = stream.word_start[stream.corpus.tokens[position]].astype(np.uint8)
    level[stream.corpus.starts[position]] = 2
    return level

  other = _other_windows(stream, window[:, None], rng, (len(window), DRAWS))
  position, near = _positions(stream, other)
  fits = near & (boundary(position) == boundary(true_start)[:, None, None])
  draw = fits.any(axis=2).argmax(axis=1)
  other, position, near, fits = (x[rows, draw] for x in (other, position, near, fits))
  fits |= ~fits.any(axis=1, keepdims=True) & near & (boundary(position) > 0)
  start = position[rows, np.where(fits, rng.random(fits.shape), -1).argmax(axis=1)]
  return start, stream.ends[other] - start


def _other_windows(stream, window, rng, shape=None):
  """Random windows of other documents than those of `window`; of its shape, or of `shape`."""
  first, last = (
    np.searchsorted(stream.ends, stream.ends[window], side) for side in ('left', 'right')
  )
  own = np.where(last - first < len(stream.windows), last - first, 0)
  other = rng.integers(0, len(stream.windows) - own, shape)
  return np.where(other >= first, other + own, other)


def _positions(stream, windows):
  """(positions of the tokens of windows, whether a segment may start there), [..., seq_len - 3].

  It may in the first half of what the document still has, so that the segment is not too short.
  """
  offset = np.arange(stream.recipe.seq_len - 3)
  start, end = stream.windows[windows][..., None], stream.ends[windows][..., None]
  position = np.minimum(start + offset, len(stream.corpus.tokens) - 1)
  return position, offset < np.maximum((end - start) // 2, 1)


def _assemble(stream, first, first_length, second, second_length, rng):
  """[CLS] A [SEP] B [SEP], then 80/10/10 corruption at the predicted positions."""
  recipe, tokens = stream.recipe, stream.corpus.tokens
  cls, sep, blank, ordinary = stream.ids
  column = np.arange(recipe.seq_len)
  first_length, second_length = first_length[:, None], second_length[:, None]
  in_first = (column >= 1) & (column <= first_length)
  in_second = (column >= first_length + 2) & (column < first_length + 2 + second_length)
  at = np.where(in_first, first[:, None] + column - 1, second[:, None] + column - first_length - 2)
  text = in_first | in_second
  valid = column < first_length + second_length + 3
  ids = np.where(
    text, tokens[np.clip(at, 0, len(tokens) - 1)].astype(np.int32), np.where(valid, sep, 0)
  )
  ids[:, 0] = cls

  # Of the text positions, the `wanted` ones with the smallest random keys, in order.
  key = np.where(text, rng.random(ids.shape), 2.0)
  wanted = np.clip(np.rint(text.sum(axis=1) * recipe.rate), 1, recipe.max_predictions).astype(
    np.int64
  )
  chosen = np.argsort(key, axis=1)[:, : recipe.max_predictions]
  real = np.arange(chosen.shape[1]) < wanted[:, None]
  positions = np.sort(np.where(real, chosen, recipe.seq_len), axis=1)
  real = positions < recipe.seq_len
  positions = np.where(real, positions, 0)
  targets = np.where(real, np.take_along_axis(ids, positions, axis=1), 0)

  draw = rng.random(positions.shape)
  random_piece = rng.integers(ordinary, stream.pieces, positions.shape)
  replacement = np.where(draw < 0.8, blank, np.where(draw < 0.9, random_piece, targets))
  # What pads the positions is written to one more column.
  corrupt = np.concatenate([ids, np.zeros((len(ids), 1), ids.dtype)], axis=1)
  np.put_along_axis(corrupt, np.where(real, positions, recipe.seq_len), replacement, axis=1)
  pad = recipe.max_predictions - positions.shape[1]
  widen = lambda x, dtype: np.pad(x, ((0, 0), (0, pad))).astype(dtype)
  return {
    'input_ids': corrupt[:, :-1].astype(np.int32),
    'segment_ids': (valid & (column > first_length + 1)).astype(np.int32),
    'valid': valid,
    'positions': widen(positions, np.int32),
    'targets': widen(targets, np.int32),
    'weights': widen(real, np.float32),
  }

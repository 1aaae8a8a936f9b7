"""BERT's pre-training examples (Devlin et al. 2019, appendix A.1-A.2), made on the fly from token arrays.

A batch is a pure function of (corpus, recipe, seed, step): nothing to store, nothing to rewind. The global batch is
drawn whole and each process keeps its rows, so the examples do not change with the number of processes.

Two things differ from the published script, both for short sequences: segments run on to the token budget instead of
stopping at a sentence's end, and a window without a sentence boundary is cut at a word boundary. So a segment B may
begin within a sentence, and then the one that comes from elsewhere has to as well: how B begins would tell what it is.
"""

import functools
from typing import NamedTuple

import numpy as np

from prunejax.data import corpus as corpus_lib
from prunejax.data import wordpiece

DRAWS = 8  # windows elsewhere, one of which has a place that is wanted


class Recipe(NamedTuple):
  """How examples are made.

  seq_len: tokens an example, special ones included.
  rate: share of tokens to predict (BERT: 0.15). Of those 80 % become [MASK], 10 % a random piece, 10 % stay.
  max_predictions: cap on predictions, the static width of `positions` (BERT: 20 at 128).
  next_sentence: share of pairs whose second segment comes from elsewhere (BERT: 0.5).
  short: share of examples cut to a random length (BERT: 0.1).
  matched: a B from elsewhere begins as the true one does, with a sentence or at a word within one. False: with the
    first sentence of its window, or its first token where it has none, which may lie within a word. In windows of few
    tokens, many of which begin no sentence, that tells the two apart; in windows of 128 it hardly does.
  """

  seq_len: int = 128
  rate: float = 0.15
  max_predictions: int = 20
  next_sentence: float = 0.5
  short: float = 0.1
  matched: bool = True


class Stream(NamedTuple):
  """A corpus ready to draw from: see `stream`."""

  corpus: corpus_lib.Corpus
  recipe: Recipe
  windows: np.ndarray  # int64 [n], first token of each window
  slack: np.ndarray  # int64 [n], how far a window may slide inside its document
  ends: np.ndarray  # int64 [n], end of the window's document
  word_start: np.ndarray  # bool [vocabulary], False for pieces such as '##ing'
  ids: tuple  # of [CLS], [SEP], [MASK], and the first ordinary piece


def stream(corpus, tokenizer, recipe) -> Stream:
  """Cuts every document into windows of the token budget. Raises ValueError for a recipe that cannot hold."""
  if recipe.seq_len < 8:
    raise ValueError(
      f'data.seq_len={recipe.seq_len}: expected at least 8 (three are [CLS] and two [SEP])'
    )
  if not 0 < recipe.rate < 1:
    raise ValueError(f'data.predict={recipe.rate}: expected a share of tokens between 0 and 1')
  budget = recipe.seq_len - 3
  length = np.diff(corpus.documents)
  count = np.maximum(length // budget, 1)
  nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
  pieces = wordpiece.pieces(tokenizer)
  ids = tuple(tokenizer.token_to_id(p) for p in ('[CLS]', '[SEP]', '[MASK]'))
  return Stream(
    corpus,
    recipe,
    windows=np.repeat(corpus.documents[:-1], count) + nth * budget,
    slack=np.repeat(np.maximum(length - count * budget, 0), count),
    ends=np.repeat(corpus.documents[1:], count),
    word_start=np.array([not p.startswith('##') for p in pieces]),
    ids=(*ids, max(tokenizer.token_to_id(p) for p in wordpiece.SPECIAL) + 1),
  )


def batch(stream: Stream, seed, step, batch_size, process=0, processes=1):
  """The examples of one step.

  Returns:
    dict of arrays: input_ids, segment_ids int32 and valid bool [b, seq_len]; positions, targets int32 and weights
    float32 [b, max_predictions] (weight 0 pads); is_random int32 [b], 1 when segment B does not follow A. b is
    batch_size / processes.
  """
  recipe, rng = stream.recipe, np.random.default_rng([seed, step])
  which = order(len(stream.windows), seed, step * batch_size, batch_size)
  budget = recipe.seq_len - 3
  start = stream.windows[which] + (rng.random(batch_size) * (stream.slack[which] + 1)).astype(
    np.int64
  )
  length = np.minimum(stream.ends[which] - start, budget)
  short = rng.random(batch_size) < recipe.short
  length = np.where(short, np.minimum(rng.integers(4, budget + 1, batch_size), length), length)
  cut = _boundary(stream, start, length, rng)
  is_random = rng.random(batch_size) < recipe.next_sentence
  second, second_length = start + cut, length - cut
  rows = np.flatnonzero(is_random) if recipe.matched else np.arange(batch_size)
  place, room = (_like if recipe.matched else _elsewhere)(stream, which[rows], second[rows], rng)
  second[rows] = np.where(is_random[rows], place, second[rows])
  second_length[rows] = np.where(
    is_random[rows], np.minimum(second_length[rows], room), second_length[rows]
  )
  arrays = _assemble(stream, start, cut, second, second_length, rng)
  arrays['is_random'] = is_random.astype(np.int32)
  mine = slice(process * batch_size // processes, (process + 1) * batch_size // processes)
  return {name: array[mine] for name, array in arrays.items()}


def order(count, seed, first, size):
  """Window numbers of examples first .. first + size: each epoch is a fresh permutation."""
  at = np.arange(first, first + size)
  out = np.empty(size, np.int64)
  for epoch in np.unique(at // count):
    rows = at // count == epoch
    out[rows] = _permutation(count, seed, int(epoch))[at[rows] % count]
  return out


@functools.lru_cache(maxsize=4)
def _permutation(count, seed, epoch):
  return np.random.default_rng([seed, epoch, 1]).permutation(count)


def _boundary(stream, start, length, rng):
  """Where segment A ends, [b]: a sentence boundary of the window at random, else a word boundary, else the middle."""
  offset = np.arange(stream.recipe.seq_len - 3)
  at = np.minimum(start[:, None] + offset, len(stream.corpus.tokens) - 1)
  inside = (offset >= 2) & (offset <= length[:, None] - 2)
  sentence = stream.corpus.starts[at] & inside
  word = stream.word_start[stream.corpus.tokens[at]] & inside
  key = rng.random(at.shape)
  key = np.where(
    sentence, 2 + key, np.where(word, 1 + key, np.where(offset == length[:, None] // 2, 0.5, 0))
  )
  return key.argmax(axis=1)


def _elsewhere(stream, which, true, rng):
  """A place in another document, at a sentence start when there is one, and the tokens left there: two int arrays [b].

  It is the same document only when the corpus has nothing else.
  """
  del true
  other = _others(stream, which, rng)
  at, room = _places(stream, other)
  place = stream.windows[other] + (stream.corpus.starts[at] & room).argmax(axis=-1)
  return place, stream.ends[other] - place


def _like(stream, which, true, rng):
  """As `_elsewhere`, but a place of the kind of `true`, int [b], where the segment that follows begins.

  The kinds are the start of a sentence, of a word within one, and a place within a word. By lot among the places of the
  first of DRAWS windows that has one; where none has, any of the first window's that starts a word.
  """
  rows = np.arange(len(which))

  def kind(at):
    found = stream.word_start[stream.corpus.tokens[at]].astype(np.uint8)
    found[stream.corpus.starts[at]] = 2
    return found

  other = _others(stream, which[:, None], rng, (len(which), DRAWS))
  at, room = _places(stream, other)
  fits = room & (kind(at) == kind(true)[:, None, None])
  window = fits.any(axis=2).argmax(axis=1)
  other, at, room, fits = (x[rows, window] for x in (other, at, room, fits))
  fits |= ~fits.any(axis=1, keepdims=True) & room & (kind(at) > 0)
  place = at[rows, np.where(fits, rng.random(fits.shape), -1).argmax(axis=1)]
  return place, stream.ends[other] - place


def _others(stream, which, rng, shape=None):
  """Windows of other documents than those of the windows `which`, of their shape or of `shape`."""
  first, last = (
    np.searchsorted(stream.ends, stream.ends[which], side) for side in ('left', 'right')
  )
  own = np.where(last - first < len(stream.windows), last - first, 0)
  other = rng.integers(0, len(stream.windows) - own, shape)
  return np.where(other >= first, other + own, other)


def _places(stream, windows):
  """(tokens of each window, those in the first half of what is left of its document), both [..., seq_len - 3]."""
  offset = np.arange(stream.recipe.seq_len - 3)
  begin, end = stream.windows[windows][..., None], stream.ends[windows][..., None]
  return np.minimum(begin + offset, len(stream.corpus.tokens) - 1), offset < np.maximum(
    (end - begin) // 2, 1
  )


def _assemble(stream, start, first_len, second, second_len, rng):
  """[CLS] A [SEP] B [SEP], then 80/10/10 corruption at the predicted positions."""
  recipe, tokens = stream.recipe, stream.corpus.tokens
  cls, sep, blank, ordinary = stream.ids
  column = np.arange(recipe.seq_len)
  first_len, second_len = first_len[:, None], second_len[:, None]
  in_first = (column >= 1) & (column <= first_len)
  in_second = (column >= first_len + 2) & (column < first_len + 2 + second_len)
  at = np.where(in_first, start[:, None] + column - 1, second[:, None] + column - first_len - 2)
  text = in_first | in_second
  valid = column < first_len + second_len + 3
  ids = np.where(
    text, tokens[np.clip(at, 0, len(tokens) - 1)].astype(np.int32), np.where(valid, sep, 0)
  )
  ids[:, 0] = cls

  # The `wanted` text positions with the smallest random keys, in order of position.
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

  luck = rng.random(positions.shape)
  anything = rng.integers(ordinary, len(stream.word_start), positions.shape)
  written = np.where(luck < 0.8, blank, np.where(luck < 0.9, anything, targets))
  corrupt = np.concatenate(
    [ids, np.zeros((len(ids), 1), ids.dtype)], axis=1
  )  # the last column takes the padding
  np.put_along_axis(corrupt, np.where(real, positions, recipe.seq_len), written, axis=1)
  pad = recipe.max_predictions - positions.shape[1]
  widen = lambda x, dtype: np.pad(x, ((0, 0), (0, pad))).astype(dtype)
  return {
    'input_ids': corrupt[:, :-1].astype(np.int32),
    'segment_ids': (valid & (column > first_len + 1)).astype(np.int32),
    'valid': valid,
    'positions': widen(positions, np.int32),
    'targets': widen(targets, np.int32),
    'weights': widen(real, np.float32),
  }

"""Segments of a text, on which a model is calibrated."""

from collections.abc import Callable, Iterable

import numpy as np

from prunejax.data import bpe

POOL = 16  # segments that are read for each one that is drawn
TOGETHER = 64  # documents that are tokenised at a time


def segments(
  documents: Iterable[str],
  encode: Callable[[list[str]], list[list[int]]],
  *,
  count: int,
  length: int,
  end: int | None,
  seed: int = 0,
) -> np.ndarray:
  """Draws segments that do not overlap from the start of a text.

  Documents are joined, with the token `end` after each, and cut into segments. The first
  16 `count` of them are read, fewer if the text is shorter, and `count` are drawn.

  Args:
    documents: the text, as `text_files.documents` yields it.
    encode: texts -> ids of each.
    count: segments to draw.
    length: tokens of a segment.
    end: the id that ends a document; None for none.
    seed: of the draw.

  Returns:
    int32 [count, length].

  Raises:
    ValueError: the text is shorter than that many segments.
  """
  wanted, tokens, waiting = POOL * count * length, [], []

  def take():
    for ids in encode(waiting):
      tokens.extend(ids if end is None else (*ids, end))
    waiting.clear()

  for document in documents:
    waiting.append(document)
    if len(waiting) == TOGETHER:
      take()
      if len(tokens) >= wanted:
        break
  take()
  there = min(len(tokens), wanted) // length
  if there < count:
    raise ValueError(
      f'the calibration text has {len(tokens):,} tokens, {there} segments of {length:,}: expected'
      f' {count}; give a longer text, or fewer or shorter segments'
    )
  drawn = np.sort(np.random.default_rng(seed).choice(there, count, replace=False))
  whole = np.array(tokens[: there * length], np.int32).reshape(there, length)
  return whole[drawn]


def of_text(
  documents: Iterable[str], tokenizer, vocab_size: int, *, count: int, length: int, seed: int = 0
) -> np.ndarray:
  """Draws segments of a text for a model.

  Args:
    documents: the text.
    tokenizer: a `tokenizers.Tokenizer`.
    vocab_size: rows of the word embeddings of the model.
    count: segments to draw.
    length: tokens of a segment.
    seed: of the draw.

  Returns:
    int32 [count, length].

  Raises:
    ValueError: the vocabulary does not fit the model; the text is too short.
  """
  if tokenizer.get_vocab_size() > vocab_size:
    raise ValueError(
      f'the vocabulary has {tokenizer.get_vocab_size()} pieces, the word embeddings of the model'
      f' {vocab_size} rows: expected no more pieces than rows'
    )
  encode = lambda texts: [
    encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
  ]
  end = next((i for i in map(tokenizer.token_to_id, bpe.ENDS) if i is not None), None)
  return segments(documents, encode, count=count, length=length, end=end, seed=seed)

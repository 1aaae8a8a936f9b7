"""Running text as word numbers, in the manner of the Penn Treebank corpus: lower case, N for numbers, <unk>, <eos>."""

import collections
import functools
import pathlib
import re

import numpy as np

from prunejax.data import pydoc
from prunejax.data import text_files as text

UNKNOWN, END = '<unk>', '<eos>'
SENTENCE = re.compile(r'(?<=[.!?])\s+|\n')
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")
HELD_OUT = 20  # one passage in so many is held out


def read(root, most):
  """(training documents, held-out documents), each a list of texts of at most `most` words in all, drawn evenly.

  root: '' is the embedded corpus; else a folder with `books/` of plain text, or a folder of text. Raises
  FileNotFoundError, ValueError.
  """
  if not root:
    found = [d.text for d in pydoc.documents()]
  else:
    folder = pathlib.Path(root).expanduser()
    found = list(text.documents(folder / 'books' if (folder / 'books').is_dir() else folder))
  # Passages, so that a handful of novels has as even a sample as thousands of modules.
  passages = [p for document in found for p in _passages(document)]
  order = np.random.default_rng(0).permutation(len(passages))
  shuffled = [passages[i] for i in order]
  kept = (
    _first(shuffled[len(shuffled) // HELD_OUT :], most),
    _first(shuffled[: len(shuffled) // HELD_OUT], most // 10),
  )
  if not all(kept):
    raise ValueError(
      f'data.root={root!r}: {len(passages)} passages of text are too few; expected a hundred or more'
    )
  return kept


@functools.lru_cache(2)
def load(root, most, vocabulary):
  """(training ids, held-out ids, words), ids int32 [n]: the `vocabulary` - 2 commonest words of the training text."""
  train, held_out = ([_words(p) for p in part] for part in read(root, most))
  counts = collections.Counter(w for passage in train for w in passage if w != END)
  by_count = sorted(counts, key=lambda w: (-counts[w], w))
  words = [UNKNOWN, END, *by_count[: vocabulary - 2]]
  if len(words) < vocabulary:
    raise ValueError(
      f'data.root={root!r}: {len(words)} different words, fewer than the vocabulary of {vocabulary}'
    )
  number = {w: i for i, w in enumerate(words)}
  ids = lambda passages: np.array(
    [number.get(w, 0) for passage in passages for w in passage], np.int32
  )
  return ids(train), ids(held_out), tuple(words)


def _passages(document, size=300):
  """Pieces of about `size` words, each of whole lines."""
  piece, count = [], 0
  for line in document.split('\n'):
    piece.append(line)
    count += line.count(' ') + 1
    if count >= size:
      yield '\n'.join(piece)
      piece, count = [], 0
  if piece:
    yield '\n'.join(piece)


def _words(passage):
  sentences = (WORD.findall(s.lower()) for s in SENTENCE.split(passage))
  return [w for s in sentences if s for w in (*('N' if w[0].isdigit() else w for w in s), END)]


def _first(passages, most):
  """As many passages as `most` words hold."""
  lengths = np.cumsum([p.count(' ') + 1 for p in passages])
  return passages[: int(np.searchsorted(lengths, most)) + 1]

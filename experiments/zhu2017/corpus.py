"""Read text as word numbers, as in the Penn Treebank: lower case, N for numbers, <unk>, <eos>."""

import collections
import functools
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from prunejax.data import content, prose, text_files
from prunejax.data.pydoc import joined

UNKNOWN, END = '<unk>', '<eos>'
SENTENCE = re.compile(r'(?<=[.!?])\s+|\n')
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+")
HELD_OUT = 20  # One passage in so many is held out.


def read(root: str, most: int, pydoc: str = 'installed') -> tuple[list[str], list[str]]:
  """Read the training passages and the held-out passages, drawn evenly from the text.

  Args:
    root: '' for the embedded corpus; else a folder of text, or one that holds `books/`.
    most: most words of training; a tenth of it is held out.
    pydoc: which text the embedded corpus is, 'installed' or 'packaged'.

  Raises:
    FileNotFoundError: if `root` holds no text.
    ValueError: if it holds too little.
  """
  if not root:
    documents = [document.text for document in joined(prose.chosen(pydoc))]
  else:
    documents = list(text_files.documents(_folder(root)))
  # Passages, not documents: a few novels then give as even a sample as thousands of modules.
  passages = [passage for document in documents for passage in _passages(document)]
  order = np.random.default_rng(0).permutation(len(passages))
  shuffled = [passages[i] for i in order]
  parts = (
    _first(shuffled[len(shuffled) // HELD_OUT :], most),
    _first(shuffled[: len(shuffled) // HELD_OUT], most // 10),
  )
  if not all(parts):
    raise ValueError(
      f'data.root={root!r}: {len(passages)} passages of text are too few; expected at least 100'
    )
  return parts


def load(
  root: str, most: int, vocabulary: int, pydoc: str = 'installed'
) -> tuple[np.ndarray, np.ndarray, tuple]:
  """Load the text as word numbers.

  Args:
    root, most, pydoc: see `read`.
    vocabulary: words, <unk> and <eos> included; the commonest ones of the training text.

  Returns:
    Training ids int32 [n], held-out ids int32 [n], and the words by number.

  Raises:
    FileNotFoundError, ValueError: see `read`; also for a text with fewer words.
  """
  return _load(root, most, vocabulary, pydoc, content.of(reads(root, pydoc)))


@functools.lru_cache(2)
def _load(root, most, vocabulary, pydoc, key):
  del key  # it tells one text from another under the same root
  train, held_out = ([_words(passage) for passage in part] for part in read(root, most, pydoc))
  counts = collections.Counter(word for passage in train for word in passage if word != END)
  by_count = sorted(counts, key=lambda word: (-counts[word], word))
  words = [UNKNOWN, END, *by_count[: vocabulary - 2]]
  if len(words) < vocabulary:
    raise ValueError(
      f'data.root={root!r}: {len(words)} different words, fewer than the vocabulary of {vocabulary}'
    )
  number = {word: i for i, word in enumerate(words)}
  ids = lambda passages: np.array(
    [number.get(word, 0) for passage in passages for word in passage], np.int32
  )
  return ids(train), ids(held_out), tuple(words)


def reads(root: str, pydoc: str) -> dict[str, str]:
  """Digest of the text that is read.

  Args:
    root, pydoc: see `read`.

  Raises:
    FileNotFoundError: if `root` holds no text.
  """
  if not root:
    return {'pydoc': content.of(prose.fingerprint(pydoc))}
  return {'books': content.of(text_files.fingerprint(_folder(root)))}


def _folder(root):
  folder = pathlib.Path(root).expanduser()
  return folder / 'books' if (folder / 'books').is_dir() else folder


def _passages(document: str, size: int = 300) -> Iterator[str]:
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
  """Words of a passage, each sentence ended by <eos>."""
  sentences = (WORD.findall(sentence.lower()) for sentence in SENTENCE.split(passage))
  words = []
  for sentence in sentences:
    if sentence:
      words += ['N' if word[0].isdigit() else word for word in sentence] + [END]
  return words


def _first(passages, most):
  """The first passages, up to the one in which word number `most` is reached."""
  lengths = np.cumsum([passage.count(' ') + 1 for passage in passages])
  return passages[: int(np.searchsorted(lengths, most)) + 1]

"""Four labelled tasks made from the embedded corpus, split by document as the corpus is."""

import functools
import os
import re
import zlib

import numpy as np

from prunejax.data import prose, pydoc, pydoc_prose
from prunejax.data.examples import Examples, Task, nearest

# Every training install has these, with thousands of paragraphs. Their order numbers the classes.
LIBRARIES = ('stdlib', 'scipy', 'matplotlib', 'jax', 'transformers')
TASKS = {
  'library': Task('pydoc/library', LIBRARIES, ('accuracy',), False),
  'summary': Task('pydoc/summary', ('other', 'own'), ('accuracy',), True),
  'order': Task('pydoc/order', ('swapped', 'own'), ('accuracy',), False),
  'words': Task('pydoc/words', ('replaced', 'own'), ('accuracy',), False),
}
SPLITS = ('train', 'validation', 'test')
_MAX_EXAMPLES = {'train': 24_000, 'validation': 2_000, 'test': 2_000}
# Words that give away the library of a text.
_TELLTALE = re.compile(
  r'(python|numpy|\bnp\b|ndarray|scipy|matplotlib|\bmpl|pyplot|jax|\bjnp\b|\blax\b|'
  r'xla|pallas|mosaic|optax|transformers|'
  r'hugging ?face|\bhf\b|torch|tensorflow|keras)',
  re.I,
)
_SWAPPED_PAIRS = 3
_REPLACED = 5
_PIECES = 6  # at most so many from the body of one docstring
_WORD = re.compile('[a-z]+')


def load(
  name: str, split: str, cache: str | os.PathLike | None = None, packaged: bool = False
) -> Examples:
  """Makes the examples of one split, balanced over classes and shuffled.

  The same text gives the same examples.

  Args:
    name: 'library' (which library a text is from), 'summary' (whether a body belongs to a first
      sentence), 'order' (whether words are in order) or 'words' (whether all words belong).
    split: 'train', 'validation' or 'test'.
    cache: folder of the cached corpus.
    packaged: of the packaged text, which never changes, and not of the installed libraries.

  Returns:
    Examples with label int32 [n].

  Raises:
    ValueError: another name or split; too little text in the installed libraries.
  """
  if name not in TASKS:
    raise ValueError(f'unknown pydoc task {name!r}: {nearest(name, tuple(TASKS))}')
  if split not in SPLITS:
    raise ValueError(f'pydoc/{name} has no split {split!r}: {nearest(split, SPLITS)}')
  text = prose.SHA256 if packaged else pydoc.signature()
  examples = _splits(name, cache, packaged, text)[split]
  if not examples.a:
    raise ValueError(
      f'pydoc/{name}: no {split} examples; the installed libraries hold too little text. '
      "Install more (python -m pip install 'prunejax[train]')"
    )
  return examples


@functools.lru_cache(4)
def _splits(name, cache, packaged, text):
  """{split: Examples}. Two examples with the same bag of words count as one; the first stays."""
  entries = prose.entries() if packaged else pydoc.entries(cache)
  seen, out = set(), {}
  for number, split in enumerate(SPLITS):
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    rows = []
    for a, b, label in _MAKERS[name](
      [e for e in entries if pydoc.split_of(e.document) == split], rng
    ):
      key = tuple(sorted(_WORD.findall(f'{a} {b}'.lower())))
      if key not in seen:
        seen.add(key)
        rows.append((a, b, label))
    a, b, label = _balanced(rows, len(TASKS[name].classes), _MAX_EXAMPLES[split], rng)
    out[split] = Examples(a, b if TASKS[name].pair else None, label)
  return out


def _balanced(rows, classes, most, rng):
  """Equally many (a, b, label) rows of each label, at most `most` in all, shuffled."""
  by_label = [[row for row in rows if row[2] == label] for label in range(classes)]
  each = min(most // classes, *map(len, by_label))
  drawn = [group[i] for group in by_label for i in rng.permutation(len(group))[:each]]
  drawn = [drawn[i] for i in rng.permutation(len(drawn))]
  return [r[0] for r in drawn], [r[1] for r in drawn], np.array([r[2] for r in drawn], np.int32)


def _clip(text, words):
  return ' '.join(text.split()[:words])


def _library(entries, rng):
  """(at most 32 words, None, number of the library). Sentences that name a library are left out."""
  rows = []
  for e in entries:
    if e.library in LIBRARIES:
      for paragraph in e.paragraphs:
        text = ' '.join(s for s in pydoc_prose.sentences(paragraph) if not _TELLTALE.search(s))
        if text.count(' ') >= 7:
          rows.append((_clip(text, 32), None, LIBRARIES.index(e.library)))
  return rows


def _summary(entries, rng):
  """(first sentence of a docstring, 20 words of a body, label).

  Label 1: the body is of the same docstring. Label 0: it is of another module.
  """
  pairs = []
  for e in entries:
    first, *rest = pydoc_prose.sentences(e.paragraphs[0])
    if e.summary and first.count(' ') >= 3:
      pieces = [_clip(p, 20) for p in (' '.join(rest), *e.paragraphs[1:]) if p.count(' ') >= 5]
      pairs.extend((_clip(first, 14), p, e.document) for p in pieces[:_PIECES])
  pairs = [pairs[i] for i in rng.permutation(len(pairs))]
  rows = []
  for (first, own, document), (_, other, elsewhere) in zip(
    pairs, pairs[1:] + pairs[:1], strict=True
  ):
    # Every sentence occurs under both labels, so neither text alone gives the answer.
    if document != elsewhere:
      rows += [(first, own, 1), (first, other, 0)]
  return rows


def _windows(entries, rng):
  """Yields (run of 13 to 16 words, positions of its words that are all lower-case letters).

  Only those words may move: a moved capital or full stop would give the answer away.
  """
  for e in entries:
    for paragraph in e.paragraphs:
      words = paragraph.split()
      while len(words) >= 13:
        size = int(rng.integers(13, 17))
        window, words = words[:size], words[size:]
        free = [i for i, w in enumerate(window) if _WORD.fullmatch(w)]
        if len(free) >= 2 * _SWAPPED_PAIRS + 2 and len(window) >= 13:
          yield window, free


def _order(entries, rng):
  """(13 to 16 words, None, label). Label 1: in order. Label 0: three disjoint pairs swapped."""
  rows = []
  for window, free in _windows(entries, rng):
    swapped = _swap(window, free, rng)
    if swapped:
      label = len(rows) % 2
      rows.append((' '.join(window if label else swapped), None, label))
  return rows


def _words(entries, rng):
  """(13 to 16 words, None, label). Label 1: as written. Label 0: five words of another window.

  Replacements come from the same texts, so no word is commoner under either label.
  """
  windows = list(_windows(entries, rng))
  rows = []
  for (window, free), other in zip(windows, rng.permutation(len(windows)), strict=True):
    label = len(rows) % 2
    if not label:
      other_words, other_free = windows[other]
      window = list(window)
      for to, source in zip(
        rng.permutation(free)[:_REPLACED], rng.permutation(other_free)[:_REPLACED], strict=True
      ):
        window[to] = other_words[source]
    rows.append((' '.join(window), None, label))
  return rows


def _swap(words, free, rng):
  """The words with three disjoint pairs exchanged; None if the two words of a pair are equal."""
  chosen = rng.permutation(free)[: 2 * _SWAPPED_PAIRS]
  out = list(words)
  for i, j in zip(chosen[::2], chosen[1::2], strict=True):
    if words[i] == words[j]:
      return None
    out[i], out[j] = words[j], words[i]
  return out


_MAKERS = {'library': _library, 'summary': _summary, 'order': _order, 'words': _words}

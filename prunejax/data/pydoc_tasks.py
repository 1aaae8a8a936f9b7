"""Four labelled tasks that the embedded corpus carries in itself, split by document as it is."""

import functools
import re
import zlib

import numpy as np

from prunejax.data import pydoc, pydoc_prose
from prunejax.data.examples import Examples, Task, nearest

# Every training install has them, with thousands of paragraphs in many modules; in class order.
LIBRARIES = ('stdlib', 'scipy', 'matplotlib', 'jax', 'transformers')
TASKS = {
  'library': Task('pydoc/library', LIBRARIES, ('accuracy',), False),
  'summary': Task('pydoc/summary', ('other', 'own'), ('accuracy',), True),
  'order': Task('pydoc/order', ('swapped', 'own'), ('accuracy',), False),
  'words': Task('pydoc/words', ('replaced', 'own'), ('accuracy',), False),
}
SPLITS = ('train', 'validation', 'test')
_MOST = {'train': 24_000, 'validation': 2_000, 'test': 2_000}
# Words that say where a text is from without being about anything.
_TELLTALE = re.compile(
  r'(python|numpy|\bnp\b|ndarray|scipy|matplotlib|\bmpl|pyplot|jax|\bjnp\b|\blax\b|'
  r'xla|pallas|mosaic|optax|transformers|'
  r'hugging ?face|\bhf\b|torch|tensorflow|keras)',
  re.I,
)
_SWAPPED_PAIRS = 3
_REPLACED = 5
_PIECES = 6  # of one body
_WORD = re.compile('[a-z]+')


def load(name, split, cache=None):
  """Examples of 'library', 'summary', 'order' or 'words', balanced and shuffled; label int32 [n].

  The same libraries give the same examples. ValueError for another name or split, or when the
  installed libraries hold too little text.
  """
  if name not in TASKS:
    raise ValueError(f'unknown pydoc task {name!r}: {nearest(name, tuple(TASKS))}')
  if split not in SPLITS:
    raise ValueError(f'pydoc/{name} has no split {split!r}: {nearest(split, SPLITS)}')
  examples = _splits(name, cache, pydoc.signature())[split]
  if not examples.a:
    raise ValueError(
      f'pydoc/{name}: no {split} examples; the installed libraries hold too little text '
      "(python -m pip install 'prunejax[train]')"
    )
  return examples


@functools.lru_cache(4)
def _splits(name, cache, signature):
  """{split: Examples}; what two splits would share, as a bag of words, the first one keeps."""
  entries, seen, out = pydoc.entries(cache), set(), {}
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
    a, b, label = _balanced(rows, len(TASKS[name].classes), _MOST[split], rng)
    out[split] = Examples(a, b if TASKS[name].pair else None, label)
  return out


def _balanced(rows, classes, most, rng):
  """Equally many (a, b, label) of each label, at most `most` in all, shuffled."""
  by_label = [[row for row in rows if row[2] == label] for label in range(classes)]
  each = min(most // classes, *map(len, by_label))
  kept = [group[i] for group in by_label for i in rng.permutation(len(group))[:each]]
  kept = [kept[i] for i in rng.permutation(len(kept))]
  return [r[0] for r in kept], [r[1] for r in kept], np.array([r[2] for r in kept], np.int32)


def _clip(text, words):
  return ' '.join(text.split()[:words])


def _library(entries, rng):
  """(at most 32 words, None, number of the library); sentences that name a library are left out."""
  rows = []
  for e in entries:
    if e.library in LIBRARIES:
      for paragraph in e.paragraphs:
        text = ' '.join(s for s in pydoc_prose.sentences(paragraph) if not _TELLTALE.search(s))
        if text.count(' ') >= 7:
          rows.append((_clip(text, 32), None, LIBRARIES.index(e.library)))
  return rows


def _summary(entries, rng):
  """(first sentence of a docstring, 20 words of a body, 1: its own, 0: one of another module)."""
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
    # Every sentence serves under both labels, so neither side alone tells the answer.
    if document != elsewhere:
      rows += [(first, own, 1), (first, other, 0)]
  return rows


def _windows(entries, rng):
  """Runs of 13 to 16 words, each with the places of its plain lower-case ones: a capital or full stop would tell."""
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
  """(13 to 16 words, None, 1 in their own order, 0 with three disjoint pairs swapped)."""
  rows = []
  for window, free in _windows(entries, rng):
    swapped = _swap(window, free, rng)
    if swapped:
      label = len(rows) % 2
      rows.append((' '.join(window if label else swapped), None, label))
  return rows


def _words(entries, rng):
  """(13 to 16 words, None, 1 as they were written, 0 with five of them from another window).

  The words that come in are those of the text, so no word is commoner under either label.
  """
  windows = list(_windows(entries, rng))
  rows = []
  for (window, free), other in zip(windows, rng.permutation(len(windows)), strict=True):
    label = len(rows) % 2
    if not label:
      theirs, places = windows[other]
      window = list(window)
      for to, source in zip(
        rng.permutation(free)[:_REPLACED], rng.permutation(places)[:_REPLACED], strict=True
      ):
        window[to] = theirs[source]
    rows.append((' '.join(window), None, label))
  return rows


def _swap(words, free, rng):
  """The words with three disjoint pairs of different ones exchanged; None if a pair is equal."""
  chosen = rng.permutation(free)[: 2 * _SWAPPED_PAIRS]
  out = list(words)
  for i, j in zip(chosen[::2], chosen[1::2], strict=True):
    if words[i] == words[j]:
      return None
    out[i], out[j] = words[j], words[i]
  return out


_MAKERS = {'library': _library, 'summary': _summary, 'order': _order, 'words': _words}

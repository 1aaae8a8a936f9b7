"""Three labelled tasks that the embedded corpus carries in itself; examples never cross its split by document."""
import re
import zlib

import numpy as np

from prunejax.data import prose, pydoc
from prunejax.data.tasks import Examples, Task, nearest

# Libraries with thousands of paragraphs in many modules that every training install has, in class order.
LIBRARIES = ('stdlib', 'scipy', 'matplotlib', 'jax', 'transformers')
TASKS = {
  'library': Task('pydoc/library', LIBRARIES, ('accuracy',), False),
  'summary': Task('pydoc/summary', ('other', 'own'), ('accuracy',), True),
  'order': Task('pydoc/order', ('swapped', 'own'), ('accuracy',), False),
}
SPLITS = ('train', 'validation', 'test')
_MOST = {'train': 24_000, 'validation': 2_000, 'test': 2_000}
# Words that say where a text is from without being about anything.
_TELLTALE = re.compile(
  r'\b(python|numpy|np|ndarrays?|scipy|matplotlib|mpl|pyplot|jax|jaxlib|jnp|lax|xla|pallas|mosaic|flax|optax|transformers|'
  r'hugging ?face|hf|pytorch|torch|tensorflow|keras)\w*\b', re.I)
_SWAPPED_PAIRS = 3
_PIECES = 3  # of one body
_LOWER = re.compile(r'[a-z]+')


def load(name, split, cache=None):
  """Examples of 'library', 'summary' or 'order': balanced, shuffled, the same on every machine with the same libraries.

  label: int32 [n]. ValueError for another name or split, or when the installed libraries hold too little text.
  """
  if name not in TASKS:
    raise ValueError(f'unknown pydoc task {name!r}: {nearest(name, tuple(TASKS))}')
  if split not in SPLITS:
    raise ValueError(f'pydoc/{name} has no split {split!r}: {nearest(split, SPLITS)}')
  rng = np.random.default_rng([zlib.crc32(name.encode()), SPLITS.index(split)])
  rows = _MAKERS[name](pydoc.entries(cache), split, rng)
  a, b, label = _balanced(rows, len(TASKS[name].classes), _MOST[split], rng)
  if not a:
    raise ValueError(f'pydoc/{name}: no {split} examples; the installed libraries hold too little text '
                     "(python -m pip install 'prunejax[train]')")
  return Examples(a, b if TASKS[name].pair else None, label)


def _balanced(rows, classes, most, rng):
  """Equally many (a, b, label) of each label, at most `most` in all, shuffled."""
  by_label = [[row for row in rows if row[2] == label] for label in range(classes)]
  each = min(most // classes, *map(len, by_label))
  kept = [group[i] for group in by_label for i in rng.permutation(len(group))[:each]]
  kept = [kept[i] for i in rng.permutation(len(kept))]
  return [r[0] for r in kept], [r[1] for r in kept], np.array([r[2] for r in kept], np.int32)


def _mine(entries, split):
  return (e for e in entries if pydoc.split_of(e.document) == split)


def _clip(text, words):
  return ' '.join(text.split()[:words])


def _library(entries, split, rng):
  """(at most 32 words, None, number of the library); sentences that name a library are left out."""
  rows = []
  for e in _mine(entries, split):
    if e.library in LIBRARIES:
      for paragraph in e.paragraphs:
        text = ' '.join(s for s in prose.sentences(paragraph) if not _TELLTALE.search(s))
        if text.count(' ') >= 7:
          rows.append((_clip(text, 32), None, LIBRARIES.index(e.library)))
  return rows


def _summary(entries, split, rng):
  """(a docstring's first sentence, 20 words of a body, 1 if that is its own body else 0: one of the same library)."""
  groups = {}
  for e in _mine(entries, split):
    first, *rest = prose.sentences(e.paragraphs[0])
    if e.summary and first.count(' ') >= 3:
      pieces = [_clip(p, 20) for p in (' '.join(rest), *e.paragraphs[1:]) if p.count(' ') >= 7]
      groups.setdefault(e.library, []).extend((_clip(first, 14), p, e.document) for p in pieces[:_PIECES])
  rows = []
  for group in groups.values():
    group = [group[i] for i in rng.permutation(len(group))]
    for (first, own, document), (_, other, elsewhere) in zip(group, group[1:] + group[:1], strict=True):
      # Every sentence serves under both labels, so neither side alone says anything about the answer.
      if document != elsewhere:
        rows += [(first, own, 1), (first, other, 0)]
  return rows


def _order(entries, split, rng):
  """(14 to 18 words, None, 1 in their own order, 0 with three disjoint pairs swapped)."""
  rows = []
  for e in _mine(entries, split):
    for paragraph in e.paragraphs:
      words = paragraph.split()
      while len(words) >= 14:
        size = int(rng.integers(14, 19))
        window, words = words[:size], words[size:]
        # Only plain lower-case words move: capitals and full stops in odd places would give the answer away.
        free = [i for i, w in enumerate(window) if _LOWER.fullmatch(w)]
        if len(free) < 2 * _SWAPPED_PAIRS + 2 or len(window) < 14:
          continue
        swapped = _swap(window, free, rng)
        if swapped:
          label = len(rows) % 2
          rows.append((' '.join(window if label else swapped), None, label))
  return rows


def _swap(words, free, rng):
  """The words with three disjoint pairs of different ones exchanged; None if this draw finds no such pairs."""
  chosen = rng.permutation(free)[:2 * _SWAPPED_PAIRS]
  out = list(words)
  for i, j in zip(chosen[::2], chosen[1::2], strict=True):
    if words[i] == words[j]:
      return None
    out[i], out[j] = words[j], words[i]
  return out


_MAKERS = {'library': _library, 'summary': _summary, 'order': _order}

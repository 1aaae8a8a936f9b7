"""Text to token arrays, once: tokenised, split by document, cached as memory-mapped .npy files."""

import hashlib
import json
import os
import pathlib
import re
import tempfile
from typing import NamedTuple

import numpy as np

from prunejax.data import bpe, pydoc, text_files, wordpiece

SPLITS = ('train', 'validation', 'test')
FORMAT = 1
_SOURCE = re.compile(r'(?P<name>[^@*]+)(?:@(?P<share>\d*\.?\d+))?(?:\*(?P<repeat>\d+))?')
_SENTENCE = re.compile(r'(?<=[.!?])["\')]*\s+(?=["\'(]*[A-Z0-9])')


class Source(NamedTuple):
  """One part of a spec: how often its training documents are read, and which share of them."""

  name: str
  repeat: int = 1
  share: float = 1.0


class Corpus(NamedTuple):
  """One split of a tokenised corpus.

  tokens: uint16 or int32 [n], all documents end to end.
  starts: bool [n], True where a sentence starts (with byte-level BPE: a document).
  documents: int64 [d + 1], offsets of the documents in `tokens`.
  """

  tokens: np.ndarray
  starts: np.ndarray
  documents: np.ndarray


def cache_dir(path=None) -> pathlib.Path:
  """The folder of caches: `path`, else $PRUNEJAX_CACHE, else ~/.cache/prunejax."""
  return pathlib.Path(path or os.environ.get('PRUNEJAX_CACHE') or '~/.cache/prunejax').expanduser()


def load(spec, split, tokenizer, *, root=None, cache=None) -> Corpus:
  """One split of the sources that `spec` names, tokenised.

  Args:
    spec: sources joined by '+', each with an optional repeat: 'pydoc', 'wikipedia+pydoc*4', 'tfds:lm1b'. A name
      other than 'pydoc' and 'tfds:...' is a folder (or archive) of text below `root`. 'wikipedia@0.1' is a tenth of
      the training documents, drawn once: those of a smaller share are among those of a larger one.
    split: 'train', 'validation' or 'test', split by document.
    tokenizer: a `tokenizers.Tokenizer`.
    root: folder of local text, or TFDS's data folder.
    cache: folder of caches, see `cache_dir`.

  Raises:
    FileNotFoundError, ValueError: naming the source and what would be accepted.
  """
  if split not in SPLITS:
    raise ValueError(f'split {split!r}: expected one of {", ".join(SPLITS)}')
  parts = []
  for name, repeat, share in sources(spec):
    folder = _tokenised(name, tokenizer, root, cache)
    part = _checked(folder, split)
    if split == 'train' and share < 1:
      part = _sample(part, share)
    parts += [part] * (repeat if split == 'train' else 1)
  return _join(parts) if len(parts) > 1 else parts[0]


def _checked(folder, split):
  """A split from the cache; nothing is read yet, the files are mapped. Raises ValueError for what is no corpus."""
  kinds = {'tokens': (np.uint16, np.int32), 'starts': (np.bool_,), 'documents': (np.int64,)}
  arrays = {}
  for field, accepted in kinds.items():
    path = folder / f'{split}.{field}.npy'
    try:
      # Without pickles; a shape that the file does not have room for cannot be mapped.
      array = arrays[field] = np.load(path, mmap_mode='r', allow_pickle=False)
      if array.ndim != 1 or array.dtype not in accepted:
        raise ValueError(f'{array.dtype} of {array.ndim} axes')
    except (ValueError, EOFError, OSError) as error:
      raise ValueError(
        f'{path} is damaged ({error}): delete {str(folder)!r} and it is made again'
      ) from None
  part = Corpus(**arrays)
  cuts = part.documents
  if (
    len(part.starts) != len(part.tokens)
    or not len(cuts)
    or cuts[0] != 0
    or cuts[-1] != len(part.tokens)
  ):
    raise ValueError(
      f'{str(folder)!r} is damaged ({split} does not fit together): delete it and it is made again'
    )
  return part


def sources(spec) -> list[Source]:
  """'a+b@0.5*3' -> [Source('a', 1, 1.0), Source('b', 3, 0.5)]. Raises ValueError for what is no such spec."""
  found = []
  for part in str(spec).split('+'):
    match = _SOURCE.fullmatch(part.strip())
    repeat, share = (int(match['repeat'] or 1), float(match['share'] or 1)) if match else (0, 0)
    if not (repeat > 0 and 0 < share <= 1):
      raise ValueError(
        f"data.corpus={spec!r}: expected sources joined by '+', such as 'pydoc' or 'wikipedia+pydoc*4', each with an"
        " optional share in (0, 1], such as 'wikipedia@0.1'"
      )
    found.append(Source(match['name'], repeat, share))
  return found


def lines(spec, *, root=None, cache=None, limit=40_000_000):
  """Paragraphs of the training documents, up to `limit` characters a source, for training a vocabulary."""
  for name, *_ in sources(spec):
    left = limit
    for split, document in _documents(name, root, cache):
      if split == 'train' and left > 0:
        left -= len(document)
        yield from document.split('\n')


def _documents(name, root, cache):
  """(split, text) of every document of one source. One document in a hundred is validation, one is test."""
  if name == 'pydoc':
    for document in pydoc.documents(cache):
      yield pydoc.split_of(document.name), document.text
    return
  if name.startswith('tfds:'):
    from prunejax.data import tfds  # half a second, and most runs have no use for it

    stream = tfds.documents(name.removeprefix('tfds:'), root, 'train')
  else:
    stream = text_files.documents(_folder(name, root))
  for i, document in enumerate(stream):
    # The first two documents after a start are held out, so that the smallest folder has all three splits.
    yield {1: 'validation', 2: 'test'}.get(i % 100, 'train'), document


def _folder(name, root):
  if root is None or str(root) == '':
    raise FileNotFoundError(
      f'data.corpus={name!r} is a folder of local text: say where with data.root=FOLDER'
    )
  return pathlib.Path(root).expanduser() / name


def _fingerprint(name, root, cache):
  if name == 'pydoc':
    return pydoc.signature()
  return (
    [name, str(root)] if name.startswith('tfds:') else text_files.fingerprint(_folder(name, root))
  )


def key(spec, root=None, cache=None, extra=''):
  """A file name that changes with the sources, their content and `extra`."""
  content = json.dumps(
    [FORMAT, [[name, _fingerprint(name, root, cache)] for name, *_ in sources(spec)], extra]
  )
  return f'{re.sub(r"[^a-z0-9]+", "-", spec.lower())}-{hashlib.sha256(content.encode()).hexdigest()[:16]}'


def _tokenised(name, tokenizer, root, cache):
  """The folder with the tokens of one source, made when it is not there."""
  words = bpe if bpe.is_one(tokenizer) else wordpiece
  folder = cache_dir(cache) / 'tokens' / key(name, root, cache, words.fingerprint(tokenizer))
  if (folder / 'meta.json').exists():
    return folder
  arrays = _encode(_documents(name, root, cache), tokenizer)
  for split in SPLITS:
    if not len(arrays[split].tokens):
      raise ValueError(
        f'data.corpus={name!r}: no document for the {split} split; expected at least three documents'
      )
  folder.parent.mkdir(parents=True, exist_ok=True)
  # Written beside and renamed: a killed build leaves nothing that looks finished. Several processes may build at once,
  # each in a place of its own; the first one's stays.
  with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
    made = pathlib.Path(scratch) / 'made'
    made.mkdir()
    for split, corpus in arrays.items():
      for field, array in corpus._asdict().items():
        np.save(made / f'{split}.{field}.npy', array)
    (made / 'meta.json').write_text(
      json.dumps({'source': name, 'tokens': len(arrays['train'].tokens)})
    )
    try:
      made.rename(folder)
    except OSError:
      if not (folder / 'meta.json').exists():
        raise
  return folder


def _encode(documents, tokenizer, group=512):
  """Tokenises (split, text) pairs into a dict of Corpus.

  Sentence by sentence for WordPiece; for byte-level BPE, to which a space or a line end is text, each document whole.
  """
  cut_up = (lambda text: [text]) if bpe.is_one(tokenizer) else _sentences
  dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.int32
  tokens, starts, offsets = ({s: [] for s in SPLITS} for _ in range(3))
  total = dict.fromkeys(SPLITS, 0)

  def flush(pending):
    sentences = [(i, s) for i, (_, d) in enumerate(pending) for s in cut_up(d)]
    encoded = tokenizer.encode_batch_fast([s for _, s in sentences], add_special_tokens=False)
    ids = [[] for _ in pending]
    first = [[] for _ in pending]
    for (i, _), code in zip(sentences, encoded, strict=True):
      if code.ids:
        ids[i].extend(code.ids)
        first[i].extend([True] + [False] * (len(code.ids) - 1))
    for (split, _), document, flags in zip(pending, ids, first, strict=True):
      if len(document) < 8:  # too short for two segments
        continue
      tokens[split].append(np.array(document, dtype))
      starts[split].append(np.array(flags, bool))
      total[split] += len(document)
      offsets[split].append(total[split])

  pending = []
  for pair in documents:
    pending.append(pair)
    if len(pending) == group:
      flush(pending)
      pending = []
  flush(pending)
  join = lambda arrays, dtype: np.concatenate(arrays) if arrays else np.zeros(0, dtype)
  cut = lambda split: np.array([0, *offsets[split]], np.int64)
  return {s: Corpus(join(tokens[s], dtype), join(starts[s], bool), cut(s)) for s in SPLITS}


def _sample(part, share):
  """The first `share` of the documents in an order drawn once for all shares, put back in their own order."""
  count = len(part.documents) - 1
  chosen = np.sort(np.random.default_rng(count).permutation(count)[: max(1, round(share * count))])
  lengths = np.diff(part.documents)[chosen]
  spans = [slice(a, a + n) for a, n in zip(part.documents[chosen], lengths, strict=True)]
  pick = lambda array: np.concatenate([array[span] for span in spans])
  return Corpus(
    pick(part.tokens), pick(part.starts), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
  )


def _sentences(text):
  return [s for paragraph in text.split('\n') for s in _SENTENCE.split(paragraph) if s]


def _join(parts):
  shift = np.cumsum([0] + [len(p.tokens) for p in parts])
  documents = [p.documents[1:] + s for p, s in zip(parts, shift[:-1], strict=True)]
  return Corpus(
    np.concatenate([p.tokens for p in parts]),
    np.concatenate([p.starts for p in parts]),
    np.concatenate([np.zeros(1, np.int64), *documents]),
  )

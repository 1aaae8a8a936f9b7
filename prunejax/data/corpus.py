"""From text to token arrays: split by document, tokenised once, cached as .npy files."""

import hashlib
import json
import os
import pathlib
import re
import tempfile
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from prunejax.data import (
  bpe,
  content,
  encoder_bpe,
  prose,
  pydoc,
  sentences,
  text_files,
  unigram,
  wordpiece,
)

SPLITS = ('train', 'validation', 'test')
FORMAT = 1
LEAST_TOKENS = 8  # a shorter document is left out: it is too short for two segments
SENTENCE_RULE = 2  # of `sentences.split`; the first one knew ASCII alone
_SOURCE = re.compile(r'(?P<name>[^@*]+)(?:@(?P<share>\d*\.?\d+))?(?:\*(?P<repeat>\d+))?')


class Source(NamedTuple):
  """One part of a corpus spec.

  Attributes:
    name: 'pydoc', 'prose', 'tfds:NAME', or a folder or file below the root.
    repeat: how often the training documents are read.
    share: the share of the training documents that is read.
  """

  name: str
  repeat: int = 1
  share: float = 1.0


class Corpus(NamedTuple):
  """One split of a tokenised corpus.

  Attributes:
    tokens: uint16 or int32 [n], all documents end to end.
    starts: bool [n], True where a sentence starts; with byte-level BPE, where a document starts.
    documents: int64 [d + 1], offsets of the documents in `tokens`.
  """

  tokens: np.ndarray
  starts: np.ndarray
  documents: np.ndarray


def cache_dir(path: str | os.PathLike | None = None) -> pathlib.Path:
  """Returns the folder of caches: `path`, else $PRUNEJAX_CACHE, else ~/.cache/prunejax."""
  return pathlib.Path(path or os.environ.get('PRUNEJAX_CACHE') or '~/.cache/prunejax').expanduser()


def load(
  spec: str,
  split: str,
  tokenizer: Tokenizer,
  *,
  root: str | os.PathLike | None = None,
  cache: str | os.PathLike | None = None,
  encoding: str = 'utf-8',
) -> Corpus:
  """Reads and tokenises one split of a corpus, or maps it from the cache.

  Args:
    spec: sources joined by '+', such as 'pydoc', 'wikipedia+pydoc*4' or 'tfds:lm1b'. 'pydoc' is of
      the installed libraries, and 'prose' is the packaged text, which never changes. Any name but
      these and 'tfds:...' is a folder or file of text below `root`. 'pydoc*4' reads the training
      documents four times. 'wikipedia@0.1' reads a tenth of the training documents, drawn once; a
      smaller share is part of a larger one.
    split: 'train', 'validation' or 'test', split by document.
    tokenizer: WordPiece or byte-level BPE.
    root: folder of local text, or TFDS's data folder.
    cache: folder of caches, see `cache_dir`.
    encoding: of local text.

  Returns:
    The tokens.

  Raises:
    FileNotFoundError: text that is missing.
    ValueError: another split; a spec or a text that cannot be read; fewer than three documents.
  """
  if split not in SPLITS:
    raise ValueError(f'split {split!r}: expected one of {", ".join(SPLITS)}')
  parts = []
  for name, repeat, share in sources(spec):
    folder = _tokenised(name, tokenizer, root, cache, encoding)
    part = _from_cache(folder, split)
    if split == 'train' and share < 1:
      part = _sample(part, share)
    parts += [part] * (repeat if split == 'train' else 1)
  return _join(parts) if len(parts) > 1 else parts[0]


# What numpy raises for the header of a damaged .npy file, which is Python text.
DAMAGED = (
  *(ValueError, EOFError, OSError, OverflowError, TypeError, KeyError, MemoryError, RecursionError),
  *(SyntaxError, tokenize.TokenError),
)


def _from_cache(folder, split):
  """Maps one split into memory. Raises ValueError for damaged files."""
  dtypes = {'tokens': (np.uint16, np.int32), 'starts': (np.bool_,), 'documents': (np.int64,)}
  arrays = {}
  for field, accepted in dtypes.items():
    path = folder / f'{split}.{field}.npy'
    try:
      # A pickle is refused. So is a shape larger than the file, which cannot be mapped.
      array = arrays[field] = np.load(path, mmap_mode='r', allow_pickle=False)
      if array.ndim != 1 or array.dtype not in accepted:
        raise ValueError(f'an array of {array.dtype} with {array.ndim} axes')
    except DAMAGED as error:
      raise ValueError(
        f'{path} is damaged ({error}): delete {str(folder)!r} to have it made again'
      ) from None
  part = Corpus(**arrays)
  offsets = part.documents
  if (
    len(part.starts) != len(part.tokens)
    or not len(offsets)
    or offsets[0] != 0
    or offsets[-1] != len(part.tokens)
  ):
    raise ValueError(
      f'{str(folder)!r} is damaged (the arrays of {split} differ in length): '
      'delete it to have it made again'
    )
  return part


def sources(spec: str) -> list[Source]:
  """Parses a spec: 'a+b@0.5*3' is [Source('a', 1, 1.0), Source('b', 3, 0.5)].

  Raises:
    ValueError: a spec that does not parse, with examples of specs that do.
  """
  parsed = []
  for part in str(spec).split('+'):
    match = _SOURCE.fullmatch(part.strip())
    repeat, share = (int(match['repeat'] or 1), float(match['share'] or 1)) if match else (0, 0)
    if not (repeat > 0 and 0 < share <= 1):
      raise ValueError(
        f"data.corpus={spec!r}: expected sources joined by '+', such as 'pydoc' or "
        "'wikipedia+pydoc*4', each with an optional share in (0, 1], such as 'wikipedia@0.1'"
      )
    parsed.append(Source(match['name'], repeat, share))
  return parsed


def lines(
  spec: str,
  *,
  root: str | os.PathLike | None = None,
  cache: str | os.PathLike | None = None,
  limit: int = 40_000_000,
  encoding: str = 'utf-8',
) -> Iterator[str]:
  """Yields the paragraphs of the training documents, to train a vocabulary on.

  Args:
    spec: sources, see `load`.
    root: folder of local text, or TFDS's data folder.
    cache: folder of caches, see `cache_dir`.
    limit: characters of one source after which no further document is read.
    encoding: of local text.
  """
  for name, *_ in sources(spec):
    left = limit
    for split, document in _documents(name, root, cache, encoding):
      if split == 'train' and left > 0:
        left -= len(document)
        yield from document.split('\n')


def _documents(name, root, cache, encoding):
  """Yields (split, text) of each document of one source.

  Of a hundred documents one is to validate and one to test; pydoc and prose have splits of their
  own.
  """
  if name in ('pydoc', 'prose'):
    for document in prose.documents() if name == 'prose' else pydoc.documents(cache):
      yield pydoc.split_of(document.name), document.text
    return
  if name.startswith('tfds:'):
    from prunejax.data import tfds  # takes half a second to import, and most runs do not need it

    stream = tfds.documents(name.removeprefix('tfds:'), root, 'train')
  else:
    folder = _folder(name, root)
    text_files.check_whole(folder)
    stream = text_files.documents(folder, encoding=encoding, divide=True)
  for i, document in enumerate(stream):
    # The second and third document are held out, so that three documents have all three splits.
    yield {1: 'validation', 2: 'test'}.get(i % 100, 'train'), document


def _folder(name, root):
  if root is None or str(root) == '':
    raise FileNotFoundError(
      f'data.corpus={name!r} is a folder of local text: name the folder above it, data.root=FOLDER'
    )
  return pathlib.Path(root).expanduser() / name


def _fingerprint(name, root, encoding):
  """What identifies the documents of a source and their sentences."""
  if name == 'pydoc':
    return pydoc.signature()
  if name == 'prose':
    return [SENTENCE_RULE, prose.SHA256]
  if name.startswith('tfds:'):
    from prunejax.data import tfds  # takes half a second to import, and most runs do not need it

    return [SENTENCE_RULE, name, str(root), tfds.fingerprint(name.removeprefix('tfds:'), root)]
  return [SENTENCE_RULE, encoding, *text_files.fingerprint(_folder(name, root))]


def fingerprint(
  spec: str,
  root: str | os.PathLike | None = None,
  cache: str | os.PathLike | None = None,
  encoding: str = 'utf-8',
) -> str:
  """Returns 12 hex digits that change with the content of the sources of a spec.

  The arguments and errors are those of `load`.
  """
  parts = []
  for name, *_ in sources(spec):
    if name == 'pydoc':
      parts.append(pydoc.fingerprint(cache))
    elif name.startswith('tfds:'):
      from prunejax.data import tfds

      parts.append(tfds.fingerprint(name.removeprefix('tfds:'), root))
    else:
      parts.append(_fingerprint(name, root, encoding))
  return content.of(parts)


def key(
  spec: str,
  root: str | os.PathLike | None = None,
  cache: str | os.PathLike | None = None,
  extra: str = '',
  encoding: str = 'utf-8',
) -> str:
  """Returns a file name that changes with the sources of a spec, their content and `extra`."""
  text = json.dumps(
    [FORMAT, [[name, _fingerprint(name, root, encoding)] for name, *_ in sources(spec)], extra]
  )
  digest = hashlib.sha256(text.encode()).hexdigest()[:16]
  return f'{re.sub(r"[^a-z0-9]+", "-", spec.lower())}-{digest}'


def _tokenised(name, tokenizer, root, cache, encoding):
  """The folder with the tokens of one source, which is made if it does not exist."""
  words = bpe if bpe.is_byte_level(tokenizer) else wordpiece
  words = unigram if unigram.is_unigram(tokenizer) else words
  words = encoder_bpe if encoder_bpe.kind(tokenizer) else words
  folder = (
    cache_dir(cache) / 'tokens' / key(name, root, cache, words.fingerprint(tokenizer), encoding)
  )
  if (folder / 'meta.json').exists():
    return folder
  arrays = _encode(_documents(name, root, cache, encoding), tokenizer)
  for split in SPLITS:
    if not len(arrays[split].tokens):
      count = sum(len(arrays[s].documents) - 1 for s in SPLITS)
      raise ValueError(
        f'data.corpus={name!r}: no document for the {split} split; it has {count} of '
        f'{LEAST_TOKENS} tokens or more, expected at least three: files of a folder, texts between '
        'blank lines of a single file, or lines of a .jsonl file'
      )
  folder.parent.mkdir(parents=True, exist_ok=True)
  # The folder is renamed when it is complete: a build that was killed leaves nothing under this
  # name. Of several processes that build at once, the first one's folder stays.
  with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
    complete = pathlib.Path(scratch) / 'complete'
    complete.mkdir()
    for split, corpus in arrays.items():
      for field, array in corpus._asdict().items():
        np.save(complete / f'{split}.{field}.npy', array)
    (complete / 'meta.json').write_text(
      json.dumps({'source': name, 'tokens': len(arrays['train'].tokens)})
    )
    try:
      complete.rename(folder)
    except OSError:
      if not (folder / 'meta.json').exists():
        raise
  return folder


def _encode(documents, tokenizer, count=512, characters=2**24):
  """Tokenises (split, text) pairs, so many documents or characters at a time: {split: Corpus}.

  WordPiece encodes sentence by sentence. Byte-level BPE encodes whole documents, since white space
  is text to it.
  """
  segments = (lambda text: [text]) if bpe.is_byte_level(tokenizer) else _sentences
  dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.int32
  tokens, starts, offsets = ({s: [] for s in SPLITS} for _ in range(3))
  total = dict.fromkeys(SPLITS, 0)

  def flush(pending):
    parts = [(i, s) for i, (_, d) in enumerate(pending) for s in segments(d)]
    encodings = tokenizer.encode_batch_fast([s for _, s in parts], add_special_tokens=False)
    ids = [[] for _ in pending]
    first = [[] for _ in pending]
    for (i, _), encoding in zip(parts, encodings, strict=True):
      if encoding.ids:
        ids[i].extend(encoding.ids)
        first[i].extend([True] + [False] * (len(encoding.ids) - 1))
    for (split, _), document, flags in zip(pending, ids, first, strict=True):
      if len(document) < LEAST_TOKENS:
        continue
      tokens[split].append(np.array(document, dtype))
      starts[split].append(np.array(flags, bool))
      total[split] += len(document)
      offsets[split].append(total[split])

  pending, size = [], 0
  for pair in documents:
    pending.append(pair)
    size += len(pair[1])
    if len(pending) == count or size > characters:
      flush(pending)
      pending, size = [], 0
  flush(pending)
  join = lambda arrays, dtype: np.concatenate(arrays) if arrays else np.zeros(0, dtype)
  return {
    s: Corpus(join(tokens[s], dtype), join(starts[s], bool), np.array([0, *offsets[s]], np.int64))
    for s in SPLITS
  }


def _sample(part, share):
  """A share of the documents, in their own order; a smaller share is part of a larger one."""
  count = len(part.documents) - 1
  drawn = np.sort(np.random.default_rng(count).permutation(count)[: max(1, round(share * count))])
  lengths = np.diff(part.documents)[drawn]
  spans = [slice(a, a + n) for a, n in zip(part.documents[drawn], lengths, strict=True)]
  pick = lambda array: np.concatenate([array[span] for span in spans])
  return Corpus(
    pick(part.tokens), pick(part.starts), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
  )


def _sentences(text):
  return [s for paragraph in text.split('\n') for s in sentences.split(paragraph)]


def _join(parts):
  shift = np.cumsum([0] + [len(p.tokens) for p in parts])
  documents = [p.documents[1:] + s for p, s in zip(parts, shift[:-1], strict=True)]
  return Corpus(
    np.concatenate([p.tokens for p in parts]),
    np.concatenate([p.starts for p in parts]),
    np.concatenate([np.zeros(1, np.int64), *documents]),
  )

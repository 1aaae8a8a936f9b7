"""Byte-level BPE vocabularies (Radford et al. 2019): train one, or read a published one."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

MAX_BYTES = 2**28  # of one file
# The only special token. It stands between documents, between two texts, and in padding.
END = '<|endoftext|>'
EXPECTED = "expected GPT-2's vocab.json and merges.txt, or its tokenizer.json"


def from_parts(pieces: Sequence[str], merges: Iterable[tuple[str, str]]) -> Tokenizer:
  """Builds GPT-2's tokenizer.

  Args:
    pieces: the pieces in the order of their ids.
    merges: [(left, right), ...] in the order of their rank.

  Returns:
    A byte-level BPE tokenizer, <|endoftext|> its only special token.

  Raises:
    ValueError: pieces that repeat, that lack <|endoftext|> or the letter of a byte; merges of
      pieces that do not exist.
  """
  ids = {piece: i for i, piece in enumerate(pieces)}
  if len(ids) != len(pieces):
    raise ValueError(
      f'a vocabulary of {len(pieces)} pieces repeats {len(pieces) - len(ids)} of them'
    )
  if END not in ids:
    raise ValueError(f'a vocabulary of {len(ids)} pieces lacks {END}: {EXPECTED}')
  missing = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in ids]
  if missing:
    raise ValueError(
      f'a vocabulary of {len(ids)} pieces lacks letters for {len(missing)} of the 256 bytes: '
      f'{EXPECTED}'
    )
  try:
    model = models.BPE(ids, [tuple(pair) for pair in merges])
  except Exception as error:  # tokenizers raises plain Exception
    raise ValueError(f'merges that do not fit {len(ids)} pieces: {error}') from error
  return _with_byte_level(Tokenizer(model))


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a published vocabulary.

  Args:
    path: a folder with vocab.json and merges.txt or with tokenizer.json, or a tokenizer.json.

  Returns:
    The tokenizer, see `from_parts`.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: a file that is damaged, too large, or holds another kind of tokenizer.
  """
  path = pathlib.Path(path)
  if path.is_dir() and (path / 'vocab.json').is_file():
    pieces = _ordered(_read_json(path / 'vocab.json'), path / 'vocab.json')
    return _naming(path, from_parts, pieces, _read_merges(path / 'merges.txt'))
  path = path / 'tokenizer.json' if path.is_dir() else path
  if not path.is_file():
    raise FileNotFoundError(f'no vocabulary {str(path)!r}: {EXPECTED}')
  content = _read_json(path)
  try:
    model = content['model']
    added = {token['content']: token['id'] for token in content.get('added_tokens') or ()}
    splitter = content.get('pre_tokenizer') or {}
    if (
      model.get('type', 'BPE') != 'BPE'
      or splitter.get('type') != 'ByteLevel'
      or splitter.get('add_prefix_space')
    ):
      raise ValueError('it is not byte-level BPE')
    if content.get('normalizer'):
      raise ValueError(f'it has the normalizer {content["normalizer"].get("type")}')
    merges = [pair.split(' ') if isinstance(pair, str) else pair for pair in model['merges']]
    if any(len(pair) != 2 for pair in merges):
      raise ValueError('a merge does not have two pieces')
    pieces = _ordered({**model['vocab'], **added}, path)
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(f'{str(path)!r} is not a GPT-2 tokenizer ({error}): {EXPECTED}') from error
  return _naming(path, from_parts, pieces, merges)


def train(lines: Iterable[str], vocab_size: int) -> Tokenizer:
  """Trains a vocabulary: <|endoftext|>, the 256 bytes, and the commonest merges.

  The same lines give the same ids in every process.

  Args:
    lines: the text to count.
    vocab_size: number of pieces, at least 257.

  Returns:
    The tokenizer, see `from_parts`.

  Raises:
    ValueError: a `vocab_size` below 257.
  """
  if vocab_size < 257:
    raise ValueError(
      f'data.vocab_size={vocab_size}: expected at least 257, for <|endoftext|> and the 256 bytes'
    )
  tokenizer = _with_byte_level(Tokenizer(models.BPE()))
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[END],
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return from_parts(*parts(tokenizer))


def parts(tokenizer: Tokenizer) -> tuple[list[str], list[tuple[str, str]]]:
  """Returns (pieces in the order of ids, merges in the order of rank), as the files hold them."""
  model = json.loads(tokenizer.to_str())['model']
  vocab = tokenizer.get_vocab()
  return sorted(vocab, key=vocab.get), [tuple(pair) for pair in model['merges']]


def is_byte_level(tokenizer: Tokenizer) -> bool:
  """Returns whether a tokenizer is byte-level BPE, and not WordPiece."""
  return isinstance(tokenizer.model, models.BPE)


def fingerprint(tokenizer: Tokenizer) -> str:
  """Returns 16 hex digits that change with any piece, id or merge."""
  return hashlib.sha256(json.dumps(parts(tokenizer)).encode()).hexdigest()[:16]


def _with_byte_level(tokenizer):
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens([AddedToken(END, normalized=False, special=True)])
  return tokenizer


def _read_json(path):
  """A JSON object as a dict."""
  try:
    value = json.loads(_read_text(path))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{str(path)!r} cannot be read as JSON: {error}') from error
  if not isinstance(value, dict):
    raise ValueError(f'{str(path)!r} holds a {type(value).__name__}: {EXPECTED}')
  return value


def _ordered(ids, path):
  """The pieces of {piece: id} in the order of their ids, which must be 0, 1, 2, ..."""
  if sorted(i for i in ids.values() if type(i) is int) != list(range(len(ids))):
    raise ValueError(f'{str(path)!r}: the ids of its pieces are not 0, 1, 2, ...')
  return sorted(ids, key=ids.get)


def _read_merges(path):
  if not path.is_file():
    raise FileNotFoundError(f'{str(path)!r} is missing: {EXPECTED}')
  merges = []
  for number, line in enumerate(_read_text(path).split('\n'), 1):
    line = line.removesuffix('\r')
    if not line or (number == 1 and line.startswith('#version')):
      continue
    if not re.fullmatch(r'\S+ \S+', line):
      raise ValueError(f'{str(path)!r}, line {number}: {line[:40]!r}: expected two pieces')
    merges.append(tuple(line.split(' ')))
  return merges


def _read_text(path):
  """A UTF-8 file; its size is checked before its bytes are read."""
  size = path.stat().st_size
  if size > MAX_BYTES:
    raise ValueError(f'{str(path)!r} has {size} bytes: expected at most {MAX_BYTES}')
  try:
    return path.read_bytes().decode('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(f'{str(path)!r} is not UTF-8 text: {error}') from error


def _naming(path, function: Callable, *args):
  """Calls a function; its ValueError gets the path in front."""
  try:
    return function(*args)
  except ValueError as error:
    raise ValueError(f'{str(path)!r}: {error}') from error

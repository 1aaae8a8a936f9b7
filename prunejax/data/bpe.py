"""Byte-level BPE vocabularies (Radford et al. 2019): train one on a corpus, or read a published one."""

import hashlib
import json
import pathlib
import re
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

MOST = 2**28  # bytes of a file
END = '<|endoftext|>'  # the only special token: it stands between documents, between two texts, and at padding
EXPECTED = 'expected a folder with vocab.json and merges.txt, or with tokenizer.json, or that file, of a GPT-2'


def from_parts(pieces, merges) -> Tokenizer:
  """GPT-2's tokenizer. pieces: in the order of their ids; merges: [(left, right), ...] in the order of their rank.

  Raises ValueError for pieces without <|endoftext|> or without a letter for each byte, and for merges of no pieces.
  """
  ids = {piece: i for i, piece in enumerate(pieces)}
  if len(ids) != len(pieces):
    raise ValueError(
      f'a vocabulary of {len(pieces)} pieces repeats {len(pieces) - len(ids)} of them'
    )
  if END not in ids:
    raise ValueError(f'a vocabulary of {len(ids)} pieces lacks {END}: {EXPECTED}')
  lacking = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in ids]
  if lacking:
    raise ValueError(
      f'a vocabulary of {len(ids)} pieces has no letter for {len(lacking)} of the 256 bytes: {EXPECTED}'
    )
  try:
    model = models.BPE(ids, [tuple(pair) for pair in merges])
  except Exception as error:  # tokenizers raises plain Exception
    raise ValueError(f'merges that do not fit {len(ids)} pieces: {error}') from error
  return _dress(Tokenizer(model))


def load(path) -> Tokenizer:
  """Reads a folder with vocab.json and merges.txt or with tokenizer.json, or the latter by itself."""
  path = pathlib.Path(path)
  if path.is_dir() and (path / 'vocab.json').is_file():
    pieces = _in_order(_json(path / 'vocab.json'), path / 'vocab.json')
    return _named(path, from_parts, pieces, _merges(path / 'merges.txt'))
  path = path / 'tokenizer.json' if path.is_dir() else path
  if not path.is_file():
    raise FileNotFoundError(f'no vocabulary {str(path)!r}: {EXPECTED}')
  whole = _json(path)
  try:
    model, added = (
      whole['model'],
      {token['content']: token['id'] for token in whole.get('added_tokens') or ()},
    )
    before = whole.get('pre_tokenizer') or {}
    if (
      model.get('type', 'BPE') != 'BPE'
      or before.get('type') != 'ByteLevel'
      or before.get('add_prefix_space')
    ):
      raise ValueError('it is no byte-level BPE')
    if whole.get('normalizer'):
      raise ValueError(f'it has a normalizer, {whole["normalizer"].get("type")}')
    merges = [pair.split(' ') if isinstance(pair, str) else pair for pair in model['merges']]
    if any(len(pair) != 2 for pair in merges):
      raise ValueError('a merge is not of two pieces')
    pieces = _in_order({**model['vocab'], **added}, path)
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(f'{str(path)!r} is no tokenizer of GPT-2 ({error}): {EXPECTED}') from error
  return _named(path, from_parts, pieces, merges)


def train(lines: Iterable[str], vocab_size) -> Tokenizer:
  """A vocabulary of `vocab_size` pieces: <|endoftext|>, the 256 bytes, and what is merged most often."""
  if vocab_size < 257:
    raise ValueError(
      f'data.vocab_size={vocab_size}: expected at least 257, <|endoftext|> and the 256 bytes'
    )
  tokenizer = _dress(Tokenizer(models.BPE()))
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[END],
    initial_alphabet=sorted(alphabet),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return from_parts(*parts(tokenizer))


def parts(tokenizer):
  """(pieces in the order of ids, merges [(left, right), ...]), as vocab.json and merges.txt hold them."""
  model = json.loads(tokenizer.to_str())['model']
  vocab = tokenizer.get_vocab()
  return sorted(vocab, key=vocab.get), [tuple(pair) for pair in model['merges']]


def is_one(tokenizer) -> bool:
  """Whether a tokenizer is of this kind."""
  return isinstance(tokenizer.model, models.BPE)


def fingerprint(tokenizer) -> str:
  """16 hex digits that change with any piece, its id or a merge."""
  return hashlib.sha256(json.dumps(parts(tokenizer)).encode()).hexdigest()[:16]


def _dress(tokenizer):
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens([AddedToken(END, normalized=False, special=True)])
  return tokenizer


def _json(path):
  try:
    value = json.loads(_text(path))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{str(path)!r} cannot be read as JSON: {error}') from error
  if not isinstance(value, dict):
    raise ValueError(f'{str(path)!r} holds a {type(value).__name__}: {EXPECTED}')
  return value


def _in_order(ids, path):
  """Pieces in the order of their ids, which are 0, 1, 2, ..."""
  if sorted(i for i in ids.values() if type(i) is int) != list(range(len(ids))):
    raise ValueError(f'{str(path)!r}: its ids are not 0, 1, 2, ...')
  return sorted(ids, key=ids.get)


def _merges(path):
  if not path.is_file():
    raise FileNotFoundError(f'{str(path)!r} is missing: {EXPECTED}')
  merges = []
  for number, line in enumerate(_text(path).split('\n'), 1):
    line = line.removesuffix('\r')
    if not line or (number == 1 and line.startswith('#version')):
      continue
    if not re.fullmatch(r'\S+ \S+', line):
      raise ValueError(f'{str(path)!r}, line {number}: {line[:40]!r}: expected two pieces')
    merges.append(tuple(line.split(' ')))
  return merges


def _text(path):
  """A text file, its size looked at before its bytes."""
  if path.stat().st_size > MOST:
    raise ValueError(f'{str(path)!r} has {path.stat().st_size} bytes: expected at most {MOST}')
  try:
    return path.read_bytes().decode('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(f'{str(path)!r} is not UTF-8 text: {error}') from error


def _named(path, make, *given):
  try:
    return make(*given)
  except ValueError as error:
    raise ValueError(f'{str(path)!r}: {error}') from error

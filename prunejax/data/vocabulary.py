"""Reads the vocabulary files of a Hugging Face folder. Every reader of a vocabulary starts here.

tokenizer.json says everything. Without it the pieces are in vocab.txt, or in vocab.json and
merges.txt. Tokens that were added later are in added_tokens.json, in the `added_tokens_decoder` of
tokenizer_config.json, or only named as special in it or in special_tokens_map.json.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

MAX_BYTES = 2**26  # of one file; the largest vocabularies of today take half of it
MAX_JSON = 2**24  # of a JSON file that holds no vocabulary
FILES = ('tokenizer.json', 'vocab.txt', 'vocab.json')  # the first that exists is read
PARTS = ('normalizer', 'pre_tokenizer', 'post_processor')  # of tokenizer.json
FLAGS = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')
ROLES = ('unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token', 'bos_token', 'eos_token')


class Vocabulary(NamedTuple):
  """The vocabulary of a folder.

  Attributes:
    path: the file that the pieces come from.
    pieces: those of the model, in the order of their ids.
    merges: [(left, right), ...] in the order of their rank; None for WordPiece.
    added: tokens that are cut out of a text before it is divided into pieces, in the order of their
      ids: dicts with 'id', 'content' and the keys of `FLAGS`. An id may be that of a piece.
    rules: tokenizer.json without its pieces, merges and added tokens; {} without that file.
    settings: tokenizer_config.json; {} without that file.
    kind: 'WordPiece', 'BPE' or 'Unigram'.
  """

  path: pathlib.Path
  pieces: list[str]
  merges: list[tuple[str, str]] | None
  added: list[dict[str, Any]]
  rules: dict[str, Any]
  settings: dict[str, Any]
  kind: str = 'WordPiece'

  @property
  def every_piece(self) -> list[str]:
    """Pieces and added tokens in the order of their ids."""
    return self.pieces + [token['content'] for token in self.added[self._among :]]

  @property
  def _among(self):
    """The number of added tokens that are pieces."""
    return sum(token['id'] < len(self.pieces) for token in self.added)


def read(source: str | os.PathLike) -> Vocabulary | None:
  """Reads a vocabulary.

  Args:
    source: a folder, or one of its files. tokenizer_config.json, added_tokens.json and
      special_tokens_map.json are read beside it.

  Returns:
    The vocabulary; None for a folder without one.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: a file that is damaged, too large or no regular file; files that contradict each
      other; ids that are not 0, 1, 2, ...
  """
  path = pathlib.Path(source)
  if path.is_dir():
    there = [path / name for name in FILES if (path / name).is_file()]
    if not there:
      return None
    vocabulary = _read(there[0])
    for other in there[1:]:
      _agree(vocabulary, other)
    return vocabulary
  return _read(path)


def _read(path):
  settings = _optional(path.with_name('tokenizer_config.json'))
  if path.name == 'vocab.json':
    pieces = ordered(read_json(path), path)
    merges = _read_merges(path.with_name('merges.txt'))
    return Vocabulary(path, pieces, merges, _added(path, pieces, settings), {}, settings, 'BPE')
  if path.suffix != '.json':
    pieces = _lines(path)
    return Vocabulary(path, pieces, None, _added(path, pieces, settings), {}, settings)
  content = read_json(path)
  try:
    model = content['model']
    model['type'] = model.get('type', 'BPE' if 'merges' in model else 'WordPiece')
    if model['type'] not in ('BPE', 'WordPiece', 'Unigram'):
      raise ValueError(f'a {model["type"]} model, expected WordPiece, BPE or Unigram')
    if model['type'] == 'Unigram':  # [piece, score], in the order of ids
      model['vocab'] = {piece: i for i, (piece, _) in enumerate(model['vocab'])}
    stored = dict(model.pop('vocab'))
    merges = model.pop('merges') if model['type'] == 'BPE' else None
    tokens = [_token(token, token['id']) for token in content.pop('added_tokens', None) or ()]
    if merges is not None:
      merges = [tuple(pair.split(' ') if isinstance(pair, str) else pair) for pair in merges]
      if any(len(pair) != 2 or not all(isinstance(p, str) for p in pair) for pair in merges):
        raise ValueError('a merge does not have two pieces')
    parts = [name for name in PARTS if not isinstance(content.get(name), dict | None)]
    if parts:
      raise ValueError(f'{parts[0]} is {content[parts[0]]!r:.200}, expected an object')
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(
      f'{str(path)!r} cannot be read as a vocabulary: it is no tokenizer.json ({error!r})'
    ) from error
  # Some files hold an added token among the pieces, or a piece only among the added tokens.
  early = {token['content']: token['id'] for token in tokens if token['id'] < len(stored)}
  pieces = ordered(stored | early, path)
  tokens = _ordered(tokens, pieces, path)
  return Vocabulary(path, pieces, merges, tokens, content, settings, model['type'])


def _lines(path):
  # Not splitlines(): a piece may itself be one of Unicode's other line ends.
  text = read_text(path).replace('\r\n', '\n').removesuffix('\n')
  return text.split('\n') if text else []


def _read_merges(path):
  if not path.is_file():
    raise FileNotFoundError(
      f"{str(path)!r} is missing: expected GPT-2's vocab.json and merges.txt, or its tokenizer.json"
    )
  merges = []
  for number, line in enumerate(read_text(path).split('\n'), 1):
    line = line.removesuffix('\r')
    if not line or (number == 1 and line.startswith('#version')):
      continue
    if not re.fullmatch(r'\S+ \S+', line):
      raise ValueError(f'{str(path)!r}, line {number}: {line[:40]!r}: expected two pieces')
    merges.append(tuple(line.split(' ')))
  return merges


def _added(path, pieces, settings):
  """The added tokens of a folder without tokenizer.json."""
  where = path.with_name('tokenizer_config.json')
  special = _special(settings, where)
  special += _special(_optional(path.with_name('special_tokens_map.json')), where)
  tokens, ids = {}, {piece: i for i, piece in enumerate(pieces)}
  try:
    for i, token in dict(settings.get('added_tokens_decoder') or {}).items():
      tokens[token['content']] = _token(token, int(i))
  except (KeyError, TypeError, AttributeError, ValueError) as error:
    raise ValueError(f'{str(where)!r}: added_tokens_decoder is damaged ({error!r})') from error
  older = path.with_name('added_tokens.json')
  for content, i in _optional(older).items():
    if content in tokens and tokens[content]['id'] != i:
      raise ValueError(
        f'{str(older)!r} gives {content!r} the id {i!r}, {where.name} {tokens[content]["id"]}'
      )
    is_special = content in special
    plain = {'content': content, 'special': is_special, 'normalized': not is_special}
    try:
      tokens.setdefault(content, _token(plain, i))
    except ValueError as error:
      raise ValueError(f'{str(older)!r} is damaged: {error}') from error
  for content in special:
    if content not in tokens:
      free = max([len(pieces) - 1, *(token['id'] for token in tokens.values())]) + 1
      plain = {'content': content, 'special': True, 'normalized': False}
      tokens[content] = _token(plain, ids.get(content, free))
  return _ordered(list(tokens.values()), pieces, path)


def _special(settings, where):
  """Names of special tokens beside those with a role."""
  names = settings.get('additional_special_tokens') or settings.get('extra_special_tokens') or ()
  names = list(names.values()) if isinstance(names, dict) else names
  if not isinstance(names, list | tuple):
    names = [None]
  names = [name.get('content') if isinstance(name, dict) else name for name in names]
  if not all(isinstance(name, str) and name for name in names):
    raise ValueError(f'{str(where)!r}: additional_special_tokens={names!r:.200}: expected names')
  return names


def _token(token, i):
  """One added token with all flags."""
  plain = {'id': i, 'content': token['content']}
  plain |= {flag: token.get(flag, flag == 'normalized') for flag in FLAGS}
  valid = type(i) is int and i >= 0 and isinstance(plain['content'], str) and plain['content']
  if not valid or not all(isinstance(plain[flag], bool) for flag in FLAGS):
    raise ValueError(f'the added token {token!r:.200} with the id {i!r:.50}')
  return plain


def _ordered(tokens, pieces, path):
  """Added tokens in the order of their ids, which go on from those of the pieces."""
  tokens = sorted(tokens, key=lambda token: token['id'])
  beyond = [token['id'] for token in tokens if token['id'] >= len(pieces)]
  wrong = [
    token['content']
    for token in tokens
    if token['id'] < len(pieces) and pieces[token['id']] != token['content']
  ]
  if wrong or beyond != list(range(len(pieces), len(pieces) + len(beyond))):
    raise ValueError(
      f'{str(path)!r}: the ids of added tokens, {(beyond or wrong)!r:.200}, do not go on from those'
      f' of {len(pieces)} pieces'
    )
  return tokens


def _agree(vocabulary, other):
  """Raises ValueError if another file of the folder holds other pieces."""
  stored = _lines(other) if other.suffix == '.txt' else ordered(read_json(other), other)
  both = (vocabulary.pieces, vocabulary.every_piece)
  if stored not in both:
    raise ValueError(
      f'{str(vocabulary.path)!r} has {len(both[1])} pieces and {other.name} beside it has'
      f' {len(stored)}, which are not the same: remove the file that is not of this model'
    )


def add(tokenizer: Tokenizer, tokens: Sequence[Mapping[str, Any]]):
  """Adds tokens, see `Vocabulary.added`, to a tokenizer in the order of their ids.

  Raises:
    ValueError: a token that is a piece of another id.
  """
  for token in tokens:
    flags = {flag: token[flag] for flag in FLAGS}
    tokenizer.add_tokens([AddedToken(token['content'], **flags)])
    if tokenizer.token_to_id(token['content']) != token['id']:
      raise ValueError(
        f'the added token {token["content"]!r} has the id {token["id"]}, and is the piece'
        f' {tokenizer.token_to_id(token["content"])} already'
      )


def added(tokenizer: Tokenizer) -> list[dict[str, Any]]:
  """Returns the added tokens of a tokenizer, see `Vocabulary.added`."""
  return [
    {'id': i, 'content': token.content} | {flag: getattr(token, flag) for flag in FLAGS}
    for i, token in sorted(tokenizer.get_added_tokens_decoder().items())
  ]


def role(settings: dict[str, Any], name: str) -> str | None:
  """Returns the token that has a role, such as 'mask_token', in tokenizer_config.json."""
  token = settings.get(name)
  return token.get('content') if isinstance(token, dict) else token


def ordered(ids: dict[str, int], path: pathlib.Path) -> list[str]:
  """Returns the pieces of {piece: id} in the order of their ids, which must be 0, 1, 2, ..."""
  if sorted(i for i in ids.values() if type(i) is int) != list(range(len(ids))):
    raise ValueError(
      f'{str(path)!r} cannot be read as a vocabulary: the ids of its pieces are not 0, 1, 2, ...'
    )
  return sorted(ids, key=ids.get)


def _optional(path):
  return read_json(path, MAX_JSON) if path.is_file() else {}


def read_json(path: pathlib.Path, most: int | None = None) -> dict[str, Any]:
  """Reads a JSON object of at most `most` bytes, None for `MAX_BYTES`.

  Raises:
    FileNotFoundError: it is missing. ValueError: it is too large, damaged, or holds something else.
  """
  try:
    value = json.loads(read_text(path, most))
  except (ValueError, RecursionError) as error:
    if isinstance(error, json.JSONDecodeError | RecursionError):
      raise ValueError(f'{str(path)!r} cannot be read as JSON: {error}') from error
    raise
  if not isinstance(value, dict):
    raise ValueError(f'{str(path)!r} holds a {type(value).__name__}: expected a JSON object')
  return value


def read_text(path: pathlib.Path, most: int | None = None) -> str:
  """Reads UTF-8 text of at most `most` bytes, None for `MAX_BYTES`.

  The kind and the size of the file are checked before its bytes are read.

  Raises:
    FileNotFoundError: it is missing. ValueError: it is too large, no regular file, or not UTF-8.
  """
  if not path.exists():
    raise FileNotFoundError(f'no file {str(path)!r}')
  if not path.is_file():  # a device, such as /dev/zero, has no end
    raise ValueError(f'{str(path)!r} is no regular file')
  size = path.stat().st_size
  most = MAX_BYTES if most is None else most
  if size > most:
    raise ValueError(f'{str(path)!r} has {size} bytes: expected at most {most}')
  try:
    return path.read_bytes().decode('utf-8')
  except UnicodeDecodeError as error:
    raise ValueError(f'{str(path)!r} is not UTF-8 text: {error}') from error

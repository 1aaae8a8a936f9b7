"""Byte-level BPE vocabularies (Radford et al. 2019): train one, or read a published one."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  pre_tokenizers,
  processors,
  trainers,
)

from prunejax.data import vocabulary

# The only special token. It stands between documents, between two texts, and in padding.
END = '<|endoftext|>'
# Its names in the vocabularies of other decoders; the first that is there is taken.
ENDS = (END, '<|end_of_text|>', '</s>')
# The only values that are understood of the parts of tokenizer.json.
MODEL = {
  'type': ('BPE',),
  'dropout': (None, 0, 0.0),
  'unk_token': (None, END),
  'continuing_subword_prefix': (None, ''),
  'end_of_word_suffix': (None, ''),
  'byte_fallback': (False,),
  'ignore_merges': (False,),
}
EXPECTED = "expected GPT-2's vocab.json and merges.txt, or its tokenizer.json"


def from_parts(
  pieces: Sequence[str],
  merges: Iterable[tuple[str, str]],
  added: Sequence[Mapping[str, Any]] = (),
) -> Tokenizer:
  """Builds GPT-2's tokenizer.

  Args:
    pieces: the pieces in the order of their ids.
    merges: [(left, right), ...] in the order of their rank.
    added: tokens to cut out of a text first, as `vocabulary.Vocabulary.added` has them.

  Returns:
    A byte-level BPE tokenizer; without `added`, <|endoftext|> is its only special token.

  Raises:
    ValueError: pieces that repeat, that lack <|endoftext|> or the letter of a byte; merges of
      pieces that do not exist.
  """
  ids = {piece: i for i, piece in enumerate(pieces)}
  if len(ids) != len(pieces):
    raise ValueError(
      f'a vocabulary of {len(pieces)} pieces repeats {len(pieces) - len(ids)} of them'
    )
  if END not in ids and not any(token['content'] == END for token in added):
    raise ValueError(f'a vocabulary of {len(ids)} pieces lacks {END}: {EXPECTED}')
  missing = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in ids]
  if missing:
    raise ValueError(
      f'a vocabulary of {len(ids)} pieces lacks letters for {len(missing)} of the 256 bytes: '
      f'{EXPECTED}'
    )
  merges = [tuple(pair) for pair in merges]
  check_merges(pieces, merges)
  model = models.BPE(ids, merges)
  return _with_byte_level(Tokenizer(model), added)


def check_merges(pieces: Iterable[str], merges: Iterable[tuple[str, str]]) -> None:
  """Raises ValueError for a merge that gives no piece.

  The library would panic, which no `except Exception` catches.
  """
  ids = set(pieces)
  wrong = [f'{a!r} {b!r}' for a, b in merges if not (a and b and {a, b, a + b} <= ids)]
  if wrong:
    raise ValueError(f'merges that do not fit {len(ids)} pieces: {", ".join(wrong[:4])!s:.300}')


def end(tokenizer: Tokenizer) -> str:
  """Returns the token between documents and in padding, one of `ENDS`.

  Raises:
    ValueError: the vocabulary has none of them.
  """
  for token in ENDS:
    if tokenizer.token_to_id(token) is not None:
      return token
  raise ValueError(f'the vocabulary ({tokenizer.get_vocab_size()} pieces) has no {", ".join(ENDS)}')


def before(token: str, number: int) -> processors.PostProcessor:
  """Makes a post-processor that puts a token, whose id is `number`, before every text."""
  return processors.TemplateProcessing(
    single=f'{token}:0 $A:0',
    pair=f'{token}:0 $A:0 {token}:1 $B:1',
    special_tokens=[(token, number)],
  )


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
  try:
    stored = vocabulary.read(path)
  except FileNotFoundError as error:
    if 'merges.txt' in str(error):
      raise
    stored = None
  if stored is None:
    raise FileNotFoundError(f'no vocabulary {str(path)!r}: {EXPECTED}')
  where, end = stored.path, vocabulary.role(stored.settings, 'eos_token')
  if stored.merges is None:
    raise ValueError(f'{str(where)!r} is no BPE vocabulary, it has no merges: {EXPECTED}')
  if end not in (None, END):
    raise ValueError(
      f'{str(where)!r}: tokenizer_config.json has eos_token={end!r:.200}: {EXPECTED}'
    )
  if stored.settings.get('add_prefix_space') or stored.settings.get('add_bos_token'):
    raise ValueError(
      f'{str(where)!r}: tokenizer_config.json has add_prefix_space or add_bos_token: {EXPECTED}'
    )
  try:
    _check_rules(stored.rules)
    return from_parts(stored.pieces, stored.merges, stored.added)
  except ValueError as error:
    raise ValueError(f'{str(where)!r}: {error}') from error


def _check_rules(rules):
  """Raises ValueError for a tokenizer.json that is not GPT-2's; {} passes."""
  splitter = rules.get('pre_tokenizer') or {}
  bytewise = splitter.get('type') == 'ByteLevel'
  after = rules.get('post_processor') or {'type': 'ByteLevel'}
  if rules and (
    not bytewise or splitter.get('add_prefix_space') or not splitter.get('use_regex', True)
  ):
    raise ValueError(f'it is not byte-level BPE: {EXPECTED}')
  if rules.get('normalizer'):
    raise ValueError(f'it has the normalizer {rules["normalizer"].get("type")!r:.200}: {EXPECTED}')
  if after.get('type') != 'ByteLevel' and _adds(after):
    raise ValueError(f'it has the post_processor {after!r:.200}: {EXPECTED}')
  for name, known in MODEL.items() if rules else ():
    if rules['model'].get(name, known[0]) not in known:
      raise ValueError(f'its model has {name}={rules["model"][name]!r:.200}: {EXPECTED}')


def _adds(after):
  """Whether a post_processor may add tokens to a text."""
  return after.get('type') != 'TemplateProcessing' or after.get('special_tokens') != {}


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
  vocab = tokenizer.get_vocab(with_added_tokens=False)
  return sorted(vocab, key=vocab.get), [tuple(pair) for pair in model['merges']]


def is_byte_level(tokenizer: Tokenizer) -> bool:
  """Returns whether a tokenizer is byte-level BPE, and not WordPiece."""
  return isinstance(tokenizer.model, models.BPE)


def added(tokenizer: Tokenizer) -> list[dict[str, Any]]:
  """Returns the added tokens beside <|endoftext|>, or all if it is not among the pieces."""
  tokens = vocabulary.added(tokenizer)
  last = tokenizer.get_vocab_size(with_added_tokens=False)
  own = [token for token in tokens if token['content'] == END and token['id'] < last]
  return [token for token in tokens if token not in own]


def fingerprint(tokenizer: Tokenizer) -> str:
  """Returns 16 hex digits that change with any piece, id, merge or added token."""
  content = [*parts(tokenizer), *([more] if (more := added(tokenizer)) else [])]
  if rules := _rules(tokenizer):
    content.append(rules)
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _rules(tokenizer):
  """What a tokenizer does otherwise than GPT-2's; {} for one of `from_parts`."""
  described = json.loads(tokenizer.to_str())
  plain = _with_byte_level(Tokenizer(models.BPE()))
  usual = json.loads(plain.to_str())
  names = ('normalizer', 'pre_tokenizer', 'post_processor')
  other = {name: described[name] for name in names if described[name] != usual[name]}
  flags = ('byte_fallback', 'ignore_merges', 'unk_token')
  differ = lambda flag: described['model'].get(flag) != usual['model'].get(flag)
  return other | {flag: described['model'][flag] for flag in flags if differ(flag)}


def _with_byte_level(tokenizer, added=()):
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  if not any(token['content'] == END for token in added):
    tokenizer.add_special_tokens([AddedToken(END, normalized=False, special=True)])
  vocabulary.add(tokenizer, added)
  return tokenizer

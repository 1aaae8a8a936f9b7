"""WordPiece vocabularies: train one on a corpus, or read a published one."""

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

from tokenizers import (
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

MAX_BYTES = 2**28  # of one file
SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


def from_vocab(vocab: Sequence[str], *, lowercase: bool = True) -> Tokenizer:
  """Builds BERT's tokenizer.

  Args:
    vocab: the pieces in the order of their ids.
    lowercase: whether text is lower-cased.

  Returns:
    A WordPiece tokenizer that adds [CLS] and [SEP].

  Raises:
    ValueError: pieces that repeat, or that lack one of `SPECIAL`.
  """
  ids = {piece: i for i, piece in enumerate(vocab)}
  missing = [piece for piece in SPECIAL if piece not in ids]
  if missing:
    raise ValueError(
      f'a vocabulary of {len(ids)} pieces lacks {", ".join(missing)}: expected a BERT vocab.txt'
    )
  if len(ids) != len(vocab):
    raise ValueError(f'a vocabulary of {len(vocab)} lines repeats {len(vocab) - len(ids)} of them')
  tokenizer = _with_normalizer(Tokenizer(models.WordPiece(ids, unk_token='[UNK]')), lowercase)
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS]:0 $A:0 [SEP]:0',
    pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
    special_tokens=[(piece, ids[piece]) for piece in ('[CLS]', '[SEP]')],
  )
  return tokenizer


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a published vocabulary.

  Args:
    path: a vocab.txt, or a folder with one; `do_lower_case` in a tokenizer_config.json beside it
      says whether text is lower-cased, which it is by default.

  Returns:
    The tokenizer, see `from_vocab`.

  Raises:
    FileNotFoundError: a vocabulary that is missing.
    ValueError: a file that is damaged, too large, or not a BERT vocabulary.
  """
  path = pathlib.Path(path)
  path = path / 'vocab.txt' if path.is_dir() else path
  if not path.is_file():
    raise FileNotFoundError(
      f'no vocabulary {str(path)!r}: expected a BERT vocab.txt, one piece a line'
    )
  size = path.stat().st_size
  if size > MAX_BYTES:
    raise ValueError(f'the vocabulary {str(path)!r} has {size} bytes: expected at most {MAX_BYTES}')
  # Not splitlines(): a piece may itself be one of Unicode's other line ends.
  try:
    text = path.read_bytes().decode('utf-8').replace('\r\n', '\n').removesuffix('\n')
  except UnicodeDecodeError as error:
    raise ValueError(f'{str(path)!r} is not UTF-8 text: {error}') from error
  lowercase = _read_lowercase(path.with_name('tokenizer_config.json'))
  return from_vocab(text.split('\n') if text else [], lowercase=lowercase)


def _read_lowercase(path):
  try:
    config = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    lowercase = config.get('do_lower_case', True)
  except (OSError, ValueError, AttributeError, RecursionError) as error:
    raise ValueError(f'{str(path)!r} cannot be read as JSON: {error}') from error
  if not isinstance(lowercase, bool):
    raise ValueError(f'{str(path)!r} has do_lower_case={lowercase!r}: expected true or false')
  return lowercase


def train(lines: Iterable[str], vocab_size: int, *, alphabet: int = 100) -> Tokenizer:
  """Trains a lower-cased vocabulary. The same lines give the same ids in every process.

  Args:
    lines: the text to count.
    vocab_size: number of pieces.
    alphabet: number of letters, the commonest ones; a word with any other letter is [UNK].

  Returns:
    The tokenizer, see `from_vocab`.
  """
  lines = list(lines)
  counts = collections.Counter()
  normalizer = _untrained().normalizer
  for line in lines:
    counts.update(normalizer.normalize_str(line))
  letters = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
  letters = sorted(letters[:alphabet])
  # The trainer reads words in a random order and numbers pieces of one letter as they come; ties
  # between merges are broken by these numbers. So a first training finds which letters occur within
  # words, and the second one gets all pieces of one letter with fixed ids.
  single = _trained(lines, 0, letters, SPECIAL)
  inner = sorted(piece for piece in single if piece.startswith('##') and len(piece) == 3)
  return from_vocab(_trained(lines, vocab_size, letters, (*SPECIAL, *letters, *inner)))


def _untrained():
  return _with_normalizer(Tokenizer(models.WordPiece(unk_token='[UNK]')), lowercase=True)


def _trained(lines, vocab_size, letters, first):
  """Pieces in the order of their ids. The pieces `first` get the first ids."""
  tokenizer = _untrained()
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    initial_alphabet=letters,
    limit_alphabet=len(letters),
    special_tokens=list(first),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return pieces(tokenizer)


def pieces(tokenizer: Tokenizer) -> list[str]:
  """Returns the pieces in the order of their ids, as vocab.txt holds them."""
  vocab = tokenizer.get_vocab()
  return sorted(vocab, key=vocab.get)


def fingerprint(tokenizer: Tokenizer) -> str:
  """Returns 16 hex digits that change with any piece or id, and with `lowered`."""
  content = '\n'.join(pieces(tokenizer)) + ('' if lowered(tokenizer) else '\ncased')
  return hashlib.sha256(content.encode()).hexdigest()[:16]


def lowered(tokenizer: Tokenizer) -> bool:
  """Returns whether the tokenizer lower-cases its text."""
  return tokenizer.normalizer.lowercase


def _with_normalizer(tokenizer, lowercase):
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  return tokenizer

"""WordPiece vocabularies: train one on a corpus, or read a published one."""

import hashlib
import json
import pathlib
from collections.abc import Iterable

from tokenizers import (
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

MOST = 2**28  # bytes of a vocabulary
SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')


def from_vocab(vocab, *, lowercase=True) -> Tokenizer:
  """BERT's tokenizer over `vocab`, the pieces in the order of their ids. Raises ValueError without BERT's five."""
  ids = {piece: i for i, piece in enumerate(vocab)}
  absent = [piece for piece in SPECIAL if piece not in ids]
  if absent:
    raise ValueError(
      f'a vocabulary of {len(ids)} pieces lacks {", ".join(absent)}: expected a BERT vocab.txt'
    )
  if len(ids) != len(vocab):
    raise ValueError(f'a vocabulary of {len(vocab)} lines repeats {len(vocab) - len(ids)} of them')
  return _dress(Tokenizer(models.WordPiece(ids, unk_token='[UNK]')), lowercase)


def load(path) -> Tokenizer:
  """Reads `vocab.txt`, or the folder that holds one; tokenizer_config.json beside it says whether it is lower-cased."""
  path = pathlib.Path(path)
  path = path / 'vocab.txt' if path.is_dir() else path
  if not path.is_file():
    raise FileNotFoundError(
      f'no vocabulary {str(path)!r}: expected a BERT vocab.txt, one piece a line'
    )
  if path.stat().st_size > MOST:
    raise ValueError(
      f'the vocabulary {str(path)!r} has {path.stat().st_size} bytes: expected at most {MOST}'
    )
  # Not splitlines(): a piece may itself be one of Unicode's other line ends.
  text = path.read_bytes().decode('utf-8').replace('\r\n', '\n').removesuffix('\n')
  return from_vocab(
    text.split('\n') if text else [], lowercase=_lowered(path.with_name('tokenizer_config.json'))
  )


def _lowered(path):
  try:
    said = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    return bool(said.get('do_lower_case', True))
  except (OSError, ValueError, AttributeError) as error:
    raise ValueError(f'{str(path)!r} cannot be read as JSON: {error}') from error


def train(lines: Iterable[str], vocab_size, *, alphabet=100) -> Tokenizer:
  """A lower-cased vocabulary of `vocab_size` pieces; all but the `alphabet` commonest letters are [UNK]."""
  tokenizer = _undressed(Tokenizer(models.WordPiece(unk_token='[UNK]')), lowercase=True)
  trainer = trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    limit_alphabet=alphabet,
    special_tokens=list(SPECIAL),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return _dress(tokenizer, lowercase=True)


def pieces(tokenizer) -> list[str]:
  """The vocabulary in the order of ids, as vocab.txt holds it."""
  vocab = tokenizer.get_vocab()
  return sorted(vocab, key=vocab.get)


def fingerprint(tokenizer) -> str:
  """16 hex digits that change with any piece or its id, and with whether text is lower-cased."""
  said = '\n'.join(pieces(tokenizer)) + ('' if lowered(tokenizer) else '\ncased')
  return hashlib.sha256(said.encode()).hexdigest()[:16]


def lowered(tokenizer) -> bool:
  """Whether the tokenizer lowers its text."""
  return tokenizer.normalizer.lowercase


def _undressed(tokenizer, lowercase):
  tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  return tokenizer


def _dress(tokenizer, lowercase):
  """Adds BERT's normalizer and its [CLS] a [SEP] b [SEP] template."""
  tokenizer = _undressed(tokenizer, lowercase)
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS]:0 $A:0 [SEP]:0',
    pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
    special_tokens=[(piece, tokenizer.token_to_id(piece)) for piece in ('[CLS]', '[SEP]')],
  )
  return tokenizer

"""Unigram vocabularies of SentencePiece (Kudo 2018), as XLNet has them: trained, or read."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable

from tokenizers import (
  Regex,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from prunejax.data import vocabulary

# In the order of their ids: <cls> is 3, <sep> 4, <pad> 5, <mask> 6, <eod> 7.
SPECIAL = ('<unk>', '<s>', '</s>', '<cls>', '<sep>', '<pad>', '<mask>', '<eod>', '<eop>')
NEEDED = ('<cls>', '<sep>', '<pad>', '<mask>')
SINGLE, PAIR = '$A:0 <sep>:0 <cls>:2', '$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2'
PADDING = 3  # the segment of padding, as transformers has it; the first program had 4
DIGITS = 6  # of a score that are told apart
EXPECTED = "expected XLNet's tokenizer.json"


def is_unigram(tokenizer: Tokenizer) -> bool:
  """Returns whether a tokenizer is a Unigram model."""
  return isinstance(tokenizer.model, models.Unigram)


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a published vocabulary.

  A spiece.model alone is no such vocabulary: transformers writes the tokenizer.json of a folder
  that holds one, `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`.

  Args:
    path: a folder with tokenizer.json, or the file.

  Returns:
    A tokenizer that puts <sep> after each text and <cls> at the end.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: a file that is damaged, too large, or holds another kind of tokenizer.
  """
  path = pathlib.Path(path)
  path = path / 'tokenizer.json' if path.is_dir() else path
  if not path.is_file():
    raw = path.with_name('spiece.model').is_file()
    how = "transformers' AutoTokenizer makes it from the spiece.model there" if raw else EXPECTED
    raise FileNotFoundError(f'no vocabulary {str(path)!r}: {how}')
  text = vocabulary.read_text(path)
  if vocabulary.read(path).kind != 'Unigram':
    raise ValueError(f'{str(path)!r} is no Unigram vocabulary: {EXPECTED}')
  try:
    tokenizer = Tokenizer.from_str(text)
  except Exception as error:  # the library raises nothing narrower
    raise ValueError(f'{str(path)!r} cannot be read as a tokenizer: {error!s:.300}') from error
  missing = [piece for piece in NEEDED if tokenizer.token_to_id(piece) is None]
  if missing:
    raise ValueError(f'{str(path)!r} lacks {", ".join(missing)}: {EXPECTED}')
  return _with_template(tokenizer)


def train(lines: Iterable[str], vocab_size: int) -> Tokenizer:
  """Trains a cased vocabulary without accents. Words start with '▁', as in SentencePiece.

  Two trainings on the same lines differ in pieces and scores: the library adds in any order. A run
  keeps the first one in the cache, and its model folder holds it.

  Args:
    lines: the text to count.
    vocab_size: number of pieces, at least 64.

  Returns:
    The tokenizer, see `load`.

  Raises:
    ValueError: a `vocab_size` below 64.
  """
  if vocab_size < 64:
    raise ValueError(f'data.vocab_size={vocab_size}: expected at least 64, for letters')
  tokenizer = Tokenizer(models.Unigram())
  tokenizer.normalizer = normalizers.Sequence(
    [
      normalizers.Replace('``', '"'),
      normalizers.Replace("''", '"'),
      normalizers.NFKD(),
      normalizers.StripAccents(),
      normalizers.Replace(Regex(' {2,}'), ' '),
    ]
  )
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement='▁', prepend_scheme='always')
  tokenizer.decoder = decoders.Metaspace(replacement='▁', prepend_scheme='always')
  trainer = trainers.UnigramTrainer(
    vocab_size=vocab_size,
    special_tokens=list(SPECIAL),
    unk_token='<unk>',
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  return _with_template(_in_order(tokenizer))


def _in_order(tokenizer):
  """Sorts pieces of equal scores, whose order and last digits differ between two trainings."""
  content = json.loads(tokenizer.to_str())
  pieces = [[piece, round(score, DIGITS)] for piece, score in content['model']['vocab']]
  special, rest = pieces[: len(SPECIAL)], pieces[len(SPECIAL) :]
  content['model']['vocab'] = special + sorted(rest, key=lambda pair: (-pair[1], pair[0]))
  return Tokenizer.from_str(json.dumps(content))


def _with_template(tokenizer):
  tokenizer.post_processor = processors.TemplateProcessing(
    single=SINGLE,
    pair=PAIR,
    special_tokens=[(piece, tokenizer.token_to_id(piece)) for piece in ('<sep>', '<cls>')],
  )
  return tokenizer


def word_starts(tokenizer: Tokenizer) -> list[bool]:
  """Returns for each piece, in the order of ids, whether a word starts with it."""
  pieces = tokenizer.get_vocab()
  return [piece.startswith('▁') for piece in sorted(pieces, key=pieces.get)]


def fingerprint(tokenizer: Tokenizer) -> str:
  """Returns 16 hex digits that change with any piece, id, score, added token or normalizer."""
  content = json.loads(tokenizer.to_str())
  kept = {name: content[name] for name in ('added_tokens', 'normalizer', 'model')}
  # Reading a file may change the last digit of a score.
  kept['model']['vocab'] = [[piece, round(s, DIGITS)] for piece, s in kept['model']['vocab']]
  return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def files(tokenizer: Tokenizer) -> dict[str, str]:
  """Returns {file name: text} of the files that hold a tokenizer in a Hugging Face folder."""
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'padding_side': 'left',
    **{f'{piece[1:-1]}_token': piece for piece in ('<unk>', *NEEDED)},
    'bos_token': '<s>',
    'eos_token': '</s>',
  }
  here = tokenizer.get_vocab()
  config = {k: v for k, v in config.items() if not k.endswith('_token') or v in here}
  return {
    'tokenizer.json': tokenizer.to_str(),
    'tokenizer_config.json': json.dumps(config, indent=2) + '\n',
  }

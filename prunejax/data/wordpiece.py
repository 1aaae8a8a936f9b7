"""WordPiece vocabularies: train one on a corpus, or read a published one."""

import collections
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import (
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from prunejax.data import vocabulary

SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
ROLES = {f'{piece[1:-1].lower()}_token': piece for piece in SPECIAL}
EXPECTED = 'expected a BERT vocab.txt, one piece a line, or a tokenizer.json'
# Settings of tokenizer_config.json: {name there: (argument of BertNormalizer, values)}.
NORMALIZER = {
  'do_lower_case': ('lowercase', (True, False)),
  'strip_accents': ('strip_accents', (True, False, None)),
  'tokenize_chinese_chars': ('handle_chinese_chars', (True, False)),
}
DEFAULTS = {'lowercase': True, 'strip_accents': None, 'handle_chinese_chars': True}
# The only values that are understood of other settings, and of the parts of tokenizer.json.
SETTINGS = {'do_basic_tokenize': (True,), 'never_split': (None, [])}
MODEL = {
  'type': ('WordPiece',),
  'unk_token': ('[UNK]',),
  'continuing_subword_prefix': ('##',),
  'max_input_chars_per_word': (100,),
}


def from_vocab(
  vocab: Sequence[str],
  *,
  lowercase: bool = True,
  strip_accents: bool | None = None,
  handle_chinese_chars: bool = True,
  added: Sequence[Mapping[str, Any]] = (),
) -> Tokenizer:
  """Builds BERT's tokenizer.

  The five pieces of `SPECIAL` are not cut out of a text: '[MASK]' in a corpus is text.

  Args:
    vocab: the pieces in the order of their ids.
    lowercase: whether text is lower-cased.
    strip_accents: whether accents are removed; None: if text is lower-cased.
    handle_chinese_chars: whether each Chinese character is a word of its own.
    added: tokens to cut out of a text first, as `vocabulary.Vocabulary.added` has them.

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
  tokenizer = _with_normalizer(
    Tokenizer(models.WordPiece(ids, unk_token='[UNK]')),
    lowercase=lowercase,
    strip_accents=strip_accents,
    handle_chinese_chars=handle_chinese_chars,
  )
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS]:0 $A:0 [SEP]:0',
    pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
    special_tokens=[(piece, ids[piece]) for piece in ('[CLS]', '[SEP]')],
  )
  vocabulary.add(tokenizer, [token for token in added if token['content'] not in SPECIAL])
  return tokenizer


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a published vocabulary with everything that its folder says of it.

  Args:
    path: a folder with tokenizer.json or vocab.txt, or one of these files, see `vocabulary.read`.

  Returns:
    The tokenizer, see `from_vocab`.

  Raises:
    FileNotFoundError: a vocabulary that is missing.
    ValueError: a file that is damaged, too large, or not a BERT vocabulary; a setting that is not
      understood.
  """
  try:
    stored = vocabulary.read(path)
  except FileNotFoundError:
    stored = None
  if stored is None:
    raise FileNotFoundError(f'no vocabulary {str(path)!r}: {EXPECTED}')
  where = str(stored.path)
  if stored.merges is not None:
    raise ValueError(f'{where!r} is a BPE vocabulary: {EXPECTED}')
  how = DEFAULTS | (_rules(stored.rules, where) if stored.rules else {})
  how |= _settings(stored.settings, str(stored.path.with_name('tokenizer_config.json')))
  try:
    return from_vocab(stored.pieces, added=stored.added, **how)
  except ValueError as error:
    raise ValueError(f'{where!r}: {error}') from error


def _settings(settings, where):
  """Arguments of `from_vocab` from tokenizer_config.json; settings that are not there are left."""
  for name, known in SETTINGS.items():
    if settings.get(name, known[0]) not in known:
      raise ValueError(f'{where!r} has {name}={settings[name]!r:.200}: expected {known[0]!r}')
  for name, piece in ROLES.items():
    if vocabulary.role(settings, name) not in (None, piece):
      raise ValueError(f'{where!r} has {name}={settings[name]!r:.200}: expected {piece!r}')
  how = {}
  for name, (argument, values) in NORMALIZER.items():
    if name in settings:
      if not any(settings[name] is value for value in values):
        raise ValueError(
          f'{where!r} has {name}={settings[name]!r:.200}: expected true or false'
          + (' or null' if None in values else '')
        )
      how[argument] = settings[name]
  return how


def _rules(rules, where):
  """Arguments of `from_vocab` from tokenizer.json."""
  normalizer, splitter = rules.get('normalizer') or {}, rules.get('pre_tokenizer') or {}
  after = rules.get('post_processor') or {}
  for part, name, known in (
    (normalizer, 'normalizer', 'BertNormalizer'),
    (splitter, 'pre_tokenizer', 'BertPreTokenizer'),
  ):
    if part.get('type') != known:
      raise ValueError(f'{where!r} has the {name} {rules.get(name)!r:.200}: expected {known}')
  for name, known in MODEL.items():
    if rules['model'].get(name, known[0]) not in known:
      raise ValueError(
        f'{where!r} has {name}={rules["model"][name]!r:.200} in its model: expected {known[0]!r}'
      )
  single = after.get('single')
  places = [json.dumps(single).find(word) for word in ('[CLS]', '"A"', '[SEP]')]
  three = isinstance(single, list) and len(single) == 3
  wrapped = three and -1 < places[0] < places[1] < places[2]
  if after and not wrapped and after.get('type') != 'BertProcessing':
    raise ValueError(
      f'{where!r} has the post_processor {after!r:.200}: expected one that adds [CLS] and [SEP]'
    )
  how = {argument: normalizer.get(argument, default) for argument, default in DEFAULTS.items()}
  kinds = [(argument, values) for argument, values in NORMALIZER.values()]
  wrong = [name for name, values in kinds if not any(how[name] is value for value in values)]
  if wrong or normalizer.get('clean_text', True) is not True:
    raise ValueError(
      f'{where!r} has {wrong or ["clean_text"]} of {normalizer!r:.200}, which is not understood'
    )
  return how


ALPHABET = 100  # letters of a trained vocabulary
# The share of letters outside of it: a word of five letters then has one in a tenth of all cases.
RARE = 0.02


def train(lines: Iterable[str], vocab_size: int, *, alphabet: int | None = None) -> Tokenizer:
  """Trains a lower-cased vocabulary. The same lines give the same ids in every process.

  Args:
    lines: the text to count.
    vocab_size: number of pieces.
    alphabet: number of letters, the commonest ones; a word with any other letter is [UNK]. None for
      `ALPHABET`, if that leaves few out.

  Returns:
    The tokenizer, see `from_vocab`.

  Raises:
    ValueError: no alphabet is given, and more than `RARE` of the letters of the text are not among
      the commonest: too many words would be [UNK].
  """
  lines = list(lines)
  counts = collections.Counter()
  normalizer = _untrained().normalizer
  for line in lines:
    counts.update(normalizer.normalize_str(line))
  letters = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))
  seen, rare = sum(map(counts.get, letters)), sum(map(counts.get, letters[ALPHABET:]))
  if alphabet is None and rare > RARE * seen:
    raise ValueError(
      f'{rare / seen:.0%} of the letters of the text are not among its {ALPHABET} commonest, and a'
      ' word with such a letter would be [UNK]: name a data.vocab=, or an init=, that has this'
      ' script'
    )
  letters = sorted(letters[: ALPHABET if alphabet is None else alphabet])
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
  vocab = tokenizer.get_vocab(with_added_tokens=False)
  return sorted(vocab, key=vocab.get)


def fingerprint(tokenizer: Tokenizer) -> str:
  """Returns 16 hex digits that change with any piece or id, and with `settings`."""
  content, how = '\n'.join(pieces(tokenizer)), settings(tokenizer)
  content += '' if how.pop('lowercase') else '\ncased'
  plain = {name: DEFAULTS.get(name, []) for name in how}
  content += '' if how == plain else '\n' + json.dumps(how, sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()[:16]


def lowered(tokenizer: Tokenizer) -> bool:
  """Returns whether the tokenizer lower-cases its text."""
  return tokenizer.normalizer.lowercase


def settings(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the arguments of `from_vocab`, beside the pieces, that make this tokenizer."""
  how = {name: getattr(tokenizer.normalizer, name) for name in DEFAULTS}
  return how | {'added': vocabulary.added(tokenizer)}


def _with_normalizer(tokenizer, **how):
  tokenizer.normalizer = normalizers.BertNormalizer(**how)
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.decoder = decoders.WordPiece()
  return tokenizer

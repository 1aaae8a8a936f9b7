"""Byte-level BPE vocabularies of encoders: RoBERTa's and ModernBERT's, read or trained."""

import hashlib
import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)

from prunejax.data import vocabulary


class Special(NamedTuple):
  """The special pieces of a kind of vocabulary, and how they stand around one text and two."""

  cls: str
  sep: str
  pad: str
  mask: str
  unk: str
  single: str
  pair: str


ROBERTA = Special(
  *('<s>', '</s>', '<pad>', '<mask>', '<unk>'),
  '<s>:0 $A:0 </s>:0',
  '<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0',
)
MODERN = Special(
  *('[CLS]', '[SEP]', '[PAD]', '[MASK]', '[UNK]'),
  '[CLS]:0 $A:0 [SEP]:0',
  '[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0',
)
KINDS = (ROBERTA, MODERN)
# The ids of a trained vocabulary begin so: as in RoBERTa, where padding has the id 1.
TRAINED = ('<s>', '<pad>', '</s>', '<unk>', '<mask>')
MODEL = {
  'type': ('BPE',),
  'dropout': (None, 0, 0.0),
  'continuing_subword_prefix': (None, ''),
  'end_of_word_suffix': (None, ''),
  'byte_fallback': (False,),
  'ignore_merges': (False,),
}
EXPECTED = (
  "expected RoBERTa's vocab.json and merges.txt, or a tokenizer.json of RoBERTa or ModernBERT"
)


def kind(tokenizer: Tokenizer) -> Special | None:
  """Returns the special pieces of a byte-level BPE of an encoder; None for any other tokenizer."""
  if not isinstance(tokenizer.model, models.BPE):
    return None
  pieces = tokenizer.get_vocab()
  return next((special for special in KINDS if {*special[:4]} <= pieces.keys()), None)


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a published vocabulary.

  Args:
    path: a folder with vocab.json and merges.txt or with tokenizer.json, or a tokenizer.json.

  Returns:
    A tokenizer that adds the special pieces around a text. Special pieces that are among the
    pieces of the model are not cut out of a text.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: a file that is damaged, too large, or holds another kind of tokenizer.
  """
  stored = vocabulary.read(path)
  if stored is None:
    raise FileNotFoundError(f'no vocabulary {str(path)!r}: {EXPECTED}')
  where = str(stored.path)
  try:
    if stored.merges is None:
      raise ValueError(f'it has no merges: {EXPECTED}')
    composed = _check_rules(stored.rules)
    if stored.settings.get('add_prefix_space'):
      raise ValueError(f'tokenizer_config.json has add_prefix_space: {EXPECTED}')
    return _made(stored.pieces, stored.merges, stored.added, composed)
  except ValueError as error:
    raise ValueError(f'{where!r}: {error}') from error


def _check_rules(rules):
  """Whether text is normalised to NFC. Raises ValueError for rules of another tokenizer."""
  if not rules:
    return False
  splitter, normalizer = rules.get('pre_tokenizer') or {}, rules.get('normalizer')
  bytewise = splitter.get('type') == 'ByteLevel' and splitter.get('use_regex', True)
  if not bytewise or splitter.get('add_prefix_space'):
    raise ValueError(f'it is not byte-level BPE without a prefix space: {EXPECTED}')
  if normalizer and normalizer.get('type') != 'NFC':
    raise ValueError(f'it has the normalizer {normalizer!r:.200}: {EXPECTED}')
  for name, known in MODEL.items():
    if rules['model'].get(name, known[0]) not in known:
      raise ValueError(f'its model has {name}={rules["model"][name]!r:.200}: {EXPECTED}')
  return bool(normalizer)


def _made(pieces, merges, added, composed):
  ids = {piece: i for i, piece in enumerate(pieces)}
  missing = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in ids]
  if missing or len(ids) != len(pieces):
    raise ValueError(
      f'{len(pieces)} pieces lack letters for {len(missing)} of the 256 bytes and repeat'
      f' {len(pieces) - len(ids)}: {EXPECTED}'
    )
  # A merge that gives no piece makes the library panic, which no `except Exception` catches.
  wrong = [f'{a!r} {b!r}' for a, b in merges if not (a and b and {a, b, a + b} <= ids.keys())]
  if wrong:
    raise ValueError(f'merges that do not fit {len(ids)} pieces: {", ".join(wrong[:4])!s:.300}')
  tokenizer = Tokenizer(models.BPE(ids, [tuple(pair) for pair in merges]))
  if composed:
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  every = {*ids, *(token['content'] for token in added)}
  special = next((one for one in KINDS if {*one[:4]} <= every), None)
  if special is None:
    raise ValueError(
      f'{len(every)} pieces hold neither all of {", ".join(ROBERTA[:4])} nor all of'
      f' {", ".join(MODERN[:4])}: {EXPECTED}'
    )
  vocabulary.add(
    tokenizer,
    [token for token in added if not (token['content'] in special[:5] and token['content'] in ids)],
  )
  tokenizer.post_processor = processors.TemplateProcessing(
    single=special.single,
    pair=special.pair,
    special_tokens=[(piece, tokenizer.token_to_id(piece)) for piece in (special.cls, special.sep)],
  )
  return tokenizer


def train(lines: Iterable[str], vocab_size: int) -> Tokenizer:
  """Trains a vocabulary: RoBERTa's special pieces, the 256 bytes, and the commonest merges.

  The same lines give the same ids in every process.

  Args:
    lines: the text to count.
    vocab_size: number of pieces, at least 261.

  Returns:
    The tokenizer, see `load`.

  Raises:
    ValueError: a `vocab_size` below 261.
  """
  if vocab_size < 256 + len(TRAINED):
    raise ValueError(
      f'data.vocab_size={vocab_size}: expected at least {256 + len(TRAINED)}, for the 256 bytes and'
      f' {", ".join(TRAINED)}'
    )
  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[AddedToken(piece, special=True) for piece in TRAINED],
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines, trainer)
  model = json.loads(tokenizer.to_str())['model']
  pieces = vocabulary.ordered(model['vocab'], 'a trained vocabulary')
  return _made(pieces, [tuple(pair) for pair in model['merges']], [], composed=False)


def fingerprint(tokenizer: Tokenizer) -> str:
  """Returns 16 hex digits that change with any piece, id, merge, added token or normalizer."""
  content = json.loads(tokenizer.to_str())
  kept = {name: content[name] for name in ('added_tokens', 'normalizer', 'model')}
  return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def files(tokenizer: Tokenizer, positions: int) -> dict[str, str]:
  """Returns {file name: text} of the files that hold a tokenizer in a Hugging Face folder.

  Args:
    tokenizer: of `load` or `train`.
    positions: of the model.
  """
  special = kind(tokenizer)
  roles = {f'{name}_token': getattr(special, name) for name in ('cls', 'sep', 'pad', 'mask')}
  if tokenizer.token_to_id(special.unk) is not None:
    roles['unk_token'] = special.unk
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_max_length': positions,
    'bos_token': special.cls,
    'eos_token': special.sep,
    **roles,
  }
  return {
    'tokenizer.json': tokenizer.to_str(),
    'tokenizer_config.json': json.dumps(config, indent=2) + '\n',
  }

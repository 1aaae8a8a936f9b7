"""The tokenizer in a GGUF file: pieces, merges, and the name of the rule that cuts a text.

The file names its rule. The rules themselves are those in the published tokenizer.json of the
models that the rule is named for.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from prunejax.data import bpe, gguf_metadata
from prunejax.data.gguf_metadata import GgufError

CONTROL, USER = 3, 4  # values of tokenizer.ggml.token_type
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r'|\s*[\r\n]+|\s+(?!\S)|\s+'
)


class Rule(NamedTuple):
  """How a text is cut before pieces are merged.

  Attributes:
    cut: makes the pre-tokenizer.
    whole_first: a word that is a piece is not merged from its letters.
    composed: the text is brought to Unicode's form NFC.
    first: the first token is added if the file does not say.
  """

  cut: Callable[[], Any]
  whole_first: bool = False
  composed: bool = False
  first: bool = False


def _plain():
  return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _words(digits):
  """A regular expression of words, then bytes; `digits` says how many digits go together."""
  cut = pre_tokenizers.Split(Regex(_WORDS % digits), 'isolated')
  return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])


RULES = {
  'gpt-2': Rule(_plain),
  # As transformers reads such a file. llama.cpp would cut every digit from its neighbours first.
  'smollm': Rule(_plain),
  'llama-bpe': Rule(lambda: _words('{1,3}'), whole_first=True, first=True),
  'qwen2': Rule(lambda: _words(''), composed=True),
}


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads the tokenizer of a GGUF file.

  Args:
    path: the file.

  Raises:
    GgufError: the file is damaged, or its tokenizer is of another kind than byte-level BPE or cuts
      a text by a rule that is not in `RULES`.
  """
  reader = gguf_metadata.opened(path)
  try:
    return of_reader(reader)
  except ValueError as error:
    raise GgufError(f'{str(path)!r}: {error}') from error


def of_reader(reader: Any) -> Tokenizer:
  """Makes the tokenizer of an open file, see `load`."""
  get = lambda key, *rest: gguf_metadata.value(reader, f'tokenizer.ggml.{key}', *rest)
  kind, name = get('model', str), get('pre', str, 'gpt-2')
  if kind != 'gpt2':
    raise GgufError(f"tokenizer.ggml.model={kind!r:.100}: expected 'gpt2', byte-level BPE")
  if name not in RULES:
    raise GgufError(f'tokenizer.ggml.pre={name!r:.100}: expected one of {", ".join(RULES)}')
  rule, pieces = RULES[name], get('tokens', list)
  merges = [tuple(pair.split(' ')) for pair in get('merges', list)]
  types = get('token_type', list, [1] * len(pieces))
  ids = {piece: i for i, piece in enumerate(pieces)}
  if len(ids) != len(pieces) or len(types) != len(pieces):
    raise GgufError(
      f'{len(pieces)} pieces, of which {len(pieces) - len(ids)} repeat, have {len(types)} types'
    )
  if any(len(pair) != 2 for pair in merges):
    raise GgufError('tokenizer.ggml.merges has a merge that is not of two pieces')
  bpe.check_merges(pieces, merges)
  tokenizer = Tokenizer(models.BPE(ids, merges, ignore_merges=rule.whole_first))
  if rule.composed:
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = rule.cut()
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_tokens(
    [
      AddedToken(piece, normalized=False, special=type_ == CONTROL)
      for piece, type_ in zip(pieces, types, strict=True)
      if type_ in (CONTROL, USER)
    ]
  )
  if get('add_bos_token', bool, rule.first):
    first = get('bos_token_id', int)
    if not 0 <= first < len(pieces):
      raise GgufError(f'tokenizer.ggml.bos_token_id={first}: expected the id of a piece')
    tokenizer.post_processor = bpe.before(pieces[first], first)
  return tokenizer

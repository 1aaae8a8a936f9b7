"""The tokenizers of today's decoders: any BPE tokenizer.json, kept whole, or OPT's two files.

Unlike data/bpe.py, which knows GPT-2's rules alone, a tokenizer is what its tokenizer.json says:
its normalizer, how it cuts a text, the tokens that it puts before one.
"""

import json
import os
import pathlib
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from prunejax.data import bpe, gguf_metadata, gguf_tokenizer, vocabulary

EXPECTED = 'expected a BPE tokenizer.json, or vocab.json and merges.txt'
# Rows of the word table beyond the vocabulary. Qwen2's has 422 of them.
PADDING = 512
OTHERS = ('tokenizer.model', 'spiece.model')
ROLES = {'bos_token': 'bos_token_id', 'eos_token': 'eos_token_id', 'pad_token': 'pad_token_id'}

train = bpe.train
fingerprint = bpe.fingerprint
end = bpe.end


def load(path: str | os.PathLike) -> Tokenizer:
  """Reads a tokenizer.

  Args:
    path: a folder with tokenizer.json, or with vocab.json and merges.txt; a tokenizer.json; or a
      GGUF file.

  Returns:
    The tokenizer, without truncation and padding.

  Raises:
    FileNotFoundError: a file that is missing.
    ValueError: a file that is damaged, too large, or holds another kind of tokenizer.
  """
  path = pathlib.Path(path)
  if gguf_metadata.is_gguf(path):
    return gguf_tokenizer.load(path)
  stored = vocabulary.read(path)
  if stored is None:
    other = next((name for name in OTHERS if (path / name).is_file()), None)
    raise FileNotFoundError(
      f'no vocabulary {str(path)!r}: {EXPECTED}'
      + (f'; {other} alone cannot be read: save the tokenizer in transformers' if other else '')
    )
  where = stored.path
  if stored.merges is None:
    raise ValueError(f'{str(where)!r} is no BPE vocabulary, it has no merges: {EXPECTED}')
  try:
    bpe.check_merges(stored.pieces, stored.merges)
    if not stored.rules:
      return _of_parts(stored)
    tokenizer = _parsed(vocabulary.read_text(where))
  except ValueError as error:
    raise ValueError(f'{str(where)!r}: {error}') from error
  tokenizer.no_truncation()
  tokenizer.no_padding()
  return tokenizer


def pieces(tokenizer: Tokenizer) -> list[str]:
  """Returns pieces and added tokens in the order of their ids."""
  ids = tokenizer.get_vocab(with_added_tokens=True)
  return sorted(ids, key=ids.get)


def texts(tokenizer: Tokenizer, size: Any) -> dict[str, str]:
  """Returns the files of a tokenizer, {name: text}.

  Args:
    tokenizer: it is written whole.
    size: a config of transformers, whose ids of the first, last and padding token are named.
  """
  names = {
    role: tokenizer.id_to_token(i)
    for role, field in ROLES.items()
    if type(i := getattr(size, field, None)) is int and tokenizer.id_to_token(i) is not None
  }
  config = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'model_max_length': size.max_position_embeddings,
    'clean_up_tokenization_spaces': False,
    **names,
  }
  return {
    'tokenizer.json': tokenizer.to_str() + '\n',
    'tokenizer_config.json': json.dumps(config, indent=2, ensure_ascii=False) + '\n',
  }


def _parsed(text):
  try:
    return Tokenizer.from_str(text)
  except BaseException as error:
    # The library has no exception of its own, and a panic of it is no Exception.
    if not isinstance(error, Exception) and type(error).__name__ != 'PanicException':
      raise
    raise ValueError(f'it is no tokenizer ({error!s:.200}): {EXPECTED}') from error


def _of_parts(stored):
  """The byte-level tokenizer of vocab.json and merges.txt."""
  missing = set(pre_tokenizers.ByteLevel.alphabet()) - set(stored.pieces)
  if missing:
    raise ValueError(f'it lacks letters for {len(missing)} of the 256 bytes: {EXPECTED}')
  ids = {piece: i for i, piece in enumerate(stored.pieces)}
  tokenizer = Tokenizer(models.BPE(ids, stored.merges))
  space = bool(stored.settings.get('add_prefix_space'))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
  tokenizer.decoder = decoders.ByteLevel()
  special = {vocabulary.role(stored.settings, role) for role in vocabulary.ROLES} & ids.keys()
  tokenizer.add_special_tokens(
    [AddedToken(piece, normalized=False, special=True) for piece in sorted(special, key=ids.get)]
  )
  vocabulary.add(tokenizer, stored.added)
  first = vocabulary.role(stored.settings, 'bos_token')
  if stored.settings.get('add_bos_token'):
    if tokenizer.token_to_id(first or '') is None:
      raise ValueError(f'tokenizer_config.json adds the token {first!r:.200}, which is no piece')
    tokenizer.post_processor = bpe.before(first, tokenizer.token_to_id(first))
  return tokenizer

"""Labelled examples as a model reads them; a batch is a pure function of (seed, step)."""

import functools
import re
from typing import NamedTuple

import numpy as np
import tokenizers

from prunejax.data import bpe


class _Form(NamedTuple):
  """How a kind of model reads one text, and two. The last special piece pads."""

  special: tuple
  single: str
  pair: str


_BERT = _Form(
  ('[CLS]', '[SEP]', '[PAD]'), '[CLS]:0 $A:0 [SEP]:0', '[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1'
)
_DECODER = _Form((bpe.END,), '$A:0', f'$A:0 {bpe.END}:0 $B:0')


def encode(examples, tokenizer, seq_len):
  """Texts in ids, the longer of a pair cut first: [CLS] a [SEP] (b [SEP]) with WordPiece, a (<|endoftext|> b) with
  byte-level BPE, where a decoder reads the class off the last token.

  Returns:
    dict: input_ids, segment_ids int32 and valid bool [n, seq_len]; label [n] as it came. An empty text is one token
    of padding that counts.
  Raises:
    ValueError: a tokenizer without [CLS], [SEP] or [PAD], or without <|endoftext|>; no examples; a seq_len without
      room.
  """
  pair = examples.b is not None
  form = _DECODER if bpe.is_one(tokenizer) else _BERT
  ids = {piece: tokenizer.token_to_id(piece) for piece in form.special}
  lacking = [piece for piece, number in ids.items() if number is None]
  if lacking:
    raise ValueError(
      f'the vocabulary ({tokenizer.get_vocab_size()} pieces) has no {", ".join(lacking)}'
    )
  shown = (
    re.sub(r':\d', '', form.pair if pair else form.single).replace('$A', 'a').replace('$B', 'b')
  )
  if seq_len < len(shown.split()):
    raise ValueError(f'seq_len={seq_len} has no room for {shown!r}')
  if not examples.a:
    raise ValueError('no examples to encode')
  own = tokenizers.Tokenizer.from_str(
    tokenizer.to_str()
  )  # truncation and padding are state: leave the caller's alone
  own.post_processor = tokenizers.processors.TemplateProcessing(
    single=form.single,
    pair=form.pair,
    special_tokens=[(p, ids[p]) for p in form.special if p in form.pair],
  )
  own.enable_truncation(seq_len, strategy='longest_first')
  own.enable_padding(pad_id=ids[form.special[-1]], pad_token=form.special[-1], length=seq_len)
  rows = own.encode_batch(
    list(zip(examples.a, examples.b, strict=True)) if pair else list(examples.a)
  )
  column = lambda name, dtype: np.array([getattr(r, name) for r in rows], dtype)
  valid = column('attention_mask', bool)
  valid[:, 0] = True
  return {
    'input_ids': column('ids', np.int32),
    'segment_ids': column('type_ids', np.int32),
    'valid': valid,
    'label': np.asarray(examples.label),
  }


def subset(arrays, count, seed):
  """`count` examples drawn by `seed`, in their own order; all when there are no more."""
  n = len(arrays['label'])
  which = np.sort(np.random.default_rng([seed, n]).permutation(n)[:count])
  return {name: column[which] for name, column in arrays.items()}


@functools.lru_cache(4)
def _permutation(count, seed, epoch):
  return np.random.default_rng([seed, epoch]).permutation(count)


def batch(arrays, seed, step, batch_size, process=0, processes=1):
  """Rows of one step: each epoch is a fresh permutation, and a batch may straddle two of them.

  `batch_size` counts the rows of all processes together; each gets its own batch_size / processes.
  """
  if batch_size % processes:
    raise ValueError(f'batch_size={batch_size} does not divide among {processes} processes')
  count, mine = len(arrays['label']), batch_size // processes
  at = step * batch_size + process * mine + np.arange(mine)
  which = np.empty(mine, np.int64)
  for epoch in np.unique(at // count):
    here = at // count == epoch
    which[here] = _permutation(count, seed, int(epoch))[at[here] % count]
  return {name: column[which] for name, column in arrays.items()}


def eval_batches(arrays, batch_size):
  """Every row once, in order; float32 'real' [batch_size] is 0 at what fills the last batch."""
  count = len(arrays['label'])
  for first in range(0, count, batch_size):
    at = np.arange(first, first + batch_size)
    yield {
      **{name: column[np.minimum(at, count - 1)] for name, column in arrays.items()},
      'real': (at < count).astype(np.float32),
    }

"""Labelled examples as BERT reads them; a batch is a pure function of (seed, step)."""

import functools

import numpy as np
import tokenizers


def encode(examples, tokenizer, seq_len):
  """[CLS] a [SEP] (b [SEP]) in ids, the longer text cut first.

  Returns:
    dict: input_ids, segment_ids int32 and valid bool [n, seq_len]; label [n] as it came.
  Raises:
    ValueError: a tokenizer without [CLS], [SEP] or [PAD]; no examples; a seq_len without room.
  """
  pair = examples.b is not None
  ids = {piece: tokenizer.token_to_id(piece) for piece in ('[CLS]', '[SEP]', '[PAD]')}
  lacking = [piece for piece, number in ids.items() if number is None]
  if lacking:
    raise ValueError(f'the vocabulary ({tokenizer.get_vocab_size()} pieces) has no {", ".join(lacking)}')
  if seq_len < (5 if pair else 3):
    raise ValueError(f'seq_len={seq_len} has no room for {"[CLS] a [SEP] b [SEP]" if pair else "[CLS] a [SEP]"}')
  if not examples.a:
    raise ValueError('no examples to encode')
  own = tokenizers.Tokenizer.from_str(tokenizer.to_str())  # truncation and padding are state: leave the caller's alone
  own.post_processor = tokenizers.processors.TemplateProcessing(
    single='[CLS]:0 $A:0 [SEP]:0',
    pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
    special_tokens=[(piece, ids[piece]) for piece in ('[CLS]', '[SEP]')],
  )
  own.enable_truncation(seq_len, strategy='longest_first')
  own.enable_padding(pad_id=ids['[PAD]'], pad_token='[PAD]', length=seq_len)
  rows = own.encode_batch(list(zip(examples.a, examples.b, strict=True)) if pair else list(examples.a))
  column = lambda name, dtype: np.array([getattr(r, name) for r in rows], dtype)
  return {
    'input_ids': column('ids', np.int32),
    'segment_ids': column('type_ids', np.int32),
    'valid': column('attention_mask', bool),
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

"""Labelled examples as token ids. A batch is a pure function of (seed, step)."""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tokenizers

from prunejax.data import bpe
from prunejax.data.examples import Examples


class _Format(NamedTuple):
  """How a model family reads one text, and two. The last special piece pads."""

  special: tuple
  single: str
  pair: str


_BERT = _Format(
  ('[CLS]', '[SEP]', '[PAD]'), '[CLS]:0 $A:0 [SEP]:0', '[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1'
)
_DECODER = _Format((bpe.END,), '$A:0', f'$A:0 {bpe.END}:0 $B:0')


def encode(
  examples: Examples, tokenizer: tokenizers.Tokenizer, seq_len: int
) -> dict[str, np.ndarray]:
  """Turns texts into ids of fixed length.

  A WordPiece tokenizer gives `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. A byte-level BPE
  tokenizer gives `a` or `a <|endoftext|> b`: a decoder reads the class off the last token. What is
  too long is cut, the longer text of a pair first. An empty text becomes one padding token that is
  valid.

  Args:
    examples: n labelled examples.
    tokenizer: of either kind; its own truncation and padding stay as they are.
    seq_len: tokens of an example.

  Returns:
    dict of arrays: `input_ids` and `segment_ids` int32 [n, seq_len], `valid` bool [n, seq_len],
    `label` [n] as it came.

  Raises:
    ValueError: no examples; a `seq_len` too small for the special tokens and one token of each
      text; a tokenizer without [CLS], [SEP] and [PAD], or without <|endoftext|>.
  """
  is_pair = examples.b is not None
  form = _DECODER if bpe.is_byte_level(tokenizer) else _BERT
  ids = {piece: tokenizer.token_to_id(piece) for piece in form.special}
  missing = [piece for piece, number in ids.items() if number is None]
  if missing:
    raise ValueError(
      f'the vocabulary ({tokenizer.get_vocab_size()} pieces) has no {", ".join(missing)}'
    )
  layout = re.sub(r':\d', '', form.pair if is_pair else form.single)
  layout = layout.replace('$A', 'a').replace('$B', 'b')
  if seq_len < len(layout.split()):
    raise ValueError(f'seq_len={seq_len} has no room for {layout!r}')
  if not examples.a:
    raise ValueError('no examples to encode')
  # Truncation and padding are state of a tokenizer: only a copy is changed.
  copy = tokenizers.Tokenizer.from_str(tokenizer.to_str())
  copy.post_processor = tokenizers.processors.TemplateProcessing(
    single=form.single,
    pair=form.pair,
    special_tokens=[(piece, ids[piece]) for piece in form.special if piece in form.pair],
  )
  copy.enable_truncation(seq_len, strategy='longest_first')
  copy.enable_padding(pad_id=ids[form.special[-1]], pad_token=form.special[-1], length=seq_len)
  encodings = copy.encode_batch(
    list(zip(examples.a, examples.b, strict=True)) if is_pair else list(examples.a)
  )
  column = lambda name, dtype: np.array([getattr(e, name) for e in encodings], dtype)
  valid = column('attention_mask', bool)
  valid[:, 0] = True
  return {
    'input_ids': column('ids', np.int32),
    'segment_ids': column('type_ids', np.int32),
    'valid': valid,
    'label': np.asarray(examples.label),
  }


def subset(arrays: dict[str, np.ndarray], count: int, seed: int) -> dict[str, np.ndarray]:
  """Draws `count` examples by `seed` and keeps their order; returns all if there are fewer."""
  n = len(arrays['label'])
  chosen = np.sort(np.random.default_rng([seed, n]).permutation(n)[:count])
  return {name: column[chosen] for name, column in arrays.items()}


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
  """Returns the order of the examples in an epoch, int64 [count]."""
  return np.random.default_rng([seed, epoch]).permutation(count)


def batch(
  arrays: dict[str, np.ndarray],
  seed: int,
  step: int,
  batch_size: int,
  process: int = 0,
  processes: int = 1,
  permutation: Callable[[int, int, int], np.ndarray] = permutation,
) -> dict[str, np.ndarray]:
  """Returns the rows of one step.

  Each epoch is a new permutation. A batch may end one epoch and begin the next.

  Args:
    arrays: what `encode` returned, n rows.
    seed: seed of the order of examples.
    step: number of the step, from 0.
    batch_size: rows of all processes together.
    process: index of this process.
    processes: number of processes.
    permutation: the function of that name, or one that remembers its last results.

  Returns:
    The same columns with batch_size / processes rows.

  Raises:
    ValueError: a batch that does not divide among the processes.
  """
  if batch_size % processes:
    raise ValueError(f'batch_size={batch_size} does not divide among {processes} processes')
  count, rows = len(arrays['label']), batch_size // processes
  position = step * batch_size + process * rows + np.arange(rows)
  chosen = np.empty(rows, np.int64)
  for epoch in np.unique(position // count):
    of_epoch = position // count == epoch
    chosen[of_epoch] = permutation(count, seed, int(epoch))[position[of_epoch] % count]
  return {name: column[chosen] for name, column in arrays.items()}


def eval_batches(arrays: dict[str, np.ndarray], batch_size: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields every row once, in order.

  Args:
    arrays: what `encode` returned, n rows.
    batch_size: rows of a batch.

  Yields:
    The same columns with `batch_size` rows, and `real` float32 [batch_size], which is 0 for the
    repeated rows that fill the last batch.
  """
  count = len(arrays['label'])
  for first in range(0, count, batch_size):
    position = np.arange(first, first + batch_size)
    yield {
      **{name: column[np.minimum(position, count - 1)] for name, column in arrays.items()},
      'real': (position < count).astype(np.float32),
    }

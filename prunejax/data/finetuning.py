"""Labelled examples as token ids. A batch is a pure function of (seed, step)."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

from prunejax.data import bpe, encoder_bpe, unigram
from prunejax.data.examples import Examples

AT_ONCE = 4096  # texts: an encoding takes a dozen times the memory of its row


class _Format(NamedTuple):
  """How a model family reads one text, and two. The last special piece pads, on one side."""

  special: tuple
  single: str
  pair: str
  side: str = 'right'
  padding: int = 0  # the segment of padding


_BERT = _Format(
  ('[CLS]', '[SEP]', '[PAD]'), '[CLS]:0 $A:0 [SEP]:0', '[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1'
)
_XLNET = _Format(('<sep>', '<cls>', '<pad>'), unigram.SINGLE, unigram.PAIR, 'left', unigram.PADDING)


def _format(tokenizer):
  """How the family of a tokenizer reads texts."""
  if unigram.is_unigram(tokenizer):
    return _XLNET
  if special := encoder_bpe.kind(tokenizer):
    return _Format((special.cls, special.sep, special.pad), special.single, special.pair)
  return _decoder(tokenizer) if bpe.is_byte_level(tokenizer) else _BERT


def _decoder(tokenizer):
  """A decoder's: what its tokenizer puts before a text, such as <s>, and a token between two."""
  end = bpe.end(tokenizer)
  first = ''.join(f'{token}:0 ' for token in tokenizer.encode('').tokens)
  tokens = dict.fromkeys((*tokenizer.encode('').tokens, end))
  return _Format(tuple(tokens), f'{first}$A:0', f'{first}$A:0 {end}:0 $B:0')


def encode(
  examples: Examples, tokenizer: tokenizers.Tokenizer, seq_len: int
) -> dict[str, np.ndarray]:
  """Turns texts into ids of fixed length.

  A WordPiece tokenizer gives `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. A BPE tokenizer gives `a`
  or `a <|endoftext|> b`, after what it puts before every text: a decoder reads the class off the
  last token. One of an encoder has its own special pieces around texts, `<s> a </s></s> b </s>` in
  RoBERTa, and all in one segment. A Unigram tokenizer gives `a <sep> b <sep> <cls>`, padded on the
  left. What is too long is cut, the longer text of a pair first. An empty text becomes one padding
  token that is valid.

  Args:
    examples: n labelled examples.
    tokenizer: of either kind; its own truncation and padding stay as they are.
    seq_len: tokens of an example.

  Returns:
    dict of arrays: `input_ids` and `segment_ids` int32 [n, seq_len], `valid` bool [n, seq_len],
    `label` [n] as it came.

  Raises:
    ValueError: no examples; a `seq_len` too small for the special tokens and one token of each
      text; a tokenizer without [CLS], [SEP] and [PAD], or without a token of `bpe.ENDS`.
  """
  is_pair = examples.b is not None
  form = _format(tokenizer)
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
  copy.enable_padding(
    pad_id=ids[form.special[-1]],
    pad_token=form.special[-1],
    length=seq_len,
    direction=form.side,
    pad_type_id=form.padding,
  )
  texts = list(zip(examples.a, examples.b, strict=True)) if is_pair else list(examples.a)
  names = {'input_ids': 'ids', 'segment_ids': 'type_ids', 'valid': 'attention_mask'}
  arrays = {
    name: np.zeros((len(texts), seq_len), bool if name == 'valid' else np.int32) for name in names
  }
  for start in range(0, len(texts), AT_ONCE):
    encodings = copy.encode_batch(texts[start : start + AT_ONCE])
    for name, field in names.items():
      arrays[name][start : start + AT_ONCE] = [getattr(e, field) for e in encodings]
  arrays['valid'][:, -1 if form.side == 'left' else 0] = True
  return {**arrays, 'label': np.asarray(examples.label)}


def shapes(
  seq_len: int, rows: int, regression: bool = False, spans: bool = False
) -> dict[str, tuple]:
  """Returns {name: (shape, dtype)} of a batch of `rows` examples, without reading any.

  Args:
    seq_len: tokens of an example.
    rows: examples.
    regression: labels are scores, not numbers of classes.
    spans: an answer is a span of tokens, see squad.py: a label is its start.
  """
  tokens = (rows, seq_len)
  return {
    'input_ids': (tokens, np.int32),
    'segment_ids': (tokens, np.int32),
    'valid': (tokens, np.bool_),
    'label': ((rows,), np.float32 if regression else np.int32),
    **({name: ((rows,), np.int32) for name in ('end', 'row')} if spans else {}),
  }


def subset(arrays: dict[str, np.ndarray], count: int, seed: int) -> dict[str, np.ndarray]:
  """Draws `count` examples by `seed` and keeps their order; returns all if there are fewer."""
  n = len(arrays['label'])
  chosen = np.sort(np.random.default_rng([seed, n]).permutation(n)[:count])
  return {name: column[chosen] for name, column in arrays.items()}


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
  """Returns the order of the examples in an epoch, int64 [count]."""
  return np.random.default_rng([seed, epoch]).permutation(count)


def _rows(count, seed, first, size, permutation):
  """The rows at positions first to first + size - 1 of all epochs, int64 [size]."""
  position = first + np.arange(size)
  chosen = np.empty(size, np.int64)
  for epoch in np.unique(position // count):
    of_epoch = position // count == epoch
    chosen[of_epoch] = permutation(count, seed, int(epoch))[position[of_epoch] % count]
  return chosen


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
  rows = batch_size // processes
  first = step * batch_size + process * rows
  chosen = _rows(len(arrays['label']), seed, first, rows, permutation)
  return {name: column[chosen] for name, column in arrays.items()}


POOL = 16  # batches whose rows are sorted by length


def bucketed(
  arrays: dict[str, np.ndarray],
  seed: int,
  step: int,
  batch_size: int,
  buckets: Sequence[int],
  process: int = 0,
  processes: int = 1,
  permutation: Callable[[int, int, int], np.ndarray] = permutation,
) -> dict[str, np.ndarray]:
  """Returns the rows of one step, of about equal length and padded as little as `buckets` allow.

  Each POOL steps read the rows that POOL calls of `batch` read, sorted by length and cut into
  batches, whose order is drawn.

  Args:
    arrays: what `encode` returned, n rows.
    seed: seed of the order of examples.
    step: number of the step, from 0.
    batch_size: rows of all processes together.
    buckets: lengths, rising. A batch gets the first that holds its longest row, or keeps its own.
    process: index of this process.
    processes: number of processes.
    permutation: as in `batch`.

  Returns:
    The columns of `batch`, those with an axis of tokens cut to one length.

  Raises:
    ValueError: a batch that does not divide among the processes.
  """
  if batch_size % processes:
    raise ValueError(f'batch_size={batch_size} does not divide among {processes} processes')
  pool, place = divmod(step, POOL)
  size = POOL * batch_size
  chosen = _rows(len(arrays['label']), seed, pool * size, size, permutation)
  length = arrays['valid'].sum(1)[chosen]
  batches = chosen[np.argsort(length, kind='stable')].reshape(POOL, batch_size)
  rows = batches[np.random.default_rng([seed, pool, 2]).permutation(POOL)[place]]
  own = rows[process * batch_size // processes : (process + 1) * batch_size // processes]
  # All processes cut to the longest row of the whole batch.
  return _cut(
    {name: column[own] for name, column in arrays.items()}, arrays['valid'][rows], buckets
  )


def _cut(rows, valid, buckets):
  """Rows whose columns of tokens are cut to the first bucket that holds every token of `valid`."""
  size = valid.shape[1]
  used = np.flatnonzero(valid.any(0))
  from_left = not valid[:, 0].all()  # padding stands on the left
  longest = size - used[0] if from_left else used[-1] + 1
  length = min([bucket for bucket in buckets if bucket >= longest], default=size)
  part = slice(size - length, None) if from_left else slice(length)
  return {
    name: column[:, part] if column.ndim == 2 and column.shape[1] == size else column
    for name, column in rows.items()
  }


def eval_batches(
  arrays: dict[str, np.ndarray], batch_size: int, buckets: Sequence[int] = ()
) -> Iterator[dict[str, np.ndarray]]:
  """Yields every row once, in order.

  Args:
    arrays: what `encode` returned, n rows.
    batch_size: rows of a batch.
    buckets: lengths that batches are cut to, as in `bucketed`; the rows then come in the order of
      their lengths. () for none.

  Yields:
    The same columns with `batch_size` rows, and `real` float32 [batch_size], which is 0 for the
    repeated rows that fill the last batch.
  """
  count = len(arrays['label'])
  by_length = np.argsort(arrays['valid'].sum(1), kind='stable') if buckets else np.arange(count)
  for first in range(0, count, batch_size):
    position = np.arange(first, first + batch_size)
    chosen = by_length[np.minimum(position, count - 1)]
    rows = {name: column[chosen] for name, column in arrays.items()}
    if buckets:
      rows = _cut(rows, rows['valid'], buckets)
    yield {**rows, 'real': (position < count).astype(np.float32)}

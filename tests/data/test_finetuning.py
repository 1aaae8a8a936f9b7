"""Encoding and batching of labelled examples."""

import numpy as np
import pytest
import tokenizers

from prunejax.data import finetuning
from prunejax.data.examples import Examples

VOCAB = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'b', 'c', 'd', 'e', 'f']
PAD, _, CLS, SEP, _, A, B, C, D, E, F = range(len(VOCAB))


def tokenizer(vocab=VOCAB):
  t = tokenizers.Tokenizer(
    tokenizers.models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token='[UNK]')
  )
  t.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  return t


def examples(n):
  return {
    'input_ids': np.arange(n, dtype=np.int32)[:, None] * np.ones((1, 3), np.int32),
    'label': np.arange(n, dtype=np.int32),
  }


def test_encode_one_text():
  arrays = finetuning.encode(
    Examples(['a b', 'a b c d e f'], None, np.array([1, 0], np.int32)), tokenizer(), 5
  )
  np.testing.assert_array_equal(
    arrays['input_ids'],
    np.array([[CLS, A, B, SEP, PAD], [CLS, A, B, C, SEP]], np.int32),
    strict=True,
  )
  np.testing.assert_array_equal(arrays['segment_ids'], np.zeros((2, 5), np.int32), strict=True)
  np.testing.assert_array_equal(
    arrays['valid'], np.array([[1, 1, 1, 1, 0], [1] * 5], bool), strict=True
  )
  np.testing.assert_array_equal(arrays['label'], np.array([1, 0], np.int32), strict=True)


def test_encode_pair_cuts_the_longer_text():
  rows = Examples(['a b c d e f', 'a', 'a'], ['b', 'b c d e f', 'b'], np.zeros(3, np.float32))
  arrays = finetuning.encode(rows, tokenizer(), 8)
  np.testing.assert_array_equal(
    arrays['input_ids'],
    [
      [CLS, A, B, C, D, SEP, B, SEP],
      [CLS, A, SEP, B, C, D, E, SEP],
      [CLS, A, SEP, B, SEP, PAD, PAD, PAD],
    ],
  )
  np.testing.assert_array_equal(
    arrays['segment_ids'],
    [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]],
  )
  assert arrays['label'].dtype == np.float32


def test_encode_leaves_the_tokenizer_alone():
  t = tokenizer()
  before = t.to_str()
  finetuning.encode(Examples(['a'], None, np.zeros(1, np.int32)), t, 8)
  assert t.to_str() == before and t.encode('a b').ids == [A, B]


@pytest.mark.parametrize(
  'rows, vocab, seq_len, message',
  [
    (Examples(['a'], None, np.zeros(1)), VOCAB[:3] + VOCAB[5:], 8, r'has no \[SEP\]'),
    (Examples(['a'], ['b'], np.zeros(1)), VOCAB, 4, 'seq_len=4 has no room'),
    (Examples(['a'], None, np.zeros(1)), VOCAB, 2, 'seq_len=2 has no room'),
    (Examples([], None, np.zeros(0)), VOCAB, 8, 'no examples'),
  ],
)
def test_encode_errors(rows, vocab, seq_len, message):
  with pytest.raises(ValueError, match=message):
    finetuning.encode(rows, tokenizer(vocab), seq_len)


@pytest.mark.parametrize('count, size', [(10, 4), (7, 7), (5, 16), (1, 3)])
def test_every_epoch_is_a_permutation(count, size):
  steps = [finetuning.batch(examples(count), 3, s, size)['label'] for s in range(3 * count)]
  assert all(s.shape == (size,) for s in steps)
  stream = np.concatenate(steps)
  epochs = stream[: len(stream) // count * count].reshape(-1, count)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(count), (len(epochs), 1)))
  if count > 5:
    assert len({tuple(e) for e in epochs}) == len(epochs)


def test_batch_is_a_function_of_seed_and_step():
  arrays = examples(50)
  one, again = (finetuning.batch(arrays, 0, 7, 8)['label'] for _ in range(2))
  np.testing.assert_array_equal(one, again)
  assert not np.array_equal(one, finetuning.batch(arrays, 1, 7, 8)['label'])
  assert not np.array_equal(one, finetuning.batch(arrays, 0, 8, 8)['label'])


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_processes_share_one_batch(processes):
  arrays = examples(30)
  for step in range(9):
    parts = [finetuning.batch(arrays, 5, step, 8, p, processes) for p in range(processes)]
    whole = finetuning.batch(arrays, 5, step, 8)
    for name in whole:
      np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), whole[name])
  with pytest.raises(ValueError, match='batch_size=8 does not divide among 3'):
    finetuning.batch(arrays, 5, 0, 8, 0, 3)


@pytest.mark.parametrize('count, size', [(10, 4), (8, 4), (3, 8)])
def test_eval_batches_hold_every_row_once(count, size):
  batches = list(finetuning.eval_batches(examples(count), size))
  assert all(b['real'].shape == (size,) and b['input_ids'].shape == (size, 3) for b in batches)
  label = np.concatenate([b['label'][b['real'] > 0] for b in batches])
  np.testing.assert_array_equal(label, np.arange(count))
  assert {b['real'].dtype for b in batches} == {np.dtype(np.float32)}


def test_subset_is_drawn_by_seed():
  arrays = examples(40)
  few = finetuning.subset(arrays, 10, 0)
  assert len(set(few['label'])) == 10 and few['input_ids'].shape == (10, 3)
  np.testing.assert_array_equal(few['label'], finetuning.subset(arrays, 10, 0)['label'])
  assert not np.array_equal(few['label'], finetuning.subset(arrays, 10, 1)['label'])
  np.testing.assert_array_equal(finetuning.subset(arrays, 99, 0)['label'], arrays['label'])


def _ragged(count=90, width=32):
  rng = np.random.default_rng(0)
  length = rng.integers(1, width + 1, count)
  valid = np.arange(width) < length[:, None]
  ids = np.where(valid, np.arange(count)[:, None] + 1, 0).astype(np.int32)
  return {
    'input_ids': ids,
    'segment_ids': np.zeros_like(ids),
    'valid': valid,
    'label': np.arange(count, dtype=np.int32),
  }


@pytest.mark.parametrize('left', [False, True])
def test_bucketed_batches_hold_the_rows_of_plain_ones_with_less_padding(left):
  arrays, buckets, pool = _ragged(), (8, 16, 24), finetuning.POOL
  if left:
    arrays = {n: c[:, ::-1] if c.ndim == 2 else c for n, c in arrays.items()}
  plain = [finetuning.batch(arrays, 1, step, 4) for step in range(2 * pool)]
  cut = [finetuning.bucketed(arrays, 1, step, 4, buckets) for step in range(2 * pool)]
  for part in range(2):
    both = [
      sorted(label for batch in side[part * pool : (part + 1) * pool] for label in batch['label'])
      for side in (plain, cut)
    ]
    assert both[0] == both[1]
  for batch in cut:
    width = batch['input_ids'].shape[1]
    longest = arrays['valid'][batch['label']].sum(1).max()
    assert width == min(b for b in (*buckets, 32) if b >= longest)
    for name in ('input_ids', 'valid', 'segment_ids'):
      whole = arrays[name][batch['label']]
      kept, lost = (whole[:, -width:], whole[:, :-width]) if left else np.split(whole, [width], 1)
      np.testing.assert_array_equal(batch[name], kept)
      assert not lost[:, : 32 - width].any()
  assert sum(b['valid'].size for b in cut) < 0.8 * sum(b['valid'].size for b in plain)
  assert [len(b['label']) for b in cut] == [4] * 2 * pool
  order = [b['input_ids'].shape[1] for b in cut[:pool]]
  assert order != sorted(order)  # short batches do not come first


def test_bucketed_parts_of_processes_have_one_length():
  arrays = _ragged()
  for step in range(5):
    whole = finetuning.bucketed(arrays, 1, step, 8, (8, 16))
    parts = [finetuning.bucketed(arrays, 1, step, 8, (8, 16), i, 2) for i in range(2)]
    for name, column in whole.items():
      np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), column)
  with pytest.raises(ValueError, match='processes'):
    finetuning.bucketed(arrays, 1, 0, 9, (8,), 0, 2)


def test_evaluation_in_buckets_yields_every_row_once():
  arrays = _ragged(30)
  seen = []
  for batch in finetuning.eval_batches(arrays, 8, (8, 16)):
    real = batch['real'] > 0
    seen += list(batch['label'][real])
    assert batch['valid'].shape[1] in (8, 16, 32)
    np.testing.assert_array_equal(batch['valid'].sum(1), arrays['valid'][batch['label']].sum(1))
  assert sorted(seen) == list(range(30)) and seen != sorted(seen)


@pytest.mark.parametrize('pairs', [False, True])
def test_texts_that_are_encoded_in_parts_are_those_encoded_at_once(pairs, monkeypatch):
  texts = [' '.join('abcdef'[: 1 + i % 6]) for i in range(11)]
  rows = Examples(texts, texts[::-1] if pairs else None, np.arange(11, dtype=np.int32))
  whole = finetuning.encode(rows, tokenizer(), 8)
  monkeypatch.setattr(finetuning, 'AT_ONCE', 4)
  for name, array in finetuning.encode(rows, tokenizer(), 8).items():
    np.testing.assert_array_equal(array, whole[name], strict=True)

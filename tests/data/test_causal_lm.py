"""Examples of causal pre-training against a ring of documents written out in full."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.data import bpe, causal_lm, corpus

END = 999


class Words:
  """A tokenizer with the two methods that `causal_lm.stream` calls."""

  def token_to_id(self, piece):
    return END if piece == bpe.END else None


def made(lengths, seq_len):
  """(stream, the ring): document i holds 1000 i, 1000 i + 1, ..."""
  documents = [1000 * i + np.arange(n) for i, n in enumerate(lengths, 1)]
  tokens = np.concatenate(documents).astype(np.int32)
  cuts = np.cumsum([0, *lengths]).astype(np.int64)
  ring = np.concatenate([[*document, END] for document in documents])
  stream = causal_lm.stream(
    corpus.Corpus(tokens, np.zeros(len(tokens), bool), cuts), Words(), causal_lm.Recipe(seq_len)
  )
  return stream, ring


def place(ring, row):
  """Position of a window in the ring; each window occurs once in these rings."""
  around = np.concatenate([ring] * (len(row) // len(ring) + 2))
  found = [i for i in range(len(ring)) if np.array_equal(around[i : i + len(row)], row)]
  assert len(found) == 1, row
  return found[0]


@settings(max_examples=25, deadline=None)
@given(
  lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
  seq_len=st.integers(2, 12),
  seed=st.integers(0, 5),
)
def test_an_epoch_reads_the_ring_in_windows_from_one_place(lengths, seq_len, seed):
  stream, ring = made(lengths, seq_len)
  count = max(len(ring) // seq_len, 1)
  assert len(stream.windows) == count
  for epoch in range(2):
    places = []
    for i in range(epoch * count, (epoch + 1) * count):
      got = causal_lm.batch(stream, seed, i, 1)
      row = np.append(got['input_ids'][0], got['targets'][0, -1])
      np.testing.assert_array_equal(got['targets'][0, :-1], got['input_ids'][0, 1:])
      places.append(place(ring, row))
    turn = sorted((at - places[0]) % len(ring) for at in places)
    steps = {(at - places[0]) % seq_len for at in places} if len(ring) % seq_len == 0 else None
    assert len(set(turn)) == count and (steps is None or steps == {0})
    covered = {(at + j) % len(ring) for at in places for j in range(seq_len)}
    assert len(covered) == min(count * seq_len, len(ring)), 'no token twice in an epoch'


def test_a_batch_is_a_function_of_seed_and_step():
  stream, _ = made([40, 3, 25, 60], 8)
  again, _ = made([40, 3, 25, 60], 8)
  for step in (0, 3, 1, 50):  # in any order
    a, b = causal_lm.batch(stream, 7, step, 4), causal_lm.batch(again, 7, step, 4)
    assert all(np.array_equal(a[name], b[name]) for name in a)
  one, other, later = (
    causal_lm.batch(stream, 7, 0, 4),
    causal_lm.batch(stream, 8, 0, 4),
    causal_lm.batch(stream, 7, 1, 4),
  )
  assert not np.array_equal(one['input_ids'], other['input_ids'])
  assert not np.array_equal(one['input_ids'], later['input_ids'])
  epochs = [causal_lm.batch(stream, 7, step, 16)['input_ids'] for step in (0, 1)]
  assert not np.array_equal(np.sort(epochs[0], 0), np.sort(epochs[1], 0)), (
    'each epoch is cut elsewhere'
  )


def test_processes_share_a_batch_and_big_steps_are_small_ones():
  stream, _ = made([40, 3, 25, 60], 8)
  whole = causal_lm.batch(stream, 1, 5, 8)
  parts = [causal_lm.batch(stream, 1, 5, 8, i, 4) for i in range(4)]
  small = [causal_lm.batch(stream, 1, step, 2) for step in range(20, 24)]
  for name in whole:
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
    np.testing.assert_array_equal(np.concatenate([part[name] for part in small]), whole[name])
  kinds = {name: (x.shape, x.dtype.name) for name, x in whole.items()}
  assert kinds == {
    'input_ids': ((8, 8), 'int32'),
    'segment_ids': ((8, 8), 'int32'),
    'valid': ((8, 8), 'bool'),
    'targets': ((8, 8), 'int32'),
  }
  assert whole['valid'].all() and not whole['segment_ids'].any()


def test_every_document_ends_and_every_token_is_read():
  lengths = [5, 1, 9, 2]
  stream, ring = made(lengths, 3)  # 21 places, 7 windows
  read = np.concatenate([causal_lm.batch(stream, 0, i, 1)['input_ids'][0] for i in range(7)])
  np.testing.assert_array_equal(np.sort(read), np.sort(ring))
  assert (read == END).sum() == 4


def test_bad_arguments_are_refused():
  with pytest.raises(ValueError, match='data.seq_len=1: expected at least 2'):
    made([4], 1)
  stream, _ = made([4, 4], 4)
  words = Words()
  words.token_to_id = lambda piece: None
  words.get_vocab_size = lambda: 5
  with pytest.raises(ValueError, match=r'5 pieces\) has no <\|endoftext\|>'):
    causal_lm.stream(stream.corpus, words, causal_lm.Recipe(4))


def test_documents_are_cut_whole_for_bytes(tmp_path):
  (tmp_path / 'text').mkdir()
  for i in range(4):
    (tmp_path / 'text' / f'{i}.txt').write_text(f'One is here. Two  is there {i}.\n\nThree.\n')
  words = bpe.train(corpus.lines('text', root=tmp_path), 300)
  train = corpus.load('text', 'train', words, root=tmp_path, cache=tmp_path / 'cache')
  spans = zip(train.documents[:-1], train.documents[1:], strict=True)
  got = [words.decode(train.tokens[a:b].tolist()) for a, b in spans]
  assert got == [f'One is here. Two is there {i}.\nThree.' for i in (0, 3)]
  assert np.flatnonzero(train.starts).tolist() == train.documents[:-1].tolist()

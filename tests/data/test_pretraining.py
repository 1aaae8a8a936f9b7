"""BERT's pre-training examples, their corpus and their vocabulary."""

import math

import numpy as np
import pytest
import tiny_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.data import corpus, pretraining, wordpiece

LETTERS = 'abcdefghijklmnopqrstuvwxyz'
WORDS = [a + b + c for a in LETTERS for b in LETTERS for c in LETTERS][:9000]
WORDPIECE = wordpiece.from_vocab([*wordpiece.SPECIAL, *WORDS])
CLS, SEP, MASK = (WORDPIECE.token_to_id(p) for p in ('[CLS]', '[SEP]', '[MASK]'))
FIRST = len(wordpiece.SPECIAL)


def distinct(lengths, sentence=5):
  """A corpus of distinct tokens, so that an id gives the position of its token."""
  n = sum(lengths)
  documents = np.cumsum([0, *lengths])
  starts = np.zeros(n, bool)
  for a, b in zip(documents, documents[1:], strict=False):
    starts[a:b:sentence] = True
  return corpus.Corpus(np.arange(FIRST, FIRST + n).astype(np.uint16), starts, documents)


def stream(lengths=(40, 90, 300, 33, 8, 60, 9), **recipe):
  recipe = {'seq_len': 32, 'max_predictions': 8, **recipe}
  return pretraining.stream(distinct(lengths), WORDPIECE, pretraining.Recipe(**recipe))


def original(batch):
  """input_ids before corruption."""
  ids = batch['input_ids'].copy()
  row, column = np.nonzero(batch['weights'])
  ids[row, batch['positions'][row, column]] = batch['targets'][row, column]
  return ids


def segments(batch):
  """(A, B) token ids of every example."""
  for ids, segment, valid in zip(
    original(batch), batch['segment_ids'], batch['valid'], strict=True
  ):
    one, two = ids[valid & (segment == 0)], ids[valid & (segment == 1)]
    assert one[0] == CLS and one[-1] == SEP and two[-1] == SEP
    assert not np.isin(np.r_[one[1:-1], two[:-1]], (CLS, SEP, MASK)).any()
    assert (ids[~valid] == 0).all() and (segment[~valid] == 0).all()
    yield one[1:-1].astype(int), two[:-1].astype(int)


def within(hits, n, p, sigmas=5):
  """Whether a count is within five deviations of its mean; one fair draw in two million is not."""
  return abs(hits - n * p) <= sigmas * math.sqrt(n * p * (1 - p)) + 1


def test_shapes_and_dtypes_are_the_same_at_every_step():
  s = stream(max_predictions=50)  # more than there are columns
  for step in range(3):
    batch = pretraining.batch(s, 0, step, 6)
    shapes = {name: (a.shape, a.dtype.name) for name, a in batch.items()}
    assert shapes == {
      'input_ids': ((6, 32), 'int32'),
      'segment_ids': ((6, 32), 'int32'),
      'valid': ((6, 32), 'bool'),
      'positions': ((6, 50), 'int32'),
      'targets': ((6, 50), 'int32'),
      'weights': ((6, 50), 'float32'),
      'is_random': ((6,), 'int32'),
    }


def test_one_token_in_seven_is_predicted_80_10_10():
  s = stream((600,) * 10, seq_len=128, rate=0.15, max_predictions=20, short=0.0)
  batch = pretraining.batch(s, 3, 0, 600)
  real = batch['weights'] == 1
  assert set(np.unique(batch['weights'])) <= {0.0, 1.0}
  text = batch['valid'].sum(1) - 3
  np.testing.assert_array_equal(real.sum(1), np.clip(np.rint(text * 0.15), 1, 20))
  written = np.take_along_axis(batch['input_ids'], batch['positions'], axis=1)[real]
  target = batch['targets'][real]
  n = len(target)
  assert within((written == MASK).sum(), n, 0.8)
  assert within((written == target).sum(), n, 0.1)
  other = written[(written != MASK) & (written != target)]
  assert within(len(other), n, 0.1)
  assert other.min() >= FIRST and len(np.unique(other)) > 0.8 * len(
    other
  )  # ordinary pieces, drawn from all of them


def test_every_place_is_predicted_alike():
  s = stream((3000,), seq_len=35, rate=0.25, max_predictions=8, short=0.0, next_sentence=0.0)
  batch = pretraining.batch(s, 0, 0, 4000)
  place = np.bincount(batch['positions'][batch['weights'] == 1], minlength=35)
  assert place[0] == 0
  # [SEP] stands between the segments, at a position from 3 to 31; all other positions hold text.
  assert all(within(place[at], 4000, 8 / 32) for at in (1, 2, 32, 33)) and place[34] == 0
  assert place[3:32].min() > 0.6 * 1000 and within(place[1:34].sum(), 8 * 4000, 1.0)


@pytest.mark.parametrize('cap', [1, 3, 20])
def test_the_cap_on_predictions_holds(cap):
  batch = pretraining.batch(stream(max_predictions=cap, rate=0.5), 0, 0, 64)
  assert batch['weights'].sum(1).max() == min(cap, 14) and batch['weights'].sum(1).min() >= 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(8, 64), st.floats(0.05, 0.9))
def test_targets_stand_where_the_weights_say(seed, step, seq_len, rate):
  batch = pretraining.batch(stream(seq_len=seq_len, rate=rate), seed, step, 16)
  real = batch['weights'] == 1
  for positions, keep, valid in zip(batch['positions'], real, batch['valid'], strict=True):
    chosen = positions[keep]
    assert (np.diff(chosen) > 0).all() and valid[chosen].all()  # in order, none twice
  assert (batch['targets'][real] >= FIRST).all()  # never [CLS] or [SEP]
  assert not batch['positions'][~real].any() and not batch['targets'][~real].any()
  list(segments(batch))


def test_segment_b_follows_a_exactly_when_the_label_says_so():
  s = stream((40, 90, 300, 33, 8, 60, 9))
  documents = s.corpus.documents
  labels, kinds = [], []
  for step in range(8):
    batch = pretraining.batch(s, 1, step, 64)
    for (a, b), is_random in zip(segments(batch), batch['is_random'], strict=True):
      for piece in (a, b):  # consecutive in the text, and all of one document
        assert len(piece) >= 2 and (np.diff(piece) == 1).all()
        ends = np.searchsorted(documents, np.array([piece[0], piece[-1]]) - FIRST, 'right')
        assert ends[0] == ends[1]
      kinds.append('follows' if b[0] == a[-1] + 1 else 'elsewhere')
      home, away = (np.searchsorted(documents, piece[0] - FIRST, 'right') for piece in (a, b))
      assert (home != away) == bool(is_random)
      labels.append(is_random)
  assert kinds == ['elsewhere' if is_random else 'follows' for is_random in labels]
  assert within(sum(labels), len(labels), 0.5)


def test_random_pairs_come_from_other_documents_even_if_one_is_most_of_the_text():
  s = stream((2000, 40, 50))
  batch = pretraining.batch(s, 0, 0, 256)
  for (a, b), is_random in zip(segments(batch), batch['is_random'], strict=True):
    assert bool(is_random) == (
      (a[0] < FIRST + 2000) != (b[0] < FIRST + 2000)
      or (a[0] < FIRST + 2040) != (b[0] < FIRST + 2040)
    )


def test_a_single_document_works():
  batch = pretraining.batch(stream((500,)), 0, 0, 32)
  assert len(list(segments(batch))) == 32


def test_a_cut_is_a_sentence_boundary_when_there_is_one():
  s = stream((300, 300), short=0.0)
  for a, b in segments(pretraining.batch(s, 0, 0, 128)):
    assert s.corpus.starts[a[-1] + 1 - FIRST]
    assert len(a) + len(b) == 29


def test_examples_are_a_function_of_seed_and_step():
  s = stream()
  one, again = pretraining.batch(s, 5, 7, 16), pretraining.batch(stream(), 5, 7, 16)
  for name in one:
    np.testing.assert_array_equal(one[name], again[name])
  for seed, step in ((5, 8), (6, 7)):
    assert (pretraining.batch(s, seed, step, 16)['input_ids'] != one['input_ids']).any()


@pytest.mark.parametrize('size', [4, 7])
def test_each_epoch_visits_each_window_once(size):
  s = stream((40, 90, 300, 33), short=0.0)
  count = len(s.windows)
  assert count == sum(n // 29 for n in (40, 90, 300, 33))
  seen = np.concatenate(
    [pretraining.order(count, 0, step * size, size) for step in range(3 * count // size + 1)]
  )
  epochs = seen[: 3 * count].reshape(3, count)
  np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(count), (3, 1)))
  assert (epochs[0] != epochs[1]).any()
  # An example comes from its window, which moves only within its document.
  batch = pretraining.batch(s, 0, 0, size)
  for (a, _), window in zip(segments(batch), seen, strict=False):
    assert 0 <= a[0] - FIRST - s.windows[window] <= s.slack[window]


@pytest.mark.parametrize('processes', [2, 3, 6])
def test_the_rows_of_all_processes_are_the_global_batch(processes):
  s, whole = stream(), pretraining.batch(stream(), 2, 9, 12)
  parts = [pretraining.batch(s, 2, 9, 12, i, processes) for i in range(processes)]
  for name in whole:
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize(
  'recipe, words',
  [
    ({'seq_len': 7}, 'data.seq_len=7'),
    ({'rate': 0.0}, 'data.predict=0.0'),
    ({'rate': 1.5}, 'data.predict=1.5'),
  ],
)
def test_an_impossible_recipe_is_named(recipe, words):
  with pytest.raises(ValueError, match=words):
    stream(**recipe)


# The corpus.


def load(split, spec='text', **how):
  home = tiny_runs.home()
  vocabulary = wordpiece.train(corpus.lines('text', root=home), 120)
  return vocabulary, corpus.load(
    spec, split, vocabulary, root=how.get('root', home), cache=home / 'cache'
  )


def words(vocabulary, tokens):
  return vocabulary.decode([int(t) for t in tokens])


def test_splits_share_no_document_and_lose_none():
  found = []
  for split in corpus.SPLITS:
    vocabulary, part = load(split)
    found += [
      words(vocabulary, part.tokens[a:b])
      for a, b in zip(part.documents, part.documents[1:], strict=False)
    ]
    assert part.tokens.dtype == np.uint16 and part.documents[-1] == len(part.tokens) == len(
      part.starts
    )
    assert part.starts[part.documents[:-1]].all() and part.starts.sum() == 12 * (
      len(part.documents) - 1
    )
  texts = [p.read_text().lower().strip() for p in sorted((tiny_runs.home() / 'text').iterdir())]
  assert sorted(found) == sorted(texts) and len(set(found)) == 40


def test_sources_are_joined_and_only_training_text_repeats():
  _, one = load('train')
  _, many = load('train', 'text+text*2')
  assert len(many.tokens) == 3 * len(one.tokens)
  for i in range(3):
    np.testing.assert_array_equal(
      many.tokens[i * len(one.tokens) : (i + 1) * len(one.tokens)], one.tokens
    )
  assert (np.diff(many.documents) == np.tile(np.diff(one.documents), 3)).all()
  assert len(load('validation', 'text+text*2')[1].tokens) == 2 * len(load('validation')[1].tokens)


def test_shares_are_nested_and_draw_whole_training_documents():
  documents = lambda part: [
    bytes(part.tokens[a:b].tobytes())
    for a, b in zip(part.documents, part.documents[1:], strict=False)
  ]
  whole = documents(load('train')[1])
  found = []
  for share in (0.1, 0.3, 0.85):
    part = load('train', f'text@{share}')[1]
    found.append(documents(part))
    assert len(found[-1]) == round(share * len(whole))
    assert part.starts[part.documents[:-1]].all() and len(part.starts) == len(part.tokens)
    assert found[-1] == [d for d in whole if d in set(found[-1])], 'their own order'
  assert set(found[0]) < set(found[1]) < set(found[2]) < set(whole)
  assert len(load('train', 'text@.3*2')[1].documents) == 2 * len(found[1]) + 1
  assert documents(load('validation', 'text@0.1')[1]) == documents(load('validation')[1])


def test_tokens_are_made_once_and_again_when_the_text_changes(tmp_path, monkeypatch):
  tiny_runs.write_text(tmp_path / 'more', documents=6)
  monkeypatch.setenv('PRUNEJAX_CACHE', str(tmp_path / 'cache'))
  vocabulary = load('train')[0]
  first = corpus.load('more', 'train', vocabulary, root=tmp_path)
  assert len(list((tmp_path / 'cache' / 'tokens').iterdir())) == 1
  with monkeypatch.context() as patch:
    patch.setattr(corpus, '_encode', lambda *a, **k: pytest.fail('tokenised twice'))
    corpus.load('more', 'validation', vocabulary, root=tmp_path)
  (tmp_path / 'more' / '009.txt').write_text('Ba da fa ga la ma na pa ra sa. ' * 3)
  assert len(corpus.load('more', 'train', vocabulary, root=tmp_path).tokens) > len(first.tokens)


@pytest.mark.parametrize(
  'spec, error, match',
  [
    ('nothing', FileNotFoundError, 'no text folder .*nothing'),
    ('text*0', ValueError, r"data.corpus='text\*0'.*joined by"),
    ('text+', ValueError, 'data.corpus='),
    ('text*many', ValueError, 'data.corpus='),
    ('text@0', ValueError, "data.corpus='text@0'.*share in"),
    ('text@1.5', ValueError, 'data.corpus='),
    ('text@half', ValueError, 'data.corpus='),
    ('text*2@0.5', ValueError, 'data.corpus='),
  ],
)
def test_a_missing_source_is_named(spec, error, match):
  with pytest.raises(error, match=match):
    load('train', spec)


def test_text_without_a_root_says_which_key(tmp_path):
  with pytest.raises(FileNotFoundError, match='data.root=FOLDER'):
    load('train', root=None)
  tiny_runs.write_text(tmp_path / 'two', documents=2)
  with pytest.raises(ValueError, match="data.corpus='two': no document for the test split"):
    load('train', 'two', root=tmp_path)


@pytest.mark.parametrize('matched', [True, False])
def test_the_start_of_b_does_not_reveal_its_origin(matched):
  # Sentences longer than a window, words of one to three pieces: most cuts are within a sentence.
  rng = np.random.default_rng(0)
  tokens = np.where(
    rng.random(20_000) < 0.4, rng.integers(300, 500, 20_000), rng.integers(FIRST, 300, 20_000)
  )
  starts = np.arange(20_000) % 45 == 0
  tokens[starts] = FIRST
  words = wordpiece.from_vocab(
    [*wordpiece.SPECIAL, *WORDS[: 300 - FIRST], *(f'##{w}' for w in WORDS[300:500])]
  )
  text = corpus.Corpus(tokens.astype(np.uint16), starts, np.arange(0, 20_001, 200))
  s = pretraining.stream(text, words, pretraining.Recipe(32, 0.15, 5, short=0.0, matched=matched))
  batch = pretraining.batch(s, 0, 0, 4000)
  random, first = batch['is_random'] == 1, np.array([b[0] for _, b in segments(batch)])
  gap = lambda here: abs(here[random].mean() - here[~random].mean())
  within_word, a_sentence = gap(first >= 300), gap(first == FIRST)
  assert (within_word < 0.02 and a_sentence < 0.05) == matched, (within_word, a_sentence)


@pytest.mark.parametrize('matched', [False, True])
def test_an_added_token_may_stand_anywhere(matched):
  words = wordpiece.from_vocab([*wordpiece.SPECIAL, *WORDS])
  words.add_tokens(['<user>'])
  one = distinct([40] * 20)
  one.tokens[::3] = words.token_to_id('<user>')
  recipe = pretraining.Recipe(seq_len=32, max_predictions=8, matched=matched)
  made = pretraining.stream(one, words, recipe)
  for step in range(8):
    batch = pretraining.batch(made, 0, step, 16)
    drawn = batch['input_ids'][batch['valid']]
    assert drawn.max() <= words.token_to_id('<user>')
  plain = pretraining.stream(distinct([40] * 20), words, recipe)
  without = pretraining.stream(distinct([40] * 20), WORDPIECE, recipe)
  for name, array in pretraining.batch(plain, 0, 3, 16).items():  # an unused token changes nothing
    np.testing.assert_array_equal(array, pretraining.batch(without, 0, 3, 16)[name])

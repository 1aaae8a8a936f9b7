"""Vocabularies and pre-training examples of RoBERTa, ModernBERT and XLNet."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer

from prunejax.data import corpus, encoder_bpe, finetuning, masked_lm, permutation_lm, unigram
from prunejax.data.examples import Examples

LINES = [
  'the cat sat on the mat, and the dog ran home.',
  'A hat that the cat had was on the mat; naïve dogs ran.',
] * 20


@pytest.fixture(scope='module')
def bpe_words():
  return encoder_bpe.train(LINES, 300)


@pytest.fixture(scope='module')
def unigram_words():
  return unigram.train(LINES, 80)


def corpus_of(words, documents=6, length=70):
  rng = np.random.default_rng(0)
  tokens = rng.integers(12, words.get_vocab_size(), documents * length).astype(np.uint16)
  starts = rng.random(len(tokens)) < 0.1
  return corpus.Corpus(tokens, starts, np.arange(documents + 1, dtype=np.int64) * length)


def test_a_bpe_of_an_encoder_is_written_and_read(bpe_words, tmp_path):
  assert [bpe_words.token_to_id(p) for p in encoder_bpe.TRAINED] == [0, 1, 2, 3, 4]
  for name, text in encoder_bpe.files(bpe_words, 64).items():
    (tmp_path / name).write_text(text)
  again = encoder_bpe.load(tmp_path)
  assert encoder_bpe.fingerprint(again) == encoder_bpe.fingerprint(bpe_words)
  text = 'the cat had naïve 猫'
  ids = again.encode(text).ids
  assert ids == bpe_words.encode(text).ids and ids[0] == 0 and ids[-1] == 2
  assert again.decode(ids[1:-1]) == text
  assert encoder_bpe.fingerprint(encoder_bpe.train(LINES, 290)) != encoder_bpe.fingerprint(again)


def test_other_vocabularies_are_refused(tmp_path, bpe_words, unigram_words):
  def refused(load, change, words):
    content = json.loads(words.to_str())
    change(content)
    (tmp_path / 'tokenizer.json').write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
      load(tmp_path)
    return str(error.value)

  message = refused(encoder_bpe.load, lambda c: c.update(normalizer={'type': 'NFKC'}), bpe_words)
  assert 'NFKC' in message
  rename = lambda c: c['model']['vocab'].update({'<x>': c['model']['vocab'].pop('<s>')})
  drop = lambda c: (rename(c), c['added_tokens'].clear())
  assert '<s>' in refused(encoder_bpe.load, drop, bpe_words)
  assert 'Unigram' in refused(unigram.load, lambda c: None, bpe_words)
  assert 'merges' in refused(encoder_bpe.load, lambda c: None, unigram_words)
  lost = lambda c: c['model']['vocab'].__setitem__(3, ['<x>', 0.0]) or c['added_tokens'].clear()
  assert '<cls>' in refused(unigram.load, lost, unigram_words)
  with pytest.raises(ValueError, match='at least 261'):
    encoder_bpe.train(LINES, 260)
  with pytest.raises(FileNotFoundError, match='tokenizer.json'):
    unigram.load(tmp_path / 'nowhere')


def test_a_unigram_vocabulary_is_written_and_read(unigram_words, tmp_path):
  assert [unigram_words.token_to_id(p) for p in unigram.SPECIAL] == list(range(9))
  for name, text in unigram.files(unigram_words).items():
    (tmp_path / name).write_text(text)
  again = unigram.load(tmp_path)
  assert unigram.fingerprint(again) == unigram.fingerprint(unigram_words)
  one = again.encode('naïve  A cat')
  assert one.ids[-2:] == [4, 3] and one.type_ids[-1] == 2
  assert again.decode(one.ids) == 'naive A cat'  # cased, without accents
  starts = unigram.word_starts(again)
  first, *_, last = again.encode('the', add_special_tokens=False).ids
  assert len(starts) == again.get_vocab_size() and starts[first] and not starts[3]
  assert first == last or not starts[last]


@pytest.mark.parametrize('pair', [False, True])
def test_texts_of_a_task_are_laid_out_as_each_family_has_them(pair, bpe_words, unigram_words):
  texts = Examples(['the cat', 'a'], ['dog', 'the mat'] if pair else None, np.zeros(2, np.int32))
  arrays = finetuning.encode(texts, bpe_words, 16)
  ids, valid = arrays['input_ids'][0], arrays['valid'][0]
  plain = lambda text: bpe_words.encode(text, add_special_tokens=False).ids
  want = [0, *plain('the cat'), 2, *([2, *plain('dog'), 2] if pair else [])]
  assert list(ids[valid]) == want and (ids[~valid] == 1).all() and valid[0]
  assert not arrays['segment_ids'].any()
  arrays = finetuning.encode(texts, unigram_words, 16)
  ids, valid = arrays['input_ids'][0], arrays['valid'][0]
  plain = lambda text: unigram_words.encode(text, add_special_tokens=False).ids
  want = [*plain('the cat'), 4, *([*plain('dog'), 4] if pair else []), 3]
  assert list(ids[valid]) == want and valid[-1] and not valid[0] and (ids[~valid] == 5).all()
  segments = arrays['segment_ids'][0]
  assert (segments[~valid] == 3).all() and segments[-1] == 2
  assert set(segments[valid][:-1]) == ({0, 1} if pair else {0})


def test_masked_examples_hide_what_they_ask_for(bpe_words):
  recipe = masked_lm.Recipe(16, 0.3, 5)
  stream = masked_lm.stream(corpus_of(bpe_words), bpe_words, recipe)
  batch = masked_lm.batch(stream, 3, 7, 64)
  ids, positions, weights = batch['input_ids'], batch['positions'], batch['weights'] > 0
  assert ids.shape == (64, 16) and positions.shape == (64, 5)
  assert (ids[:, 0] == 0).all() and (ids[:, -1] == 2).all() and batch['valid'].all()
  shown = np.take_along_axis(ids, positions, axis=1)
  assert (positions[weights] > 0).all() and (positions[weights] < 15).all()
  blank = (shown == 4)[weights].mean()
  assert 0.7 < blank < 0.9 and (shown == batch['targets'])[weights].mean() < 0.25
  assert all(len(set(p[w])) == w.sum() for p, w in zip(positions, weights, strict=True))
  parts = [masked_lm.batch(stream, 3, 7, 64, i, 2)['input_ids'] for i in range(2)]
  np.testing.assert_array_equal(np.concatenate(parts), ids)
  for wrong, words in (((16, 1.0, 5), 'data.predict'), ((4, 0.1, 2), 'seq_len')):
    with pytest.raises(ValueError, match=words):
      masked_lm.stream(corpus_of(bpe_words), bpe_words, masked_lm.Recipe(*wrong))


@pytest.fixture(scope='module')
def permuted(unigram_words):
  recipe = permutation_lm.Recipe(32, 6, memory=9)
  stream = permutation_lm.stream(corpus_of(unigram_words), unigram_words, recipe)
  return stream, permutation_lm.batch(stream, 3, 7, 64)


def test_permuted_examples_are_whole(permuted):
  stream, batch = permuted
  ids, segments, valid = batch['input_ids'], batch['segment_ids'], batch['valid']
  assert (ids[:, -1] == 3).all() and (segments[:, -1] == 2).all() and valid[:, -1].all()
  assert ((ids == 4).sum(1) == 2).all() and (ids[~valid] == 5).all()
  for row in range(64):
    own = segments[row][valid[row]]
    assert (np.diff(own) >= 0).all() and set(own) == {0, 1, 2}
  positions, weights = batch['positions'], batch['weights'] > 0
  asked = np.take_along_axis(ids, positions, axis=1)
  np.testing.assert_array_equal(np.where(weights, asked, 0), batch['targets'])
  assert weights.sum() == 64 * 6  # nothing is hidden in the ids themselves
  assert (np.take_along_axis(segments, positions, axis=1)[weights] < 2).all()
  assert not np.isin(asked[weights], [3, 4, 5]).any()
  parts = [permutation_lm.batch(stream, 3, 7, 64, i, 4)['permuted'] for i in range(4)]
  np.testing.assert_array_equal(np.concatenate(parts), batch['permuted'])


def test_an_order_hides_what_comes_later(permuted):
  _, batch = permuted
  hidden, valid = batch['permuted'], batch['valid']
  for row in range(64):
    chosen = np.zeros(32, bool)
    chosen[batch['positions'][row][batch['weights'][row] > 0]] = True
    special = np.isin(batch['input_ids'][row], [3, 4])
    plain = valid[row] & ~chosen & ~special
    assert not hidden[row][:, plain].any()  # text that is not predicted is seen by all
    inside = hidden[row][np.ix_(chosen, chosen)]
    assert inside.diagonal().all()
    # An order: of two predicted tokens exactly one sees the other.
    assert (inside ^ inside.T | np.eye(len(inside), dtype=bool)).all()
    assert sorted(inside.sum(1)) == list(range(1, len(inside) + 1))
    at = np.flatnonzero(special)
    assert not hidden[row][at, at].any()  # special tokens see themselves


def test_predictions_come_in_spans(unigram_words):
  recipe = permutation_lm.Recipe(128, 21)
  stream = permutation_lm.stream(corpus_of(unigram_words, 40, 200), unigram_words, recipe)
  batch = permutation_lm.batch(stream, 0, 0, 64)
  lengths = []
  for row in range(64):
    places = batch['positions'][row][batch['weights'][row] > 0]
    lengths += [len(part) for part in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)]
  # Drawn in proportion to 1 / n: the mean of 1 to 5 is 2.19; what is filled up is single.
  assert 1.5 < np.mean(lengths) < 2.4 and max(lengths) >= 5


def test_a_memory_is_what_stands_before(permuted):
  stream, batch = permuted
  tokens = stream.pairs.corpus.tokens
  ids, there = batch['memory_ids'], batch['memory_valid']
  assert ids.shape == there.shape == (64, 9) and there.any() and not there.all()
  assert (ids[~there] == 5).all()
  for row in np.flatnonzero(there.all(1)):
    text = np.concatenate([ids[row], batch['input_ids'][row][batch['segment_ids'][row] == 0][:2]])
    runs = np.lib.stride_tricks.sliding_window_view(tokens, len(text))
    assert (runs == text).all(1).any()


@pytest.mark.parametrize('recipe', [(6, 2), (32, 17), (32, 0)])
def test_impossible_permutations_are_refused(recipe, unigram_words):
  with pytest.raises(ValueError, match='data'):
    permutation_lm.stream(corpus_of(unigram_words), unigram_words, permutation_lm.Recipe(*recipe))


def test_tokenizers_are_told_apart(bpe_words, unigram_words):
  assert encoder_bpe.kind(bpe_words) is encoder_bpe.ROBERTA
  assert encoder_bpe.kind(unigram_words) is None and unigram.is_unigram(unigram_words)
  assert isinstance(bpe_words, Tokenizer) and not unigram.is_unigram(bpe_words)

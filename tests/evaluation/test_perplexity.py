"""Perplexity against numpy: every protocol, from the formula."""

import math

import jax
import numpy as np
import pytest
import tiny_llama

from prunejax.evaluation import perplexity
from prunejax.models import llama


@pytest.fixture(scope='module')
def model():
  size = tiny_llama.size()
  return size, tiny_llama.params(size)


def scorer(model):
  size, params = model
  return perplexity.scorer(perplexity.running(size, jax.tree.map(np.copy, params)))


@pytest.fixture(scope='module')
def score(model):
  return scorer(model)


def by_hand(model, tokens, window, stride):
  """{token: its cross-entropy} of the text, in float64, of each token that is predicted once."""
  size, params = model
  run = jax.jit(lambda ids: llama.Llama(size).apply({'params': params}, ids, None, ids >= 0)['lm'])
  predicted = {}
  for start in range(0, len(tokens) - window + 1, stride):
    ids = tokens[start : start + window]
    logits = np.float64(run(ids[None])[0])
    for at in range(1, window):
      row = logits[at - 1]
      nats = np.log(np.exp(row - row.max()).sum()) + row.max() - row[ids[at]]
      if stride == window or start + at not in predicted:
        predicted[start + at] = nats
  return predicted


@pytest.mark.parametrize(('window', 'stride'), [(16, 16), (16, 5), (16, 1), (7, 7)])
def test_it_is_the_mean_over_each_token_that_is_predicted(model, score, window, stride):
  tokens = np.random.default_rng(0).integers(0, 280, 40).astype(np.int32)
  windows = perplexity.windows(len(tokens), window, stride)
  rows = list(perplexity.losses(score, tokens, windows, window))
  want = by_hand(model, tokens, window, stride)
  assert sum(count for _, count in rows) == len(want)
  assert perplexity.perplexity(rows) == pytest.approx(
    np.exp(np.mean(list(want.values()))), rel=1e-4
  )
  if stride == window:
    # The mean over windows of the mean of each, as the tables have it.
    means = [total / count for total, count in rows]
    assert perplexity.perplexity(rows) == pytest.approx(math.exp(np.mean(means)), rel=1e-9)
    error = np.std(means, ddof=1) / np.sqrt(len(means))
    assert perplexity.interval(rows) == pytest.approx(error)


@pytest.mark.parametrize('rows', [4, 5, 16, 100])
def test_chunks_of_logits_do_not_change_the_scores(model, score, monkeypatch, rows):
  tokens = np.random.default_rng(1).integers(0, 280, 16).astype(np.int32)
  monkeypatch.setattr(perplexity, 'ROWS', rows)
  np.testing.assert_allclose(scorer(model)(tokens), score(tokens), rtol=0, atol=1e-5)


def test_windows_end_before_the_text_does():
  assert perplexity.windows(10, 4) == [(0, 1), (4, 1)]
  assert perplexity.windows(10, 4, 3) == [(0, 1), (3, 1), (6, 1)]
  assert perplexity.windows(10, 4, 2) == [(0, 1), (2, 2), (4, 2), (6, 2)]
  assert perplexity.windows(4, 4) == [(0, 1)]
  for arguments, message in (
    ((3, 4), '3 tokens, fewer than a window of 4'),
    ((9, 1), 'window=1'),
    ((9, 4, 5), 'stride=5'),
    ((9, 4, 0), 'stride=0'),
  ):
    with pytest.raises(ValueError, match=message):
      perplexity.windows(*arguments)


def test_numbers_that_are_not_finite_are_refused(model):
  size, params = model
  broken = jax.tree.map(np.copy, params)
  broken['norm']['scale'][0] = np.nan
  with pytest.raises(FloatingPointError, match='window at token 0 is not finite'):
    list(perplexity.losses(scorer((size, broken)), np.zeros(8, np.int32), [(0, 1)], 8))

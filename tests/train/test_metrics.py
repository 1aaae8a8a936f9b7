"""Metrics against oracles written from their definitions."""

import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.train import evaluate


@pytest.mark.parametrize(
  'count, length, rows', [(256, 32, 32), (60, 32, 30), (8, 1024, 1), (31, 32, 31), (37, 32, 37)]
)
def test_a_batch_is_predicted_in_parts_that_a_cache_holds(count, length, rows):
  seen = []

  def predict(params, batch):
    seen.append(batch['input_ids'].shape)
    return batch['input_ids'].sum(1) * params, batch['input_ids'][:, :2]

  ids = np.random.default_rng(0).integers(0, 9, (count, length))
  sums, first = evaluate.in_parts(predict)(3, {'input_ids': ids})
  whole = rows == count or jax.device_count() > 1
  assert set(seen) == {(count if whole else rows, length)}
  assert (np.asarray(sums) == 3 * ids.sum(1)).all() and (np.asarray(first) == ids[:, :2]).all()


def pairs(values):
  return st.lists(st.tuples(values, values), min_size=2, max_size=40)


@given(pairs(st.integers(0, 3)))
def test_accuracy(rows):
  guess, label = np.array(rows).T
  assert evaluate.accuracy(guess, label) == sum(g == t for g, t in rows) / len(rows)


@given(pairs(st.integers(0, 1)))
def test_f1(rows):
  guess, label = np.array(rows).T
  hit = sum(g == t == 1 for g, t in rows)
  precision = hit / max(sum(g for g, _ in rows), 1)
  recall = hit / max(sum(t for _, t in rows), 1)
  want = 2 * precision * recall / (precision + recall) if hit else 0.0
  assert evaluate.f1(guess, label) == pytest.approx(want, abs=1e-12)


@given(pairs(st.integers(0, 1)))
def test_matthews_of_two_classes(rows):
  guess, label = np.array(rows).T
  count = lambda g, t: sum(row == (g, t) for row in rows)
  tp, tn, fp, fn = count(1, 1), count(0, 0), count(1, 0), count(0, 1)
  under = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
  want = (tp * tn - fp * fn) / under if under else 0.0
  assert evaluate.matthews(guess, label) == pytest.approx(want, abs=1e-12)


@given(pairs(st.integers(0, 3)))
def test_matthews_of_many_classes_is_the_correlation_of_indicators(rows):
  guess, label = np.array(rows).T
  x, y = (np.eye(4)[side] - np.eye(4)[side].mean(0) for side in (guess, label))
  under = math.sqrt((x * x).sum() * (y * y).sum())
  want = (x * y).sum() / under if under > 1e-9 else 0.0
  assert evaluate.matthews(guess, label) == pytest.approx(want, abs=1e-9)


def _pearson(x, y):
  x, y = x - x.mean(), y - y.mean()
  return (x @ y) / math.sqrt((x @ x) * (y @ y))


def _ranks(values):
  """Mean rank of each value, by counting."""
  return np.array([np.sum(values < v) + (np.sum(values == v) + 1) / 2 for v in values])


@settings(deadline=None)
@given(pairs(st.integers(-50, 50)))
def test_correlations(rows):
  guess, label = np.array(rows, float).T
  flat = np.ptp(guess) == 0 or np.ptp(label) == 0
  want = 0.0 if flat else _pearson(guess, label)
  assert evaluate.pearson(guess, label) == pytest.approx(want, abs=1e-9)
  want = 0.0 if flat else _pearson(_ranks(guess), _ranks(label))
  assert evaluate.spearman(guess, label) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize('name', ['f1', 'matthews', 'pearson', 'spearman'])
def test_a_constant_prediction_scores_nothing(name):
  label = np.array([0, 1, 1, 0, 1])
  assert evaluate.METRICS[name](np.zeros(5, label.dtype), label) == 0.0


def test_nearly_constant_float32_scores_are_no_trouble(recwarn):
  guess = np.full(50, 2.7, np.float32)
  guess[7] += np.float32(3e-7)
  label = np.linspace(0, 5, 50, dtype=np.float32)
  for metric in (evaluate.pearson, evaluate.spearman):
    assert -1 <= metric(guess, label) <= 1
  assert not recwarn.list


@pytest.mark.parametrize('regression', [False, True])
def test_finetuning_leaves_out_the_rows_that_pad(regression):
  label = np.array([0, 1, 1, 1, 0], np.float32 if regression else np.int32)
  out = np.array([[0.0, 1], [0, 1], [0, 1], [1, 0], [1, 0]], np.float32)
  batches = [
    {'label': label[:3], 'out': out[:3], 'real': np.ones(3, np.float32)},
    {
      'label': np.r_[label[3:], label[:1]],
      'out': np.r_[out[3:], out[:1]],
      'real': np.array([1, 1, 0.0]),
    },
  ]
  predict = lambda params, batch: (batch['out'][:, 0] + params, batch['out'])
  metric = 'pearson' if regression else 'accuracy'
  scores = evaluate.finetuning(predict, 3.0, batches, [metric], regression)
  assert scores['loss'] == pytest.approx(3.4)
  want = _pearson(out[:, 0].astype(float), label.astype(float)) if regression else 0.6
  assert scores[metric] == pytest.approx(want, abs=1e-6)


def test_pretraining_means_weigh_every_prediction_alike():
  parts = [((6.0, 2.0), (2.0, 4.0)), ((3.0, 1.0), (1.0, 4.0))]
  sums = lambda params, batch: {'mlm_loss': batch[0], 'nsp_loss': batch[1]}
  scores = evaluate.pretraining(sums, None, itertools.chain(parts))
  assert scores == {'loss': 3 + 3 / 8, 'mlm_loss': 3.0, 'nsp_loss': 3 / 8}

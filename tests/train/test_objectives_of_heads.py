"""The losses of XLNet and of a span head, from logits that the PyTorch classes gave."""

import pathlib

import jax
import numpy as np
import pytest

from prunejax.models import bert, xlnet
from prunejax.models.hf import bert as bert_hf
from prunejax.models.hf import xlnet as xlnet_hf
from prunejax.train import objectives

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference'


def read(name):
  with np.load(REFERENCE / name / 'logits.npz') as file:
    return dict(file)


def cross(logits, target):
  """Cross-entropy of each row, in float64."""
  logits = np.asarray(logits, np.float64)
  top = logits.max(-1, keepdims=True)
  total = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
  return total - np.take_along_axis(logits, target[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize('remembers', [False, True])
def test_the_permutation_objective_is_the_mean_over_what_is_predicted(remembers):
  want = read('xlnet')
  params, size = xlnet_hf.load(REFERENCE / 'xlnet')
  rng = np.random.default_rng(0)
  shape = want['positions'].shape
  batch = {name: want[name] for name in ('input_ids', 'segment_ids', 'valid', 'permuted')}
  batch |= {
    'positions': want['positions'],
    'targets': rng.integers(8, 61, shape).astype(np.int32),
    'weights': (rng.random(shape) < 0.7).astype(np.float32),
  }
  if remembers:
    ids = want['memory_ids']
    batch |= {'memory_ids': ids, 'memory_valid': np.ones(ids.shape, bool)}
  logits = want['remembered' if remembers else 'two_streams']
  losses, weights = cross(logits, batch['targets']), batch['weights']
  loss_fn, sums, _ = objectives.permutation(xlnet.Xlnet(size))
  with jax.default_matmul_precision('highest'):
    loss, metrics = jax.jit(lambda p, b: loss_fn(p, b, jax.random.key(0), True))(params, batch)
    totals = jax.jit(sums)(params, batch)
  np.testing.assert_allclose(loss, (losses * weights).sum() / weights.sum(), rtol=2e-4)
  assert metrics['lm_loss'] == loss
  np.testing.assert_allclose(totals['lm_loss'][0], (losses * weights).sum(), rtol=2e-4)
  right = (logits.argmax(-1) == batch['targets']) * weights
  assert totals['lm_accuracy'] == (right.sum(), weights.sum())


def test_the_objective_of_spans_is_the_mean_of_first_and_last():
  want = read('bert/spans')
  params, size = bert_hf.load(REFERENCE / 'bert' / 'spans', heads=('spans',))
  rng = np.random.default_rng(0)
  batch = {name: want[name] for name in ('input_ids', 'segment_ids', 'valid')}
  batch |= {name: rng.integers(0, 12, 4).astype(np.int32) for name in ('label', 'end')}
  each = (cross(want['start'], batch['label']) + cross(want['end'], batch['end'])) / 2
  loss_fn, predict, _ = objectives.spans(bert.Bert(size, ('spans',)))
  with jax.default_matmul_precision('highest'):
    loss, _ = jax.jit(lambda p, b: loss_fn(p, b, jax.random.key(0), True))(params, batch)
    losses, logits = jax.jit(predict)(params, batch)
  np.testing.assert_allclose(losses, each, rtol=2e-4)
  np.testing.assert_allclose(loss, each.mean(), rtol=2e-4)
  np.testing.assert_allclose(logits[..., 1], want['end'], rtol=0, atol=3e-4)

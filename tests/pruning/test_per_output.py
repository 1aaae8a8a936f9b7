"""The same sparsity for every output, against full sorts of each column."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax


def highest(column, count):
  stays = np.zeros(len(column), bool)
  stays[np.argsort(-column, kind='stable')[:count]] = True
  return stays


def test_each_output_keeps_its_highest_and_ties_go_to_the_lower_input():
  rng = np.random.default_rng(0)
  scores = {
    'layer_0/kernel': rng.integers(0, 6, (13, 7)).astype(np.float32),
    'layer_1/kernel': rng.integers(0, 6, (13, 7)).astype(np.float32),
    'stack': rng.normal(size=(2, 8, 3)).astype(np.float32),
  }
  select = jax.jit(
    lambda scores, sparsity: prunejax.select_masks(
      scores, sparsity, allocation=prunejax.per_output(), stacked=('stack',)
    )
  )
  for sparsity in (0.0, 0.3, 0.5, 0.9, 1.0):
    masks = select(scores, jnp.float32(sparsity))
    for name, score in scores.items():
      columns = np.moveaxis(score, -2, -1).reshape(-1, score.shape[-2])
      count = cases.kept(score.shape[-2], sparsity)
      expected = np.stack([highest(column, count) for column in columns])
      np.testing.assert_array_equal(
        np.moveaxis(masks[name], -2, -1).reshape(columns.shape), expected
      )
  assert select._cache_size() == 1


def test_under_n_m_each_output_opens_the_same_number_of_groups():
  score = {'kernel': np.random.default_rng(1).random((16, 5)).astype(np.float32)}
  mask = prunejax.select_masks(
    score, 0.25, allocation=prunejax.per_output(), structure=prunejax.n_m(2, 4)
  )['kernel']
  assert np.sum(mask, axis=0).tolist() == [12] * 5
  full = prunejax.select_masks(
    score, 0.5, allocation=prunejax.per_output(), structure=prunejax.n_m(2, 4)
  )['kernel']
  np.testing.assert_array_equal(full, ~cases.lowest_of_groups(score['kernel'], 2, 4))


def test_who_pays_counts_per_output_and_other_units_are_refused():
  params = {'a': {'kernel': jnp.asarray([[0.0, 1.0], [0.0, 0.0], [2.0, 0.0], [3.0, 3.0]])}}
  rows = prunejax.who_pays(params, prunejax.magnitude(), 0.5, prunejax.per_output())
  assert (rows[0].kept, rows[0].asked, rows[0].got) == (4, 0.5, 0.5)
  with pytest.raises(ValueError, match=r"per_output: 'b' has units of shape \(4,\)"):
    prunejax.select_masks({'b': jnp.ones(4)}, 0.5, allocation=prunejax.per_output())
  with pytest.raises(ValueError, match="per_output: 'c'"):
    prunejax.select_masks(
      {'c': jnp.ones((4, 4))}, 0.5, allocation=prunejax.per_output(), structure=prunejax.columns()
    )

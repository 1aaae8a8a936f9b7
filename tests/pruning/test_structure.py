"""Units of every structure on kernels whose axes they do not divide, and on convolutions."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax

SHAPES = {'edge': (12, 7), 'small': (4, 2), 'conv': (3, 2, 8, 6)}


@pytest.mark.parametrize('name', [name for name in cases.STRUCTURES if name != 'unstructured'])
def test_units_are_those_of_the_oracle_for_every_shape_and_sign(name):
  structure, rng = cases.STRUCTURES[name].make(), np.random.default_rng(3)
  scores = {
    leaf: (rng.integers(-40, 40, shape) / 8).astype(np.float32) for leaf, shape in SHAPES.items()
  }
  units = jax.jit(structure.pool)(scores)
  kept = {leaf: np.asarray(rng.integers(0, 2, unit.shape), bool) for leaf, unit in units.items()}
  masks = jax.jit(structure.expand)(kept, scores)
  for leaf, score in scores.items():
    np.testing.assert_array_equal(np.ravel(units[leaf]), np.float32(cases.pooled(name, score)))
    assert masks[leaf].shape == score.shape
    np.testing.assert_array_equal(masks[leaf], cases.opened(name, kept[leaf].ravel(), score))


@pytest.mark.parametrize(
  'shape, size', [((9, 8), (4, 4)), ((9, 8), (8, 8)), ((10, 7), (4, 4)), ((3, 3, 8, 8), (4, 4))]
)
def test_blocks_never_change_a_shape_and_half_the_blocks_stay(shape, size):
  score = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  mask = jax.jit(
    lambda s: prunejax.select_masks({'conv/w': s}, 0.5, structure=prunejax.block(*size))['conv/w']
  )(score)
  assert mask.shape == shape
  numbers = cases.grid(lambda s: (1,) * (len(s) - 2) + size)(shape)
  whole = [mask[numbers == i] for i in range(numbers.max() + 1)]
  assert all(unit.all() or not unit.any() for unit in whole)
  assert sum(bool(unit.all()) for unit in whole) == cases.kept(len(whole), 0.5)


def test_n_m_fills_group_by_group_and_at_its_sparsity_every_group_is_n_m():
  score = np.random.default_rng(0).integers(0, 3, (16, 5)).astype(np.float32)
  select = jax.jit(
    lambda s: prunejax.select_masks({'w': score}, s, structure=prunejax.n_m(1, 4))['w']
  )
  for sparsity in (0.3, 0.75):
    groups = np.asarray(select(jnp.float32(sparsity))).reshape(4, 4, 5).sum(1)
    assert set(np.ravel(groups)) <= {1, 4}
    assert (groups == 4).sum() == cases.kept(20, sparsity / 0.75)
  assert select(jnp.float32(0.0)).all()


def test_units_with_an_infinite_or_nan_weight_show_it():
  score = np.ones((4, 4), np.float32)
  score[0, 0], score[3, 3] = np.inf, np.nan
  units = jax.jit(prunejax.block(2, 2).pool)({'w': score})['w']
  assert np.isposinf(units[0, 0]) and np.isnan(units[1, 1]) and units[0, 1] == units[1, 0] == 1

"""SparseGPT's sweep and the Fisher blocks against dense float64; errors on missing arguments."""

import cases_layerwise as twins
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax
from prunejax.pruning.criteria.block_fisher import _in_blocks, _out_of_blocks, _size_of
from prunejax.train import criterion_arguments


def layer(seed=0, rows=60, inputs=12, outputs=8):
  """Random correlated rows, weights and a mask."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(rows, inputs // 2)) @ rng.normal(size=(inputs // 2, inputs))
  x = (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32)
  w = rng.normal(size=(inputs, outputs)).astype(np.float32)
  mask = rng.random((inputs, outputs)) > 0.5
  w[2], mask[2] = 0, False  # pruned before
  return x, w, mask


def lost(w, new, x):
  return np.sum((x @ (np.float64(w) - new)) ** 2)


def test_the_sweep_matches_a_dense_inverse_and_nears_the_least_squares_optimum():
  x, w, _ = layer()
  params, told = {'kernel': jnp.asarray(w)}, {'activations': lambda _: {'kernel': x}}
  criterion = prunejax.sparsegpt(block=5)  # 5 does not divide 12
  score = np.asarray(criterion.score((), params, **told)['kernel'])
  mask = score > np.median(score)
  changes = criterion.compensate((), params, {'kernel': jnp.asarray(mask)}, **told)['kernel']
  new = np.where(mask, w + np.asarray(changes), 0)
  np.testing.assert_allclose(new, twins.sparsegpt_sweep(w, mask, x), rtol=1e-4, atol=1e-5)
  best = np.zeros_like(w, np.float64)
  for column in range(w.shape[1]):
    kept = mask[:, column]
    best[kept, column] = np.linalg.lstsq(
      np.float64(x[:, kept]), x @ np.float64(w[:, column]), rcond=None
    )[0]
  plain, swept, least = (lost(w, n, np.float64(x)) for n in (np.where(mask, w, 0), new, best))
  # The optimum solves for each output alone. The sweep has one factor for all and comes close.
  assert least <= swept < plain and plain - swept > 0.5 * (plain - least)


def test_stacked_kernels_and_sums_over_steps_equal_each_layer_on_all_rows():
  (x, w, mask), (x2, w2, mask2) = layer(), layer(1)
  params = {'kernel': jnp.asarray(np.stack([w, w2]), jnp.bfloat16)}
  masks, rows = {'kernel': jnp.asarray(np.stack([mask, mask2]))}, np.stack([x, x2])
  criterion = prunejax.sparsegpt(accumulate=True)
  state = criterion.init(params)
  for part in (rows[:, :20], rows[:, 20:]):
    state = criterion.update(state, params, activations=lambda _, part=part: {'kernel': part})
  assert state.layer_inputs['kernel'].dtype == jnp.float32
  changes = np.asarray(criterion.compensate(state, params, masks)['kernel'])
  for i, kept in enumerate((mask, mask2)):
    of = np.asarray(params['kernel'][i], np.float32)
    new = np.where(kept, of + changes[i], 0)
    np.testing.assert_allclose(new, twins.sparsegpt_sweep(of, kept, rows[i]), rtol=1e-4, atol=1e-5)
  summed = prunejax.wanda(accumulate=True)
  state = summed.init(params)
  for part in (rows[:, :20], rows[:, 20:]):
    state = summed.update(state, params, activations=lambda _, part=part: {'kernel': part})
  whole = prunejax.wanda().score((), params, activations=lambda _: {'kernel': rows})['kernel']
  np.testing.assert_allclose(summed.score(state, params)['kernel'], whole, rtol=1e-5)


@pytest.mark.parametrize('source', ['examples', 'steps'])
def test_survivors_of_a_fisher_block_compensate_for_all_its_pruned_weights(source):
  rng = np.random.default_rng(0)
  params = {'a': {'kernel': rng.normal(size=(12, 5)).astype(np.float32)}}
  params['a']['kernel'][3] = 0
  mask = rng.random((12, 5)) > 0.6
  mask[3] = False
  told = twins.slopes(params)
  g = told['value_fn']['a']['kernel']
  criterion = prunejax.block_fisher(6, gradients=len(g), damp=0.05, source=source)
  state = criterion.init(params)
  if source == 'steps':
    for i in (0, *range(len(g))):  # F starts anew, so the first gradient does not count
      state = state._replace(fisher_count=jnp.int32(i))
      state = criterion.update(state, params, grad={'a': {'kernel': jnp.asarray(g[i])}})
    told = {}
  changes = criterion.compensate(state, params, {'a': {'kernel': mask}}, **told)['a']['kernel']
  new = np.where(mask, params['a']['kernel'] + np.asarray(changes), 0)
  np.testing.assert_allclose(
    new, twins.fisher_moved(params['a']['kernel'], mask, g, block=6), rtol=1e-4, atol=1e-5
  )


def test_blocks_divide_the_input_axis_where_they_can_and_come_back():
  assert [_size_of(n, 50) for n in (768, 3072, 128, 49, 101, 7)] == [
    48,
    48,
    32,
    49,
    34,
    7,
  ]
  for shape in ((101, 3), (2, 101, 3), (101,)):
    w = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(_out_of_blocks(_in_blocks(jnp.asarray(w), 50), shape), w)


def test_missing_and_wrong_arguments_name_the_leaf():
  params = {'embedding': jnp.ones((4, 3)), 'kernel': jnp.ones((4, 3))}
  known = {'kernel': jnp.ones((5, 4))}
  with pytest.raises(
    ValueError, match=r"wanda\(\): no activations go into 'embedding'.*where=.*'kernel'"
  ):
    prunejax.wanda().score((), params, activations=lambda _: known)
  with pytest.raises(ValueError, match=r'needs activations= in tx.update: activations\(params\)'):
    prunejax.who_pays(params, prunejax.sparsegpt(), 0.5)
  with pytest.raises(ValueError, match=r"'kernel' have shape \(5, 3\), its kernel \(4, 3\)"):
    prunejax.wanda().score(
      (), {'kernel': params['kernel']}, activations=lambda _: {'kernel': jnp.ones((5, 3))}
    )
  with pytest.raises(ValueError, match=r"sparsegpt\(\): 'bias' has shape \(3,\)"):
    prunejax.sparsegpt(accumulate=True).init({'bias': jnp.ones(3)})
  with pytest.raises(ValueError, match=r'needs examples= in tx.update: examples=\(n, loss'):
    prunejax.who_pays(params, prunejax.block_fisher(), 0.5)
  for wrong in ({'block': 0}, {'gradients': 2.5}, {'damp': 0.0}, {'source': 'batches'}):
    with pytest.raises(ValueError, match=f'block_fisher: {next(iter(wrong))}='):
      prunejax.block_fisher(**wrong)
  for wrong in ({'damp': -1}, {'block': True}):
    with pytest.raises(ValueError, match=f'sparsegpt: {next(iter(wrong))}='):
      prunejax.sparsegpt(**wrong)


def test_activations_are_the_inputs_of_each_kernel_and_zero_in_padding():
  class Two(nn.Module):
    @nn.compact
    def __call__(self, ids, segments, valid, deterministic):
      x = nn.Embed(11, 6, name='embed')(ids) + segments[..., None].astype(jnp.float32)
      return nn.Dense(3, name='second')(jnp.tanh(nn.Dense(4, name='first')(x))).mean(1)

  ids = jnp.asarray([[1, 2, 3], [4, 5, 0]])
  batch = {'input_ids': ids, 'segment_ids': ids % 2, 'valid': ids > 0}
  params = Two().init(jax.random.key(0), ids, ids, ids > 0, True)['params']
  found = criterion_arguments.activations(Two(), params, batch)
  x = np.asarray(params['embed']['embedding'])[ids] + np.asarray(ids % 2)[..., None]
  first = jax.tree.map(np.asarray, params['first'])
  hidden = np.tanh(x @ first['kernel'] + first['bias'])
  for name, rows in (('first/kernel', x), ('second/kernel', hidden)):
    expected = np.where(np.asarray(ids > 0)[..., None], rows, 0).reshape(6, -1)
    np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    assert not np.any(found[name][5])

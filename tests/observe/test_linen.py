"""Recorded inputs of Flax Linen layers against inputs computed by hand."""

import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import prunejax
from prunejax.observe import linen as observe

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


class Mlp(nn.Module):
  """Two layers, the second called twice."""

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.relu(nn.Dense(6, name='first')(x))
    x = nn.Dropout(0.5, deterministic=not train)(x)
    again = nn.Dense(6, name='second')
    return again(again(x))


class Attention(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.MultiHeadDotProductAttention(2, name='attention')(x)


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return nn.relu(nn.Dense(4, name='dense')(x)), None


class Stack(nn.Module):
  """Three layers as one scan."""

  axes: dict

  @nn.compact
  def __call__(self, x):
    layers = nn.scan(Block, variable_axes=self.axes, split_rngs={'params': True}, length=3)
    return layers(name='layers')(x, None)[0]


def dense(x, layer):
  return x @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])


def init(model, x=X):
  return model.init(jax.random.key(0), x)['params']


def test_rows_of_each_dense_layer_and_of_each_call():
  params = init(Mlp())
  rows = jax.jit(observe.activations(Mlp(), X))(params)
  hidden = np.maximum(dense(X, params['first']), 0)
  twice = np.concatenate([hidden.reshape(-1, 6), dense(hidden, params['second']).reshape(-1, 6)])
  assert set(rows) == {'first/kernel', 'second/kernel'}
  np.testing.assert_allclose(rows['first/kernel'], X.reshape(-1, 4))
  np.testing.assert_allclose(rows['second/kernel'], twice, rtol=1e-5, atol=1e-5)
  assert all(x.dtype == jnp.float32 for x in rows.values())


@pytest.mark.parametrize('lift', [nn.jit, nn.remat])
def test_lifted_modules_are_recorded_each_time(lift):
  class Lifted(nn.Module):
    @nn.compact
    def __call__(self, x):
      return lift(Block)(name='block')(x, None)[0]

  params = init(Lifted())
  for scale in (1, 2):
    rows = observe.activations(Lifted(), scale * X)(params)
    np.testing.assert_allclose(rows['block/dense/kernel'], scale * X.reshape(-1, 4))


def test_paths_follow_the_tree_that_is_trained():
  variables = {'params': init(Mlp())}
  assert set(observe.activations(Mlp(), X)(variables)) == {
    'params/first/kernel',
    'params/second/kernel',
  }
  only = observe.activations(Mlp(), X, where='first/kernel')(variables['params'])
  assert set(only) == {'first/kernel'}


def test_padding_adds_nothing():
  valid = np.arange(5) < np.asarray([[3], [5]])
  rows = observe.activations(Mlp(), X, valid=valid)(init(Mlp()))['first/kernel']
  np.testing.assert_array_equal(rows.reshape(2, 5, 4), np.where(valid[..., None], X, 0))


def test_other_collections_methods_and_keywords_reach_the_model():
  class Normed(nn.Module):
    def setup(self):
      self.norm, self.dense = nn.BatchNorm(use_running_average=True), nn.Dense(3)

    def encode(self, x, *, scale):
      return self.dense(self.norm(x * scale))

  model = Normed()
  variables = model.init(jax.random.key(0), X, scale=1.0, method='encode')
  statistics = {'batch_stats': jax.tree.map(lambda s: s + 2, variables['batch_stats'])}
  record = observe.activations(model, X, scale=3.0, variables=statistics, method='encode')
  rows = record(variables['params'])['dense/kernel']
  np.testing.assert_allclose(rows, (3 * X - 2).reshape(-1, 4) / np.sqrt(3 + 1e-5), rtol=1e-5)


def test_kernels_of_attention_have_rows_for_all_their_inputs():
  params = init(Attention())
  rows = observe.activations(Attention(), X)(params)
  heads = lambda name: (
    np.einsum('bti,ihw->bthw', X, params['attention'][name]['kernel'])
    + np.asarray(params['attention'][name]['bias'])
  )
  query, key, value = heads('query'), heads('key'), heads('value')
  weights = jax.nn.softmax(np.einsum('bqhw,bkhw->bhqk', query, key) / np.sqrt(2), axis=-1)
  mixed = np.einsum('bhqk,bkhw->bqhw', weights, value)
  expected = mixed.reshape(-1, 4)  # [rows, heads x width]
  np.testing.assert_allclose(rows['attention/out/kernel'], expected, rtol=1e-4, atol=1e-5)
  for name in ('query', 'key', 'value'):
    np.testing.assert_allclose(rows[f'attention/{name}/kernel'], X.reshape(-1, 4))


@pytest.mark.parametrize('over, lead', [('layers', (3,)), ('time', ())])
def test_attention_in_a_scan_over_layers_and_in_one_over_time(over, lead):
  class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
      return nn.MultiHeadDotProductAttention(2, name='attention')(x), None

  class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
      shared = {'variable_broadcast': 'params', 'split_rngs': {'params': False}}
      own = {'split_rngs': {'params': True}}
      axes = {'activations': 0} | ({'params': 0} if over == 'layers' else {})
      given = own if over == 'layers' else shared
      return nn.scan(Step, variable_axes=axes, length=3, **given)(name='step')(x, None)[0]

  rows = observe.activations(Model(), X)(init(Model()))
  count = 10 if lead else 30
  assert {x.shape for x in rows.values()} == {(*lead, count, 4)}


def test_a_kernel_with_batch_axes_is_refused_by_name():
  model = nn.DenseGeneral(3, axis=-1, batch_dims=(0,))
  with pytest.raises(ValueError, match=r"'kernel' is the kernel of .* batch axes \(0,\)"):
    observe.activations(model, X)(init(model))


def test_a_scan_over_layers_stacks_rows_as_it_stacks_kernels():
  model = Stack({'params': 0, 'activations': 0})
  params = init(model)
  rows = observe.activations(model, X)(params)['layers/dense/kernel']
  x, expected = X, []
  for i in range(3):
    expected.append(x.reshape(-1, 4))
    x = np.maximum(dense(x, jax.tree.map(lambda leaf, i=i: leaf[i], params['layers']['dense'])), 0)
  np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_a_scan_that_drops_the_rows_is_named():
  model = Stack({'params': 0})
  with pytest.raises(ValueError, match="'layers/dense/kernel' runs inside nn.scan.*'activations'"):
    observe.activations(model, X)(init(model))


def test_a_scan_over_time_joins_the_rows_of_its_steps():
  class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
      cell = nn.scan(
        Block,
        variable_broadcast='params',
        variable_axes={'activations': 0},
        split_rngs={'params': False},
        length=3,
      )
      return cell(name='cell')(x, None)[0]

  params = init(Recurrent())
  rows = observe.activations(Recurrent(), X)(params)['cell/dense/kernel']
  first = X.reshape(-1, 4)
  second = np.maximum(dense(first, params['cell']['dense']), 0)
  assert rows.shape == (30, 4)
  np.testing.assert_allclose(rows[:20], np.concatenate([first, second]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('batch', [5, 3])
def test_a_vmap_around_a_scan_over_layers_leaves_each_layer_its_rows(batch):
  stack = nn.scan(
    Block,
    variable_axes={'params': 0, 'activations': 0},
    split_rngs={'params': True},
    length=3,
  )
  many = nn.vmap(
    stack, variable_axes={'params': None, 'activations': 0}, split_rngs={'params': False}
  )
  x = np.random.default_rng(0).normal(size=(batch, 2, 4)).astype(np.float32)
  plain = stack()
  params = plain.init(jax.random.key(0), x.reshape(-1, 4), None)['params']
  record = lambda model, x: observe.activations(model, x, None)(params)['dense/kernel']
  if batch == 3:  # as many as layers: which axis is which?
    with pytest.raises(ValueError, match='more than one of these can be the axes'):
      record(many(), x)
  else:
    rows, whole = record(many(), x), record(plain, x.reshape(-1, 4))
    assert rows.shape == whole.shape == (3, 10, 4)
    for layer in range(3):
      same = np.sort(rows[layer], 0), np.sort(whole[layer], 0)
      np.testing.assert_allclose(*same, rtol=1e-4, atol=1e-5)


def test_wanda_scores_by_the_recorded_norms():
  params = init(Mlp())
  tx = prunejax.prune_transform(
    prunejax.wanda(), prunejax.constant(0.5), where='first/kernel', allocation=prunejax.per_output()
  )
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, state = tx.update(
    zeros, tx.init(params), params, activations=observe.activations(Mlp(), X)
  )
  kernel = np.abs(np.asarray(params['first']['kernel']))
  scores = kernel * np.linalg.norm(X.reshape(-1, 4), axis=0)[:, None]
  kept = scores >= np.sort(scores, axis=0)[2]
  np.testing.assert_array_equal(prunejax.get_masks(state, params)['first']['kernel'], kept)
  np.testing.assert_array_equal(optax.apply_updates(params, updates)['first']['kernel'] != 0, kept)


def test_import_prunejax_imports_neither_flax_nor_observe():
  code = (
    'import sys, prunejax; '
    'raise SystemExit(any(name in sys.modules for name in ("flax", "prunejax.observe")))'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0

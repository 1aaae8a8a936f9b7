"""Arguments of `tx.update` made of Flax NNX models, against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import prunejax
from prunejax.observe import nnx as observe
from prunejax.pruning.paths import named_leaves

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


class Mlp(nnx.Module):
  def __init__(self, rngs):
    self.layers = nnx.List([nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 4, rngs=rngs)])
    self.out = nnx.LinearGeneral((5, 4), 3, axis=(-2, -1), rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x, scale=1.0):
    return self.out(self.drop(self.layers[1](nnx.relu(self.layers[0](x * scale)))))


class Attention(nnx.Module):
  def __init__(self, rngs):
    self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)

  def __call__(self, x):
    return self.attention(x)


class Stack(nnx.Module):
  """Three layers as one scan."""

  def __init__(self, rngs):
    make = nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs), in_axes=(0,), out_axes=0)
    self.layers = nnx.split_rngs(splits=3)(make)(rngs)

  def __call__(self, x):
    forward = nnx.scan(
      lambda x, layer: nnx.relu(layer(x)), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
    )
    return forward(x, self.layers)


@pytest.fixture
def model():
  model = Mlp(nnx.Rngs(0))
  model.eval()
  return model


def params_of(model):
  return nnx.state(model, nnx.Param)


def dense(x, layer):
  return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def loss(model, batch):
  return jnp.mean((model(batch['x']) - batch['y']) ** 2) / 2


def test_rows_of_each_layer_by_the_paths_of_the_parameters(model):
  rows = observe.activations(model, X, scale=2.0)(params_of(model))
  hidden = np.maximum(dense(2 * X, model.layers[0]), 0)
  assert set(rows) == {name for name in named_leaves(params_of(model)) if name.endswith('kernel')}
  np.testing.assert_allclose(rows['layers/0/kernel'], 2 * X.reshape(-1, 4), rtol=1e-6)
  np.testing.assert_allclose(rows['layers/1/kernel'], hidden.reshape(-1, 6), rtol=1e-5, atol=1e-6)
  last = dense(hidden, model.layers[1]).reshape(3, 20)  # [rows, in] for a kernel [5, 4, 3]
  np.testing.assert_allclose(rows['out/kernel'], last, rtol=1e-4, atol=1e-5)


def test_the_model_and_flax_are_left_as_they_were(model):
  before = nnx.Linear.__call__, nnx.LinearGeneral.__call__
  observe.activations(model, X)(params_of(model))
  with pytest.raises(ZeroDivisionError):
    observe.activations(model, X, method=lambda model, x: 1 // 0)(params_of(model))
  assert (nnx.Linear.__call__, nnx.LinearGeneral.__call__) == before
  assert not hasattr(model, '__captures__') and not nnx.state(model, nnx.Intermediate)


def test_padding_and_where(model):
  valid = np.arange(5) < np.asarray([[3], [5], [1]])
  rows = observe.activations(model, X, valid=valid, where='layers/0/.*')(params_of(model))
  assert set(rows) == {'layers/0/kernel'}
  np.testing.assert_array_equal(
    rows['layers/0/kernel'].reshape(3, 5, 4), np.where(valid[..., None], X, 0)
  )


def test_kernels_of_attention_have_rows_for_all_their_inputs():
  model = Attention(nnx.Rngs(0))
  rows = observe.activations(model, X)(params_of(model))
  assert {name: x.shape for name, x in rows.items()} == {
    f'attention/{name}/kernel': (15, 4) for name in ('query', 'key', 'value', 'out')
  }
  np.testing.assert_allclose(rows['attention/key/kernel'], X.reshape(-1, 4))
  # Each row through the kernel is what the layer says.
  out = model.attention.out
  said = np.asarray(rows['attention/out/kernel']) @ np.asarray(out.kernel[...]).reshape(4, 4)
  wanted = np.asarray(model(X)).reshape(15, 4)
  np.testing.assert_allclose(said + np.asarray(out.bias[...]), wanted, rtol=1e-4, atol=1e-5)


def test_attention_in_a_scan_over_layers_has_rows_for_each_layer():
  make = nnx.vmap(lambda rngs: nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False))

  class Layers(nnx.Module):
    def __init__(self, rngs):
      self.attention = nnx.split_rngs(splits=3)(make)(rngs)

    def __call__(self, x):
      each = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
      return each(x, self.attention)

  model = Layers(nnx.Rngs(0))
  rows = observe.activations(model, X)(params_of(model))
  assert {x.shape for x in rows.values()} == {(3, 15, 4)}
  np.testing.assert_allclose(rows['attention/query/kernel'][0], X.reshape(-1, 4))


def test_a_scan_over_layers_stacks_rows_as_it_stacks_kernels():
  model = Stack(nnx.Rngs(0))
  rows = observe.activations(model, X)(params_of(model))['layers/kernel']
  kernels, biases = np.asarray(model.layers.kernel[...]), np.asarray(model.layers.bias[...])
  x, expected = X, []
  for kernel, bias in zip(kernels, biases, strict=True):
    expected.append(x.reshape(-1, 4))
    x = np.maximum(x @ kernel + bias, 0)
  np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_losses_and_outputs_of_the_model(model):
  batch = {'x': X, 'y': np.ones((3, 3), np.float32)}
  params = params_of(model)
  answers = np.asarray(model(X))
  each = np.mean((answers - 1) ** 2, axis=1) / 2
  np.testing.assert_allclose(observe.value_fn(model, loss, batch)(params), each.mean(), rtol=1e-5)
  count, one = observe.examples(model, loss, batch)
  assert count == 3
  np.testing.assert_allclose([one(params, i) for i in range(3)], each, rtol=1e-5)
  _, said = observe.outputs(model, lambda model, batch: model(batch['x']), batch)
  np.testing.assert_allclose(said(params, 1), answers[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('criterion', [prunejax.sparsegpt(), prunejax.block_fisher(gradients=3)])
def test_an_nnx_optimizer_prunes_with_them(model, criterion):
  tx = optax.chain(
    optax.sgd(0.1),
    prunejax.prune_transform(criterion, prunejax.constant(0.5), where='layers/.*/kernel'),
  )
  optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
  batch = {'x': X, 'y': np.ones((3, 3), np.float32)}

  @nnx.jit
  def step(model, optimizer, batch):
    grads = nnx.grad(loss)(model, batch)
    optimizer.update(
      model,
      grads,
      activations=observe.activations(model, batch['x'], where='layers/.*'),
      examples=observe.examples(model, loss, batch),
    )

  step(model, optimizer, batch)
  assert int(jnp.sum(model.layers[0].kernel[...] == 0)) == 12
  assert int(jnp.sum(model.out.kernel[...] == 0)) == 0


def test_the_function_reads_the_parameters_it_is_given(model):
  record = observe.activations(model, X)
  doubled = jax.tree.map(lambda p: 2 * p, params_of(model))
  hidden = np.maximum(2 * dense(X, model.layers[0]), 0).reshape(-1, 6)
  np.testing.assert_allclose(record(doubled)['layers/1/kernel'], hidden, rtol=1e-5, atol=1e-6)

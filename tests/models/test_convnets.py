"""Small convolutional networks against LeNet-5 of lenet.py and against XLA's convolutions."""

import jax
import numpy as np
import pytest

from prunejax.models import convnets, lenet
from prunejax.models.convnets import Network

rng = np.random.default_rng(0)


def drawn(*shape):
  return rng.normal(size=shape).astype(np.float32)


def test_lenet_5_has_caffes_sizes_and_is_that_of_lenet_but_for_its_relu():
  """After a convolution lenet.py has no ReLU; where all numbers are positive none acts."""
  params = convnets.init(jax.random.key(0), Network('lenet-5', 28))
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 431_080
  params = jax.tree.map(lambda leaf: np.abs(drawn(*leaf.shape)) / len(leaf), params)
  images = np.abs(drawn(2, 28, 28))
  renamed = {('fc2' if name == 'classifier' else name): layer for name, layer in params.items()}
  np.testing.assert_allclose(
    convnets.apply(Network('lenet-5', 28), params, images),
    lenet.apply(renamed, images),
    rtol=1e-4,
  )


@pytest.mark.parametrize(('side', 'padding'), [(3, 'SAME'), (5, 'SAME'), (3, 'VALID')])
def test_convolutions_are_xlas(side, padding):
  x, bias = drawn(2, 7, 6, 4), drawn(4)
  how = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
  kernel = drawn(side * side * 4, 3)
  wanted = jax.lax.conv_general_dilated(x, kernel.reshape(side, side, 4, 3), (1, 1), padding, **how)
  layer = {'kernel': kernel, 'bias': bias[:3]}
  np.testing.assert_allclose(
    convnets._convolve(layer, x, side, padding), wanted + bias[:3], rtol=1e-4, atol=1e-4
  )
  kernel = drawn(side * side, 4)
  wanted = jax.lax.conv_general_dilated(
    x, kernel.reshape(side, side, 1, 4), (1, 1), padding, feature_group_count=4, **how
  )
  layer = {'kernel': kernel, 'bias': bias}
  np.testing.assert_allclose(
    convnets._depthwise(layer, x, side, padding), wanted + bias, rtol=1e-4, atol=1e-4
  )


def test_small_filters_of_a_squeezed_layer_see_the_centre_of_the_large_ones():
  """With 1 x 1 filters in the centre of the large kernel, both halves are one function."""
  layer = convnets.Convolution(8, 3, 'VALID')
  squeeze = {'kernel': drawn(5, 2), 'bias': drawn(2)}
  small = {'kernel': drawn(2, 4), 'bias': drawn(4)}
  large = np.zeros((9, 2, 4), np.float32)
  large[4] = small['kernel']
  params = {'conv2_squeeze': squeeze, 'conv2_small': small}
  params['conv2_large'] = {'kernel': large.reshape(18, 4), 'bias': small['bias']}
  out = np.asarray(convnets._convolution(params, 'conv2', layer, drawn(2, 6, 6, 5)))
  assert out.shape == (2, 4, 4, 8) and out.any()
  np.testing.assert_allclose(out[..., :4], out[..., 4:], rtol=1e-5)


@pytest.mark.parametrize('name', convnets.NETWORKS)
@pytest.mark.parametrize('form', convnets.FORMS)
@pytest.mark.parametrize('side', [28, 17])
def test_every_form_takes_every_size(name, form, side):
  network = Network(name, side, 7, form, 1.3)
  params = jax.eval_shape(lambda: convnets.init(jax.random.key(0), network))
  images = jax.ShapeDtypeStruct((3, side, side), 'float32')
  assert jax.eval_shape(lambda p, x: convnets.apply(network, p, x), params, images).shape == (3, 7)
  assert {layer: parts['kernel'].shape for layer, parts in params.items()} == convnets.shapes(
    network
  )


def test_a_compact_form_has_fewer_numbers_and_a_wider_one_more():
  count = lambda **how: sum(a * b for a, b in convnets.shapes(Network('vgg', 28, **how)).values())
  full = count()
  for form in ('separable', 'squeezed'):
    assert count(form=form) < full / 10
    assert count(form=form) < count(form=form, width=2.0)
  first = convnets.shapes(Network('vgg', 28, form='separable', width=4.0))['conv1']
  assert first == convnets.shapes(Network('vgg', 28))['conv1']  # it is not widened


@pytest.mark.parametrize(
  ('network', 'words'),
  [
    (Network('alexnet', 28), "no network 'alexnet'.*lenet-5, vgg"),
    (Network('vgg', 28, form='thin'), "form 'thin'.*full, separable, squeezed"),
    (Network('lenet-5', 6), 'images of 6 pixels are too small'),
  ],
)
def test_what_there_is_not_is_refused(network, words):
  with pytest.raises(ValueError, match=words):
    convnets.shapes(network)

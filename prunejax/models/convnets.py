"""Small convolutional networks on images, in full and with compact filters.

Parameters are plain dicts of 2-D kernels. A convolution's kernel is [side x side x in, out], a
depthwise one's [side x side, channels]. The last layer is 'classifier'.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

FORMS = ('full', 'separable', 'squeezed')


class Convolution(NamedTuple):
  """A convolution with a bias and a ReLU.

  Attributes:
    outputs: channels.
    side: of the square filter.
    padding: 'SAME' or 'VALID'.
  """

  outputs: int
  side: int
  padding: str


class Dense(NamedTuple):
  """A dense layer with a bias and a ReLU.

  Attributes:
    outputs: units.
  """

  outputs: int


POOL = 'pool'  # Max pooling over 2 x 2.
NETWORKS = {
  # LeNet-5 in Caffe's sizes, 431,080 parameters on images of 28 x 28 with 10 classes. Caffe's has
  # no ReLU after a convolution, see lenet.py.
  'lenet-5': (
    Convolution(20, 5, 'VALID'),
    POOL,
    Convolution(50, 5, 'VALID'),
    POOL,
    Dense(500),
  ),
  # Pairs of 3 x 3 convolutions before each pooling, as in VGG (Simonyan & Zisserman 2015).
  'vgg': (
    Convolution(16, 3, 'SAME'),
    Convolution(16, 3, 'SAME'),
    POOL,
    Convolution(32, 3, 'SAME'),
    Convolution(32, 3, 'SAME'),
    POOL,
    Dense(128),
  ),
}


class Network(NamedTuple):
  """Which network; hashable.

  Attributes:
    name: of `NETWORKS`.
    side: pixels of an image's side.
    classes: outputs of the classifier.
    form: 'full', or compact filters. Both compact forms keep the first convolution and have no
      dense layer but the classifier, which sees the mean over all places. 'separable': a filter
      for each channel, then 1 x 1 (MobileNet, Howard et al. 2017). 'squeezed': 1 x 1 to an eighth
      of the channels, then half of the outputs from 1 x 1 and half from full filters (SqueezeNet,
      Iandola et al. 2016).
    width: multiplies the outputs of every layer but the classifier. In a compact form it does not
      widen the first convolution, which sees the whole image and would take most of the time.
  """

  name: str
  side: int
  classes: int = 10
  form: str = 'full'
  width: float = 1.0


def shapes(network: Network) -> dict:
  """List the shape of each kernel: {layer: (rows, columns)}, in the order of the layers.

  Raises:
    ValueError: an unknown network or form, or an image that is too small.
  """
  if network.name not in NETWORKS or network.form not in FORMS:
    raise ValueError(
      f'convnets: no network {network.name!r} of form {network.form!r}; networks: '
      f'{", ".join(NETWORKS)}; forms: {", ".join(FORMS)}'
    )
  wide = lambda outputs: max(1, round(outputs * network.width))
  kernels, channels, side, count = {}, 1, network.side, {'conv': 0, 'fc': 0}
  full = network.form == 'full'
  for layer in NETWORKS[network.name]:
    if layer == POOL:
      side //= 2
    elif isinstance(layer, Convolution):
      count['conv'] += 1
      name, area, outputs = f'conv{count["conv"]}', layer.side**2, wide(layer.outputs)
      if count['conv'] == 1:
        outputs = outputs if full else min(outputs, layer.outputs)
      if full or count['conv'] == 1:
        kernels[name] = (area * channels, outputs)
      elif network.form == 'separable':
        kernels[f'{name}_depthwise'] = (area, channels)
        kernels[f'{name}_pointwise'] = (channels, outputs)
      else:
        squeezed, half = max(1, outputs // 8), outputs // 2
        kernels[f'{name}_squeeze'] = (channels, squeezed)
        kernels[f'{name}_small'] = (squeezed, outputs - half)
        kernels[f'{name}_large'] = (area * squeezed, half)
      channels = outputs
      side -= (layer.side - 1) * (layer.padding == 'VALID')
    elif full:
      count['fc'] += 1
      kernels[f'fc{count["fc"]}'] = (side * side * channels, wide(layer.outputs))
      side, channels = 1, wide(layer.outputs)
    if side < 1:
      raise ValueError(f'convnets: images of {network.side} pixels are too small for {network}')
  kernels['classifier'] = (channels * (side * side if full else 1), network.classes)
  return kernels


def init(rng: jax.Array, network: Network) -> dict:
  """Draw the parameters: He's uniform distribution, biases 0.

  Args:
    rng: key.
    network: see `Network`.

  Returns:
    {layer: {'kernel', 'bias'}}, float32.
  """
  layers, params = shapes(network), {}
  for key, (layer, (rows, columns)) in zip(
    jax.random.split(rng, len(layers)), layers.items(), strict=True
  ):
    limit = math.sqrt(6 / rows)
    kernel = jax.random.uniform(key, (rows, columns), minval=-limit, maxval=limit)
    params[layer] = {'kernel': kernel, 'bias': jnp.zeros(columns)}
  return params


def apply(network: Network, params: dict, images: jax.Array) -> jax.Array:
  """Compute logits [n, classes] of images float32 [n, side, side]."""
  x, number = images[..., None], {'conv': 0, 'fc': 0}
  for layer in NETWORKS[network.name]:
    if layer == POOL:
      x = _pool(x)
    elif isinstance(layer, Convolution):
      number['conv'] += 1
      x = _convolution(params, f'conv{number["conv"]}', layer, x)
    elif network.form == 'full':
      number['fc'] += 1
      x = jax.nn.relu(_dense(params[f'fc{number["fc"]}'], x.reshape(len(x), -1)))
  x = x.mean((1, 2)) if network.form != 'full' else x.reshape(len(x), -1)
  return _dense(params['classifier'], x)


def _convolution(params, name, layer, x):
  """A convolution, or the layers that stand for it in a compact form, with ReLU."""
  side, padding = layer.side, layer.padding
  if name in params:
    return jax.nn.relu(_convolve(params[name], x, side, padding))
  if f'{name}_depthwise' in params:
    x = jax.nn.relu(_depthwise(params[f'{name}_depthwise'], x, side, padding))
    return jax.nn.relu(_dense(params[f'{name}_pointwise'], x))
  x = jax.nn.relu(_dense(params[f'{name}_squeeze'], x))
  large = _convolve(params[f'{name}_large'], x, side, padding)
  border = (x.shape[1] - large.shape[1]) // 2
  inner = x[:, border : x.shape[1] - border, border : x.shape[2] - border]
  return jax.nn.relu(jnp.concatenate([_dense(params[f'{name}_small'], inner), large], axis=-1))


def _windows(x, side, padding):
  """The side x side shifted images whose pixels a filter sees together."""
  if padding == 'SAME':
    border = (side // 2, (side - 1) // 2)
    x = jnp.pad(x, ((0, 0), border, border, (0, 0)))
  height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
  return [x[:, i : i + height, j : j + width] for i in range(side) for j in range(side)]


def _convolve(layer, x, side, padding):
  """A convolution as one product of matrices, which a CPU does faster than a convolution."""
  return _dense(layer, jnp.concatenate(_windows(x, side, padding), axis=-1))


def _depthwise(layer, x, side, padding):
  """One filter for each channel."""
  windows = _windows(x, side, padding)
  return sum(w * k for w, k in zip(windows, layer['kernel'], strict=True)) + layer['bias']


def _dense(layer, x):
  return x @ layer['kernel'] + layer['bias']


def _pool(x):
  """Max pooling over 2 x 2; a last odd row or column is left out."""
  n, h, w, c = x.shape
  x = x[:, : h // 2 * 2, : w // 2 * 2]
  return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))

"""LeNet-300-100 and LeNet-5 in Caffe's sizes (266,610 and 431,080 parameters) on 28 x 28 images.

Parameters are plain dicts of 2-D kernels; a convolution's kernel is [height x width x in, out].
"""

import math

import jax
import jax.numpy as jnp

SIDE = 28
# {layer: (side of its square filter, or 0 for a dense layer; inputs; outputs)}
LAYERS = {
  'lenet-300-100': {'fc1': (0, 784, 300), 'fc2': (0, 300, 100), 'fc3': (0, 100, 10)},
  'lenet-5': {'conv1': (5, 1, 20), 'conv2': (5, 20, 50), 'fc1': (0, 800, 500), 'fc2': (0, 500, 10)},
}


def init(rng: jax.Array, name: str) -> dict:
  """Draws the parameters from Glorot's uniform distribution.

  Args:
    rng: key.
    name: a network of `LAYERS`.

  Returns:
    {layer: {'kernel', 'bias'}}, float32.

  Raises:
    ValueError: for an unknown network.
  """
  if name not in LAYERS:
    raise ValueError(f'lenet: no net {name!r}; known: {", ".join(LAYERS)}')
  params = {}
  keys = jax.random.split(rng, len(LAYERS[name]))
  for key, (layer, (side, inputs, outputs)) in zip(keys, LAYERS[name].items(), strict=True):
    area = side * side or 1
    limit = math.sqrt(6 / (area * (inputs + outputs)))
    kernel = jax.random.uniform(key, (area * inputs, outputs), minval=-limit, maxval=limit)
    params[layer] = {'kernel': kernel, 'bias': jnp.zeros(outputs)}
  return params


def apply(params: dict, images: jax.Array) -> jax.Array:
  """Computes logits [n, 10] of images float32 [n, 28, 28].

  Parameters with a layer 'conv1' are LeNet-5's.
  """
  x = images[..., None]
  if 'conv1' in params:
    for layer in ('conv1', 'conv2'):
      x = _pool(_convolve(params[layer], x))
    return _dense(params['fc2'], jax.nn.relu(_dense(params['fc1'], x.reshape(len(x), -1))))
  x = x.reshape(len(x), -1)
  for layer in ('fc1', 'fc2'):
    x = jax.nn.relu(_dense(params[layer], x))
  return _dense(params['fc3'], x)


def _dense(layer, x):
  return x @ layer['kernel'] + layer['bias']


def _convolve(layer, x):
  kernel = layer['kernel'].reshape(5, 5, x.shape[-1], -1)
  return (
    jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    + layer['bias']
  )


def _pool(x):
  """Max pooling over 2 x 2."""
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))

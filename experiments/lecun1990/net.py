"""A small convolutional net with shared weights on digits: tanh units, targets of +-1, squared error."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax

import prunejax
from prunejax.pruning.criteria import hessian_diagonal
from prunejax.pruning.paths import named_leaves

CLASSES = 10


def init(seed, side, wide, hidden=20):
  """Two layers of 3 x 3 kernels, `wide` and 12 maps, the second with a stride of 2; then `hidden` units and ten."""
  end = (side - 2 - 3) // 2 + 1
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.asarray(
    rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), jnp.float32
  )
  shapes = {
    'maps_1': (3, 3, 1, wide),
    'maps_2': (3, 3, wide, 12),
    'hidden': (end * end * 12, hidden),
    'output': (hidden, CLASSES),
  }
  return {
    name: {'kernel': draw(*shape), 'bias': jnp.zeros(shape[-1], jnp.float32)}
    for name, shape in shapes.items()
  }


def units(params, images):
  """Outputs of the tanh units of each layer, {name: [n, ...]}, of images [n, side, side]."""
  x, out = images[..., None], {}
  for name, stride in (('maps_1', 1), ('maps_2', 2)):
    x = jax.lax.conv_general_dilated(
      x,
      params[name]['kernel'],
      (stride, stride),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = out[name] = jnp.tanh(x + params[name]['bias'])
  out['hidden'] = jnp.tanh(
    x.reshape(len(x), -1) @ params['hidden']['kernel'] + params['hidden']['bias']
  )
  return out


def apply(params, images):
  """Outputs [n, 10] of images [n, side, side]."""
  return units(params, images)['hidden'] @ params['output']['kernel'] + params['output']['bias']


@jax.jit
def saturated(params, images):
  """Share of the tanh outputs beyond 0.99, where a unit's slope is below 0.02."""
  every = jnp.concatenate([jnp.ravel(x) for x in units(params, images).values()])
  return jnp.mean(jnp.abs(every) > 0.99)


def alone(params, masks, images, labels, most=700):
  """The rises of `error` when each weight outside `masks` is deleted by itself, summed; of more than `most` an even
  part is looked at, and its sum scaled up.
  """
  removed = np.flatnonzero(~np.asarray(jax.flatten_util.ravel_pytree(masks)[0], bool))
  some = removed[:: max(1, -(-len(removed) // most))]
  return float(_rises(params, some, images, labels)) * len(removed) / max(len(some), 1)


@jax.jit
def _rises(params, which, images, labels):
  flat, opened = jax.flatten_util.ravel_pytree(params)
  before = error(params, images, labels)
  return jnp.sum(
    jax.lax.map(lambda i: error(opened(flat.at[i].set(0)), images, labels) - before, which)
  )


def error(params, images, labels):
  """Half the squared error of an example, averaged."""
  wanted = 2 * jax.nn.one_hot(labels, CLASSES) - 1
  return jnp.mean(jnp.sum((apply(params, images) - wanted) ** 2, axis=-1)) / 2


@jax.jit
def seen(params, images, labels):
  right = jnp.argmax(apply(params, images), axis=-1) == labels
  return error(params, images, labels), jnp.mean(right)


@functools.partial(jax.jit, static_argnames=('batch',))
def train(key, params, masks, images, labels, steps, rate, *, batch):
  """`steps` of Adam on batches drawn at random, the rate falling to a hundredth; weights outside `masks` stay at 0."""
  tx = optax.scale_by_adam()

  def step(i, carry):
    params, state = carry
    rows = jax.random.randint(jax.random.fold_in(key, i), (batch,), 0, len(images))
    grad = prunejax.masks.apply(jax.grad(error)(params, images[rows], labels[rows]), masks)
    update, state = tx.update(grad, state)
    now = rate * 0.01 ** (i / steps)
    return jax.tree.map(lambda p, u, m: jnp.where(m, p - now * u, 0), params, update, masks), state

  return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


@functools.partial(jax.jit, static_argnames=('method',))
def scores(params, images, seed, *, method):
  """Scores by path: the Levenberg-Marquardt saliency of Optimal Brain Damage, |w|, or a random draw."""
  criterion = {'obd': prunejax.obd('levenberg_marquardt'), 'magnitude': prunejax.magnitude()}.get(
    method, prunejax.random(seed)
  )
  outputs = (len(images), lambda p, i: apply(p, images[i][None])[0])
  return named_leaves(criterion.score((), params, grad=None, step=0, outputs=outputs))


@jax.jit
def saliency(params, images):
  """h_kk w_k^2 / 2 as one tree: what each weight's removal is predicted to cost."""
  outputs = (len(images), lambda p, i: apply(p, images[i][None])[0])
  return jax.tree.map(
    lambda h, w: h * w**2 / 2, hessian_diagonal.gauss_newton(outputs, params), params
  )


@jax.jit
def cut(params, scores, sparsity):
  """(params with the lowest scores of all at 0, masks)."""
  masks = prunejax.select_masks(scores, sparsity, allocation=prunejax.global_threshold())
  masks = jax.tree.unflatten(jax.tree.structure(params), list(masks.values()))
  return prunejax.masks.apply(params, masks), masks

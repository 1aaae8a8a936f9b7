"""The paper's nets: one hidden layer of sigmoids, one sigmoid output, squared error; trained, and taken apart weight by
weight. Everything here is float64, without which a Hessian of alpha = 1e-6 cannot be inverted by recursion.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import prunejax

CRITERIA = {
  'obs': lambda alpha: prunejax.obs('gauss_newton', alpha),
  'obd': lambda alpha: prunejax.obd('hessian'),
  'magnitude': lambda alpha: prunejax.magnitude(),
}
# Each as it is, and retrained after every weight.
METHODS = tuple(name + again for name in CRITERIA for again in ('', ', retrained'))


def init(key, inputs, hidden):
  """Uniform in +-1, biases too."""
  keys = jax.random.split(key, 4)
  draw = lambda k, *shape: jax.random.uniform(k, shape, jnp.float64, -1, 1)
  return {
    'hidden': {'kernel': draw(keys[0], inputs, hidden), 'bias': draw(keys[1], hidden)},
    'output': {'kernel': draw(keys[2], hidden, 1), 'bias': draw(keys[3], 1)},
  }


def apply(params, x):
  """Outputs in (0, 1), [...]; x [..., inputs]."""
  hidden = jax.nn.sigmoid(x @ params['hidden']['kernel'] + params['hidden']['bias'])
  return jax.nn.sigmoid(hidden @ params['output']['kernel'] + params['output']['bias'])[..., 0]


def error(params, data):
  """Half the mean squared error; data: x [n, inputs], y [n] and real [n], 0 for rows that only fill up."""
  return jnp.sum(data['real'] * (apply(params, data['x']) - data['y']) ** 2) / (
    2 * jnp.sum(data['real'])
  )


def accuracy(params, data):
  right = (apply(params, data['x']) > 0.5) == (data['y'] > 0.5)
  return jnp.sum(data['real'] * right) / jnp.sum(data['real'])


def data(x, y, rows):
  """x, y as float64 arrays of `rows` rows."""
  fill = rows - len(x)
  return {
    'x': np.pad(np.float64(x), ((0, fill), (0, 0))),
    'y': np.pad(np.float64(y), (0, fill)),
    'real': np.pad(np.ones(len(x)), (0, fill)),
  }


def descend(params, kept, data, decay, steps, rate):
  """`steps` (may be traced) of Adam on error + decay |w|^2 / 2, the rate falling to a hundredth; only `kept` move."""
  slope = jax.grad(lambda p: error(p, data) + decay / 2 * optax.tree.norm(p, squared=True))
  tx = optax.scale_by_adam()

  def step(i, carry):
    params, state = carry
    grad = prunejax.masks.apply(slope(params), kept)
    update, state = tx.update(grad, state)
    now = rate * 0.01 ** (i / steps)
    return jax.tree.map(lambda p, u, k: jnp.where(k, p - now * u, p), params, update, kept), state

  return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


@functools.partial(jax.jit, static_argnames=('hidden', 'tries'))
def train(seed, data, decay, steps, rate, *, hidden, tries):
  """The best of `tries` trained nets: by accuracy on the training set, then by its error."""

  def one(key):
    params = init(key, data['x'].shape[1], hidden)
    params = descend(
      params, jax.tree.map(lambda p: jnp.ones(p.shape, bool), params), data, decay, steps, rate
    )
    return params, accuracy(params, data) - error(params, data) * 1e-3

  nets, good = jax.vmap(one)(jax.random.split(jax.random.key(seed), tries))
  return jax.tree.map(lambda leaf: leaf[jnp.argmax(good)], nets)


@functools.partial(jax.jit, static_argnames=('criterion', 'alpha', 'removals'))
def take_apart(params, train, test, decay, steps, rate, *, criterion, alpha, removals):
  """Weights go one at a time, `steps` of retraining after each (none where 0).

  Returns {name: [removals + 1]}: error, train and test accuracy after 0, 1, ... removals, `before`, the error before
  retraining, and `which`, the place of the weight that went in the flat vector of all weights.
  """
  size = ravel_pytree(params)[0].size
  tx = prunejax.prune_transform(
    CRITERIA[criterion](alpha),
    lambda t: ((t + 1) / size).astype(jnp.float32),
    allocation=prunejax.global_threshold(),
  )
  count = train['x'].shape[0]
  scale = jnp.sqrt(
    train['real'] * count / jnp.sum(train['real'])
  )  # rows that fill up have no part in the mean
  told = {
    'value_fn': lambda p: error(p, train),
    'outputs': (count, lambda p, i: scale[i] * apply(p, train['x'][i])),
  }
  seen = lambda p: {
    'error': error(p, train),
    'train': accuracy(p, train),
    'test': accuracy(p, test),
  }

  def remove(carry, _):
    params, state = carry
    old = ravel_pytree(prunejax.get_masks(state, params))[0]
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, **told)
    params = optax.apply_updates(params, updates)
    masks = prunejax.get_masks(state, params)
    which, before = jnp.argmax(old & ~ravel_pytree(masks)[0]), error(params, train)
    params = jax.lax.cond(
      steps > 0, lambda p: descend(p, masks, train, decay, steps, rate), lambda p: p, params
    )
    return (params, state), {**seen(params), 'before': before, 'which': which}

  _, found = jax.lax.scan(remove, (params, tx.init(params)), None, removals)
  first = {**seen(params), 'before': error(params, train), 'which': -1}
  return jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), first, found)

"""The paper's networks: one hidden layer of sigmoids, one sigmoid output, squared error.

Everything here is float64: in float32 the recursion cannot invert a Hessian damped by alpha = 1e-6.
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
# Each criterion as it is, and with retraining after every weight.
METHODS = tuple(name + suffix for name in CRITERIA for suffix in ('', ', retrained'))


def init(key: jax.Array, inputs: int, hidden: int) -> dict:
  """Draw weights and biases uniformly in +-1."""
  keys = jax.random.split(key, 4)
  draw = lambda k, *shape: jax.random.uniform(k, shape, jnp.float64, -1, 1)
  return {
    'hidden': {'kernel': draw(keys[0], inputs, hidden), 'bias': draw(keys[1], hidden)},
    'output': {'kernel': draw(keys[2], hidden, 1), 'bias': draw(keys[3], 1)},
  }


def apply(params: dict, x: jax.Array) -> jax.Array:
  """Compute outputs in (0, 1), [...], of x [..., inputs]."""
  hidden = jax.nn.sigmoid(x @ params['hidden']['kernel'] + params['hidden']['bias'])
  return jax.nn.sigmoid(hidden @ params['output']['kernel'] + params['output']['bias'])[..., 0]


def error(params: dict, data: dict) -> jax.Array:
  """Compute half the mean squared error over the rows of `data` that are real."""
  return jnp.sum(data['real'] * (apply(params, data['x']) - data['y']) ** 2) / (
    2 * jnp.sum(data['real'])
  )


def accuracy(params: dict, data: dict) -> jax.Array:
  """Compute the share of real rows on the right side of 0.5."""
  right = (apply(params, data['x']) > 0.5) == (data['y'] > 0.5)
  return jnp.sum(data['real'] * right) / jnp.sum(data['real'])


def data(x: np.ndarray, y: np.ndarray, rows: int) -> dict:
  """Pad a data set to `rows` rows.

  Returns:
    float64 arrays 'x' [rows, inputs], 'y' [rows], and 'real' [rows]: 1, or 0 for a row of padding.
  """
  padding = rows - len(x)
  return {
    'x': np.pad(np.float64(x), ((0, padding), (0, 0))),
    'y': np.pad(np.float64(y), (0, padding)),
    'real': np.pad(np.ones(len(x)), (0, padding)),
  }


def descend(params: dict, masks: dict, data: dict, decay: float, steps: int, rate: float) -> dict:
  """Minimise error + decay |w|^2 / 2 with full-batch Adam.

  Args:
    params: where training starts.
    masks: True = kept; other weights stay as they are.
    data: of `data`.
    decay: weight decay.
    steps: may be traced.
    rate: first learning rate; it falls to a hundredth.
  """
  slope = jax.grad(lambda p: error(p, data) + decay / 2 * optax.tree.norm(p, squared=True))
  tx = optax.scale_by_adam()

  def step(i, carry):
    params, state = carry
    grad = prunejax.masks.apply(slope(params), masks)
    update, state = tx.update(grad, state)
    now = rate * 0.01 ** (i / steps)
    params = jax.tree.map(lambda p, u, m: jnp.where(m, p - now * u, p), params, update, masks)
    return params, state

  return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


@functools.partial(jax.jit, static_argnames=('hidden', 'tries'))
def train(
  seed: int, data: dict, decay: float, steps: int, rate: float, *, hidden: int, tries: int
) -> dict:
  """Train `tries` networks and return the best by training accuracy, then by error.

  Args:
    seed: of the initialisations.
    data, decay, steps, rate: see `descend`.
    hidden: units of the hidden layer.
    tries: initialisations.
  """

  def train_one(key):
    params = init(key, data['x'].shape[1], hidden)
    masks = jax.tree.map(lambda p: jnp.ones(p.shape, bool), params)
    params = descend(params, masks, data, decay, steps, rate)
    return params, accuracy(params, data) - error(params, data) * 1e-3

  networks, quality = jax.vmap(train_one)(jax.random.split(jax.random.key(seed), tries))
  return jax.tree.map(lambda leaf: leaf[jnp.argmax(quality)], networks)


@functools.partial(jax.jit, static_argnames=('criterion', 'alpha', 'removals'))
def remove_one_by_one(
  params: dict,
  train: dict,
  test: dict,
  decay: float,
  steps: int,
  rate: float,
  *,
  criterion: str,
  alpha: float,
  removals: int,
) -> dict:
  """Remove one weight at a time, with `steps` steps of retraining after each.

  Args:
    params: the dense network.
    train, test: of `data`.
    decay, rate: of retraining, see `descend`.
    steps: of retraining; 0 for none.
    criterion: a name from `CRITERIA`.
    alpha: damping of the inverse Hessian in OBS.
    removals: weights to remove.

  Returns:
    {name: [removals + 1]}, the values after 0, 1, ... removals: 'error', 'train' and 'test'
    accuracy, 'before' (the error before retraining), and 'which' (the index of the removed weight
    in the flat vector of all weights, -1 for none).
  """
  size = ravel_pytree(params)[0].size
  tx = prunejax.prune_transform(
    CRITERIA[criterion](alpha),
    lambda t: ((t + 1) / size).astype(jnp.float32),
    allocation=prunejax.global_threshold(),
  )
  count = train['x'].shape[0]
  # Rows of padding have no part in the mean.
  scale = jnp.sqrt(train['real'] * count / jnp.sum(train['real']))
  extra_args = {
    'value_fn': lambda p: error(p, train),
    'outputs': (count, lambda p, i: scale[i] * apply(p, train['x'][i])),
  }
  evaluate = lambda p: {
    'error': error(p, train),
    'train': accuracy(p, train),
    'test': accuracy(p, test),
  }

  def remove(carry, _):
    params, state = carry
    old = ravel_pytree(prunejax.get_masks(state, params))[0]
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params, **extra_args)
    params = optax.apply_updates(params, updates)
    masks = prunejax.get_masks(state, params)
    which, before = jnp.argmax(old & ~ravel_pytree(masks)[0]), error(params, train)
    params = jax.lax.cond(
      steps > 0, lambda p: descend(p, masks, train, decay, steps, rate), lambda p: p, params
    )
    return (params, state), {**evaluate(params), 'before': before, 'which': which}

  _, after = jax.lax.scan(remove, (params, tx.init(params)), None, removals)
  dense = {**evaluate(params), 'before': error(params, train), 'which': -1}
  return jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a)[None], b]), dense, after)

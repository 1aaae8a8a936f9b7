"""A small convolutional network on digits: tanh units, targets of +-1, squared error."""

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


def init(seed: int, side: int, wide: int, hidden: int = 20) -> dict:
  """Draw the parameters: two convolutions of 3 x 3, the second with stride 2, and two dense layers.

  Args:
    seed: of the draw.
    side: pixels of an image's side.
    wide: maps of the first convolution; the second has 12.
    hidden: units of the hidden layer.
  """
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


def hidden_units(params: dict, images: jax.Array) -> dict:
  """Compute the tanh units of each layer, {name: [n, ...]}, of images [n, side, side]."""
  x, units = images[..., None], {}
  for name, stride in (('maps_1', 1), ('maps_2', 2)):
    x = jax.lax.conv_general_dilated(
      x,
      params[name]['kernel'],
      (stride, stride),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = units[name] = jnp.tanh(x + params[name]['bias'])
  units['hidden'] = jnp.tanh(
    x.reshape(len(x), -1) @ params['hidden']['kernel'] + params['hidden']['bias']
  )
  return units


def apply(params: dict, images: jax.Array) -> jax.Array:
  """Compute outputs [n, 10] of images [n, side, side]."""
  hidden = hidden_units(params, images)['hidden']
  return hidden @ params['output']['kernel'] + params['output']['bias']


@jax.jit
def saturated(params: dict, images: jax.Array) -> jax.Array:
  """Compute the share of tanh outputs beyond 0.99, where a unit's slope is below 0.02."""
  units = jnp.concatenate([jnp.ravel(x) for x in hidden_units(params, images).values()])
  return jnp.mean(jnp.abs(units) > 0.99)


def rise_one_by_one(
  params: dict, masks: dict, images: jax.Array, labels: jax.Array, most: int = 700
) -> float:
  """Sum the rises of `error` when each pruned weight is deleted by itself.

  Args:
    params: of the dense network.
    masks: True = kept.
    images, labels: examples of `error`.
    most: weights that are tried; of more, an even sample is tried and its sum scaled up.
  """
  removed = np.flatnonzero(~np.asarray(jax.flatten_util.ravel_pytree(masks)[0], bool))
  sample = removed[:: max(1, -(-len(removed) // most))]
  return float(_rises(params, sample, images, labels)) * len(removed) / max(len(sample), 1)


@jax.jit
def _rises(params, which, images, labels):
  flat, unravel = jax.flatten_util.ravel_pytree(params)
  before = error(params, images, labels)
  return jnp.sum(
    jax.lax.map(lambda i: error(unravel(flat.at[i].set(0)), images, labels) - before, which)
  )


@jax.jit
def rise_with_cross_terms(params: dict, masks: dict, images: jax.Array) -> jax.Array:
  """Compute d H d / 2 with all cross terms, d being the step that deletes the pruned weights.

  H is the Gauss-Newton matrix, whose diagonal `saliency` has.

  Args:
    params: of the dense network.
    masks: True = kept.
    images: examples over which H is averaged.
  """
  step = jax.tree.map(lambda w, mask: jnp.where(mask, 0, -w), params, masks)
  change = jax.jvp(lambda p: apply(p, images), (params,), (step,))[1]
  return jnp.mean(jnp.sum(change**2, axis=-1)) / 2


def costliest_unit(params: dict, masks: dict, images: jax.Array, labels: jax.Array) -> dict:
  """Delete the pruned weights of one unit at a time, and pick the unit that raises `error` most.

  A unit is a map, a hidden unit or an output; its weights are its inputs and its bias.

  Args:
    params: of the dense network.
    masks: True = kept.
    images, labels: examples of `error`.

  Returns:
    'unit_rise', the rise; 'unit_lost' and 'unit_inputs', how many weights of the unit are pruned
    and how many it has.
  """
  before, costliest = error(params, images, labels), {'unit_rise': -np.inf}
  for name, layer in params.items():
    rises = np.asarray(_unit_rises(params, masks, images, labels, name) - before)
    j = int(rises.argmax())
    if rises[j] > costliest['unit_rise']:
      kept = [np.asarray(masks[name][leaf])[..., j] for leaf in layer]
      costliest = {
        'unit_rise': float(rises[j]),
        'unit_lost': int(sum(np.sum(~mask) for mask in kept)),
        'unit_inputs': int(sum(mask.size for mask in kept)),
      }
  return costliest


@functools.partial(jax.jit, static_argnames=('name',))
def _unit_rises(params, masks, images, labels, name):
  """The error with the pruned weights of each unit of a layer deleted, one unit at a time."""
  width = params[name]['bias'].shape[0]

  def without(j):
    chosen = jnp.arange(width) == j
    layer = {leaf: jnp.where(chosen & ~masks[name][leaf], 0, w) for leaf, w in params[name].items()}
    return error({**params, name: layer}, images, labels)

  return jax.lax.map(without, jnp.arange(width))


def error(params: dict, images: jax.Array, labels: jax.Array) -> jax.Array:
  """Compute half the squared error of an example, averaged over examples."""
  targets = 2 * jax.nn.one_hot(labels, CLASSES) - 1
  return jnp.mean(jnp.sum((apply(params, images) - targets) ** 2, axis=-1)) / 2


@jax.jit
def evaluate(params: dict, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Compute (error, accuracy)."""
  right = jnp.argmax(apply(params, images), axis=-1) == labels
  return error(params, images, labels), jnp.mean(right)


@functools.partial(jax.jit, static_argnames=('batch',))
def train(
  key: jax.Array,
  params: dict,
  masks: dict,
  images: jax.Array,
  labels: jax.Array,
  steps: int,
  rate: float,
  *,
  batch: int,
) -> dict:
  """Train with Adam on batches drawn at random; pruned weights stay at 0.

  Args:
    key: of the batches.
    params: where training starts.
    masks: True = kept.
    images, labels: training set.
    steps: may be traced.
    rate: first learning rate; it falls to a hundredth.
    batch: examples in a batch.
  """
  tx = optax.scale_by_adam()

  def step(i, carry):
    params, state = carry
    rows = jax.random.randint(jax.random.fold_in(key, i), (batch,), 0, len(images))
    grad = prunejax.masks.apply(jax.grad(error)(params, images[rows], labels[rows]), masks)
    update, state = tx.update(grad, state)
    now = rate * 0.01 ** (i / steps)
    return jax.tree.map(lambda p, u, m: jnp.where(m, p - now * u, 0), params, update, masks), state

  return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))[0]


def _per_example(params, images):
  """What the curvature needs: (examples, (params, i) -> outputs of example i)."""
  return len(images), lambda p, i: apply(p, images[i][None])[0]


@functools.partial(jax.jit, static_argnames=('method',))
def scores(params: dict, images: jax.Array, seed: int, *, method: str) -> dict:
  """Score every weight, {path: scores}; the lowest are deleted first.

  Args:
    params: the network.
    images: examples of the curvature.
    seed: of a random order.
    method: 'obd' (saliency with Levenberg-Marquardt curvature), 'magnitude' or 'random'.
  """
  criterion = {'obd': prunejax.obd('levenberg_marquardt'), 'magnitude': prunejax.magnitude()}.get(
    method, prunejax.random(seed)
  )
  outputs = _per_example(params, images)
  return named_leaves(criterion.score((), params, grad=None, step=0, outputs=outputs))


@jax.jit
def saliency(params: dict, images: jax.Array) -> dict:
  """Compute h_kk w_k^2 / 2, the predicted rise of the error when weight k is deleted."""
  diagonal = hessian_diagonal.gauss_newton(_per_example(params, images), params)
  return jax.tree.map(lambda h, w: h * w**2 / 2, diagonal, params)


@jax.jit
def cut(params: dict, scores: dict, sparsity: float) -> tuple[dict, dict]:
  """Prune under one threshold for all weights: (params, masks)."""
  masks = prunejax.select_masks(scores, sparsity, allocation=prunejax.global_threshold())
  masks = jax.tree.unflatten(jax.tree.structure(params), list(masks.values()))
  return prunejax.masks.apply(params, masks), masks

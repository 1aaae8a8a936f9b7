"""Find which of an XOR network's nine weights can be removed, and whether a method takes one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.hassibi1993 import network

X, Y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float), np.array([0, 1, 1, 0], float)
SOLVED = 0.02  # Half the mean squared error below which XOR counts as solved: outputs off by 0.2.


@jax.jit
def errors_without_each(
  params: dict, data: dict, decay: float, steps: int, rate: float
) -> jax.Array:
  """Remove each weight in turn, retrain the others, and compute the error: float64 [weights]."""
  flat, unravel = ravel_pytree(params)

  def without(weight):
    kept = jnp.arange(flat.size) != weight
    pruned = unravel(jnp.where(kept, flat, 0))
    retrained = network.descend(pruned, _unravel_masks(kept, params), data, decay, steps, rate)
    return network.error(retrained, data)

  return jax.vmap(without)(jnp.arange(flat.size))


def measure(settings: dict) -> dict:
  """Measure whether the first weight that a method removes is one that can be spared.

  Args:
    settings: of a cell of `study.plan`.

  Returns:
    'right' and 'best' (0 or 1), the number of weights that can be spared, and the errors.
  """
  data = network.data(X, Y, len(X))
  decay, rate = settings['decay'], settings['rate']
  params = _trained(settings['seed'], decay, settings['steps'], rate, settings['tries'])
  removal = network.remove_one_by_one(
    params,
    data,
    data,
    decay,
    0,
    rate,
    criterion=settings['method'],
    alpha=settings['alpha'],
    removals=1,
  )
  errors = np.asarray(errors_without_each(params, data, decay, settings['steps'], rate))
  which = int(removal['which'][1])
  return {
    'error': float(removal['error'][0]),
    'error_after': float(removal['error'][1]),
    'accuracy_after': float(removal['train'][1]),
    'which': which,
    'spare': int(np.sum(errors < SOLVED)),
    'right': int(errors[which] < SOLVED),
    'best': int(which == errors.argmin()),
    'error_of_which': float(errors[which]),
    'error_of_best': float(errors.min()),
    'without_each': [round(float(error), 5) for error in errors],
  }


@functools.cache
def _trained(seed, decay, steps, rate, tries):
  data = network.data(X, Y, len(X))
  return network.train(seed, data, decay, steps, rate, hidden=2, tries=tries)


def _unravel_masks(kept, params):
  """Masks of a flat boolean vector; `ravel_pytree` would turn them into floats."""
  leaves, treedef = jax.tree.flatten(params)
  ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
  parts = jnp.split(kept, ends)
  return treedef.unflatten(
    [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
  )

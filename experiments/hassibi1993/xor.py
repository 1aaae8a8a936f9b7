"""XOR on the paper's net of nine weights: which of them can be done without, found by taking out each in turn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.hassibi1993 import net

X, Y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float), np.array([0, 1, 1, 0], float)
SOLVED = 0.02  # half the mean squared error below which XOR counts as solved: outputs are 0.2 off


@jax.jit
def without_each(params, data, decay, steps, rate):
  """The error after weight q went and the other eight were trained on, [weights]."""
  flat, shaped = ravel_pytree(params)

  def one(q):
    kept = jnp.arange(flat.size) != q
    cut = shaped(jnp.where(kept, flat, 0))
    return net.error(net.descend(cut, shaped_masks(kept, params), data, decay, steps, rate), data)

  return jax.vmap(one)(jnp.arange(flat.size))


def shaped_masks(kept, params):
  leaves, treedef = jax.tree.flatten(params)
  ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
  return treedef.unflatten(
    [m.reshape(leaf.shape) for m, leaf in zip(jnp.split(kept, ends), leaves, strict=True)]
  )


@functools.cache
def trained(seed, decay, steps, rate, tries):
  return net.train(seed, net.data(X, Y, len(X)), decay, steps, rate, hidden=2, tries=tries)


def measure(s):
  """Metrics of one method on one trained net: was the weight it takes first one that can be done without?"""
  data = net.data(X, Y, len(X))
  params = trained(s['seed'], s['decay'], s['steps'], s['rate'], s['tries'])
  found = net.take_apart(
    params,
    data,
    data,
    s['decay'],
    0,
    s['rate'],
    criterion=s['method'],
    alpha=s['alpha'],
    removals=1,
  )
  each = np.asarray(without_each(params, data, s['decay'], s['steps'], s['rate']))
  which = int(found['which'][1])
  return {
    'error': float(found['error'][0]),
    'error_after': float(found['error'][1]),
    'accuracy_after': float(found['train'][1]),
    'which': which,
    'spare': int(np.sum(each < SOLVED)),
    'right': int(each[which] < SOLVED),
    'best': int(which == each.argmin()),
    'error_of_which': float(each[which]),
    'error_of_best': float(each.min()),
    'without_each': [round(float(e), 5) for e in each],
  }

"""Twins of Wanda, SparseGPT and the Fisher matrix in blocks, dense and in float64."""

import numpy as np

from prunejax.pruning import allocations, criteria

ROWS, EXAMPLES = 40, 6


def activations(params):
  """Random rows for every kernel; the first input is never active."""
  rng = np.random.default_rng(3)
  named = {f'{a}/{b}': w for a, leaves in params.items() for b, w in leaves.items()}
  rows = {
    name: rng.normal(size=(ROWS, w.shape[-2])).astype(np.float32) for name, w in named.items()
  }
  for x in rows.values():
    x[:, 0] = 0
  return {'activations': lambda _: rows}


def slopes(params):
  """Random gradients of examples, as a loss that is linear in the weights."""
  rng = np.random.default_rng(4)
  grads = {
    a: {b: rng.normal(size=(EXAMPLES, *w.shape)).astype(np.float32) for b, w in leaves.items()}
    for a, leaves in params.items()
  }

  def loss(params, i):
    import jax.numpy as jnp

    return sum(
      jnp.sum(params[a][b] * jnp.asarray(g)[i])
      for a, leaves in grads.items()
      for b, g in leaves.items()
    )

  return {'examples': (EXAMPLES, loss), 'value_fn': grads}


def wanda_scores(params, grads, activations):
  rows = activations(params)
  return {
    name: np.abs(np.float64(w)) * np.linalg.norm(np.float64(rows[name]), axis=0)[:, None]
    for name, w in params.items()
  }


def damped(x, damp=0.01):
  h = np.float64(x).T @ np.float64(x)
  return h + damp * np.mean(np.diag(h)) * np.eye(len(h))


def sparsegpt_scores(params, grads, activations):
  """w_i^2 / [(H_{i.., i..})^-1]_ii, with a new inverse for every input i."""
  rows, out = activations(params), {}
  for name, w in params.items():
    h = damped(rows[name])
    left = np.array([np.linalg.inv(h[i:, i:])[0, 0] for i in range(len(h))])
    out[name] = np.float64(w) ** 2 / left[:, None]
  return out


def sparsegpt_sweep(w, mask, x, damp=0.01):
  """Algorithm 1 with a new inverse of the remaining matrix for every input."""
  w, h = np.array(w, np.float64), damped(x, damp)
  for i in range(len(w)):
    inverse = np.linalg.inv(h[i:, i:])
    error = np.where(mask[i], 0, w[i] / inverse[0, 0])
    w[i:] -= inverse[:, :1] * error
    w[i] = np.where(mask[i], w[i], 0)
  return w


def fisher_blocks(length, block):
  """The indices on the input axis of each block."""
  size = next(s for s in range(block, 0, -1) if length % s == 0)
  return [np.arange(a, a + size) for a in range(0, length, size)]


def fisher_inverse(g, damp):
  """The inverse Fisher matrix of a block from gradients g [examples, weights]."""
  g = np.float64(g)
  return np.linalg.inv(damp * np.eye(g.shape[1]) + g.T @ g / len(g))


def fisher_scores(params, grads, examples, value_fn, block=4, damp=0.05):
  out = {}
  for name, w in params.items():
    a, b = name.split('/')
    out[name] = np.zeros(w.shape)
    for rows in fisher_blocks(len(w), block):
      for column in range(w.shape[1]):
        inverse = fisher_inverse(value_fn[a][b][:, rows, column], damp)
        out[name][rows, column] = np.float64(w[rows, column]) ** 2 / (2 * np.diag(inverse))
  return out


def fisher_moved(w, mask, g, block=4, damp=0.05):
  """The Optimal Brain Surgeon step of every block for all its pruned weights at once."""
  new = np.array(w, np.float64)
  for rows in fisher_blocks(len(w), block):
    for column in range(w.shape[1]):
      inverse, gone = fisher_inverse(g[:, rows, column], damp), ~mask[rows, column]
      part = np.float64(w[rows, column])
      new[rows, column] = part - inverse[:, gone] @ np.linalg.solve(
        inverse[np.ix_(gone, gone)], part[gone]
      )
  return new


def tables(Case):
  """({name: Case} of criteria, {name: Case} of allocations)."""
  return {
    'wanda': Case(criteria.wanda, wanda_scores, activations),
    'sparsegpt': Case(criteria.sparsegpt, sparsegpt_scores, activations),
    'block_fisher': Case(lambda: criteria.block_fisher(4, damp=0.05), fisher_scores, slopes, 1e-5),
  }, {
    'per_output': Case(allocations.per_output, None),
  }

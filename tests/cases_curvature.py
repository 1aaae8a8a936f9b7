"""Second-order criteria beside twins that take derivatives by differences, in float64."""

import jax.numpy as jnp
import numpy as np

from prunejax.pruning import criteria

ROWS, STEP, ALPHA = 3, 1e-3, 1e-2


def slopes(size):
  """Three fixed directions a_i, float64 [3, size]. Example i has the loss s^2 / 2 + cos(s) / 2 at
  s = a_i . w.
  """
  return np.random.default_rng(size).normal(size=(ROWS, size)) / np.sqrt(size)


def told(params):
  """The extra arguments of `tx.update` for parameters of any tree; see `slopes`."""
  a = jnp.asarray(slopes(sum(np.size(w) for w in leaves(params))), jnp.float32)
  dot = lambda p, i: a[i] @ jnp.concatenate([jnp.ravel(w).astype(jnp.float32) for w in leaves(p)])
  loss = lambda p, i: dot(p, i) ** 2 / 2 + jnp.cos(dot(p, i)) / 2
  return {
    'value_fn': lambda p: sum(loss(p, i) for i in range(ROWS)) / ROWS,
    'examples': (ROWS, loss),
  }


def leaves(params):
  return [
    w for node in params.values() for w in (leaves(node) if isinstance(node, dict) else [node])
  ]


def flat(params):
  return np.concatenate([np.ravel(w) for w in params.values()]).astype(np.float64)


def shaped(vector, params):
  ends = np.cumsum([np.size(w) for w in params.values()])
  return {
    k: part.reshape(np.shape(w))
    for (k, w), part in zip(params.items(), np.split(vector, ends[:-1]), strict=True)
  }


def obd_scores(params, grads, **_):
  w, a = flat(params), slopes(flat(params).size)
  loss = lambda s: s**2 / 2 + np.cos(s) / 2
  # A step d of weight k alone moves s by d a_k.
  at = a @ w
  bend = np.mean(
    (loss(at + STEP) - 2 * loss(at) + loss(at - STEP))[:, None] / STEP**2 * a**2, axis=0
  )
  return shaped(np.maximum(bend, 0) * w**2 / 2, params)


def obs_scores(params, grads, **_):
  w, a = flat(params), slopes(flat(params).size)
  at = a @ w
  x = (at - np.sin(at) / 2)[:, None] * a * (w != 0)
  return shaped(
    w**2 / (2 * np.diag(np.linalg.inv(x.T @ x / ROWS + ALPHA * np.eye(w.size)))), params
  )


# Factory, twin, extra arguments, relative tolerance of float32 against float64.
CURVATURE = {'obd': (criteria.obd, obd_scores, told, 1e-4)}
SURGEON = {'obs': (lambda: criteria.obs(alpha=ALPHA), obs_scores, told, 1e-4)}

"""Outputs whose half squared error has the curvature of a loss, for Levenberg-Marquardt forms.

LeCun et al. (1990) and Hassibi & Stork (1993) take the loss to be half a squared error of outputs
o. Its second derivative without the f'' terms is J'J with J = do/dw. A loss of logits z has
(dz/dw)' A (dz/dw) there, with A its second derivative by z. So any R with R'R = A turns logits into
outputs R z that have the curvature of the loss itself, its generalised Gauss-Newton matrix
(Schraudolph, 2002). R is constant: nothing is differentiated through it.
"""

import jax
import jax.numpy as jnp

MOST = 64  # outputs of an example that are used as they are: each costs a gradient
SKETCH = 16  # random sums that replace more than MOST outputs


def of_softmax(logits, weights=1.0):
  """Returns R z for a cross-entropy, where A = diag(p) - p p'.

  Args:
    logits: float [..., classes].
    weights: of the examples, float [...], constant.
  """
  chance = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
  apart = logits - jnp.sum(chance * logits, -1, keepdims=True)
  return jnp.sqrt(chance * jnp.asarray(weights)[..., None]) * apart


def of_square(out):
  """Returns R z for a squared error without the factor 1/2, where A = 2."""
  return jnp.sqrt(2.0) * out


def sketched(outputs, rng):
  """Returns the outputs of one example as a vector, or `SKETCH` random sums of more than `MOST`.

  The signs in the sums are random and independent. So on average over keys J'J of the sums is that
  of the outputs.

  Args:
    outputs: a tree of arrays.
    rng: a random key.
  """
  flat = jnp.concatenate([jnp.ravel(part) for part in jax.tree.leaves(outputs)])
  if flat.size <= MOST:
    return flat
  signs = jax.random.rademacher(rng, (SKETCH, flat.size), flat.dtype)
  return signs @ flat / jnp.sqrt(jnp.float32(SKETCH))

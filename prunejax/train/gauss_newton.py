"""The outputs whose half squared error curves as a loss does: what Levenberg-Marquardt forms ask of a model.

LeCun et al. (1990) and Hassibi & Stork (1993) take the loss to be half a squared error E of outputs o, whose second
derivative without its f'' terms is J'J, J = do/dw. A loss of logits z has (dz/dw)' A (dz/dw) there, A its second
derivative by z. So any R with R'R = A turns logits into outputs, R z, that have the curvature of the loss itself, its
generalised Gauss-Newton matrix (Schraudolph, 2002). R is constant: nothing is differentiated through it.
"""

import jax
import jax.numpy as jnp

MOST = 64  # outputs of an example that are told one by one: each costs a gradient
SKETCH = 16  # random sums in the place of more


def of_softmax(logits, weights=1.0):
  """R z for a cross-entropy of logits [..., classes] and constant weights [...]: A = diag(p) - p p'."""
  chance = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
  apart = logits - jnp.sum(chance * logits, -1, keepdims=True)
  return jnp.sqrt(chance * jnp.asarray(weights)[..., None]) * apart


def of_square(out):
  """R z for a squared error, without the half: A = 2."""
  return jnp.sqrt(2.0) * out


def sketched(outputs, rng):
  """Outputs of one example as a vector: themselves, or, of more than `MOST`, `SKETCH` sums of them with random signs.

  J'J of the sums is that of the outputs on average over keys: the signs are independent.
  """
  flat = jnp.concatenate([jnp.ravel(part) for part in jax.tree.leaves(outputs)])
  if flat.size <= MOST:
    return flat
  signs = jax.random.rademacher(rng, (SKETCH, flat.size), flat.dtype)
  return signs @ flat / jnp.sqrt(jnp.float32(SKETCH))

"""Trained quantisation: a view whose parameters are the codebooks of shared weights.

Han et al. (2016, section 3).
"""

import jax
import jax.numpy as jnp
import numpy as np

PRUNED = -1


def share(codebooks, codes):
  """Computes weights from codebooks: codebook[code], and 0.0 where the code is -1 (pruned).

  The gradient of a centroid is the sum of the gradients of the weights of its cluster (equation 3),
  so any optax chain trains the codebooks.

  Args:
    codebooks: a tree of [k].
    codes: a tree with the same leaves, integers of the shape of the weights.

  Returns:
    Weights, a tree like `codes`, in the dtypes of the codebooks.
  """

  def weights(codebook, code):
    values = jnp.take(codebook, jnp.maximum(code, 0), mode='clip')
    return jnp.where(code >= 0, values, jnp.zeros((), codebook.dtype))

  return jax.tree.map(weights, codebooks, codes)


def codes_of(weights, codes) -> np.ndarray:
  """Puts the codes of the non-zero weights in their places.

  Args:
    weights: any array.
    codes: the codes of its non-zero entries, in order.

  Returns:
    int32 of the shape of `weights`, -1 where a weight is 0.0.
  """
  weights = np.asarray(weights)
  out = np.full(weights.shape, PRUNED, np.int32)
  out[weights != 0] = codes
  return out

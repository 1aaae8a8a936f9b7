"""Trained quantisation: a view whose parameters are the codebooks of shared weights (Han et al., 2016, section 3)."""

import jax
import jax.numpy as jnp
import numpy as np

PRUNED = -1


def share(codebooks, codes):
  """Weights codebook[code], leaf by leaf, and 0.0 where the code is -1 (pruned), as a tree like `codes`.

  codebooks: tree of [k]; codes: tree of the same leaves, int of the shape of the weights. The gradient of a centroid is
  the sum of the gradients of the weights of its cluster (equation 3), so any optax chain trains the codebooks.
  """

  def weights(codebook, code):
    return jnp.where(
      code >= 0,
      jnp.take(codebook, jnp.maximum(code, 0), mode='clip'),
      jnp.zeros((), codebook.dtype),
    )

  return jax.tree.map(weights, codebooks, codes)


def codes_of(weights, codes):
  """Codes int32 of the shape of `weights`, -1 where one is 0.0, from the codes of its other entries in order."""
  weights = np.asarray(weights)
  out = np.full(weights.shape, PRUNED, np.int32)
  out[weights != 0] = codes
  return out

"""Masks that SparseGPT chooses inside its sweep, against a dense float64 twin of the paper."""

import cases_layerwise as twins
import jax.numpy as jnp
import numpy as np
import pytest

import prunejax


def layer(inputs, outputs, seed=0):
  """Correlated rows and weights, in float32."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(4 * inputs, inputs)) @ rng.normal(size=(inputs, inputs))
  w = rng.normal(size=(inputs, outputs))
  return x.astype(np.float32), w.astype(np.float32)


def sweep_of_the_paper(w, x, kept, rows, m=0, n=0, damp=0.01):
  """Algorithm 1 with a new inverse of the remaining matrix for every input.

  When the sweep comes to a slab of `rows` inputs, it ranks w^2 / [H^-1]_ii of the weights as they
  are then. Of single weights the `kept[slab]` highest stay, of n:m n in each group.
  """
  w, h = np.array(w, np.float64), twins.damped(x, damp)
  mask = np.zeros(w.shape, bool)
  for slab, start in enumerate(range(0, len(w), rows)):
    stop = min(start + rows, len(w))
    left = [np.linalg.inv(h[i:, i:])[0, 0] for i in range(start, stop)]
    scores = w[start:stop] ** 2 / np.array(left)[:, None]
    if m:
      order = np.argsort(-scores, axis=0, kind='stable')
      np.put_along_axis(mask[start:stop], order[:n], True, 0)
    else:
      flat = np.zeros(scores.size, bool)
      flat[np.argsort(-scores.ravel(), kind='stable')[: kept[slab]]] = True
      mask[start:stop] = flat.reshape(scores.shape)
    for i in range(start, stop):
      inverse = np.linalg.inv(h[i:, i:])
      error = np.where(mask[i], 0, w[i] / inverse[0, 0])
      w[i:] -= inverse[:, :1] * error
  return mask, np.where(mask, w, 0)


CASES = {  # inputs, outputs, block, rows, structure, kept of each slab
  'one block': (16, 6, 16, 16, prunejax.unstructured(), [40]),
  'blocks of 32 in chunks of 16': (64, 5, 32, 32, prunejax.unstructured(), [80, 31]),
  'a short last block': (20, 7, 8, 8, prunejax.unstructured(), [28, 20, 3]),
  '2:4': (24, 6, 8, 4, prunejax.n_m(2, 4), [0] * 6),
  '4:8 in blocks of 128': (40, 3, 128, 8, prunejax.n_m(4, 8), [0] * 5),
  '1:3, which no block of 8 holds twice': (12, 4, 8, 3, prunejax.n_m(1, 3), [0] * 4),
}


@pytest.mark.parametrize('name', CASES)
def test_masks_and_weights_are_those_of_the_paper(name):
  inputs, outputs, block, rows, structure, kept = CASES[name]
  x, w = layer(inputs, outputs)
  of_kernels = prunejax.sparsegpt(block=block).layerwise
  upper = of_kernels.ready(of_kernels.statistics(jnp.asarray(x)))
  mask, new = of_kernels.sweep(upper, jnp.asarray(w), jnp.asarray(kept, jnp.int32), structure, rows)
  m = structure.inputs if structure.inputs > 1 else 0
  n = round(m * (1 - structure.cost))
  expected, weights = sweep_of_the_paper(w, x, kept, rows, m, n)
  np.testing.assert_array_equal(mask, expected)
  np.testing.assert_allclose(new, weights, rtol=2e-3, atol=2e-3)


def test_counts_by_output_are_kept_in_every_output_of_every_slab():
  x, w = layer(32, 5)
  of_kernels = prunejax.sparsegpt(block=16).layerwise
  upper = of_kernels.ready(of_kernels.statistics(jnp.asarray(x)))
  kept = jnp.asarray([3, 9], jnp.int32)[:, None, None] * jnp.ones((1, 1, 5), jnp.int32)
  mask, _ = of_kernels.sweep(upper, jnp.asarray(w), kept, prunejax.unstructured(), 16)
  np.testing.assert_array_equal(np.sum(np.reshape(mask, (2, 16, 5)), 1), [[3] * 5, [9] * 5])

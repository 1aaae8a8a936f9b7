"""Share weights: a table of centroids a matrix, a code a weight, and the bits of both."""

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.compress import kmeans
from prunejax.models import transformer_nmt
from prunejax.pruning.masks import from_zeros
from prunejax.pruning.paths import compiled, named_leaves

WHERE = transformer_nmt.PRUNABLE
EMBEDDING = r'embeddings/.*'


def share(params: dict, count: int, zeros: bool = False) -> tuple[dict, dict]:
  """Replace each matrix of `WHERE` by centroids and codes.

  With two centroids every weight goes to the nearer one: the paper's binarisation.

  Args:
    params: the model's parameters.
    count: centroids a matrix.
    zeros: keep zero weights at zero, under the code `count`.

  Returns:
    `params` with centroids [count] in place of each matrix, and {path: codes int32}.
  """
  pattern, codes, leaves = compiled(WHERE, 'sharing'), {}, []
  for name, leaf in named_leaves(params).items():
    if not pattern.fullmatch(name):
      leaves.append(jnp.asarray(leaf))
      continue
    values = np.asarray(leaf, np.float32)
    shared = values != 0 if zeros else np.ones(values.shape, bool)
    code = np.full(values.shape, count, np.int32)
    centroids, code[shared] = kmeans.fit(values[shared], count, init='inside', steps=100)
    codes[name] = jnp.asarray(code)
    leaves.append(jnp.asarray(centroids))
  return jax.tree.unflatten(jax.tree.structure(params), leaves), codes


def expand(params: dict, codes: dict) -> dict:
  """Look up the weights of centroids and codes; a code past the last centroid means zero."""
  weights = [
    jnp.append(leaf, 0.0)[codes[name]] if name in codes else leaf
    for name, leaf in named_leaves(params).items()
  ]
  return jax.tree.unflatten(jax.tree.structure(params), weights)


def bits(params: dict, count: int = 0, zeros: bool = False) -> dict:
  """Count the bits of the model as it would be stored.

  A pruned matrix has a bitmap, one bit a weight. A weight that is left has 32 bits, or log2(count)
  bits where weights are shared; a shared matrix also has a table of `count` float32 values.

  Args:
    params: the model's weights, expanded.
    count: centroids a matrix; 0 where weights are not shared.
    zeros: whether the matrices are pruned.

  Returns:
    {'matrices', 'embeddings', 'rest'}: bits; numbers that are not compressed have 32.
  """
  kept = named_leaves(from_zeros(params, WHERE)) if zeros else {}
  matrix, embedding = compiled(WHERE, 'bits'), compiled(EMBEDDING, 'bits')
  total = dict.fromkeys(('matrices', 'embeddings', 'rest'), 0)
  width = int(np.ceil(np.log2(count))) if count else 32
  for name, leaf in named_leaves(params).items():
    if matrix.fullmatch(name):
      left = int(np.asarray(kept[name]).sum()) if zeros else leaf.size
      total['matrices'] += left * width + 32 * count + (leaf.size if zeros else 0)
    else:
      total['embeddings' if embedding.fullmatch(name) else 'rest'] += 32 * leaf.size
  return total

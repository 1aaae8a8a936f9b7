"""Weights that are shared values: a table of centroids a matrix, codes that say which, and what both take in bits."""

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.compress import kmeans
from prunejax.models import transformer_nmt
from prunejax.pruning.masks import from_zeros
from prunejax.pruning.paths import compiled, named_leaves

WHERE = transformer_nmt.PRUNABLE
EMBEDDING = r'embeddings/.*'


def share(params, count, zeros=False):
  """(params with each matrix of WHERE replaced by its `count` centroids, {path: codes}).

  zeros: weights that are zero stay so, under the code `count`. With two centroids a weight goes to the nearer one,
  the paper's binarisation.
  """
  pattern, codes, out = compiled(WHERE, 'sharing'), {}, []
  for name, leaf in named_leaves(params).items():
    if not pattern.fullmatch(name):
      out.append(jnp.asarray(leaf))
      continue
    values = np.asarray(leaf, np.float32)
    live = values != 0 if zeros else np.ones(values.shape, bool)
    code = np.full(values.shape, count, np.int32)
    centroids, code[live] = kmeans.fit(values[live], count, init='inside', steps=100)
    codes[name] = jnp.asarray(code)
    out.append(jnp.asarray(centroids))
  return jax.tree.unflatten(jax.tree.structure(params), out), codes


def opened(params, fixed):
  """The weights that centroids and codes stand for; a code past the last centroid is zero."""
  leaves = named_leaves(params)
  full = [
    jnp.append(leaf, 0.0)[fixed[name]] if name in fixed else leaf for name, leaf in leaves.items()
  ]
  return jax.tree.unflatten(jax.tree.structure(params), full)


def bits(params, count=0, zeros=False):
  """{'matrices': bits, 'embeddings': bits, 'rest': bits} of opened `params`; what is not compressed has 32 a number.

  A pruned matrix is a bitmap of one bit a weight and what is left; shared, each weight left has log2(count) bits and
  the matrix a table of `count` float32.
  """
  kept = named_leaves(from_zeros(params, WHERE)) if zeros else {}
  pattern, table, out = (
    compiled(WHERE, 'bits'),
    compiled(EMBEDDING, 'bits'),
    dict.fromkeys(('matrices', 'embeddings', 'rest'), 0),
  )
  width = int(np.ceil(np.log2(count))) if count else 32
  for name, leaf in named_leaves(params).items():
    if pattern.fullmatch(name):
      live = int(np.asarray(kept[name]).sum()) if zeros else leaf.size
      out['matrices'] += live * width + 32 * count + (leaf.size if zeros else 0)
    else:
      out['embeddings' if table.fullmatch(name) else 'rest'] += 32 * leaf.size
  return out

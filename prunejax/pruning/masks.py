"""What one does with masks: boolean pytrees shaped like params, True = kept."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning.placement import on_host
from prunejax.pruning.types import is_prunable, named_leaves, select, selects


def apply(params, masks):
  """`params` with pruned weights at 0.0, in their own dtypes; pruned weights get no gradient."""
  return jax.tree.map(lambda p, mask: jnp.where(mask, p, jnp.zeros_like(p)), params, masks)


def straight_through(params, masks):
  """The values of `apply`, but the gradient passes to every weight (Bengio et al., 2013)."""
  # The value is p or 0; the gradient is that of the second term, whose value is 0 also where p is infinite.
  through = lambda p: jnp.where(jnp.isfinite(p), p - jax.lax.stop_gradient(p), 0)
  return jax.tree.map(lambda p, mask: jnp.where(mask, p, through(p)), params, masks)


def from_zeros(params, where='.*'):
  """Masks read back from the zeros of `params`; True throughout for leaves outside `where` (a regex
  on the path, or a predicate) and for those that are no floating-point numbers.
  """
  select(params, where, origin='masks.from_zeros')
  chosen = {
    name: is_prunable(leaf) and selects(where)(name, leaf)
    for name, leaf in named_leaves(params).items()
  }
  treedef = jax.tree.structure(params)
  return treedef.unflatten(
    [
      leaf != 0 if chosen[name] else jnp.ones(jnp.shape(leaf), bool)
      for name, leaf in named_leaves(params).items()
    ]
  )


def sparsity(masks, where='.*') -> dict:
  """{'total': fraction removed, 'leaves': {path: fraction}, 'removed': int, 'weights': int} over
  the leaves that `where` matches.

  Floating-point leaves count their zeros as removed, so params do as well. Counts are exact Python
  integers.
  """
  chosen = lambda name, leaf: (
    (is_prunable(leaf) or jnp.asarray(leaf).dtype == bool) and selects(where)(name, leaf)
  )
  leaves = {name: leaf for name, leaf in named_leaves(masks).items() if chosen(name, leaf)}
  return _fractions(
    {name: (int(_count(jnp.asarray(leaf) == 0)), jnp.size(leaf)) for name, leaf in leaves.items()},
    'removed',
  )


def overlap(a, b) -> dict:
  """Kept in both, as a fraction of what either keeps (1 if neither keeps anything); in all and by
  leaf.
  """
  return _compare(a, b, lambda x, y: (int(_count(x & y)), int(_count(x | y))), 'both', empty=1.0)


def difference(a, b) -> dict:
  """Entries that differ, as a fraction of all entries: Gordon et al., 2020, table 2's measure; in
  all and by leaf.
  """
  return _compare(a, b, lambda x, y: (int(_count(x != y)), jnp.size(x)), 'differ')


def union(a, b):
  """Kept in either."""
  return jax.tree.map(jnp.logical_or, a, b)


def nested(inner, outer) -> bool:
  """True if every weight that `inner` keeps is kept by `outer` too."""
  pairs = _pairs(inner, outer)
  return not any(bool(jnp.any(x & ~y)) for x, y in pairs.values())


def pack(masks, axis: int = -1):
  """Masks as uint8, eight to a byte along `axis` (first weight in the highest bit), rank kept;
  choose an axis that no mesh divides.
  """
  return jax.tree.map(
    lambda mask: mask.astype(jnp.uint8) if mask.ndim == 0 else jnp.packbits(mask, axis=axis), masks
  )


def unpack(packed, like, axis: int = -1):
  """The masks that `pack` made; `like` is any tree of arrays with the shapes of the masks."""

  def opened(bits, leaf):
    shape = jnp.shape(leaf)
    if not shape:
      return bits.astype(bool)
    return jnp.unpackbits(bits, axis=axis, count=shape[axis]).astype(bool)

  return jax.tree.map(opened, packed, like)


def mask_hash(masks) -> str:
  """sha256 (hex) of paths, shapes and bits in order of path: equal for equal masks whatever the
  device, mesh or tree class.
  """
  digest = hashlib.sha256()
  for name, mask in sorted(named_leaves(masks).items()):
    bits = on_host(mask).astype(bool)
    digest.update(f'{name}:{bits.shape}\n'.encode())
    digest.update(np.packbits(bits).tobytes())
  return digest.hexdigest()


def _count(flags):
  # One number a row is below 2^31 for any array; their sum is taken where integers have no limit.
  rows = on_host(
    jnp.sum(flags, axis=-1, dtype=jnp.int32) if jnp.ndim(flags) else jnp.asarray(flags, jnp.int32)
  )
  return rows.astype(np.int64).sum()


def _pairs(a, b):
  a, b = named_leaves(a), named_leaves(b)
  for name in sorted(a.keys() ^ b.keys()):
    raise ValueError(f'the two trees of masks differ: only one has the leaf {name!r}')
  for name in a:
    if jnp.shape(a[name]) != jnp.shape(b[name]):
      raise ValueError(
        f'the masks of {name!r} have shapes {jnp.shape(a[name])} and {jnp.shape(b[name])}'
      )
  return {name: (jnp.asarray(a[name], bool), jnp.asarray(b[name], bool)) for name in a}


def _compare(a, b, ratio, word, empty=0.0):
  return _fractions({name: ratio(x, y) for name, (x, y) in _pairs(a, b).items()}, word, empty)


def _fractions(parts, word, empty=0.0):
  fraction = lambda part, whole: part / whole if whole else empty
  part, whole = sum(p for p, _ in parts.values()), sum(w for _, w in parts.values())
  return {
    'total': fraction(part, whole),
    'leaves': {name: fraction(*pair) for name, pair in parts.items()},
    word: part,
    'weights': whole,
  }

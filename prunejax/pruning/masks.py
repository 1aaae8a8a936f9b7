"""Functions of masks: boolean pytrees shaped like params, True = kept."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning.paths import is_prunable, matches, named_leaves, select
from prunejax.pruning.placement import on_host


def apply(params, masks):
  """Returns `params` with pruned weights at 0.0, in their own dtypes.

  Pruned weights get no gradient.
  """
  return jax.tree.map(lambda p, mask: jnp.where(mask, p, jnp.zeros_like(p)), params, masks)


def straight_through(params, masks):
  """Returns the values of `apply`; the gradient passes to every weight (Bengio et al., 2013)."""
  # The second term has the gradient of p and the value 0, also where p is infinite.
  through = lambda p: jnp.where(jnp.isfinite(p), p - jax.lax.stop_gradient(p), 0)
  return jax.tree.map(lambda p, mask: jnp.where(mask, p, through(p)), params, masks)


def from_zeros(params, where='.*'):
  """Reads masks back from the zeros of `params`.

  Args:
    params: any tree of arrays.
    where: as in `prune_transform`. Other leaves, and leaves of other dtypes, are True throughout.

  Raises:
    ValueError: `where` matches no floating-point leaf.
  """
  select(params, where, origin='masks.from_zeros')
  chosen = {
    name: is_prunable(leaf) and matches(where)(name, leaf)
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
  """Counts what is removed.

  Args:
    masks: masks, or params: zeros of floating-point leaves count as removed.
    where: as in `prune_transform`; the leaves to count.

  Returns:
    {'total': fraction removed, 'leaves': {path: fraction}, 'removed': int, 'weights': int}. Counts
    are exact Python integers.

  Raises:
    ValueError: `where` matches no mask and no floating-point leaf.
  """
  is_counted = lambda leaf: is_prunable(leaf) or jnp.asarray(leaf).dtype == bool
  counted = {name: leaf for name, leaf in named_leaves(masks).items() if is_counted(leaf)}
  leaves = {name: leaf for name, leaf in counted.items() if matches(where)(name, leaf)}
  if not leaves and (named_leaves(masks) or where != '.*'):
    shown = ', '.join(map(repr, list(counted)[:6])) or '(none here)'
    raise ValueError(
      f'masks.sparsity: where={where!r} matches no mask and no floating-point leaf; it must match a'
      f' whole path such as {shown}'
    )

  def removed(leaf):
    kept = jnp.asarray(leaf, bool)
    return int(_count(~kept)), kept.size

  return _fractions({name: removed(leaf) for name, leaf in leaves.items()}, 'removed')


def overlap(a, b) -> dict:
  """Counts the weights kept in both, as a fraction of those kept in either.

  Returns:
    {'total', 'leaves', 'both', 'weights'}; the fraction is 1 where neither keeps anything.
  """
  return _compare(a, b, lambda x, y: (int(_count(x & y)), int(_count(x | y))), 'both', empty=1.0)


def difference(a, b) -> dict:
  """Counts the entries that differ, as a fraction of all entries (Gordon et al., 2020, table 2).

  Returns:
    {'total', 'leaves', 'differ', 'weights'}.
  """
  return _compare(a, b, lambda x, y: (int(_count(x != y)), jnp.size(x)), 'differ')


def union(a, b):
  """Returns the masks of the weights kept in either."""
  return jax.tree.map(jnp.logical_or, a, b)


def nested(inner, outer) -> bool:
  """Returns True if every weight that `inner` keeps is kept by `outer` too."""
  pairs = _pairs(inner, outer)
  return not any(bool(jnp.any(x & ~y)) for x, y in pairs.values())


def pack(masks, axis: int = -1):
  """Packs masks to uint8, eight to a byte along `axis`, the first weight in the highest bit.

  Args:
    masks: the masks.
    axis: an axis that no mesh divides.
  """
  return jax.tree.map(
    lambda mask: mask.astype(jnp.uint8) if mask.ndim == 0 else jnp.packbits(mask, axis=axis), masks
  )


def unpack(packed, like, axis: int = -1):
  """Returns the masks that `pack` made.

  Args:
    packed: what `pack` returned.
    like: a tree of arrays with the shapes of the masks.
    axis: the axis of `pack`.

  Raises:
    ValueError: packed masks of other shapes, as far as the number of bytes tells.
  """

  def opened(bits, leaf):
    shape = jnp.shape(leaf)
    expected = list(shape)
    if shape:
      expected[axis] = -(-shape[axis] // 8)
    if jnp.shape(bits) != tuple(expected):
      raise ValueError(
        f'masks.unpack: packed masks of shape {jnp.shape(bits)} are not those of a leaf {shape}'
        f' along axis {axis}: expected {tuple(expected)}'
      )
    if not shape:
      return bits.astype(bool)
    return jnp.unpackbits(bits, axis=axis, count=shape[axis]).astype(bool)

  return jax.tree.map(opened, packed, like)


def mask_hash(masks) -> str:
  """Hashes paths, shapes and bits, in order of path.

  Equal masks have equal hashes, whatever the device, the mesh or the class of the tree.

  Returns:
    The sha256, hexadecimal.
  """
  digest = hashlib.sha256()
  for name, mask in sorted(named_leaves(masks).items()):
    bits = on_host(mask).astype(bool)
    digest.update(f'{name}:{bits.shape}\n'.encode())
    digest.update(np.packbits(bits).tobytes())
  return digest.hexdigest()


def _count(flags):
  # A row's count is below 2^31 for any array; rows are summed where integers have no limit.
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

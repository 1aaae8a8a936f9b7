"""Which weights are pruned already when a link starts."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.pruning import placement
from prunejax.pruning.paths import is_hole, named_leaves

ZEROS = 'zeros'


def masks_at_start(masks, chosen, origin: str):
  """Returns the masks that a link starts from, shaped like `chosen`.

  Args:
    masks: None for all weights, 'zeros' for those that are not 0, or masks shaped like params.
    chosen: params with `optax.MaskedNode` where the link does not prune.
    origin: the name of the caller, for errors.

  Raises:
    ValueError: `masks` is another text, lacks a leaf, or has a leaf of another shape or type; or it
      is 'zeros' and a leaf has no values.
  """
  if masks is None:
    return jax.tree.map(lambda p: jnp.ones_like(p, dtype=bool), chosen)
  if isinstance(masks, str):
    if masks != ZEROS:
      raise ValueError(
        f'{origin}: masks={masks!r}; accepted: {ZEROS!r}, or masks shaped like params'
      )
    return from_zeros(chosen, origin, stacklevel=4)
  given = named_leaves(masks, is_leaf=is_hole)
  leaves = {name: _mask(name, given, p, origin) for name, p in named_leaves(chosen).items()}
  return jax.tree.unflatten(jax.tree.structure(chosen), leaves.values())


def from_zeros(chosen, origin: str, stacklevel: int = 3):
  """Returns masks of the weights that are not 0; a leaf that is zero throughout gives a warning.

  Args:
    chosen: params with `optax.MaskedNode` where nothing is held.
    origin: the name of the caller, for errors.
    stacklevel: of the warning.

  Raises:
    ValueError: a leaf has a shape but no values.
  """
  for name, leaf in named_leaves(chosen).items():
    if isinstance(leaf, jax.ShapeDtypeStruct):
      raise ValueError(
        f'{origin}: {name!r} has a shape but no values; use jax.eval_shape(tx.init, '
        'params) for the shapes of its state'
      )
    has_values = not isinstance(leaf, jax.core.Tracer) and leaf.size
    if has_values and not np.any(np.asarray(leaf != 0)):
      warnings.warn(
        f'{origin}: {name!r} is zero throughout and will stay so; leave it out with where= if'
        ' it is only new',
        stacklevel=stacklevel,
      )
  return jax.tree.map(lambda p: p != 0, chosen)


def sparsity(masks) -> jax.Array:
  """Computes the sparsity of masks, float32, also of traced ones."""
  leaves = jax.tree.leaves(masks)
  removed = sum(jnp.sum(~leaf, dtype=jnp.int32).astype(jnp.float32) for leaf in leaves)
  return jnp.float32(removed / max(sum(leaf.size for leaf in leaves), 1))


def _mask(name, given, p, origin):
  mask = given.get(name)
  if mask is None or is_hole(mask):
    raise ValueError(f'{origin}: masks= has no leaf {name!r}; it must be shaped like params')
  if jnp.result_type(mask) != jnp.bool_:
    raise ValueError(
      f'{origin}: masks= has {jnp.result_type(mask)} for {name!r}; bool is needed, True = kept'
    )
  if jnp.shape(mask) != tuple(p.shape):
    raise ValueError(
      f'{origin}: masks= has shape {jnp.shape(mask)} for {name!r}, whose shape is {tuple(p.shape)}'
    )
  if isinstance(p, jax.ShapeDtypeStruct):
    return jnp.asarray(mask)
  # A copy: a train step that donates its state must not take the caller's array with it.
  return placement.like(jnp.array(mask), p)

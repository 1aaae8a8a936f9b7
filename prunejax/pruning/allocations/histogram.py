"""A cut-off read off a histogram of the scores and smoothed over time: what `allocation.histogram` is made of."""

import jax
import jax.numpy as jnp


def remember(units, sparsity, cuts, bins, decay):
  """({name: int32 units above its smoothed cut}, float32 smoothed cuts, one a part); see `allocation.histogram`."""
  if not units.scores:
    return {}, cuts
  share = jnp.minimum(jnp.asarray(sparsity, jnp.float32) / jnp.float32(units.cost), 1)
  stacked = units.again.stacked
  scores = {name: score.astype(jnp.float32) for name, score in units.scores.items()}
  one = lambda score: cut(score, share, bins)
  found = [jax.vmap(one)(s) if name in stacked else one(s)[None] for name, s in scores.items()]
  cuts = decay * cuts + (1 - decay) * jnp.concatenate(found)
  limits = units.by_name(cuts)
  above = lambda score, limit: jnp.sum(score > limit, dtype=jnp.int32)
  return {
    n: (jax.vmap(above) if n in stacked else above)(s, limits[n]) for n, s in scores.items()
  }, cuts


def cut(score, share, bins):
  """(largest score / bins) * how many bins, from below, hold together fewer units than `share` of them; float32.

  The number is searched by halving, nine counts for 256 bins: a histogram of a leaf that lies on many devices would
  have to be gathered.
  """
  top = jnp.max(score, initial=0.0)
  place = jnp.clip(jnp.floor(score / jnp.where(top > 0, top, 1) * bins), 0, bins - 1).astype(
    jnp.int32
  )
  low, high = jnp.int32(0), jnp.int32(bins)
  for _ in range(bins.bit_length()):
    middle = (low + high) // 2
    reached = ~(jnp.sum(place <= middle, dtype=jnp.int32).astype(jnp.float32) / score.size < share)
    low, high = (
      jnp.where(reached | (low == high), low, middle + 1),
      jnp.where(reached, middle, high),
    )
  return top / bins * low.astype(jnp.float32)

"""What spoils a leaf when masks move, and how `PruneState.prune_nan` remembers it.

A leaf that is spoiled gets NaN updates, so that no mask rests on a wrong number unseen.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

FINE, NAN_SCORE, SPARSITY, NOT_ZERO, ROUNDED = range(5)

REASONS = {
  NAN_SCORE: 'one of its scores was NaN',
  SPARSITY: 'the sparsity asked of it was NaN, or outside of what its structure can remove',
  NOT_ZERO: (
    'pruned weights were not 0: the link that prunes must be the last of its optax.chain, and'
    ' nothing may change params after optax.apply_updates'
  ),
  ROUNDED: 'float64 weights were too small or too large for float32 scores',
}
_STEP_BITS = 29
_LAST_STEP = (1 << _STEP_BITS) - 1


class Fault(NamedTuple):
  """Why a leaf is NaN: the first such step, counted from 1, and the reason in words."""

  step: int
  reason: str


def recorded(known: jax.Array, faults: jax.Array, step: jax.Array) -> jax.Array:
  """Returns `known` with the faults of this step added where there was none.

  Args:
    known: int32 [leaves], 0 or the step from 1 on in the low 29 bits and the reason above them.
    faults: int32 [leaves], `FINE` or a reason.
    step: the step from 0 on, int32.
  """
  code = (faults - 1) << _STEP_BITS | jnp.minimum(step + 1, _LAST_STEP)
  return jnp.where((known == 0) & (faults != FINE), code, known)


def read(code: int) -> Fault | None:
  """Returns the fault that a number of `recorded` stands for; None for 0."""
  if not code:
    return None
  return Fault(code & _LAST_STEP, REASONS[(code >> _STEP_BITS) + NAN_SCORE])

"""Which lowest bits of a key no score needs, by the operations that made the scores."""

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

# Operations whose results are among the numbers that they are given, or these with another sign. A
# conversion may round, which adds no bits.
EXACT = frozenset(
  {
    *('abs', 'neg', 'copy', 'convert_element_type', 'select_n', 'max', 'min', 'clamp'),
    *('reshape', 'transpose', 'squeeze', 'expand_dims', 'broadcast_in_dim', 'rev', 'slice'),
    *('dynamic_slice', 'concatenate', 'optimization_barrier', 'sharding_constraint'),
  }
)


def of_type(dtype) -> int:
  """Returns how many of a key's lowest bits no score of `dtype` needs: 16 for bfloat16."""
  return max(23 - jnp.finfo(dtype).nmant, 0)


def of_outputs(jaxpr) -> list[int]:
  """Returns for each output how many of its key's lowest bits no number needs.

  The magnitudes of bfloat16 weights are float32 numbers of which 16 bits are 0. Bits of inputs are
  followed through operations that move, compare or convert numbers.

  Args:
    jaxpr: a `Jaxpr` with floating-point outputs.
  """
  return _followed(jaxpr, [_of_type(v.aval) for v in jaxpr.invars])


def _followed(jaxpr, inputs):
  bits = dict(zip(jaxpr.invars, inputs, strict=True))
  bits |= {v: _of_type(v.aval) for v in jaxpr.constvars}
  spare = lambda v: _of_number(v.val) if isinstance(v, Literal) else bits[v]
  for equation in jaxpr.eqns:
    before, name = [spare(v) for v in equation.invars], equation.primitive.name
    inner = equation.params.get('jaxpr')
    if name == 'jit' and inner is not None:
      found = _followed(inner.jaxpr, before)
    elif name in EXACT:
      numbers = [b for v, b in zip(equation.invars, before, strict=True) if _is_float(v.aval)]
      # An integer that becomes a number may need every bit.
      found = [min(numbers, default=0)] * len(equation.outvars)
    else:
      found = [0] * len(equation.outvars)
    bits |= dict(zip(equation.outvars, found, strict=True))
  return [max(spare(v), _of_type(v.aval)) for v in jaxpr.outvars]


def _is_float(aval):
  return jnp.issubdtype(aval.dtype, jnp.floating)


def _of_type(aval):
  return of_type(aval.dtype) if _is_float(aval) else 0


def _of_number(value):
  if not jnp.issubdtype(jnp.asarray(value).dtype, jnp.floating) or np.size(value) != 1:
    return 0
  bits = int(np.float32(value).view(np.uint32)) & 0x7FFFFF
  return 23 if not bits else (bits & -bits).bit_length() - 1

"""Numbers must not be rounded unseen: sparsities and steps to half precision, scores to float32."""

import jax.numpy as jnp
import numpy as np


def refuse_half(origin: str, key: str, value):
  """Refuses a number of less than float32, in which 0.9 is 0.8984 and step 10,001 is 9,984.

  Args:
    origin: the name of the caller, for the error.
    key: the name of the argument, for the error.
    value: a number or an array. It may be traced.

  Raises:
    ValueError: `value` is a bfloat16, a float16 or smaller.
  """
  dtype = getattr(value, 'dtype', None)
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits >= 32:
    return
  rounded = float(np.asarray(0.9, dtype))
  raise ValueError(
    f'{origin}: {key} is {jnp.dtype(dtype).name}, which rounds 0.9 to {rounded:.4f};'
    ' a float32 is needed. optax.inject_hyperparams gives numbers the type of the weights:'
    ' prunejax.inject_hyperparams keeps them float32'
  )


def refuse_float64(scores: dict):
  """Refuses scores of more than float32, since scores are ranked as float32.

  Args:
    scores: {path: scores}, arrays of jax or numpy.

  Raises:
    ValueError: scores are float64. [1e-50, 2e-50] would be two zeros.
  """
  for name, score in scores.items():
    if getattr(score, 'dtype', None) == np.float64:
      raise ValueError(
        f'the scores of {name!r} are float64; cast them to float32 to rank them, and scale them'
        ' first if they are below 1e-38 or above 3e38'
      )

"""The dtype that can hold several others."""

import jax
import jax.numpy as jnp


def wider(*dtypes):
  """Returns the dtype that JAX would promote to, also where implicit promotion is switched off."""
  with jax.numpy_dtype_promotion('standard'):
    return jnp.result_type(*dtypes)

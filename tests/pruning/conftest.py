"""In the tests of the core, implicit promotion of ranks or of dtypes is an error."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict():
  with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion('strict'):
    yield

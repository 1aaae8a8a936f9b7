"""In the tests of the core, broadcasting between different ranks is an error."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict():
  with jax.numpy_rank_promotion('raise'):
    yield

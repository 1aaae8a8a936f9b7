"""The core's tests refuse what JAX would otherwise guess: broadcasting between different ranks."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict():
  with jax.numpy_rank_promotion('raise'):
    yield

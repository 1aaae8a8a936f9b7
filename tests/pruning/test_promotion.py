"""Implicit promotion is an error in the tests of the core, except where optax itself promotes."""

import pathlib
import re

import jax
import jax.numpy as jnp
import optax
import pytest


def test_implicit_promotion_is_an_error():
  with pytest.raises(jax.dtypes.TypePromotionError):
    jnp.ones(3) + jnp.ones(3, jnp.int32)
  with pytest.raises(ValueError, match='rank'):
    jnp.ones((3, 3)) + jnp.ones(3)


def test_every_exempt_test_is_there(optax_promotes):
  sources = ''.join(path.read_text() for path in pathlib.Path(__file__).parent.glob('test_*.py'))
  defined = set(re.findall(r'^def (test_\w+)', sources, re.MULTILINE))
  assert {name.split('[')[0] for name in optax_promotes} <= defined


def test_adam_promotes_so_that_its_tests_are_exempt():
  params = {'w': jnp.ones(3)}
  tx = optax.adam(0.1)
  with pytest.raises(jax.dtypes.TypePromotionError):
    tx.update(params, tx.init(params))

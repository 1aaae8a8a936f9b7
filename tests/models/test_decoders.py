"""Llama's class and OPT against logits of PyTorch's (tests/reference/make_decoder_reference.py)."""

import pathlib

import jax
import numpy as np
import pytest

from prunejax.models import llama, opt
from prunejax.models.hf import llama as llama_hf
from prunejax.models.hf import opt as opt_hf

REFERENCE = pathlib.Path(__file__).parents[1] / 'reference' / 'decoders'
CASES = sorted(path.name for path in REFERENCE.iterdir() if path.is_dir())


def files_of(case):
  return opt_hf if case.startswith('opt') else llama_hf


def read(case):
  heads = ('classifier',) if case.endswith('classifier') else ('lm',)
  params, size = files_of(case).load(REFERENCE / case, heads=heads)
  with np.load(REFERENCE / case / 'logits.npz') as file:
    stored = dict(file)
  module = opt.Opt if case.startswith('opt') else llama.Llama
  return params, size, stored, module(size, heads, 3), heads[0]


@pytest.mark.parametrize('case', CASES)
def test_logits_equal_the_reference(case):
  params, size, stored, module, head = read(case)
  valid = stored['valid']
  apply = jax.jit(lambda ids, valid: module.apply({'params': params}, ids, None, valid)[head])
  with jax.default_matmul_precision('highest'):
    logits = jax.device_get(apply(stored['input_ids'], valid))
  assert logits.dtype == np.float32 and logits.shape == stored['logits'].shape
  # Outputs at padding are not compared: PyTorch's depend on how it was called.
  at = valid if head == 'lm' else slice(None)
  np.testing.assert_allclose(logits[at], stored['logits'][at], rtol=0, atol=2e-5)
  assert np.abs(stored['logits'][at]).max() > 1

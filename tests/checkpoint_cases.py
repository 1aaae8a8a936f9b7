"""The stored reference, and helpers shared by the tests of checkpoints."""

import pathlib

import numpy as np
import pytest
from flax import traverse_util

from prunejax.models.hf import folder as hf_folder

REFERENCE = pathlib.Path(__file__).parent / 'reference' / 'bert'
PIECES = (REFERENCE / 'vocab.txt').read_text().split()


def flat(tree):
  """{path: leaf}."""
  return traverse_util.flatten_dict(tree, sep='/')


def assert_same_bits(a, b):
  a, b = flat(a), flat(b)
  assert a.keys() == b.keys()
  for path in a:
    assert a[path].dtype == b[path].dtype == np.float32, path
    np.testing.assert_array_equal(a[path].view(np.uint32), b[path].view(np.uint32), path)


def refusal(call, *args, **kwargs):
  """The message of the CheckpointError that `call` raises; it is one line."""
  with pytest.raises(hf_folder.CheckpointError) as caught:
    call(*args, **kwargs)
  message = str(caught.value)
  assert '\n' not in message
  return message

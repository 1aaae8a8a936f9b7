"""The models of `prunejax.models` as the three functions of `Decoder`."""

from typing import Any

import jax.numpy as jnp

from prunejax.models import parts
from prunejax.oneshot.decoder import Decoder, linen_block


def of_size(size: Any, dtype: Any = jnp.float32) -> Decoder:
  """Returns a model of `prunejax.models` as three functions.

  Args:
    size: a config of transformers, see `parts.of`.
    dtype: of the computation.

  Raises:
    ValueError: a model that is no decoder, or a size that its module refuses.
  """
  model = parts.of(size, dtype)
  recorded = {block: linen_block(block) for block in dict.fromkeys(model.blocks)}
  blocks = tuple(recorded[block] for block in model.blocks)
  return Decoder(model.embed, blocks, model.head, model.paths)

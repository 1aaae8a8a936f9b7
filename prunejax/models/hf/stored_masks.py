"""masks.safetensors: the bits of a pruned model's masks, beside its weights.

A zero among the weights does not say whether it was pruned: a survivor can be 0, and rounding makes
zeros too. The file says it. A tensor is called 'PATH SHAPE', such as
'encoder/layer_0/ffn/output/kernel 512x128', and holds the bits of one mask in order, eight to a
byte, 1 for a weight that is kept.
"""

import math
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import safetensors
import safetensors.numpy

from prunejax.models.hf.folder import CheckpointError
from prunejax.models.hf.stored import Leaf, whole

NAME = 'masks.safetensors'


def encode(masks: Mapping[str, np.ndarray | Leaf]) -> bytes:
  """Returns the content of the file.

  Args:
    masks: {path: bool array or `stored.Leaf`}; those that keep every weight are left out.
  """
  packed = {}
  for path, mask in masks.items():
    mask = np.asarray(whole(mask), bool)
    if not np.all(mask):
      packed[f'{path} {"x".join(map(str, mask.shape))}'] = np.packbits(mask)
  return safetensors.numpy.save(packed)


def read(folder: str | os.PathLike) -> dict[str, np.ndarray] | None:
  """Reads the masks of a folder.

  Args:
    folder: a Hugging Face folder.

  Returns:
    {path: bool array, True = kept}; None for a folder without the file.

  Raises:
    CheckpointError: the file is damaged.
  """
  path = pathlib.Path(folder) / NAME
  if not path.is_file():
    return None
  masks = {}
  try:
    for name, bits in safetensors.numpy.load_file(path).items():
      leaf, _, shape = name.rpartition(' ')
      sizes = tuple(map(int, shape.split('x')))
      if bits.dtype != np.uint8 or len(bits) != (math.prod(sizes) + 7) // 8:
        raise ValueError(f'{name!r} does not hold {math.prod(sizes)} bits')
      masks[leaf] = np.unpackbits(bits, count=math.prod(sizes)).astype(bool).reshape(sizes)
  except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
    raise CheckpointError(f'{path} is damaged or no file of masks: {error}') from error
  return masks

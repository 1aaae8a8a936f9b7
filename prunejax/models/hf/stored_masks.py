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

from prunejax.models.hf import folder as hf_folder
from prunejax.models.hf.folder import CheckpointError
from prunejax.models.hf.stored import Bits, Leaf, whole

NAME = hf_folder.MASKS
RECORD = hf_folder.RECORD  # beside it: how the model was pruned


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
  """Reads the masks of a folder, as `leaves` finds them: {path: bool array}."""
  found = leaves(folder)
  return None if found is None else {path: mask.read() for path, mask in found.items()}


def leaves(folder: str | os.PathLike) -> dict[str, Bits] | None:
  """Finds the masks of a folder and leaves them in their file.

  Args:
    folder: a Hugging Face folder.

  Returns:
    {path: mask, True = kept}, of all that do not keep every weight; None for a folder without the
    file.

  Raises:
    CheckpointError: the file is damaged.
  """
  file = pathlib.Path(folder) / NAME
  if not file.is_file():
    return None
  masks = {}
  try:
    with safetensors.safe_open(file, framework='np') as opened:
      for name in opened.keys():
        path, _, shape = name.rpartition(' ')
        sizes, bits = tuple(map(int, shape.split('x'))), opened.get_slice(name)
        if bits.get_dtype() != 'U8' or bits.get_shape() != [(math.prod(sizes) + 7) // 8]:
          raise ValueError(f'{name!r} does not hold {math.prod(sizes)} bits')
        masks[path] = Bits(file, name, sizes)
  except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
    raise CheckpointError(f'{file} is damaged or no file of masks: {error}') from error
  return masks

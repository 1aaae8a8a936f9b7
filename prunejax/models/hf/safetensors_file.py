"""Writes a safetensors file one tensor at a time.

The library's own writer needs all tensors in memory, and copies them. The format is a header of
JSON behind its length, and then the bytes of the tensors:
https://github.com/huggingface/safetensors#format
"""

import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from prunejax.models.hf.stored import Leaf, pieces

# Their names in the file, in the order in which the library writes tensors.
NAMES = {
  np.dtype(np.float32): 'F32',
  np.dtype(jax.dtypes.bfloat16): 'BF16',
  np.dtype(np.float16): 'F16',
}
ALIGNED = 8  # bytes by which the length of the header divides


def write(
  path: str | os.PathLike, tensors: Mapping[str, np.ndarray | Leaf], metadata: Mapping[str, str]
) -> None:
  """Writes a file with the bytes that `safetensors.numpy.save_file` would write.

  Args:
    path: the file, which is replaced.
    tensors: {name: array or leaf}, of a dtype of `NAMES`; a leaf is read piece by piece when its
      turn comes.
    metadata: texts of the header.

  Raises:
    KeyError: another dtype.
    OSError: the file cannot be written.
    stored.Damaged: a leaf cannot be read.
  """
  ranks = {dtype: rank for rank, dtype in enumerate(NAMES)}
  order = sorted(tensors, key=lambda name: (ranks[tensors[name].dtype], name))
  header: dict[str, Any] = {'__metadata__': dict(metadata)} if metadata else {}
  end = 0
  for name in order:
    tensor = tensors[name]
    begin, end = end, end + tensor.nbytes
    shape = [int(length) for length in tensor.shape]
    header[name] = {'dtype': NAMES[tensor.dtype], 'shape': shape, 'data_offsets': [begin, end]}
  text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
  text += b' ' * (-len(text) % ALIGNED)
  with open(path, 'wb') as file:
    file.write(struct.pack('<Q', len(text)) + text)
    for name in order:
      for piece in pieces(tensors[name]):
        file.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)

"""The Hugging Face folder that a sparse file or a GGUF file stands for.

`export --to=sparse` writes a file with a model's config.json and vocabulary in it. What trains a
model reads a folder, so such a file is unpacked into one.
"""

import re

from flax import traverse_util

from prunejax import files
from prunejax.compress import read_sparse, sparse_file
from prunejax.models import gguf_file
from prunejax.models.hf import carried_texts
from prunejax.models.hf import folder as hf_folder
from prunejax.train import families

TEXTS = (
  'config.json',
  'tokenizer_config.json',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'tokenizer.json',
)


def folder(where: files.PathLike) -> files.Scratch:
  """Unpacks a sparse file or a GGUF file into a Hugging Face folder.

  Args:
    where: of the file, local or in an object store.

  Returns:
    The folder, which is removed once nothing refers to it.

  Raises:
    ValueError: the file is damaged, or holds no model.
  """
  inside = files.scratch()
  if gguf_file.is_gguf(where):
    family = families.in_folder(where)
    params, size = family.files.load(where)
    families.save(inside, params, size, family.words.load(where), carried=carried_texts.read(where))
  else:
    _unpack_sparse(where, inside)
  return inside


def _unpack_sparse(where, inside):
  data = files.read(where, most=sparse_file.MOST)
  try:
    texts, leaves = sparse_file.read_texts(data), read_sparse.decode(data)
  except ValueError as error:
    raise ValueError(f'{str(where)!r}: {error}; expected a folder, or a sparse file') from None
  carried = {n: text for n, text in texts.items() if re.fullmatch(hf_folder.CARRIED, n)}
  unknown = texts.keys() - set(TEXTS) - carried.keys()
  if 'config.json' not in texts or unknown:
    raise ValueError(
      f'{str(where)!r} holds weights without a config.json: expected what export --to=sparse writes'
    )
  carried_texts.write(inside, texts)
  size = families.in_folder(inside).files.read_size(inside)
  params = traverse_util.unflatten_dict(leaves, sep='/')
  families.save(inside, params, size, None, carried=carried)

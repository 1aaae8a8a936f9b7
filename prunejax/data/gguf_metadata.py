"""Opens a GGUF file and reads what it says of itself; the package `gguf` does the parsing.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md says what the keys mean.
"""

import os
import pathlib
from typing import Any

MAGIC = b'GGUF'


class GgufError(ValueError):
  """A file that is damaged, or that holds what is not supported."""


def is_gguf(path: str | os.PathLike) -> bool:
  """Returns whether a path is a GGUF file, by its first four bytes."""
  path = pathlib.Path(path)
  if not path.is_file():
    return False
  with open(path, 'rb') as file:
    return file.read(4) == MAGIC


def opened(path: str | os.PathLike) -> Any:
  """Maps a file into memory.

  Args:
    path: the file.

  Returns:
    A `gguf.GGUFReader`.

  Raises:
    GgufError: the file is damaged.
  """
  import gguf  # only these files need the extra

  try:
    return gguf.GGUFReader(os.fspath(path))
  except Exception as error:  # it indexes past the end of a short file, and more
    why = ' '.join(str(error).split())[:200]
    raise GgufError(f'{str(path)!r} is damaged or no GGUF file: {why or repr(error)}') from error


def value(reader: Any, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
  """Returns the value of a key.

  Args:
    reader: what `opened` returned.
    key: the key.
    kind: what the value must be: str, int, float, bool or list.
    default: for a file without the key; the key is needed if there is no default.

  Raises:
    GgufError: the key is missing, or holds another kind of value.
  """
  field = reader.get_field(key)
  if field is None:
    if default is ...:
      raise GgufError(f'the key {key!r} is missing')
    return default
  try:
    content = field.contents()
  except Exception as error:
    raise GgufError(f'the key {key!r} is damaged: {error!r:.200}') from error
  kinds = kind if isinstance(kind, tuple) else (kind,)
  is_right = isinstance(content, kinds) and (bool in kinds or not isinstance(content, bool))
  if not is_right:
    names = ' or '.join(k.__name__ for k in kinds)
    raise GgufError(f'the key {key!r} holds {content!r:.100}: expected {names}')
  return content

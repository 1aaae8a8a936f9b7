"""Opens a GGUF file and reads what it says of itself; the package `gguf` does the parsing.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md says what the keys mean.
"""

import functools
import mmap
import os
import pathlib
import struct
from typing import Any

from prunejax.data import content as file_content

MAGIC = b'GGUF'
VERSIONS = (2, 3)
# Bytes of a value by the number of its type; a string and an array say their own length.
BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
MOST_AXES = 4


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
  """Maps a file into memory. A file that did not change is parsed once, which takes seconds.

  Args:
    path: the file.

  Returns:
    A `gguf.GGUFReader`.

  Raises:
    GgufError: the file is damaged.
  """
  import gguf  # only these files need the extra

  try:
    return _parsed(gguf.GGUFReader, os.fspath(path), *file_content.state_of(path))
  except Exception as error:  # it indexes past the end of a short file, and more
    why = ' '.join(str(error).split())[:200]
    raise GgufError(f'{str(path)!r} is damaged or no GGUF file: {why or repr(error)}') from error


@functools.lru_cache(maxsize=1)
def _parsed(reader, path, *status):
  _check(path)
  return reader(path)


def forget() -> None:
  """Gives up what `opened` keeps of a file: more than 100 MB for a vocabulary of 50,000 pieces."""
  _parsed.cache_clear()


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


def _check(path):
  """Raises GgufError if what the header counts is not there.

  The package would go on to count beyond the end of the file.
  """
  with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    at = len(MAGIC)

    def number(form):
      nonlocal at
      (found,) = struct.unpack_from(f'<{form}', data, at)
      at += struct.calcsize(form)
      return found

    def skip(size):
      nonlocal at
      if not 0 <= size <= len(data) - at:
        raise GgufError(f'{size} bytes are counted at byte {at}, of a file of {len(data)}')
      at += size

    def content(kind):
      if kind in BYTES:
        skip(BYTES[kind])
      elif kind == STRING:
        skip(number('Q'))
      elif kind == ARRAY:
        of, count = number('I'), number('Q')
        if of in BYTES:
          skip(BYTES[of] * count)
        elif of == STRING:
          for _ in range(count):
            skip(number('Q'))
        else:
          raise GgufError(f'an array of the type {of} at byte {at}')
      else:
        raise GgufError(f'a value of the type {kind} at byte {at}')

    version, tensors, keys = number('I'), number('Q'), number('Q')
    if version not in VERSIONS:
      raise GgufError(f'it is of version {version}: expected {VERSIONS[0]} or {VERSIONS[1]}')
    for _ in range(keys):
      skip(number('Q'))
      content(number('I'))
    for _ in range(tensors):
      skip(number('Q'))
      axes = number('I')
      if axes > MOST_AXES:
        raise GgufError(f'a tensor of {axes} axes at byte {at}')
      skip(8 * axes + 4 + 8)

"""What identifies files: the digest of their bytes, not their names, sizes or times."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

DIGITS = 12


def of_file(path: str | os.PathLike) -> str:
  """Returns 32 hex digits of the bytes of a file. A file that did not change is read once."""
  path = pathlib.Path(path)
  return _of_file(path, *state_of(path))


def state_of(path: str | os.PathLike) -> tuple[int, ...]:
  """Returns numbers that differ if a file changed, by which what was read may be remembered."""
  status = os.stat(path)
  # The time of the last change of a file cannot be set, so what it identifies is the content.
  return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@functools.lru_cache(maxsize=2**16)
def _of_file(path, *status):
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:32]


def of_files(folder: str | os.PathLike, names: Iterable[str]) -> str:
  """Returns 12 hex digits of the bytes of files below a folder.

  Raises:
    FileNotFoundError: a file that is missing.
  """
  return of([[name, of_file(pathlib.Path(folder) / name)] for name in names])


def of(value) -> str:
  """Returns 12 hex digits of plain JSON."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]


def of_arrays(arrays: Iterable[np.ndarray]) -> str:
  """Returns 12 hex digits of the shapes, types and numbers of arrays."""
  return of_pieces((x.dtype, np.shape(x), [x]) for x in map(np.asarray, arrays))


def of_pieces(arrays: Iterable[tuple[Any, tuple[int, ...], Iterable[np.ndarray]]]) -> str:
  """Returns the digits of `of_arrays` for arrays (dtype, shape, pieces along the first axis)."""
  parts = []
  for dtype, shape, pieces in arrays:
    digest = hashlib.sha256()
    for piece in pieces:
      digest.update(np.ascontiguousarray(piece).reshape(-1).view(np.uint8))
    parts.append([str(dtype), shape or (1,), digest.hexdigest()])
  return of(parts)

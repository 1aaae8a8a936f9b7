"""Reads and writes every file of a work directory, local or in an object store (gs://...).

A file is written whole or not at all. A store has no append, no rename and no lock, and it refuses
a request now and then: operations that can succeed later are tried again a few times.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Collection
from typing import Any

from etils import epath

# epath reads stores through fsspec, which is installed together with any store's package.
with contextlib.suppress(ImportError):
  import fsspec

  for _store in ('gcs', 'gs', 's3', 'az', 'abfs'):
    # A cached listing does not show what another worker has written since.
    fsspec.config.conf.setdefault(_store, {}).setdefault('use_listings_cache', False)

TRIES = 6
PAUSE = 0.1  # seconds before the second try; it doubles each time, three seconds in all
MOST = 2**28  # bytes of a JSON or text file; the project writes no larger one
PART = '.part'
# These errors are answers: the same request would get the same answer again.
FINAL_ERRORS = (
  FileNotFoundError,
  FileExistsError,
  PermissionError,
  IsADirectoryError,
  NotADirectoryError,
)
FINAL_NUMBERS = {
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EROFS,
  errno.ENAMETOOLONG,
  errno.ENOTEMPTY,
  errno.ELOOP,
}

PathLike = epath.PathLike


def path(name: PathLike) -> epath.Path:
  """Turns what a person wrote into a path.

  Args:
    name: a folder of this machine, where ~ is the home folder, or gs://bucket/folder.

  Returns:
    The path.

  Raises:
    ValueError: a store that is not known.
  """
  try:
    return epath.Path(name).expanduser()
  except KeyError as error:
    raise ValueError(
      f'{str(name)!r}: no file system is known for {error}; expected a folder or gs://...'
    ) from None


def remote(where: PathLike) -> bool:
  """Returns whether a path lies in an object store."""
  return '://' in str(where)


def is_file(where: PathLike) -> bool:
  """Returns whether a path is that of a regular file: neither a folder nor a device."""
  # To epath a device, such as /dev/zero, is a file as well.
  call = epath.Path(where).is_file if remote(where) else pathlib.Path(where).is_file
  return _retry('look for', where, call)


def check_ending(out: PathLike, ending: str):
  """Checks the name of a file that has another one beside it with the same name but its ending.

  Args:
    out: the value of an option --out.
    ending: that it must have, such as '.md'.

  Raises:
    ValueError: it has another one.
  """
  if path(out).suffix != ending:
    raise ValueError(f'--out={out}: expected a name that ends in {ending}, such as table{ending}')


def version(where: PathLike) -> tuple:
  """Returns the size and the time of change of a file, which tell two states of it apart."""
  status = _retry('look for', where, epath.Path(where).stat)
  return status.length, status.mtime


def exists(where: PathLike) -> bool:
  """Returns whether a file or folder is there."""
  return _retry('look for', where, epath.Path(where).exists)


def names(folder: PathLike) -> list[str]:
  """Lists a folder.

  Args:
    folder: its path.

  Returns:
    Names, sorted, without half-written files; [] where there is no folder.
  """
  if not _retry('look for', folder, epath.Path(folder).is_dir):
    return []
  listed = _retry('list', folder, lambda: [p.name for p in epath.Path(folder).iterdir()])
  return sorted(name for name in listed if not _is_part(name))


def read(where: PathLike, most: int = MOST) -> bytes:
  """Reads a file.

  Args:
    where: its path.
    most: largest size in bytes.

  Returns:
    The bytes.

  Raises:
    ValueError: the file is larger or no regular file; nothing has been read then. OSError: it
      cannot be read.
  """
  where = epath.Path(where)
  special = os.path.exists(where) and not os.path.isfile(where) and not os.path.isdir(where)
  if special and not remote(where):  # /dev/zero has no end, and a pipe may have no beginning
    raise ValueError(f'{str(where)!r} is no regular file')
  size = _retry('read', where, where.stat).length
  if size > most:
    raise ValueError(f'{str(where)!r} has {size} bytes: expected at most {most}')

  def call():
    with where.open('rb') as stream:
      return stream.read(size)  # bytes appended since are left for the next read

  return _retry('read', where, call)


def read_json(where: PathLike, most: int = MOST) -> dict:
  """Reads the object in a JSON file.

  Args:
    where: its path.
    most: largest size in bytes.

  Returns:
    The object.

  Raises:
    ValueError: the file is damaged, too large, or holds something else. OSError: it cannot be read.
  """
  try:
    value = json.loads(read(where, most))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{str(where)!r} cannot be read as JSON: {error}') from None
  if not isinstance(value, dict):
    raise ValueError(f'{str(where)!r} holds a {type(value).__name__}: expected a JSON object')
  return value


def write(where: PathLike, data: str | bytes):
  """Writes a file and the folder around it. It is on disk, whole, when this returns.

  Args:
    where: its path.
    data: the content.

  Raises:
    OSError: it cannot be written; the file is what it was before.
  """
  data = data.encode() if isinstance(data, str) else data
  where = epath.Path(where)

  def replace():
    mkdir(where.parent)
    part = _write_part(where, data)
    try:
      os.replace(part, where)
    except BaseException:
      with contextlib.suppress(OSError):
        os.unlink(part)
      raise

  # A store shows an object only once its last byte has arrived.
  _retry('write', where, (lambda: where.write_bytes(data)) if remote(where) else replace)


def create(where: PathLike, data: str | bytes) -> bool:
  """Writes a file unless it exists. Of two processes that try, one succeeds.

  In an object store, two that try at the same moment may both succeed.

  Args:
    where: its path.
    data: the content.

  Returns:
    Whether the file was written.

  Raises:
    OSError: it cannot be written.
  """
  data = data.encode() if isinstance(data, str) else data
  where = epath.Path(where)
  if exists(where):
    return False
  if remote(where):
    write(where, data)
    return True
  mkdir(where.parent)
  part = _write_part(where, data)
  try:
    os.link(part, where)
    return True
  except FileExistsError:
    return False
  except OSError:  # a file system without links
    write(where, data)
    return True
  finally:
    os.unlink(part)


def mkdir(folder: PathLike):
  """Makes a folder and those above it."""
  _retry('make', folder, lambda: epath.Path(folder).mkdir(parents=True, exist_ok=True))


def remove(where: PathLike):
  """Removes a file or a whole folder, if it is there."""
  where = epath.Path(where)

  def call():
    with contextlib.suppress(FileNotFoundError):
      # A link to a folder is removed itself; what it points to is another's.
      folder = where.is_dir() and (remote(where) or not os.path.islink(where))
      where.rmtree() if folder else where.unlink(missing_ok=True)

  _retry('remove', where, call)


def tidy(folder: PathLike, names: Collection[str] | None = None):
  """Removes the files that a killed process left half-written in a local folder.

  Args:
    folder: its path. Only its owner may call this: another process may be writing there.
    names: the files whose half-written forms are removed; None for all.
  """
  if not remote(folder) and os.path.isdir(folder):
    for name in os.listdir(folder):
      whole = name[1 : -len(PART)].rpartition('.')[0]
      if _is_part(name) and (names is None or whole in names):
        remove(os.path.join(folder, name))


def deliver(folder: PathLike, write_to: Callable[[PathLike], Any]) -> Any:
  """Writes a folder by a function that knows local files only.

  Args:
    folder: where the files have to be. Into a store, config.json is copied last.
    write_to: local folder -> anything; writes the files.

  Returns:
    What `write_to` returned.
  """
  if not remote(folder):
    return write_to(folder)
  with tempfile.TemporaryDirectory() as scratch:
    here = epath.Path(scratch) / epath.Path(folder).name
    result = write_to(here)
    for name in sorted(names(here), key=lambda name: name == 'config.json'):
      write(epath.Path(folder) / name, (here / name).read_bytes())
    return result


class Scratch(type(pathlib.Path())):
  """The path of a temporary folder, which is removed once nothing refers to this object."""


def scratch() -> Scratch:
  """Makes a temporary folder, and returns its `Scratch`."""
  folder = Scratch(tempfile.mkdtemp(prefix='prunejax-'))
  weakref.finalize(folder, shutil.rmtree, str(folder), ignore_errors=True)
  return folder


def local(folder: PathLike) -> PathLike:
  """Finds or makes a local folder with the files of `folder`.

  Args:
    folder: local or in a store.

  Returns:
    `folder` itself, or the `Scratch` of a copy.
  """
  if not remote(folder):
    return folder
  copy = scratch()
  for name in names(folder):
    if not _retry('look for', folder, (epath.Path(folder) / name).is_dir):
      content = read(epath.Path(folder) / name, most=2**40)
      (copy / name).write_bytes(content)
  return copy


def _is_part(name):
  return name.startswith('.') and name.endswith(PART)


def _write_part(where, data):
  """Writes and syncs a file beside `where`, whose name no other process takes."""
  part = os.path.join(os.path.dirname(where), f'.{where.name}.{uuid.uuid4().hex[:12]}{PART}')
  try:
    with open(part, 'xb') as stream:
      stream.write(data)
      stream.flush()
      os.fsync(stream.fileno())
  except BaseException:
    with contextlib.suppress(OSError):
      os.unlink(part)
    raise
  return part


def _retry(verb, where, call):
  """Calls, and calls again after errors that may pass."""
  for attempt in range(TRIES):
    try:
      return call()
    except FINAL_ERRORS:
      raise
    except OSError as error:
      if error.errno in FINAL_NUMBERS:
        raise
      last = error
    if attempt + 1 < TRIES:
      time.sleep(PAUSE * 2**attempt)
  raise OSError(
    f'cannot {verb} {str(where)!r}: {last.strerror or last} (tried {TRIES} times)'
  ) from last

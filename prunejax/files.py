"""Every file of a work directory, local or in an object store (gs://...): read with care, written whole or not at all.

A store has no append, no rename and no lock, and now and then it refuses: what may pass is tried again, a few times.
"""

import contextlib
import errno
import json
import os
import tempfile
import time
import uuid

from etils import epath

with contextlib.suppress(
  ImportError
):  # what epath reads stores through; it comes with whatever opens one
  import fsspec

  for _store in ('gcs', 'gs', 's3', 'az', 'abfs'):
    # A remembered listing does not know what another worker has written since.
    fsspec.config.conf.setdefault(_store, {}).setdefault('use_listings_cache', False)

TRIES, PAUSE = (
  6,
  0.1,
)  # seconds before the second try, twice as many before each that follows: three in all
MOST = 2**28  # bytes of a JSON or text file; what is larger is none of ours
PART = '.part'
# Answers, not accidents: asked again, they would be the same.
SETTLED = (
  FileNotFoundError,
  FileExistsError,
  PermissionError,
  IsADirectoryError,
  NotADirectoryError,
)
SETTLED_NUMBERS = {
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EROFS,
  errno.ENAMETOOLONG,
  errno.ENOTEMPTY,
  errno.ELOOP,
}

_copies = {}


def path(name) -> epath.Path:
  """The path that a person wrote: a folder here, with ~, or gs://bucket/folder. Raises ValueError for another store."""
  try:
    return epath.Path(name).expanduser()
  except KeyError as error:
    raise ValueError(
      f'{str(name)!r}: no file system is known for {error}; expected a folder or gs://...'
    ) from None


def remote(where) -> bool:
  """Whether a path lies in an object store."""
  return '://' in str(where)


def exists(where) -> bool:
  return _again('look for', where, epath.Path(where).exists)


def names(folder) -> list[str]:
  """What a folder holds, sorted, without what is only half written; [] for none."""
  if not _again('look for', folder, epath.Path(folder).is_dir):
    return []
  found = _again('list', folder, lambda: [p.name for p in epath.Path(folder).iterdir()])
  return sorted(name for name in found if not (name.startswith('.') and name.endswith(PART)))


def read(where, most=MOST) -> bytes:
  """The bytes of a file. Raises ValueError, before any is read, for one of more than `most`."""
  where = epath.Path(where)
  size = _again('read', where, where.stat).length
  if size > most:
    raise ValueError(f'{str(where)!r} has {size} bytes: expected at most {most}')

  def take():
    with where.open('rb') as stream:
      return stream.read(size)  # what has been added since is for the next one

  return _again('read', where, take)


def read_json(where, most=MOST) -> dict:
  """The object in a JSON file. Raises ValueError in one line for one that is damaged or holds something else."""
  try:
    value = json.loads(read(where, most))
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{str(where)!r} cannot be read as JSON: {error}') from None
  if not isinstance(value, dict):
    raise ValueError(f'{str(where)!r} holds a {type(value).__name__}: expected a JSON object')
  return value


def write(where, data):
  """Writes a file, str or bytes, and the folder it lies in: all of it or nothing, on disk when this returns."""
  data = data.encode() if isinstance(data, str) else data
  where = epath.Path(where)

  def beside():
    mkdir(where.parent)
    part = _part(where, data)
    try:
      os.replace(part, where)
    except BaseException:
      os.unlink(part)
      raise

  # A store shows an object when the last byte has arrived, and not before.
  _again('write', where, (lambda: where.write_bytes(data)) if remote(where) else beside)


def create(where, data) -> bool:
  """Like `write`, but False, and nothing written, when the file is there: of two processes one gets True.

  In an object store two that ask at the same moment may both get it.
  """
  data = data.encode() if isinstance(data, str) else data
  where = epath.Path(where)
  if exists(where):
    return False
  if remote(where):
    write(where, data)
    return True
  mkdir(where.parent)
  part = _part(where, data)
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


def mkdir(folder):
  """Makes a folder and those above it."""
  _again('make', folder, lambda: epath.Path(folder).mkdir(parents=True, exist_ok=True))


def remove(where):
  """Takes away a file or a whole folder, if it is there."""
  where = epath.Path(where)

  def take():
    with contextlib.suppress(FileNotFoundError):
      where.rmtree() if where.is_dir() else where.unlink(missing_ok=True)

  _again('take away', where, take)


def tidy(folder):
  """Takes away what a killed process left half written in a local folder. Its owner alone may ask."""
  if not remote(folder) and os.path.isdir(folder):
    for name in os.listdir(folder):
      if name.startswith('.') and name.endswith(PART):
        remove(os.path.join(folder, name))


def deliver(folder, write_to):
  """Calls `write_to(local folder)`; what it writes comes to `folder`. config.json, where there is one, comes last."""
  if not remote(folder):
    return write_to(folder)
  with tempfile.TemporaryDirectory() as scratch:
    here = epath.Path(scratch) / epath.Path(folder).name
    out = write_to(here)
    for name in sorted(names(here), key=lambda name: name == 'config.json'):
      write(epath.Path(folder) / name, (here / name).read_bytes())
    return out


def local(folder):
  """A local folder with the files of `folder`: itself, or a copy. The last four copies stay until the process ends."""
  if not remote(folder):
    return folder
  if str(folder) not in _copies:
    while len(_copies) >= 4:
      _copies.pop(next(iter(_copies))).cleanup()
    scratch = tempfile.TemporaryDirectory(prefix='prunejax-')
    for name in names(folder):
      if not _again('look for', folder, (epath.Path(folder) / name).is_dir):
        (epath.Path(scratch.name) / name).write_bytes(read(epath.Path(folder) / name, most=2**40))
    _copies[str(folder)] = scratch
  return epath.Path(_copies[str(folder)].name)


def _part(where, data):
  """A synced file beside `where`, with a name of its own: several processes may write at once."""
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


def _again(verb, where, call):
  """Calls, and calls again while a file system refuses for no reason that lasts."""
  for number in range(TRIES):
    try:
      return call()
    except SETTLED:
      raise
    except OSError as error:
      if error.errno in SETTLED_NUMBERS:
        raise
      last = error
    if number + 1 < TRIES:
      time.sleep(PAUSE * 2**number)
  raise OSError(
    f'cannot {verb} {str(where)!r}: {last.strerror or last} (tried {TRIES} times)'
  ) from last

"""`flaky://`: an object store for epath in a local folder, whose requests fail at random.

It has no append, no rename of a file over another, and no links. An object appears once it is
complete.
"""

import io
import pathlib
import shutil
import tempfile
import threading

import numpy as np
from etils import epath


class Store:
  """State shared by all paths: the folder of the objects, and the rate of failures."""

  home = pathlib.Path(tempfile.mkdtemp(prefix='prunejax-flaky-'))
  rate, most, accidents, mine = 0.0, 3, 0, threading.local()
  rng = np.random.default_rng(0)

  @classmethod
  def reset(cls, rate):
    shutil.rmtree(cls.home, ignore_errors=True)
    cls.home.mkdir()
    cls.rate, cls.accidents, cls.mine = rate, 0, threading.local()
    cls.rng = np.random.default_rng(0)

  @classmethod
  def ask(cls):
    """Fails at random. After `most` failures two requests of a thread succeed, enough for a write.

    Threads are counted apart: one would use up what another was to be given.
    """
    calm, failed = (getattr(cls.mine, name, 0) for name in ('calm', 'failed'))
    if calm:
      cls.mine.calm = calm - 1
    elif cls.rng.random() < cls.rate:
      cls.accidents += 1
      cls.mine.failed = failed + 1
      cls.mine.calm = 0 if cls.mine.failed % cls.most else 2
      raise OSError('503 Service Unavailable')


@epath.register_path_cls('flaky://')
class Flaky(epath.Path):
  """A path of the store."""

  @property
  def _there(self):
    return Store.home.joinpath(*self.parts[1:])

  def __str__(self):
    return '/'.join(['flaky:/', *self.parts[1:]])

  __fspath__ = __str__

  def expanduser(self):
    return self

  def exists(self):
    Store.ask()
    return self._there.exists()

  def is_dir(self):
    Store.ask()
    return self._there.is_dir()

  def iterdir(self):
    Store.ask()
    for path in self._there.iterdir():
      yield self / path.name

  def mkdir(self, mode=None, parents=False, exist_ok=False):
    Store.ask()

  def rmtree(self, missing_ok=False):
    Store.ask()
    shutil.rmtree(self._there)

  def unlink(self, missing_ok=False):
    Store.ask()
    self._there.unlink(missing_ok=missing_ok)

  def stat(self):
    Store.ask()
    return epath.Path(self._there).stat()

  def open(self, mode='r', **_):
    Store.ask()
    if 'r' in mode:
      return self._there.open(mode)
    assert mode == 'wb', f'a store cannot open with mode {mode!r}'
    return _Upload(self._there)


class _Upload(io.BytesIO):
  def __init__(self, path):
    super().__init__()
    self.path = path

  def close(self):
    if not self.closed:
      data = self.getvalue()
      super().close()
      Store.ask()
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self.path.write_bytes(data)

"""A full disk ends a run with one error, which names the folder, and with nothing else printed."""

import contextlib
import errno
import functools
import logging
import os
import sys
import threading
from collections.abc import Iterator

from prunejax import files

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Orbax passes an error of the system on as text.
WORDS = tuple(os.strerror(number) for number in NUMBERS)
# What event loops and threads say that end with unwritten data.
AFTER = ('Event loop is closed', 'was destroyed but it is pending', 'handle is closed')
LOGGERS = ('absl', 'asyncio')  # Orbax and its event loops print errors that they raise as well
_met = []  # what told of a full disk so far


@contextlib.contextmanager
def one_error(folder: files.PathLike) -> Iterator[None]:
  """Surrounds all that writes to a folder, by this thread or by others.

  Args:
    folder: the work directory, for the message.

  Raises:
    OSError: the disk is full, or a quota is used up.
  """
  _silence()
  _met.clear()
  try:
    yield
  except (OSError, ValueError, RuntimeError) as error:
    if not is_full(error):
      raise
    _met.append(error)
    full = OSError(
      f'no space is left for {_file(error) or str(folder)!r} ({_words(error)}): make room, and run'
      ' the same command again, which resumes'
    )
    full.errno = errno.ENOSPC
    raise full from error


@functools.cache
def _silence():
  """Lets other threads and event loops print nothing of a full disk: one of them raises it.

  This lasts until the process ends, since a task that failed prints its error when it is collected.
  """

  def quiet(before):
    return lambda args: None if _is_noise(args.exc_value) else before(args)

  def keeps(record):
    error = record.exc_info[1] if record.exc_info else None
    return not _is_noise(error, record.getMessage())

  threading.excepthook, sys.unraisablehook = map(quiet, (threading.excepthook, sys.unraisablehook))
  for name in LOGGERS:
    logging.getLogger(name).addFilter(keeps)


def _is_noise(error, message=''):
  if is_full(error) or any(word in message for word in WORDS):
    _met.append(error or message)
    return True
  return any(word in f'{message} {error}' for word in AFTER)


def met() -> bool:
  """Returns whether a write has failed, in this thread or another, since the last `one_error`."""
  return bool(_met)


def check():
  """Raises OSError where another thread has met a full disk and ended without raising it here."""
  if _met:
    raise OSError(errno.ENOSPC, WORDS[0])


def is_full(error: BaseException | None) -> bool:
  """Returns whether an error, or one that it came from, says that a disk is full."""
  return _words(error) is not None


def _words(error):
  """What the system calls the error; None for an error of another kind."""
  for one in _chain(error):
    for number, words in zip(NUMBERS, WORDS, strict=True):
      if getattr(one, 'errno', None) == number or words in str(one):
        return words
  return None


def _file(error):
  """The file that could not be written; '' where no error names one."""
  names = (getattr(one, 'filename', None) for one in _chain(error))
  return next((str(name) for name in names if name), '')


def _chain(error):
  """Yields an error and those that it came from."""
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__

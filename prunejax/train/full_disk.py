"""A full disk ends a run with one error, which names the folder, and with nothing else printed."""

import contextlib
import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence

from prunejax import files

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Orbax passes an error of the system on as text.
WORDS = tuple(os.strerror(number) for number in NUMBERS)
# What event loops and threads say that end with unwritten data.
AFTER = ('Event loop is closed', 'was destroyed but it is pending', 'handle is closed')
LOGGERS = ('absl', 'asyncio')  # Orbax and its event loops print errors that they raise as well


@contextlib.contextmanager
def one_error(folder: files.PathLike) -> Iterator[list]:
  """Surrounds all that writes to a folder, by this thread or by others.

  Args:
    folder: the work directory, for the message.

  Yields:
    A list of what has told of a full disk so far, in this thread or another.

  Raises:
    OSError: the disk is full, or a quota is used up.
  """
  met = []
  restore = _silence(met)
  try:
    yield met
  except (OSError, ValueError, RuntimeError) as error:
    if not is_full(error):
      raise
    met.append(error)
    full = OSError(
      f'no space is left for {_file(error) or str(folder)!r} ({_words(error)}): make room, and run'
      ' the same command again, which resumes'
    )
    full.errno = errno.ENOSPC
    raise full from error
  finally:
    # A task that failed prints its error when it is collected, which may be later.
    if not met:
      restore()


def _silence(met):
  """Lets other threads and event loops print nothing of a full disk: one of them raises it.

  Appends what they would have printed to `met`; returns a function that lets them print again.
  """
  hooks = threading.excepthook, sys.unraisablehook

  def quiet(before):
    return lambda args: None if is_noise(args.exc_value) else before(args)

  def is_noise(error, message=''):
    if is_full(error) or any(word in message for word in WORDS):
      met.append(error or message)
      return True
    return any(word in f'{message} {error}' for word in AFTER)

  def keeps(record):
    error = record.exc_info[1] if record.exc_info else None
    return not is_noise(error, record.getMessage())

  def restore():
    threading.excepthook, sys.unraisablehook = hooks
    for name in LOGGERS:
      logging.getLogger(name).removeFilter(keeps)

  threading.excepthook, sys.unraisablehook = map(quiet, hooks)
  for name in LOGGERS:
    logging.getLogger(name).addFilter(keeps)
  return restore


def check(met: Sequence):
  """Raises OSError where another thread has met a full disk and ended without raising it here.

  Args:
    met: what `one_error` yields.
  """
  if met:
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

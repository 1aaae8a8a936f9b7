"""Gives memory that was freed back to the system."""

import ctypes
import sys


def give_back() -> None:
  """Makes the C library return what it holds for later arrays; does nothing where it cannot.

  A pruning needs most of its memory in a few places: to compile, for the word table, for a block.
  What glibc keeps after each of them adds up to a fifth of the peak.
  """
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None
  if trim is not None:
    trim(0)

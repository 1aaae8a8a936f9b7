"""Gives memory that was freed back to the system."""

import ctypes
import sys


def give_back() -> None:
  """Makes the C library return what it holds for later arrays; does nothing where it cannot.

  A program is compiled in several times the memory that it runs in. What glibc keeps of it, for
  arrays that never come, is a third of what a small training run holds, and an eighth of the peak
  of a pruning.
  """
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None
  if trim is not None:
    trim(0)

"""How near a process is to the number of memory maps at which Linux refuses it more.

A program compiled for a CPU takes some hundred maps, which it holds as long as it can be called. A
process that has as many as it may aborts while it compiles the next one.
"""

import pathlib

MAPS = pathlib.Path('/proc/self/maps')  # a line for each
MOST = pathlib.Path('/proc/sys/vm/max_map_count')
CROWDED = 0.5  # share of what is allowed; compiling one large program takes a few thousand


def share() -> float:
  """Returns how many memory maps this process has, as a share of what it may have.

  0 where the system does not say, as on macOS.
  """
  try:
    with MAPS.open('rb') as lines:
      return sum(1 for _ in lines) / int(MOST.read_text())
  except OSError:
    return 0.0


def crowded() -> bool:
  """Returns whether programs that are not in use have to go before another one is compiled."""
  return share() > CROWDED

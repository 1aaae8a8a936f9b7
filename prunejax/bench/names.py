"""Names of the benches and sizes, and the check of what a command asks for; it imports no bench."""

from collections.abc import Collection, Sequence

from prunejax.train import specs

NAMES = ('selection', 'optimizer', 'train', 'data', 'compile', 'scaling', 'population', 'kill')
BY_NAME_ONLY = ('kill',)  # hours, not minutes
# layers, hidden, heads, intermediate, vocabulary
SIZES = {
  'tiny': (1, 32, 2, 32, 200),
  'small': (4, 256, 4, 1024, 8192),
  'base': (12, 768, 12, 3072, 30522),
  'large': (24, 1024, 16, 4096, 30522),
}


def check(only: Sequence[str] | None, size: str, known: Collection[str]) -> list[str]:
  """Checks which benches run, at which size.

  Args:
    only: names of benches, or None.
    size: a name of SIZES.
    known: the names of all benches.

  Returns:
    The names of the benches to run.

  Raises:
    ValueError: an unknown bench or size; the nearest name is suggested.
  """
  if size not in SIZES:
    raise ValueError(
      f'--size={size}{specs.suggest(size, SIZES)}: expected one of {", ".join(SIZES)}'
    )
  for name in only or ():
    if name not in known:
      raise ValueError(
        f'--only={name}{specs.suggest(name, known)}: expected some of {", ".join(known)}'
      )
  return list(only or (name for name in known if name not in BY_NAME_ONLY))

"""Weight pruning as one link of an optax chain: jax, numpy and optax are all that it imports.

tx = optax.chain(
  optax.adamw(2e-5),
  prunejax.prune_transform(prunejax.magnitude(), prunejax.cubic(0.9, end=10_000)))

The public names are listed in `prunejax/public.py`. They are imported when the first of them is
used, so that the command line does not load jax before it runs a verb.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from prunejax.public import *  # noqa: F403

  __version__: str


def __getattr__(name: str) -> Any:
  """Looks up a name that is not loaded yet."""
  if name == '__version__':
    globals()[name] = _version()
  elif name == '__all__' or not name.startswith('__'):
    public = importlib.import_module('prunejax.public')
    globals().update({key: getattr(public, key) for key in (*public.__all__, '__all__')})
  if name not in globals():
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return globals()[name]


def __dir__() -> list[str]:
  """Lists the public names."""
  return sorted([*importlib.import_module('prunejax.public').__all__, '__version__'])


def _version():
  from importlib import metadata

  try:
    return metadata.version('prunejax')
  except metadata.PackageNotFoundError:  # a folder on the path, not installed
    return '0+unknown'

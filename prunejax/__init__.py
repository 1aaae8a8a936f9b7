"""Weight pruning as one link of an optax chain. This is the core: jax, numpy and optax only.

The public names are listed in `prunejax/public.py`. They are imported when the first of them is
used, so that the command line does not load jax before it runs a verb.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from prunejax.public import *  # noqa: F403

  __version__: str


def __getattr__(name: str) -> Any:
  if name == '__version__':
    globals()[name] = _version()
  elif not name.startswith('__'):
    globals().update({key: value for key, value in vars(_public()).items() if key[0] != '_'})
  if name not in globals():
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return globals()[name]


def __dir__() -> list[str]:
  return sorted({*globals(), *vars(_public()), '__version__'})


def _public():
  return importlib.import_module('prunejax.public')


def _version():
  from importlib import metadata

  try:
    return metadata.version('prunejax')
  except metadata.PackageNotFoundError:  # a folder on the path, not installed
    return '0+unknown'

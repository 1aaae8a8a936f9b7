"""Finds the folder of a paper in experiments/."""

import difflib
import importlib
import sys
from types import ModuleType

from prunejax.cli import options

FOLDER = options.ROOT / 'experiments'


def load(paper: str) -> ModuleType:
  """The module of a paper's folder with `reproduce`, `write_report`, `redraw` and `compare`.

  Args:
    paper: the name of a folder of experiments/.

  Raises:
    ValueError: there is no such folder; the nearest name is suggested.
  """
  # TODO: look for study.py alone once every folder has one.
  modules = {
    path.parent.name: path.stem
    for name in ('run.py', 'study.py')
    for path in FOLDER.glob(f'*/{name}')
  }
  if not modules:
    raise ValueError(
      f'no experiment {paper!r}: the installed package has no experiments/; run the command in a'
      ' checkout of the repository'
    )
  if paper not in modules:
    nearest = difflib.get_close_matches(paper, modules, n=1)
    suggestion = f' (did you mean {nearest[0]!r}?)' if nearest else ''
    raise ValueError(f'no experiment {paper!r}{suggestion}; known: {", ".join(sorted(modules))}')
  sys.path.insert(0, str(options.ROOT))
  return importlib.import_module(f'experiments.{paper}.{modules[paper]}')

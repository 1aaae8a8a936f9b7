"""Finds the folder of a paper in experiments/."""

import difflib
import importlib
import sys
from types import ModuleType

from prunejax.cli import options

FOLDER = options.ROOT / 'experiments'


def load(paper: str) -> ModuleType:
  """Imports the study of a paper.

  Args:
    paper: the name of a folder of experiments/.

  Returns:
    Its module study.py, with `reproduce`, `write_report`, `redraw` and `compare`.

  Raises:
    ValueError: there is no such folder; the nearest name is suggested.
  """
  known = sorted(path.parent.name for path in FOLDER.glob('*/study.py'))
  if not known:
    raise ValueError(
      f'no experiment {paper!r}: the installed package has no experiments/, which need a'
      ' checkout of the repository'
    )
  if paper not in known:
    nearest = difflib.get_close_matches(paper, known, n=1)
    suggestion = f' (did you mean {nearest[0]!r}?)' if nearest else ''
    raise ValueError(f'no experiment {paper!r}{suggestion}; known: {", ".join(known)}')
  sys.path.insert(0, str(options.ROOT))
  return importlib.import_module(f'experiments.{paper}.study')

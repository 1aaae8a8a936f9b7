"""Several workers on one grid: which cells each runs. Every worker computes the same division.

A cell that reads the model of another one has to wait for it. So all cells that depend on each
other, a family, go to one worker, and no worker waits.
"""

import os
from collections.abc import Mapping

from prunejax.sweep import dependencies

FLAGS = '--worker=I --workers=N, with I from 0 to N - 1'


def place(
  worker: int | None = None,
  workers: int | None = None,
  *,
  joined: bool = False,
  environ: Mapping[str, str] = os.environ,
) -> tuple[int, int]:
  """Returns (index, count) of this worker; (0, 1) where there is one.

  What the command does not say comes from a Slurm array (SLURM_ARRAY_TASK_ID and its MIN, STEP and
  COUNT). An indexed Kubernetes job gives the index alone (JOB_COMPLETION_INDEX).

  Args:
    worker: the index that the command gives, or None.
    workers: the count that the command gives, or None.
    joined: the process is one of several that train as one. An index of Kubernetes then counts
      those processes.
    environ: the environment.

  Raises:
    ValueError: an index without a count, a count without an index, or an index out of range.
  """
  source = f'--worker={worker}' if worker is not None else ''
  if environ.get('SLURM_ARRAY_TASK_ID') and worker is None:
    source = f'SLURM_ARRAY_TASK_ID={environ["SLURM_ARRAY_TASK_ID"]}'
    first, stride = (
      _number(environ, 'SLURM_ARRAY_TASK_MIN', 0),
      _number(environ, 'SLURM_ARRAY_TASK_STEP', 1),
    )
    worker = (_number(environ, 'SLURM_ARRAY_TASK_ID') - first) // max(stride, 1)
    workers = _number(environ, 'SLURM_ARRAY_TASK_COUNT', None) if workers is None else workers
  elif environ.get('JOB_COMPLETION_INDEX') and worker is None and not joined:
    worker, source = (
      _number(environ, 'JOB_COMPLETION_INDEX'),
      f'JOB_COMPLETION_INDEX={environ["JOB_COMPLETION_INDEX"]}',
    )
  if worker is None and workers in (None, 1):
    return 0, 1
  if worker is None:
    raise ValueError(f'--workers={workers}, but which of them is this one? Expected {FLAGS}')
  if workers is None:
    raise ValueError(f'{source}, but of how many? Expected {FLAGS}')
  if not 0 <= worker < workers:
    raise ValueError(f'{source} of {workers} workers: expected {FLAGS}')
  return worker, workers


def _number(environ, name, default=0):
  text = environ.get(name)
  if text is None and name != 'SLURM_ARRAY_TASK_ID':
    return default
  try:
    return int(text)
  except ValueError:
    raise ValueError(f'{name}={text!r} is no whole number; expected {FLAGS}') from None


def share(cells: list, keys: list[str], worker: tuple[int, int]) -> list:
  """Returns the cells of a worker, in their order.

  Families go, the one with most steps first, to the worker that has fewest steps so far.

  Args:
    cells: all cells of the grid, `grid.Cell`s.
    keys: their keys.
    worker: (index, count).
  """
  index, count = worker
  if count == 1:
    return list(cells)
  load, chosen = [0] * count, []
  steps = lambda family: sum(cells[i].config.steps for i in family)
  links = [{cell.parent, *(key for key, _ in dependencies.reads(cell))} for cell in cells]
  for family in sorted(families(links, keys), key=steps, reverse=True):
    least = load.index(min(load))
    load[least] += steps(family)
    chosen += family if least == index else []
  return [cells[i] for i in sorted(chosen)]


def families(links: list[set], keys: list[str]) -> list[list[int]]:
  """Returns the connected components of cells that read each other, as lists of positions.

  Args:
    links: links[i] are the keys of cells that cell i reads. Unknown keys are ignored.
    keys: the keys of the cells.
  """
  where = {key: i for i, key in enumerate(keys)}
  root = list(range(len(keys)))

  def top(i):
    while root[i] != i:
      root[i] = root[root[i]]
      i = root[i]
    return i

  for i, read in enumerate(links):
    for key in read:
      if key in where:
        root[top(i)] = top(where[key])
  components = {}
  for i in range(len(keys)):
    components.setdefault(top(i), []).append(i)
  return list(components.values())

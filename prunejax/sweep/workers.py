"""Several workers on one grid: which cells each runs. Every worker computes the same division.

A cell that reads the model of another one has to wait for it. So all cells that depend on each
other, a family, go to one worker. Only a model that most of the grid starts from is waited for:
worker 0 makes it, and never waits itself.
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

  Families go, the one with most steps first, to the worker that has fewest steps so far. A cell of
  `trunk` binds no family: worker 0 runs it, and what starts from it may be another's.

  Args:
    cells: all cells of the grid, `grid.Cell`s.
    keys: their keys.
    worker: (index, count).
  """
  index, count = worker
  if count == 1:
    return list(cells)
  shared = trunk(cells, keys)
  load, chosen = [0] * count, [i for i, key in enumerate(keys) if key in shared and index == 0]
  steps = lambda family: sum(cells[i].config.steps for i in family)
  free = [i for i, key in enumerate(keys) if key not in shared]
  found = families([_links(cells[i]) - shared for i in free], [keys[i] for i in free])
  for family in sorted(([free[i] for i in part] for part in found), key=steps, reverse=True):
    least = load.index(min(load))
    load[least] += steps(family)
    chosen += family if least == index else []
  return [cells[i] for i in sorted(chosen)]


def awaited(cells: list, keys: list[str], worker: tuple[int, int]) -> set[str]:
  """Returns the names 'cell:<key>' of models that this worker reads and worker 0 makes.

  Args:
    cells: all cells of the grid, `grid.Cell`s.
    keys: their keys.
    worker: (index, count).
  """
  if not worker[0]:
    return set()
  shared = trunk(cells, keys)
  own = share(cells, keys, worker)
  return {name for cell in own for key, name in dependencies.reads(cell) if key in shared}


def trunk(cells: list, keys: list[str]) -> set[str]:
  """Returns the keys of the cells that most of the grid starts from, directly or not.

  These are the cells from which more than half of all steps descend, if what descends from them
  falls apart without them: a model that is trained first, for all arms and seeds to start from.

  Args:
    cells: all cells of the grid, `grid.Cell`s, each after those that it reads.
    keys: their keys.
  """
  where = {key: i for i, key in enumerate(keys)}
  links = [_links(cell) for cell in cells]
  after = [0] * len(cells)  # steps of the cells that descend from each
  for i, cell in enumerate(cells):
    asked, above = [where[key] for key in links[i] if key in where], set()
    while asked:
      if (j := asked.pop()) not in above:
        above.add(j)
        asked += [where[key] for key in links[j] if key in where]
    for j in above:
      after[j] += cell.config.steps
  half = sum(cell.config.steps for cell in cells) / 2
  shared = {key for key, steps in zip(keys, after, strict=True) if steps > half}
  free = [i for i, key in enumerate(keys) if key not in shared]
  apart = families([links[i] - shared for i in free], [keys[i] for i in free])
  return shared if len(apart) > len(families(links, keys)) else set()


def _links(cell):
  """The keys of the cells that a cell starts from or learns from."""
  return {cell.parent, *(key for key, _ in dependencies.reads(cell))}


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

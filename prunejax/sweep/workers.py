"""Several workers on one grid: who runs which cells, decided by each alone and alike by all.

A cell that starts from another, or is taught by it, has to wait for it; so the cells of a family, all that hang
together in this way, are one worker's, and no worker waits.
"""

import os

from prunejax.sweep import dependencies

FLAGS = '--worker=I --workers=N, with I from 0 to N - 1'


def place(worker=None, workers=None, *, joined=False, environ=os.environ):
  """(index, count) of this worker: (0, 1) where there is one.

  Args:
    worker, workers: what the command says, None for nothing. What it does not say comes from a Slurm array
      (SLURM_ARRAY_TASK_ID and its MIN, STEP and COUNT); the index alone from an indexed Kubernetes job
      (JOB_COMPLETION_INDEX), which does not know its own size.
    joined: the process is one of several that train as one; then an index of Kubernetes counts those.
    environ: the environment.

  Raises:
    ValueError: an index without a count or a count without an index, or what is no such number.
  """
  said = f'--worker={worker}' if worker is not None else ''
  if environ.get('SLURM_ARRAY_TASK_ID') and worker is None:
    said = f'SLURM_ARRAY_TASK_ID={environ["SLURM_ARRAY_TASK_ID"]}'
    first, stride = (
      _number(environ, 'SLURM_ARRAY_TASK_MIN', 0),
      _number(environ, 'SLURM_ARRAY_TASK_STEP', 1),
    )
    worker = (_number(environ, 'SLURM_ARRAY_TASK_ID') - first) // max(stride, 1)
    workers = _number(environ, 'SLURM_ARRAY_TASK_COUNT', None) if workers is None else workers
  elif environ.get('JOB_COMPLETION_INDEX') and worker is None and not joined:
    worker, said = (
      _number(environ, 'JOB_COMPLETION_INDEX'),
      f'JOB_COMPLETION_INDEX={environ["JOB_COMPLETION_INDEX"]}',
    )
  if worker is None and workers in (None, 1):
    return 0, 1
  if worker is None:
    raise ValueError(f'--workers={workers}, but which of them is this one? Expected {FLAGS}')
  if workers is None:
    raise ValueError(f'{said}, but of how many? Expected {FLAGS}')
  if not 0 <= worker < workers:
    raise ValueError(f'{said} of {workers} workers: expected {FLAGS}')
  return worker, workers


def _number(environ, name, default=0):
  text = environ.get(name)
  if text is None and name != 'SLURM_ARRAY_TASK_ID':
    return default
  try:
    return int(text)
  except ValueError:
    raise ValueError(f'{name}={text!r} is no whole number; expected {FLAGS}') from None


def share(cells, keys, mine):
  """The cells of worker `mine`, (index, count), in their order.

  cells: all of the grid, `grid.Cell`s. keys: their names, as parents are named. Families go, the
  one with most steps first, to whoever has fewest steps so far.
  """
  index, count = mine
  if count == 1:
    return list(cells)
  load, chosen = [0] * count, []
  heavy = lambda family: -sum(cells[i].config.steps for i in family)
  links = [{cell.parent, *(key for key, _ in dependencies.reads(cell))} for cell in cells]
  for family in sorted(families(links, keys), key=heavy):
    least = load.index(min(load))
    load[least] -= heavy(family)
    chosen += family if least == index else []
  return [cells[i] for i in sorted(chosen)]


def families(links, keys):
  """Lists of positions that hang together: links[i] are keys of cells that i reads; unknown ones count for nothing."""
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
  found = {}
  for i in range(len(keys)):
    found.setdefault(top(i), []).append(i)
  return list(found.values())

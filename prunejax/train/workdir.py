"""A run's folder: claimed by one config, held by one process, finished by one result."""

import contextlib
import json
import os
import re

from prunejax import files

try:
  import fcntl
except ImportError:  # no advisory locks on this system
  fcntl = None


# What may change when a run is started again: where it computes, what it prints, when it saves. The
# batches, the schedule and the masks stay the same; another mesh adds in another order.
FREE = ('mesh.', 'log.', 'checkpoint.', 'data.cache')
# How an error calls what a run reads; the other names are keys of the config.
READS = {
  'text': 'its text or labelled files (data.corpus, data.task)',
  'vocabulary': 'its vocabulary',
}


def owned(folder, config: dict):
  """Checks that a folder is this config's or nobody's, and returns it as a path. Writes nothing.

  Two configs are one run if they differ in keys of FREE alone, or in the path of the grid whose
  cells' models they read.

  Args:
    folder: the work directory.
    config: a plain dict, `configs.identity`.

  Raises:
    ValueError: the folder belongs to another config, holds other files, or cannot be one.
  """
  folder = files.path(folder)
  for place in (folder, *folder.parents):
    if files.is_file(place):
      raise ValueError(
        f'the work directory {str(folder)!r} cannot be made, since {str(place)!r} is a file: take'
        ' another --workdir'
      )
    if files.exists(place):
      break
  path = folder / 'config.json'
  own = _plain(config)
  if files.exists(path):
    owner = files.read_json(path)
    if owner != own:
      keys = sorted({key for key, _ in set(_items(own).items()) ^ set(_items(owner).items())})
      keys = [key for key in keys if not key.startswith(FREE)]
    if owner != own and keys:
      raise ValueError(
        f'the work directory {str(folder)!r} belongs to another config (differs in'
        f' {", ".join(keys[:5])}); nothing was written: take another --workdir, or delete that one'
      )
  elif files.names(folder) and not files.exists(
    path
  ):  # asked again: another process may be starting here
    raise ValueError(
      f'the work directory {str(folder)!r} is not empty and no run of ours: take another --workdir'
    )
  return folder


def same_reads(folder, reads: dict):
  """Checks that a run goes on with the content that it began with. Writes nothing.

  Args:
    folder: the work directory.
    reads: {name: digest} of what the run reads, `inputs.reads` and the like.

  Raises:
    ValueError: what the folder was begun with differs.
  """
  path = files.path(folder) / 'reads.json'
  before = files.read_json(path) if files.exists(path) else {}
  if changed := sorted(name for name in reads if before.get(name, reads[name]) != reads[name]):
    words = ', '.join(READS.get(name, name) for name in changed)
    raise ValueError(
      f'the work directory {str(folder)!r} was begun with other content of {words}: the files, or'
      ' the libraries that pydoc comes from, have changed; nothing was written: take another'
      ' --workdir, or bring back what was there'
    )


def claim(folder, config: dict, reads: dict | None = None):
  """Makes a folder this config's, and returns it as a path.

  Args:
    folder: the work directory.
    config: a plain dict, `configs.identity`.
    reads: as in `same_reads`.

  Raises:
    ValueError: the folder is another's.
    OSError: it cannot be written.
  """
  folder = owned(folder, config)
  try:
    if not files.create(
      folder / 'config.json', json.dumps(_plain(config), indent=1, sort_keys=True)
    ):
      owned(folder, config)
    if reads and not files.create(folder / 'reads.json', json.dumps(reads, indent=1)):
      same_reads(folder, reads)
  except OSError as error:
    raise OSError(
      f'cannot write to the work directory {str(folder)!r}: {error.strerror or error}'
    ) from error
  return folder


@contextlib.contextmanager
def held(folder, lead: bool = True):
  """Surrounds all that writes to a claimed folder with a lock, which ends with the process.

  An object store has no lock, nor has a file system without locks.

  Args:
    folder: the work directory.
    lead: this is the first of the processes of a run; it holds the lock for all.

  Raises:
    ValueError: another process holds the lock.
  """
  if files.remote(folder) or fcntl is None or not lead:
    yield
    return
  handle = os.open(folder / 'config.json', os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f'the work directory {str(folder)!r} is in use by another process: wait for it, or take'
        ' another --workdir'
      ) from None
    except OSError:
      pass  # no locks here
    files.tidy(folder)
    yield
  finally:
    os.close(handle)


def finish(folder, result: dict) -> dict:
  """Writes result.json, which marks the run as done, and returns the result."""
  files.write(folder / 'result.json', json.dumps(result, indent=1))
  return result


def result(folder) -> dict | None:
  """Returns the result of a finished run, else None."""
  path = files.path(folder) / 'result.json'
  return files.read_json(path) if files.exists(path) else None


# What a run that continues another may have of its own: its length, rates, schedules and outputs.
OWN = (
  *FREE,
  *('continue_from', 'steps', 'keep_', 'eval.', 'optimizer.', 'prune.', 'prox.', 'distill.'),
  *('data.root', 'population'),
)


def finished(folder, config: dict):
  """Checks that a finished run can be continued by another, and returns its folder as a path.

  Args:
    folder: its work directory.
    config: a plain dict, `configs.identity`, of the run that continues it.

  Raises:
    ValueError: it is not finished, reads or is another model, or has as many steps.
  """
  folder, key = files.path(folder), f'continue_from={str(folder)!r}'
  if result(folder) is None or not files.exists(folder / 'config.json'):
    raise ValueError(f'{key} holds no finished run: expected the --workdir of a train command')
  other = files.read_json(folder / 'config.json')
  pairs = _items(_plain(config)).items() ^ _items(other).items()
  if differing := sorted({name for name, _ in pairs if not name.startswith(OWN)}):
    raise ValueError(f'{key} is another run (differs in {", ".join(differing[:5])})')
  if config['steps'] <= other['steps']:
    raise ValueError(
      f'{key} has {other["steps"]} steps already: expected steps above that, got {config["steps"]}'
    )
  return folder


def _plain(config):
  return json.loads(json.dumps(config, default=list))


def _items(config):
  """{dotted key: JSON}; the model of another cell is 'cell:HASH/model', wherever its grid is."""
  flat = _flat(config)
  for key in ('init', 'distill.teacher'):
    if key in flat:
      flat[key] = re.sub(r'^".*/cells/([0-9a-f]{12})/(\w+)"$', r'"cell:\1/\2"', flat[key])
  return flat


def _flat(tree, prefix=''):
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    flat.update(_flat(value, f'{name}.') if isinstance(value, dict) else {name: json.dumps(value)})
  return flat

"""A run's folder: claimed by one config, finished by one result. Files are written whole or not at all."""

import json
import os
import pathlib


def owned(folder, config) -> pathlib.Path:
  """`folder`, if it is this config's or nobody's; writes nothing. Raises ValueError when it is another's."""
  folder = pathlib.Path(folder).expanduser()
  path = folder / 'config.json'
  mine = _plain(config)
  if path.exists():
    theirs = json.loads(path.read_text())
    if theirs != mine:
      changed = sorted(set(_flat(mine).items()) ^ set(_flat(theirs).items()))
      keys = sorted({key for key, _ in changed})
      raise ValueError(
        f'the work directory {str(folder)!r} belongs to another config (differs in {", ".join(keys[:5])});'
        ' nothing was written: take another --workdir, or delete that one'
      )
  elif folder.exists() and any(folder.iterdir()) and not (folder / 'config.json.part').exists():
    raise ValueError(f'the work directory {str(folder)!r} is not empty and no run of ours: take another --workdir')
  return folder


def claim(folder, config) -> pathlib.Path:
  """Makes `folder` this config's. Raises ValueError when it is another's, OSError when it cannot be written."""
  folder = owned(folder, config)
  path = folder / 'config.json'
  try:
    if not path.exists():
      folder.mkdir(parents=True, exist_ok=True)
      write(path, json.dumps(_plain(config), indent=1, sort_keys=True))
  except OSError as error:
    raise OSError(f'cannot write to the work directory {str(folder)!r}: {error.strerror or error}') from error
  return folder


def write(path, text):
  """Writes a text file whole: beside, synced, then renamed."""
  part = pathlib.Path(f'{path}.part')
  with open(part, 'w', encoding='utf-8') as stream:
    stream.write(text)
    stream.flush()
    os.fsync(stream.fileno())
  os.replace(part, path)


def finish(folder, result):
  """Writes result.json, which marks the run as done, and returns the result."""
  write(folder / 'result.json', json.dumps(result, indent=1))
  return result


def result(folder):
  """The result of a finished run, else None."""
  path = folder / 'result.json'
  return json.loads(path.read_text()) if path.exists() else None


def _plain(config):
  return json.loads(json.dumps(config, default=list))


def _flat(tree, prefix=''):
  flat = {}
  for key, value in tree.items():
    name = f'{prefix}{key}'
    flat.update(_flat(value, f'{name}.') if isinstance(value, dict) else {name: json.dumps(value)})
  return flat

"""What a pruning that was killed goes on from: finished blocks and hidden states, on disk.

`progress.json` names every file with its sha256. It is written last and replaced as a whole, so it
never names a file that is not there whole.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from prunejax import files

PROGRESS = 'progress.json'
PLAN, OUTLIERS = 'plan.json', 'outliers.json'
OWN = re.compile(r'(progress|plan|outliers)\.json|(block|hidden)_\d[\d_]*\.safetensors')
BITS = '|bfloat16'  # behind the name of an array that is stored as uint16: numpy lacks the dtype


class Progress(NamedTuple):
  """What is on disk.

  Attributes:
    blocks: a row {'file', 'sha256', ...} for each finished block, in order.
    hidden: {'block': number of the block that reads them, 'files': rows}, or {}.
  """

  blocks: tuple[dict, ...] = ()
  hidden: Mapping[str, Any] = {}


def opened(folder: Any, plan: Mapping[str, Any], say) -> Progress:
  """Reads the progress in a folder, or starts one.

  Args:
    folder: the folder; it is made if it is not there.
    plan: plain values that identify what is being done.
    say: prints a line.

  Returns:
    The progress. Blocks from the first damaged file on are left out.

  Raises:
    ValueError: the folder holds finished blocks of another plan.
  """
  plan = json.loads(json.dumps(dict(plan)))
  if not files.exists(folder / PLAN):
    files.mkdir(folder)
    files.tidy(folder)
    files.write(folder / PLAN, json.dumps(plan, indent=1) + '\n')
    return Progress()
  stored = files.read_json(folder / PLAN)
  if stored != plan and not files.exists(folder / PROGRESS):  # no block of it is finished
    for name in filter(OWN.fullmatch, files.names(folder)):  # the folder may hold other things
      files.remove(folder / name)
    return opened(folder, plan, say)
  if stored != plan:
    other = sorted(k for k in stored.keys() | plan.keys() if stored.get(k) != plan.get(k))
    raise ValueError(
      f'{str(folder)!r} holds an unfinished pruning with other settings'
      f' ({", ".join(f"{k}={stored.get(k)!r}, now {plan.get(k)!r}" for k in other)!s:.300}):'
      ' finish it with those, or remove the folder'
    )
  files.tidy(folder)
  if not files.exists(folder / PROGRESS):
    return Progress()
  try:
    read = files.read_json(folder / PROGRESS)
    progress = Progress(tuple(read['blocks']), read['hidden'])
    sound = [_is_sound(folder, row) for row in progress.blocks]
  except (ValueError, KeyError, TypeError) as error:
    say(f'{PROGRESS} is damaged ({error}): starting anew')
    return Progress()
  whole = sound.index(False) if False in sound else len(sound)
  if whole < len(sound):
    say(f'{progress.blocks[whole]["file"]} is damaged or missing: going on at its block')
  hidden = progress.hidden
  if hidden and (
    hidden['block'] > whole or not all(_is_sound(folder, row) for row in hidden['files'])
  ):
    hidden = {}
  return Progress(progress.blocks[:whole], hidden)


def with_block(
  folder: Any, progress: Progress, arrays: Mapping[str, np.ndarray], row: Mapping[str, Any]
) -> Progress:
  """Writes a finished block.

  Args:
    folder: the folder.
    progress: what is there.
    arrays: {name: array} of the block.
    row: plain values that are kept with it.

  Returns:
    The new progress.
  """
  stored = _stored(folder, f'block_{len(progress.blocks):05}.safetensors', arrays)
  progress = progress._replace(blocks=(*progress.blocks, {**row, **stored}))
  _write_progress(folder, progress)
  return progress


def with_hidden(folder: Any, progress: Progress, batches: list) -> Progress:
  """Writes the hidden states that the next block reads, and removes older ones.

  Args:
    folder: the folder.
    progress: what is there.
    batches: a pytree of arrays for each batch.
  """
  block, rows = len(progress.blocks), []
  for number, batch in enumerate(batches):
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(batch))}
    rows.append(_stored(folder, f'hidden_{block:05}_{number:05}.safetensors', arrays))
  old = progress.hidden.get('files', ())
  progress = progress._replace(hidden={'block': block, 'files': rows})
  _write_progress(folder, progress)
  for row in old:
    files.remove(folder / row['file'])
  return progress


def read_arrays(folder: Any, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns the arrays of a file that `Progress` names."""
  stored = safetensors.numpy.load(files.read(folder / row['file'], most=2**40))
  of = lambda key, array: array.view(ml_dtypes.bfloat16) if key.endswith(BITS) else array
  return {key.removesuffix(BITS): of(key, array) for key, array in stored.items()}


def names(file: Any) -> list[str]:
  """Returns the names of the arrays in a local file that `Progress` names."""
  with safetensors.safe_open(file, framework='np') as opened:
    return list(opened.keys())


def read_hidden(folder: Any, progress: Progress, like: Any) -> list:
  """Returns the stored hidden states, a pytree shaped like `like` for each batch."""
  treedef = jax.tree.structure(like)
  batches = []
  for row in progress.hidden['files']:
    arrays = read_arrays(folder, row)
    batches.append(treedef.unflatten([arrays[str(i)] for i in range(len(arrays))]))
  return batches


def _stored(folder, name, arrays):
  """Writes arrays; returns the row that names the file."""
  plain = {}
  for key, array in arrays.items():
    array = np.ascontiguousarray(array)
    is_bits = array.dtype == ml_dtypes.bfloat16
    plain[key + BITS * is_bits] = array.view(np.uint16) if is_bits else array
  data = safetensors.numpy.save(plain)
  files.write(folder / name, data)
  return {'file': name, 'sha256': hashlib.sha256(data).hexdigest()}


def _write_progress(folder, progress):
  plain = {'blocks': list(progress.blocks), 'hidden': dict(progress.hidden)}
  files.write(folder / PROGRESS, json.dumps(plain) + '\n')


def _is_sound(folder, row) -> bool:
  try:
    data = files.read(folder / row['file'], most=2**40)
  except (OSError, ValueError):
    return False
  return hashlib.sha256(data).hexdigest() == row['sha256']

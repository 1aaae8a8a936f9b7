"""The command `prune`: a model in, a calibration text, a pruned model out."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

import prunejax
from prunejax import files
from prunejax.data import content, text_files
from prunejax.models.hf import stored, stored_masks
from prunejax.oneshot import block_by_block, decoders, depth, resume, width
from prunejax.oneshot import calibration as calibrating
from prunejax.oneshot import request as requests
from prunejax.oneshot.decoder import Decoder
from prunejax.pruning import allocations
from prunejax.pruning.paths import named_leaves
from prunejax.train import console, families, saved_model

LENGTH = 2048


def prune(
  where: str,
  out: str,
  *,
  criterion: str = '',
  sparsity: float | None = None,
  structure: str = '',
  allocation: str = '',
  shares: str = '',
  kernels: str = '',
  calibration: str = '',
  encoding: str = 'utf-8',
  segments: int = 128,
  length: int | None = None,
  seed: int = 0,
  batch: int = 8,
  devices: int | None = None,
  recover: str = '',
  smaller: str = '',
  dtype: str = 'float32',
  say=console.say,
) -> dict[str, Any]:
  """Prunes a model without training and writes it as a Hugging Face folder.

  The folder also holds `masks.safetensors`, the bits of the masks, and `pruning.json`, what was
  done. Progress is kept in `OUT.unfinished`, which is removed at the end.

  Args:
    where: what `saved_model.load` reads.
    out: the folder to write.
    criterion: a spec string; '' for 'sparsegpt()'.
    sparsity: the fraction of the kernels that is removed; None for 0.5.
    structure: a spec string; '' for 'unstructured()'.
    allocation: a spec string; '' for the default of the criterion.
    shares: '' or 'owl()'.
    kernels: a regex of the kernels to prune; '' for all.
    calibration: a folder or file of text; '' for a criterion that needs none.
    encoding: of the text.
    segments: number of segments.
    length: tokens of a segment; None for 2,048, or the positions of the model if it has fewer.
    seed: of the draw of segments.
    batch: segments of a batch.
    devices: devices that share a batch; None for one without a mesh. `drop_blocks` takes one.
    recover: '' or 'reconstruct(...)'.
    smaller: '', or 'drop_blocks(count, by=...)', 'ffn_width(neurons)' or 'kv_groups(groups)': the
      folder then holds a smaller plain model. What it decides itself must not be given: `sparsity`,
      `structure`, `allocation`, `shares` and `kernels`, and with `drop_blocks` also `criterion` and
      `recover`.
    dtype: of the weights in the file.
    say: prints a line.

  Returns:
    What `pruning.json` holds.

  Raises:
    ValueError, OSError: a wrong argument; a model or text that cannot be read or do not fit; `out`
      is there already.
    FloatingPointError: a score or a new weight is not finite.
  """
  request = requests.checked(
    criterion=criterion,
    sparsity=sparsity,
    structure=structure,
    allocation=allocation,
    shares=shares,
    kernels=kernels,
    calibration=calibration,
    recover=recover,
    smaller=smaller,
    dtype=dtype,
    numbers={'segments': segments, 'length': length, 'seed': seed, 'batch': batch},
  )
  if request.drop is not None and devices is not None:
    raise ValueError(f'--devices={devices} has no meaning with --smaller={smaller}: leave it out')
  if not out:
    raise ValueError('--out= is empty: expected the folder to write')
  if files.remote(out):
    raise ValueError(f'--out={out!r}: expected a folder of this machine, to be copied from there')
  if files.exists(files.path(out)):
    raise FileExistsError(f'--out={out!r} is there already: nothing was written')
  documents = text_files.documents(calibration, encoding=encoding) if calibration else iter(())
  if calibration:
    text_files.files(calibration)  # refuses a folder that is not there before the model is read
  mesh = _mesh(devices)
  model = saved_model.load(where, parts=not smaller)
  functions = decoders.of_size(model.size)
  positions = model.size.max_position_embeddings
  if length is not None and length > positions:
    raise ValueError(f'--length={length}: the model has {positions} positions')
  length = min(LENGTH, positions) if length is None else length
  narrowing = request.narrow and request.narrow(model.size)
  if not request.reads_text:
    tokens = np.zeros((1, min(length, 8)), np.int32)
  elif model.tokenizer is None:
    raise ValueError(f'{where!r} has no vocabulary: a calibration text cannot be read')
  else:
    tokens = _tokens(documents, model, segments, length, seed)
  calibrated = {'segments': len(tokens), 'length': tokens.shape[1], 'seed': seed}
  states = _states(model)  # before the content is read: a change after that is noticed
  task = _Task(
    where,
    model,
    states,
    functions,
    tokens,
    {'version': prunejax.__version__, 'model': _content_of(model), **request.said},
    calibrated if request.reads_text else None,
    out,
    dtype,
    say,
  )
  if request.drop is not None:
    return _without_blocks(task, request.drop)
  return _pruned(task, request, narrowing, batch, mesh)


class _Task(NamedTuple):
  """A model and what becomes of it."""

  where: str
  model: saved_model.Saved
  states: dict[str, Any]  # of the files of the model, when the command began
  functions: Decoder
  tokens: np.ndarray  # the calibration
  settings: dict[str, Any]  # which model, and how
  calibrated: dict[str, int] | None
  out: str
  dtype: str
  say: Callable[[str], Any]

  @property
  def unfinished(self):
    """The folder that holds the progress, and the model while it is written."""
    return files.path(f'{str(files.path(self.out)).rstrip("/")}.unfinished')


def _without_blocks(task, choose):
  """Writes the model without the blocks that `choose` names; returns the report."""
  model, say = task.model, task.say
  with _nothing_left(task.unfinished):
    # Refuses the progress of another command.
    resume.opened(task.unfinished / 'state', task.settings | task.calibrated, say)
    blocks = choose(task.functions, model.params, task.tokens, say=say)
  params, size = depth.drop(model.params, model.size, blocks)
  masks = model.masks and depth.drop(_nested(model.masks), model.size, blocks)[0]
  report = {**task.settings, 'calibration': task.calibrated, 'dropped': blocks}
  lost = _write(task, params, masks, size, report)
  _deliver(task)
  named = ', '.join(map(str, blocks))
  say(f'the model without blocks {named} is in {task.out}{_lost(task, lost)}')
  return report


def _pruned(task, request, narrowing, batch, mesh):
  """Prunes block by block, cuts the units of `narrowing` out, and writes; returns the report."""
  model = task.model
  allocation, structure = request.allocation, request.structure
  sparsity, kernels = request.sparsity, request.kernels
  if narrowing is not None:
    allocation, structure = allocations.uniform(), narrowing.structure
    sparsity, kernels = narrowing.sparsity, narrowing.where
  began = time.perf_counter()
  with _nothing_left(task.unfinished):
    pruned = block_by_block.prune(
      task.functions,
      model.params,
      task.tokens,
      criterion=request.criterion,
      sparsity=sparsity,
      allocation=allocation,
      shares_of_blocks=request.shares,
      structure=structure,
      where=kernels,
      batch=batch,
      mesh=mesh,
      masks=model.masks and _nested(model.masks),
      recover=request.recover,
      folder=task.unfinished / 'state',
      settings=task.settings,
      in_place=True,
      say=task.say,
    )
  seconds = time.perf_counter() - began
  removed, weights = (sum(row[key] for row in pruned.rows) for key in ('removed', 'weights'))
  report = {
    **{name: value for name, value in task.settings.items() if name not in request.decided},
    'calibration': task.calibrated,
    'sparsity': sparsity,
    'removed': removed,
    'weights': weights,
    'seconds': round(seconds, 1),
    'blocks': pruned.rows,
  }
  params, size, masks = pruned.params, model.size, pruned.masks
  if narrowing is not None:
    params, size = width.cut(params, pruned.masks, model.size, narrowing)
    masks = width.cut(masks, masks, model.size, narrowing)[0] if model.masks else None
  lost = _write(task, params, masks, size, report)
  if _states(model) != task.states and _content_of(model) != task.settings['model']:
    raise ValueError(
      f'{task.where!r} was changed while it was pruned: remove {str(task.unfinished)!r} and prune'
      ' it again'
    )
  _deliver(task)
  more = _lost(task, lost)
  task.say(f'{task.where} with {removed:,} of {weights:,} weights removed is in {task.out}{more}')
  return report


def _lost(task, count) -> str:
  return f'; {count:,} weights that were not 0 are 0 as {task.dtype}' if count else ''


@contextlib.contextmanager
def _nothing_left(unfinished):
  """Surrounds a pruning: one that fails before its first block leaves no folder."""
  was_there = files.exists(unfinished)
  try:
    yield
  except Exception:
    if not was_there and not files.exists(unfinished / 'state' / resume.PROGRESS):
      files.remove(unfinished)
    raise


def _nested(masks):
  return traverse_util.unflatten_dict(dict(masks), sep='/')


def _write(task, params, masks, size, report) -> int:
  """Writes the folder beside its place; returns how many weights its dtype has made 0."""
  folder, model = task.unfinished / 'model', task.model
  files.remove(folder)
  lost = families.save(folder, params, size, model.tokenizer, task.dtype, carried=model.carried)
  if masks is not None:
    files.write(folder / stored_masks.NAME, stored_masks.encode(named_leaves(masks)))
  files.write(folder / stored_masks.RECORD, json.dumps(report, indent=1) + '\n')
  return lost


def _deliver(task):
  """Moves the written folder to its place."""
  os.rename(task.unfinished / 'model', files.path(task.out))
  files.remove(task.unfinished)


def _content_of(model):
  """What identifies the weights of a model."""
  leaves = (leaf for _, leaf in sorted(model.leaves.items()))
  return content.of_pieces((x.dtype, x.shape, stored.pieces(x)) for x in leaves)


def _states(model):
  """What tells two states of the files of a model apart, of weights that stay in them."""
  kept = (leaf.files for leaf in model.leaves.values() if stored.is_stored(leaf))
  return {file: content.state_of(file) for file in frozenset().union(*kept)}


def _tokens(documents, model, segments, length, seed):
  return calibrating.of_text(
    documents, model.tokenizer, model.size.vocab_size, count=segments, length=length, seed=seed
  )


def _mesh(devices):
  if devices is None:
    return None
  there = jax.devices()
  if not 1 <= devices <= len(there):
    raise ValueError(f'--devices={devices}: there are {len(there)}')
  return Mesh(np.array(there[:devices]), ('data',))

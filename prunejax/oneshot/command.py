"""The command `prune`: a model in, a calibration text, a pruned model out."""

import contextlib
import functools
import json
import os
import time
import types
from collections.abc import Callable
from typing import Any

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
from prunejax.oneshot.reconstruction import reconstruct
from prunejax.oneshot.shares import can_remove, owl
from prunejax.pruning import allocations, criteria, paths, structures
from prunejax.pruning.paths import named_leaves
from prunejax.train import console, families, saved_model, specs

LENGTH = 2048
DTYPES = ('float32', 'bfloat16', 'float16')


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
    devices: devices that share a batch; None for one without a mesh.
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
  smaller_by = specs.parse(smaller, SMALLER, '--smaller') if smaller else None
  drops = smaller_by is not None and smaller_by.name == 'drop_blocks'
  if smaller_by is not None:
    decided = {
      'sparsity': sparsity,
      'structure': structure,
      'allocation': allocation,
      'shares': shares,
      'where': kernels,
      **({'criterion': criterion, 'recover': recover} if drops else {}),
    }
    _refuse_decided(smaller, decided)
  criterion, structure = criterion or 'sparsegpt()', structure or 'unstructured()'
  sparsity, kernels = 0.5 if sparsity is None else sparsity, kernels or '.*'
  given = {
    'criterion': specs.parse(criterion, criteria, '--criterion'),
    'structure': specs.parse(structure, structures, '--structure'),
    'allocation': specs.parse(allocation, allocations, '--allocation') if allocation else None,
    'shares_of_blocks': _spec(shares, owl, '--shares'),
    'recover': _spec(recover, reconstruct, '--recover'),
  }
  made = {key: spec and spec() for key, spec in given.items()}
  make_smaller = smaller_by and smaller_by()
  by_perplexity = drops and smaller_by.arguments['by'] == 'perplexity'
  if dtype not in DTYPES:
    raise ValueError(f'--dtype={dtype!r}: expected one of {list(DTYPES)}')
  for name, value, least in (
    ('segments', segments, 1),
    ('length', length, 2 if by_perplexity else 1),  # which needs a token to foresee
    ('seed', seed, 0),
    ('batch', batch, 1),
  ):
    if value is not None and value < least:
      raise ValueError(f'--{name}={value}: expected at least {least}')
  if batch & (batch - 1):
    raise ValueError(f'--batch={batch}: expected a power of two, as 8 is')
  paths.compiled(kernels, '--where')
  most = made['structure'].cost
  if not 0 <= sparsity <= most or sparsity == 1:
    raise ValueError(
      f'--sparsity={sparsity} is outside of what {structure} can remove,'
      f' {can_remove(made["structure"])}; it is the fraction removed, so 50 % is 0.5'
    )
  if not out:
    raise ValueError('--out= is empty: expected the folder to write')
  place = files.path(out)
  if files.exists(place):
    raise FileExistsError(f'--out={out!r} is there already: nothing was written')
  needs = made['criterion'].needs or made['recover'] or made['shares_of_blocks']
  reads_text = bool(needs) or drops
  if reads_text and not calibration:
    what = next(
      f'--{name}={value}'
      for name, value, reads in (
        ('smaller', smaller, drops),
        ('criterion', criterion, made['criterion'].needs),
        ('recover', recover, made['recover']),
        ('shares', shares, made['shares_of_blocks']),
      )
      if reads
    )
    raise ValueError(f'{what} reads activations: give --calibration=TEXT')
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
  narrowing = None
  if smaller_by is not None and not drops:
    narrowing = make_smaller(model.size)
    made |= {'structure': narrowing.structure, 'allocation': allocations.uniform()}
    sparsity, kernels = narrowing.sparsity, narrowing.where
  if not reads_text:
    tokens = np.zeros((1, min(length, 8)), np.int32)
  elif model.tokenizer is None:
    raise ValueError(f'{where!r} has no vocabulary: a calibration text cannot be read')
  else:
    tokens = _tokens(documents, model, segments, length, seed)
  states = _states(model)
  settings = {'version': prunejax.__version__, 'model': _content_of(model), 'smaller': smaller}
  if not drops:
    settings |= {
      'criterion': criterion,
      'structure': structure,
      'allocation': allocation,
      'shares': shares,
      'where': kernels,
      'recover': recover,
    }
  calibrated = {'segments': len(tokens), 'length': tokens.shape[1], 'seed': seed}
  calibrated = calibrated if reads_text else None
  unfinished = files.path(f'{str(place).rstrip("/")}.unfinished')
  if drops:
    with _nothing_left(unfinished):
      resume.opened(unfinished / 'state', settings | calibrated, say)  # refuses another command's
      blocks = make_smaller(functions, model.params, tokens, say=say)
    params, size = depth.drop(model.params, model.size, blocks)
    masks = model.masks and depth.drop(_nested(model.masks), model.size, blocks)[0]
    report = {**settings, 'calibration': calibrated, 'dropped': blocks}
    _write(unfinished / 'model', params, masks, size, model, report, dtype)
    os.rename(unfinished / 'model', place)
    files.remove(unfinished)
    say(f'the model without blocks {", ".join(map(str, blocks))} is in {out}')
    return report
  began = time.perf_counter()
  with _nothing_left(unfinished):
    pruned = block_by_block.prune(
      functions,
      model.params,
      tokens,
      **made,
      sparsity=sparsity,
      where=kernels,
      batch=batch,
      mesh=mesh,
      masks=model.masks and _nested(model.masks),
      folder=unfinished / 'state',
      settings=settings,
      in_place=True,
      say=say,
    )
  seconds = time.perf_counter() - began
  removed, weights = (sum(row[key] for row in pruned.rows) for key in ('removed', 'weights'))
  report = {
    **settings,
    'calibration': calibrated,
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
  lost = _write(unfinished / 'model', params, masks, size, model, report, dtype)
  if _states(model) != states and _content_of(model) != settings['model']:
    raise ValueError(
      f'{where!r} was changed while it was pruned: remove {str(unfinished)!r} and prune it again'
    )
  os.rename(unfinished / 'model', place)
  files.remove(unfinished)
  more = f'; {lost:,} weights that were not 0 are 0 as {dtype}' if lost else ''
  say(f'{where} with {removed:,} of {weights:,} weights removed is in {out}{more}')
  return report


def drop_blocks(count: int, by: str = 'angle') -> Callable:
  """Drops whole blocks: by 'angle', see `depth.by_angle`, or by 'perplexity'."""
  if by not in ('angle', 'perplexity'):
    raise ValueError(f"drop_blocks: by={by!r}: expected 'angle' or 'perplexity'")
  return functools.partial(
    {'angle': depth.by_angle, 'perplexity': depth.by_perplexity}[by], count=count
  )


SMALLER = types.SimpleNamespace(
  __all__=['drop_blocks', 'ffn_width', 'kv_groups'],
  drop_blocks=drop_blocks,
  ffn_width=lambda neurons: functools.partial(width.ffn_width, neurons=neurons),
  kv_groups=lambda groups: functools.partial(width.kv_groups, groups=groups),
)


def _refuse_decided(smaller, decided):
  """Refuses options that say what `smaller` decides itself."""
  for name, value in decided.items():
    if value not in ('', None):
      raise ValueError(f'--{name}={value} has no meaning with --smaller={smaller}: leave it out')


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


def _write(folder, params, masks, size, model, report, dtype) -> int:
  """Writes the folder; returns how many weights `dtype` has made 0."""
  files.remove(folder)
  lost = families.save(folder, params, size, model.tokenizer, dtype, carried=model.carried)
  if masks is not None:
    files.write(folder / stored_masks.NAME, stored_masks.encode(named_leaves(masks)))
  files.write(folder / stored_masks.RECORD, json.dumps(report, indent=1) + '\n')
  return lost


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


def _spec(text, factory, key):
  """A spec of the one factory that an option takes; None for an empty text."""
  if not text:
    return None
  named = types.SimpleNamespace(__all__=[factory.__name__], **{factory.__name__: factory})
  return specs.parse(text, named, key)


def _mesh(devices):
  if devices is None:
    return None
  there = jax.devices()
  if not 1 <= devices <= len(there):
    raise ValueError(f'--devices={devices}: there are {len(there)}')
  return Mesh(np.array(there[:devices]), ('data',))

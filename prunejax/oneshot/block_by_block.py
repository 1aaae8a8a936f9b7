"""Prunes a model without training, block by block.

Block n is calibrated on what blocks 1 to n-1, already pruned, put out. Beside the model, memory
holds the hidden states in front of one block and the statistics of that block. A model that is in
local files is read one block at a time, and with a local `folder` written so too: of the model only
this block is held. A criterion that reads weights alone has no calibration; it holds all kernels
and chooses all masks at once.
"""

import functools
import json
import math
import numbers
import pathlib
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import prunejax
from prunejax import files, freed
from prunejax.data import content
from prunejax.models.hf import stored
from prunejax.oneshot import decoder, kinds, reconstruction, resume, segments, shares
from prunejax.oneshot.decoder import Block, Decoder
from prunejax.oneshot.shares import Owl
from prunejax.oneshot.stream import Stream, count_segments, digest_of, joined, on_one_device
from prunejax.pruning import scores_to_masks
from prunejax.pruning.allocations import per_output, uniform
from prunejax.pruning.paths import named_leaves, with_leaves
from prunejax.pruning.structures import unstructured
from prunejax.pruning.types import Allocation, Criterion, Structure

SAVE_EVERY = 60.0  # seconds between two writes of the hidden states


class Pruned(NamedTuple):
  """A pruned model.

  Attributes:
    params: the parameters; pruned weights are 0.
    masks: bool, shaped like params, True = kept. Masks of leaves in files are in files too, or
      read-only where they keep every weight; numpy and JAX read them as arrays.
    rows: for each block its 'block', 'weights', 'removed', 'change' and 'seconds'. The change is
      that of what the block puts out, divided by what the dense block adds to its input, of the
      first segment; None where no calibration was needed.
  """

  params: Any
  masks: Any
  rows: list[dict]


def prune(
  model: Decoder,
  params: Any,
  batches: Any,
  *,
  criterion: Criterion,
  sparsity: float,
  allocation: Allocation | None = None,
  shares_of_blocks: Owl | None = None,
  structure: Structure | None = None,
  where: str | Callable = '.*',
  layout: str | Mapping[str, str] = '',
  batch: int = 8,
  mesh: Any = None,
  masks: Any = None,
  recover: reconstruction.Reconstruction | None = None,
  folder: Any = None,
  settings: Mapping[str, Any] | None = None,
  in_place: bool = False,
  say: Callable[[str], Any] = lambda line: None,
) -> Pruned:
  """Prunes a model without training.

  Pruned are the kernels whose inputs `model.block` reports; embeddings and the head stay whole. A
  criterion that reads activations, `wanda` or `sparsegpt`, gets those of one block at a time.
  `sparsegpt` chooses its masks inside the sweep, as its paper does, where the structure is
  `unstructured()` or `n_m`. A criterion that reads weights alone chooses all masks at once, exactly
  as `prune_transform` would.

  Args:
    model: a `Decoder`.
    params: its parameters, any pytree of arrays. They are not changed, unless `in_place`. Leaves in
      files, see `saved_model.load(..., parts=True)`, are read one block at a time; with a local
      `folder` the leaves of pruned blocks are returned as leaves in its files.
    batches: the calibration: a pytree of arrays [segments, ...] as `model.embed` takes, such as
      int32 tokens [segments, length]; or a list of such pytrees. For a criterion that reads weights
      alone, one segment of any content.
    criterion: SCORE, how much does each weight matter?
    sparsity: the fraction of the pruned kernels that is removed.
    allocation: WHO PAYS; None is `per_output()` for `wanda` under a structure along inputs, and
      `uniform()` otherwise. One that compares scores of several kernels needs a criterion that
      reads weights alone.
    shares_of_blocks: with `owl()` blocks with more outliers lose less; None: every block loses the
      same share. The allocation then divides a block's share among its own kernels.
    structure: TOGETHER, which weights are removed as one; default `unstructured()`.
    where: the kernels to prune, by a regex on their whole paths or a predicate of (path, leaf).
    layout: which axes of a kernel are inputs and outputs, as in `prune_transform`.
    batch: segments of a batch, a power of two. Sums over the calibration are taken in an order that
      depends on it, and not on the mesh.
    mesh: a mesh whose axis 'data' divides each batch; None: one device.
    masks: of an earlier pruning, bool, shaped like params, True = kept; leaves may be missing. What
      they prune stays pruned, and counts towards what the allocation asks of its kernel or output.
      One that has lost more than that already stays as it is.
    recover: `reconstruct(...)`: what each block is trained by after it was pruned; None: nothing.
    folder: where progress is kept; a call that was killed goes on there. None keeps nothing.
    settings: JSON values that say which model is pruned and how, needed with `folder`. A folder
      with finished blocks of other values is refused.
    in_place: True: leaves that are numpy arrays that can be written are written into, so the model
      is held once.
    say: prints a line.

  Returns:
    The pruned parameters, the masks and a row for each block.

  Raises:
    ValueError: arguments that do not fit each other or the model; nothing has been computed then.
      Also shares of `owl()` that are out of range, known when the outliers have been counted.
    FloatingPointError: a score or a new weight of a block is not finite.
  """
  structure = unstructured() if structure is None else structure
  _check_kinds(criterion, allocation, structure)
  if allocation is None and isinstance(criterion, Criterion):
    of_one = criterion.layerwise
    within = of_one is not None and of_one.within_output and structure.inputs
    allocation = per_output() if within else uniform()
  if recover is not None and not isinstance(recover, reconstruction.Reconstruction):
    raise ValueError(f'prune: recover={recover!r}: expected what reconstruct(...) returns, or None')
  segments.check_mesh(mesh, batch)
  _check(criterion, sparsity, allocation, shares_of_blocks, structure)
  leaves = dict(named_leaves(params))
  before = _checked_masks(masks, leaves)
  blocks = decoder.blocks_of(model, params)
  calibration = joined(batches)
  one_segment = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), calibration
  )
  kinds_of_blocks = kinds.of_blocks(
    model, params, leaves, blocks, one_segment, where, layout, criterion, structure, mesh, recover
  )
  call = _Call(
    blocks, kinds_of_blocks, criterion, float(sparsity), allocation, structure, before, recover, say
  )
  shapes = _shapes(call)
  abstract = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
  scores_to_masks.check(abstract, allocation, structure)
  weights = sum(map(math.prod, shapes.values()))
  progress, folder = resume.Progress(), None if folder is None else files.path(folder)
  if folder is not None:
    if settings is None:
      raise ValueError(
        f'prune: folder={str(folder)!r} needs settings=, values that say which model is pruned and'
        ' how: nothing else tells this call from another one'
      )
    plan = {
      **settings,
      'sparsity': float(sparsity),
      'batch': batch,
      'kernels': len(shapes),
      'weights': weights,
      'calibration': digest_of(calibration),
    }
    if before:
      digest = lambda mask: content.of_pieces([(bool, mask.shape, [stored.whole(mask)])])
      plan['masks'] = content.of([[path, digest(mask)] for path, mask in sorted(before.items())])
    progress = resume.opened(folder, plan, say)
  say(
    f'{len(blocks)} blocks, {len(shapes)} kernels, {weights:,} weights;'
    f' {count_segments(calibration)} segments of calibration'
  )
  stream = None
  if criterion.needs or recover is not None or shares_of_blocks is not None:
    stream = Stream(model, params, calibration, batch, mesh)
  if not criterion.needs:
    choose = _by_weights(call, leaves)
  elif shares_of_blocks is None:
    whole = shares.kept_units(shapes, allocation, structure, call.sparsity)
    choose = _by_statistics(call, stream, [whole] * len(blocks))
  else:
    sparsities = _sparsities(call, shares_of_blocks, leaves, stream, folder)
    choose = _by_statistics(call, stream, _kept_of_blocks(call, shapes, sparsities))

  found = {path: _own(mask) for path, mask in before.items()}
  out = _writable(leaves, blocks, model, in_place)
  rows: list[dict] = []
  for block, row in zip(blocks, progress.blocks, strict=False):
    if not _put_files(out, found, leaves, block, folder, row):
      _put(out, found, leaves, block, resume.read_arrays(folder, row), in_place)
    rows.append({k: v for k, v in row.items() if k not in ('file', 'sha256')})
  done = len(rows)
  if done:
    say(f'{done} of {len(blocks)} blocks are pruned already')
  hidden = None
  if stream is not None and done < len(blocks):
    freed.give_back()
    hidden = _hidden_before(call, done, stream, out, folder, progress)
    freed.give_back()
  began = saved = time.perf_counter()
  for number in range(done, len(blocks)):
    block = blocks[number]
    row, arrays, hidden = _prune_block(
      call, number, decoder.read(out, block), choose, stream, hidden
    )
    if folder is not None:
      progress = resume.with_block(folder, progress, arrays, row)
    if folder is None or not _put_files(out, found, leaves, block, folder, progress.blocks[-1]):
      _put(out, found, leaves, block, arrays, in_place)
    del arrays  # before the next block is read
    if folder is not None:
      more = number + 1 < len(blocks)
      if stream is not None and more and time.perf_counter() - saved > SAVE_EVERY:
        progress = resume.with_hidden(folder, progress, hidden)
        saved = time.perf_counter()
    rows.append(row)
    if number == done:  # later blocks compile nothing, and need again what they free
      freed.give_back()
    say(_line(rows, len(blocks), done, began))
  return Pruned(with_leaves(params, out), _mask_tree(params, found), rows)


class _Call(NamedTuple):
  """What a call prunes and how, checked."""

  blocks: list[Block]
  kinds: list[kinds.Kind]  # of each block
  criterion: Criterion
  sparsity: float
  allocation: Allocation
  structure: Structure
  before: Mapping[str, Any]  # {path: mask} of an earlier pruning
  recover: reconstruction.Reconstruction | None
  say: Callable[[str], Any]


def _shapes(call) -> dict[str, tuple[int, ...]]:
  """{whole path: shape [in, out]} of the pruned kernels."""
  return {
    kinds.full_path(block, local): shape
    for block, kind in zip(call.blocks, call.kinds, strict=True)
    for local, shape in kind.kernels.shapes.items()
  }


def _count_weights(kind) -> int:
  return sum(math.prod(shape) for shape in kind.kernels.shapes.values())


def _hidden_before(call, number, stream, out, folder, progress):
  """The hidden states in front of a block: from disk as far as they are there, then computed."""
  start, stored = 0, resume.read_hidden(folder, progress, stream.like) if progress.hidden else []
  if stored and len(jax.tree.leaves(stored[0])[0]) == stream.batch:
    start, hidden = progress.hidden['block'], stream.placed(stored)
  else:  # also where a mesh of another size asks for other batches
    hidden = stream.embedded()
  for earlier in range(start, number):
    weights = decoder.read(out, call.blocks[earlier])
    hidden = stream.advanced(call.kinds[earlier].advance, weights, hidden)
  return hidden


def _prune_block(call, number, weights, choose, stream, hidden):
  """(row, arrays to store, hidden states behind the block) of one block.

  `choose` is a function (number, matrices, weights, hidden) -> (masks, new weights), as matrices.
  """
  block, kind, clock = call.blocks[number], call.kinds[number], time.perf_counter()
  mask, new = choose(number, kinds.matrices(kind, weights), weights, hidden)
  mask, new = kinds.as_leaves(kind, mask, bool), kinds.as_leaves(kind, new)
  new = {local: x.astype(weights[local].dtype) for local, x in new.items()}
  _check_finite(block, new)
  pruned = {**weights, **new}
  if call.recover is not None:
    segment = functools.partial(stream.segment, hidden)
    before = _before(call, block, block.places)  # also of kernels that are left whole
    zeroed = lambda x, kept: np.where(kept, x, np.zeros((), x.dtype))
    pruned |= {k: zeroed(pruned[k], m) for k, m in before.items() if k not in mask}
    held = {**before, **mask}
    fit = reconstruction.fitted(
      call.recover, kind.fit, weights, pruned, held, segment, stream.count
    )
    pruned = new = {local: np.asarray(x) for local, x in fit.items()}
    _check_finite(block, new)
  change = None
  if stream is not None:
    first = stream.segment(hidden, 0)
    # Behind the last block only the first segment is asked for.
    last = number + 1 == len(call.blocks)
    hidden = stream.advanced(kind.advance, pruned, hidden, batches=1 if last else None)
    change = stream.change(kind.change, weights, first, hidden)
  row = {
    'block': block.prefix,
    'weights': _count_weights(kind),
    'removed': sum(int(x.size - np.count_nonzero(x)) for x in mask.values()),
    'change': change,
    'seconds': round(time.perf_counter() - clock, 3),
  }
  arrays = {f'weight/{local}': x for local, x in new.items()}
  arrays |= {f'mask/{local}': np.packbits(x, axis=None) for local, x in mask.items()}
  return row, arrays, hidden


def _check_finite(block, weights):
  large = [local for local, x in weights.items() if not np.all(np.isfinite(x))]
  if large:
    dtype = weights[large[0]].dtype
    raise FloatingPointError(f'{block.prefix}/{large[0]}: a new weight is not finite as {dtype}')


def _before(call, block, kernels):
  """{path in the block: mask of an earlier pruning}, of the kernels that have one."""
  places = {local: block.places[local] for local in kernels}
  there = {local: place for local, place in places.items() if place.path in call.before}
  read = lambda path, layer: stored.whole(call.before[path])[... if layer is None else layer]
  return {local: np.asarray(read(*place), bool) for local, place in there.items()}


def _checked_masks(masks, leaves) -> dict[str, Any]:
  """{path: mask} of an earlier pruning. Raises ValueError."""
  named = {} if masks is None else named_leaves(masks)
  for path, mask in named.items():
    shape = np.shape(leaves[path]) if path in leaves else None
    dtype = np.dtype(getattr(mask, 'dtype', type(mask)))
    if np.shape(mask) != shape or dtype != np.dtype(bool):
      raise ValueError(
        f'prune: masks has {path!r}, {dtype} {np.shape(mask)}: expected masks shaped like'
        f' params, bool {"of its leaves" if shape is None else shape}'
      )
  return dict(named)


def _own(mask):
  """A mask that can be written into, or one in a file."""
  return mask if stored.is_stored(mask) else np.array(mask)


def _kept_of_blocks(call, shapes, sparsities) -> list[dict]:
  """The units that stay in each block at a sparsity of its own, {unit name: count}."""
  kept = []
  for block, sparsity in zip(call.blocks, sparsities, strict=True):
    own = {name: shape for name, shape in shapes.items() if name.startswith(f'{block.prefix}/')}
    kept.append(shares.kept_units(own, call.allocation, call.structure, sparsity) if own else {})
  return kept


def _by_statistics(call, stream, kept):
  """Chooses the masks of a block by what goes into its kernels. See `_prune_block`.

  `kept` has for each block the units that stay, {unit name: count}.
  """

  def choose(number, matrices, weights, hidden):
    if not matrices:  # `where` left this block whole
      return {}, {}
    kind, block = call.kinds[number], call.blocks[number]
    statistics = stream.summed(kind.collect, weights, hidden)
    return kinds.choose_masks(
      kind,
      block,
      matrices,
      statistics,
      kept[number],
      kinds.pruned_before(kind, _before(call, block, matrices)),
      call.criterion,
      call.structure,
    )

  return choose


def _by_weights(call, leaves):
  """Chooses all masks at once, as `prune_transform` does. See `_prune_block`."""
  whole, masks = {}, {}
  for block, kind in zip(call.blocks, call.kinds, strict=True):
    matrices = kinds.matrices(kind, decoder.read(leaves, block))
    whole |= {kinds.full_path(block, local): w for local, w in matrices.items()}
    gone = kinds.pruned_before(kind, _before(call, block, matrices) if call.before else {})
    none = lambda local, matrices=matrices: jnp.zeros(matrices[local].shape, bool)
    masks |= {kinds.full_path(block, k): ~gone.get(k, none(k)) for k in matrices if call.before}
  stacks = _stacks(call)
  for path, (_, names) in stacks.items():
    whole[path] = jnp.stack([whole.pop(name) for name in names])
    if masks:
      masks[path] = jnp.stack([masks.pop(name) for name in names])
  link = prunejax.prune_transform(
    call.criterion,
    prunejax.constant(call.sparsity),
    allocation=call.allocation,
    structure=call.structure,
    layout={r'.*': 'in out'},
    masks=masks or None,
    stacked={re.escape(path): template for path, (template, _) in stacks.items()},
  )

  @jax.jit
  def masks_of(matrices):
    _, state = link.update(jax.tree.map(jnp.zeros_like, matrices), link.init(matrices), matrices)
    return prunejax.get_masks(state, matrices), state

  masks, state = masks_of(whole)
  for path, fault in prunejax.faults(state).items():
    named = {path: whole[path]}
    if path in stacks:
      named = dict(zip(stacks[path][1], whole[path], strict=True))
    bad = [name for name, w in named.items() if not np.all(np.isfinite(w))] or list(named)
    raise FloatingPointError(f'{bad[0]}: {fault.reason}; nothing was pruned')
  masks = jax.device_get(masks)
  del whole, state
  for path, (_, names) in stacks.items():
    masks |= dict(zip(names, masks.pop(path), strict=True))

  def choose(number, matrices, weights, hidden):
    del weights, hidden
    mask = {local: masks[kinds.full_path(call.blocks[number], local)] for local in matrices}
    return mask, {local: jnp.where(mask[local], matrices[local], 0) for local in matrices}

  return choose


def _stacks(call) -> dict[str, tuple[str, list[str]]]:
  """{path of a stack: (template, whole paths)} where blocks differ in their number alone.

  A program for stacks compiles in a fraction of the time, and chooses the same masks.
  """
  first, prefixes = call.kinds[0], [block.prefix for block in call.blocks]
  if len(prefixes) < 2 or any(kind is not first for kind in call.kinds):
    return {}
  template = re.sub(r'0(?=\D*$)', '{}', prefixes[0])
  if prefixes != [template.replace('{}', str(i)) for i in range(len(prefixes))]:
    return {}
  stacks = {}
  for local in first.layouts:
    names = [kinds.full_path(block, local) for block in call.blocks]
    stacks[f'{template.replace("{}", "all")}/{local}'] = f'{template}/{local}', names
  return stacks


def _sparsities(call, owl, leaves, stream, folder) -> list[float]:
  """The sparsity of each block by its outliers in the dense model; they are kept in a file."""
  file = None if folder is None else folder / resume.OUTLIERS
  sizes = [_count_weights(kind) for kind in call.kinds]
  known = files.read_json(file) if file is not None and files.exists(file) else {}
  if known.get('above') == owl.outlier:
    outlying = np.array(known['outliers'])
  else:
    count_outliers = jax.jit(shares.outliers, static_argnums=2)
    hidden, outlying = stream.embedded(), []
    for number, (block, kind) in enumerate(zip(call.blocks, call.kinds, strict=True)):
      weights = decoder.read(leaves, block)
      norms = on_one_device(stream.summed(kind.norms, weights, hidden))
      count = 0
      for local, w in kinds.matrices(kind, weights).items():
        norm = jnp.sqrt(norms[kind.kernels.reads[local]])
        count += int(count_outliers(norm, w, owl.outlier))
      outlying.append(count / max(sizes[number], 1))
      if number + 1 < len(call.blocks):
        hidden = stream.advanced(kind.advance, weights, hidden)
      call.say(f'outliers of block {number + 1}/{len(call.blocks)}: {outlying[-1]:.5f}')
    outlying = np.array(outlying)
    if file is not None:
      plain = {'above': owl.outlier, 'outliers': [float(x) for x in outlying]}
      files.write(file, json.dumps(plain) + '\n')
  most = call.structure.cost
  return shares.by_outliers(owl, outlying, np.array(sizes, float), call.sparsity, most).tolist()


def _check_kinds(criterion, allocation, structure):
  """Refuses a part that is none, such as a factory that was not called."""
  for name, value, kind in (
    ('criterion', criterion, Criterion),
    ('allocation', allocation, Allocation),
    ('structure', structure, Structure),
  ):
    if not (isinstance(value, kind) or (name == 'allocation' and value is None)):
      raise ValueError(f'prune: {name}={value!r} is no {kind.__name__}; is a call missing?')


def _check(criterion, sparsity, allocation, owl, structure):
  """Refuses what does not go together."""
  most = min(structure.cost, 1.0)
  real = isinstance(sparsity, numbers.Real) and not isinstance(sparsity, bool)
  if not real or not 0 <= sparsity <= most or sparsity == 1:
    raise ValueError(
      f'sparsity={sparsity!r} is outside of what this structure can remove,'
      f' {shares.can_remove(structure)}; it is the fraction removed, so 50 % is 0.5'
    )
  more = sorted(criterion.needs - {'activations'})
  if more or (criterion.needs and criterion.layerwise is None):
    raise ValueError(
      f'prune: block by block there are only the activations of one block, and this criterion needs'
      f' {", ".join(more) or "activations of the whole model"}: take magnitude, deviations, random,'
      ' wanda or sparsegpt'
    )
  if criterion.needs and not allocation.by_shape:
    raise ValueError(
      'prune: this allocation compares the scores of several kernels, and the scores of a criterion'
      ' that reads activations exist one block at a time: take uniform(), per_output(), by_class()'
      ' or erk(), or owl() for the shares of blocks'
    )
  if owl is not None and not isinstance(owl, Owl):
    raise ValueError(f'prune: shares_of_blocks={owl!r}: expected what owl(...) returns, or None')
  if owl is not None and owl.spread and not 0 < sparsity < most:
    raise ValueError(
      f'prune: owl(spread={owl.spread}) prunes some blocks more than sparsity={sparsity} and others'
      f' less, and the structure can remove {shares.can_remove(structure)}: take another sparsity'
    )
  if owl is not None and not criterion.needs:
    raise ValueError(
      'prune: owl() needs a criterion that is applied block by block, wanda or sparsegpt'
    )


def _writable(leaves, blocks, model, in_place):
  """The leaves; those that stack layers can be written, as copies unless `in_place`."""
  out = dict(leaves)
  for place in (place for block in blocks for place in block.places.values()):
    leaf = out[place.path]
    if model.layers and not (in_place and decoder.can_be_written(leaf)):
      if leaf is leaves[place.path]:  # not a copy yet
        out[place.path] = np.array(stored.whole(leaf))
    elif not in_place and not stored.is_stored(leaf):
      out[place.path] = np.asarray(leaf)
  return out


def _put(out, masks, leaves, block, arrays, in_place):
  """Puts the stored arrays of a block into the leaves and the masks."""
  weights = {k.partition('/')[2]: x for k, x in arrays.items() if k.startswith('weight/')}
  decoder.write(out, block, weights, in_place)
  for key, bits in arrays.items():
    kind, _, local = key.partition('/')
    if kind == 'mask':
      path, layer = block.places[local]
      shape = np.shape(leaves[path]) if layer is None else np.shape(leaves[path])[1:]
      mask = np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)
      if layer is None:
        masks[path] = mask
      else:
        whole = masks.get(path)
        if not isinstance(whole, np.ndarray):
          whole = np.ones(np.shape(leaves[path]), bool) if whole is None else stored.whole(whole)
        masks[path] = whole
        whole[layer] = mask


def _put_files(out, masks, leaves, block, folder, row):
  """Puts the file of a finished block into the leaves and the masks, if its leaves are in files.

  Returns whether they are.
  """
  old = {local: leaves[place.path] for local, place in block.places.items()}
  alone = all(place.layer is None for place in block.places.values())
  if not alone or files.remote(folder) or not all(map(stored.is_stored, old.values())):
    return False
  file = pathlib.Path(folder) / row['file']
  names = resume.names(file)
  if any(name.endswith(resume.BITS) for name in names):
    return False
  for key in names:
    kind, _, local = key.partition('/')
    shape, path = old[local].shape, block.places[local].path
    if kind == 'weight':
      out[path] = stored.Stored(file, key, shape, 0, shape[-1] if shape else 0)
    else:
      masks[path] = stored.Bits(file, key, shape)
  return True


def _mask_tree(params, masks):
  """Masks shaped like params; those of leaves in files that keep every weight take no memory."""

  def whole(leaf):
    every = np.broadcast_to(np.True_, np.shape(leaf))
    return every if stored.is_stored(leaf) else every.copy()

  named = named_leaves(params)
  return with_leaves(params, {n: masks[n] if n in masks else whole(x) for n, x in named.items()})


def _line(rows, total, done, began):
  """The progress after a block."""
  elapsed = time.perf_counter() - began
  each = elapsed / (len(rows) - done)
  left = round(each * (total - len(rows)))
  removed, weights = (sum(row[key] for row in rows) for key in ('removed', 'weights'))
  change = rows[-1]['change']
  moved = '' if change is None else f'  change {change:.4f}'
  return (
    f'block {len(rows)}/{total}  sparsity {removed / max(weights, 1):.4f}{moved}'
    f'  {each:.1f} s/block  left {left // 60}:{left % 60:02}'
  )

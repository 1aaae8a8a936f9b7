"""Prunes a model without training, block by block, in the memory of one block.

Each block is calibrated on what the pruned blocks before it put out. Of the calibration, only the
hidden states in front of the current block are held, and the statistics of that block.
"""

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import prunejax
from prunejax import files
from prunejax.oneshot import choose, decoder, reconstruction, resume, segments, shares
from prunejax.oneshot.decoder import Block, Decoder
from prunejax.oneshot.shares import Owl
from prunejax.pruning import kernel_layout, scores_to_masks
from prunejax.pruning.allocations import per_output, uniform
from prunejax.pruning.paths import matches, named_leaves, with_leaves
from prunejax.pruning.structures import unstructured
from prunejax.pruning.types import Allocation, Criterion, Structure

SAVE_EVERY = 60.0  # seconds between two writes of the hidden states


class Pruned(NamedTuple):
  """A pruned model.

  Attributes:
    params: the parameters; pruned weights are 0.
    masks: bool, shaped like params, True = kept.
    rows: for each block its 'block', 'weights', 'removed', 'change' (the relative change of what
      the block puts out, of the first segment; None where no calibration was needed) and 'seconds'.
  """

  params: Any
  masks: Any
  rows: list[dict]


class _Kind(NamedTuple):
  """Compiled functions of the blocks that are alike."""

  kernels: choose.Kernels  # by paths within the block
  named: choose.Kernels  # by the whole paths of the first such block
  layouts: Mapping[str, Any]
  first: str  # the path of that block
  collect: Callable
  norms: Callable
  prune: Callable
  advance: Callable
  change: Callable
  fit: Callable | None  # a step of `reconstruct`


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
    model: the model as three functions.
    params: its parameters, any pytree of arrays. They are not changed, unless `in_place`.
    batches: the calibration: a pytree of arrays [segments, ...] as `model.embed` takes, such as
      int32 tokens [segments, length]; or a list of such pytrees. For a criterion that reads weights
      alone, one segment of any content.
    criterion: SCORE, how much does each weight matter?
    sparsity: the fraction of the pruned kernels that is removed.
    allocation: WHO PAYS; None is `per_output()` for `wanda` and `uniform()` otherwise. One that
      compares scores of several kernels needs a criterion that reads weights alone.
    shares_of_blocks: `owl()` prunes blocks with more outliers less; None: all alike.
    structure: TOGETHER, which weights are removed as one; default `unstructured()`.
    where: the kernels to prune, by a regex on their whole paths or a predicate of (path, leaf).
    layout: which axes of a kernel are inputs and outputs, as in `prune_transform`.
    batch: segments of a batch, a power of two. Sums over the calibration are taken in an order that
      depends on it, and not on the mesh.
    mesh: a mesh whose axis 'data' divides each batch; None: one device.
    recover: `reconstruct(...)`: what each block is trained by after it was pruned; None: nothing.
    folder: where progress is kept; a call that was killed goes on there. None keeps nothing.
    settings: plain values that identify the call for `folder`, beside shapes and calibration.
    in_place: True: leaves that are numpy arrays are written into, so the model is held once.
    say: prints a line.

  Returns:
    The pruned parameters, the masks and a row for each block.

  Raises:
    ValueError: arguments that do not fit each other or the model; nothing has been computed then.
    FloatingPointError: a score or a new weight of a block is not finite.
  """
  structure = unstructured() if structure is None else structure
  if allocation is None and isinstance(criterion, Criterion):
    of_one = criterion.layerwise
    within = of_one is not None and of_one.within_output and structure.inputs
    allocation = per_output() if within else uniform()
  segments.check_mesh(mesh, batch)
  _check(criterion, sparsity, allocation, shares_of_blocks, structure)
  leaves = dict(named_leaves(params))
  blocks = decoder.blocks_of(model, params)
  calibration = _joined(batches)
  needs_hidden = bool(criterion.needs) or recover is not None or shares_of_blocks is not None
  if calibration is None:
    raise ValueError(
      'prune: give calibration segments; of one, the shape is needed even by a criterion that reads'
      ' weights alone'
    )
  one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), calibration)
  kinds, kind_of = _kinds(
    model, params, leaves, blocks, one, where, layout, criterion, structure, mesh, recover
  )
  shapes = {
    _full(block, local): shape
    for block, number in zip(blocks, kind_of, strict=True)
    for local, shape in kinds[number].kernels.shapes.items()
  }
  abstract = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
  scores_to_masks.check(abstract, allocation, structure)
  progress, plan_folder = resume.Progress(), None
  if folder is not None:
    plan_folder = files.path(folder)
    plan = {
      **(settings or {}),
      'sparsity': float(sparsity),
      'batch': batch,
      'kernels': len(shapes),
      'weights': sum(map(math.prod, shapes.values())),
      'calibration': _digest(calibration),
    }
    progress = resume.opened(plan_folder, plan, say)

  numbers = [math.prod(shape) for shape in shapes.values()]
  sizes = [
    sum(math.prod(shape) for shape in kinds[number].kernels.shapes.values()) for number in kind_of
  ]
  say(
    f'{len(blocks)} blocks, {len(shapes)} kernels, {sum(numbers):,} weights;'
    f' {_segments(calibration)} segments of calibration'
  )
  hidden = None
  whole_masks = None
  if not criterion.needs:
    whole_masks = _masks_of_weights(
      leaves, blocks, kinds, kind_of, criterion, sparsity, allocation, structure
    )
  stream = _Stream(model, params, calibration, batch, mesh) if needs_hidden else None
  if shares_of_blocks is not None:
    sparsities = _sparsities(
      shares_of_blocks, sparsity, leaves, blocks, kinds, kind_of, stream, sizes, plan_folder, say
    )
  else:
    sparsities = [float(sparsity)] * len(blocks)
  kept_at = {}
  if whole_masks is None:
    for value in dict.fromkeys(sparsities):
      kept_at[value] = shares.kept_units(shapes, allocation, structure, value)
  masks_of: dict[str, np.ndarray] = {}
  out = dict(leaves) if in_place else _copied(leaves, blocks, model)
  rows: list[dict] = []
  for block, row in zip(blocks, progress.blocks, strict=False):
    arrays = resume.read_arrays(plan_folder, row)
    _put(out, masks_of, leaves, block, arrays, in_place)
    rows.append({k: v for k, v in row.items() if k not in ('file', 'sha256')})
  done = len(rows)
  if done:
    say(f'{done} of {len(blocks)} blocks are pruned already')
  if stream is not None and done < len(blocks):
    start = 0
    if progress.hidden:
      start = progress.hidden['block']
      hidden = stream.placed(resume.read_hidden(plan_folder, progress, stream.like(one)))
    else:
      hidden = stream.embedded()
    for number in range(start, done):
      kind = kinds[kind_of[number]]
      hidden = stream.advanced(kind.advance, decoder.read(out, blocks[number]), hidden)
  began = saved = time.perf_counter()
  for number in range(done, len(blocks)):
    block, kind, clock = blocks[number], kinds[kind_of[number]], time.perf_counter()
    weights = decoder.read(out, block)
    matrices = _matrices(kind, weights)
    if whole_masks is not None:
      mask = {local: whole_masks[_full(block, local)] for local in matrices}
      new = {local: jnp.where(mask[local], matrices[local], 0) for local in matrices}
    else:
      statistics = stream.summed(kind.collect, weights, hidden)
      kept = kept_at[sparsities[number]]
      mask, new = _chosen(kind, block, matrices, statistics, kept, criterion, structure)
      del statistics
    mask, new = _as_leaves(kind, mask, bool), _as_leaves(kind, new)
    new = {local: x.astype(weights[local].dtype) for local, x in new.items()}
    change = None
    pruned = {**weights, **new}
    if recover is not None:
      fit = reconstruction.fitted(
        recover,
        kind.fit,
        weights,
        pruned,
        mask,
        functools.partial(stream.segment, hidden),
        stream.count,
      )
      new = {local: np.asarray(x) for local, x in fit.items()}
      pruned = new
    if stream is not None:
      change = stream.change(kind.change, weights, pruned, hidden)
      if number + 1 < len(blocks):
        hidden = stream.advanced(kind.advance, pruned, hidden)
    row = {
      'block': block.prefix,
      'weights': sizes[number],
      'removed': sum(int(x.size - np.count_nonzero(x)) for x in mask.values()),
      'change': change,
      'seconds': round(time.perf_counter() - clock, 3),
    }
    arrays = {f'weight/{local}': x for local, x in new.items()}
    arrays |= {f'mask/{local}': np.packbits(x, axis=None) for local, x in mask.items()}
    _put(out, masks_of, leaves, block, arrays, in_place)
    if plan_folder is not None:
      progress = resume.with_block(plan_folder, progress, arrays, row)
      more = number + 1 < len(blocks)
      if stream is not None and more and time.perf_counter() - saved > SAVE_EVERY:
        progress = resume.with_hidden(plan_folder, progress, hidden)
        saved = time.perf_counter()
    rows.append(row)
    say(_line(rows, len(blocks), done, began))
  return Pruned(with_leaves(params, out), _mask_tree(params, masks_of), rows)


class _Stream:
  """The calibration on its way through the blocks: batches of hidden states on the devices."""

  def __init__(self, model, params, calibration, batch, mesh):
    count = _segments(calibration)
    devices = 1 if mesh is None else mesh.shape[segments.AXIS]
    self.batch = max(min(batch, segments.power_of_two(count)), devices)
    self.mesh, self.count = mesh, count
    self._calibration, self._model, self._params = calibration, model, params
    self.parts = list(range(0, count, self.batch))

  def like(self, one):
    """Shapes of the hidden states of one segment."""
    return jax.eval_shape(self._model.embed, self._params, one)

  def valid(self, start):
    """Which segments of a batch are no padding."""
    return np.arange(start, start + self.batch) < self.count

  def placed(self, batches):
    """Batches on the devices."""
    return [segments.place(batch, self.mesh) for batch in batches]

  def embedded(self):
    """The hidden states in front of the first block."""
    embed = jax.jit(self._model.embed)

    def padded(x, start):
      part = np.asarray(x[start : start + self.batch])
      more = self.batch - len(part)
      return np.concatenate([part, np.repeat(part[:1], more, 0)]) if more else part

    batches = []
    for start in self.parts:
      part = jax.tree.map(lambda x, start=start: padded(x, start), self._calibration)
      # One segment at a time: every segment is embedded by one program on every mesh.
      rows = [
        embed(self._params, jax.tree.map(lambda x, i=i: x[i : i + 1], part))
        for i in range(self.batch)
      ]
      whole = jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *rows)
      batches.append(segments.place(whole, self.mesh))
    return batches

  def advanced(self, advance, weights, hidden):
    """The hidden states behind a block; those in front of it are given up batch by batch."""
    weights = jax.tree.map(jnp.asarray, weights)
    for number, start in enumerate(self.parts):
      hidden[number] = advance(weights, hidden[number], self.valid(start))
    return hidden

  def summed(self, collect, weights, hidden):
    """Statistics of all batches, added in their order."""
    total, weights = None, jax.tree.map(jnp.asarray, weights)
    for number, start in enumerate(self.parts):
      part = collect(weights, hidden[number], self.valid(start))
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    return total

  def segment(self, hidden, i):
    """Segment i, on one device."""
    batch, at = hidden[i // self.batch], i % self.batch
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x[at : at + 1])), batch)

  def change(self, change, before, after, hidden):
    """The relative change of what a block puts out, of the first segment."""
    as_arrays = lambda tree: jax.tree.map(jnp.asarray, tree)
    return float(change(as_arrays(before), as_arrays(after), self.segment(hidden, 0)))


def _kinds(model, params, leaves, blocks, one, where, layout, criterion, structure, mesh, recover):
  """(kinds, the kind of each block)."""
  kinds, kind_of, seen = [], [], {}
  chosen = matches(where)
  rows = kernel_layout.parse(layout)
  hidden = jax.eval_shape(model.embed, params, one)
  reported = {}
  for block in blocks:
    weights = decoder.read(leaves, block)
    shapes = tuple((k, tuple(x.shape), str(x.dtype)) for k, x in weights.items())
    shapes = block.run, shapes
    if shapes not in reported:
      reported[shapes] = _reads(block.run, weights, hidden)
    reads = reported[shapes]
    picked = tuple(k for k in reads if chosen(block.places[k].path, leaves[block.places[k].path]))
    key = shapes, picked
    if key not in seen:
      seen[key] = len(kinds)
      kinds.append(_kind(block, weights, picked, reads, rows, criterion, structure, mesh, recover))
    kind_of.append(seen[key])
  if not any(kind.kernels.shapes for kind in kinds):
    names = [_full(blocks[0], local) for local in next(iter(reported.values()))]
    raise ValueError(
      f'prune: where={where!r} matches no kernel; it must match a whole path such as'
      f' {", ".join(map(repr, names[:4])) or "(the blocks report no inputs)"}'
    )
  return kinds, kind_of


def _reads(run, weights, hidden) -> dict[str, str]:
  """{kernel that a block reports: the first that reads the same array}."""
  reads: dict[str, str] = {}

  def probe(weights, hidden):
    out, inputs = run(decoder.nested(weights), hidden)
    first: dict[int, str] = {}
    for name, x in inputs.items():
      reads[name] = first.setdefault(id(x), name)
    return out, inputs

  shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in weights.items()}
  out, inputs = jax.eval_shape(probe, shapes, hidden)
  same = lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype)
  if jax.tree.structure(out) != jax.tree.structure(hidden) or not all(
    jax.tree.leaves(jax.tree.map(same, out, hidden))
  ):
    raise ValueError(
      f'the block returns hidden states {out}, but reads {hidden}: they must be alike'
    )
  for name in inputs:
    if name not in weights:
      raise ValueError(
        f'the block reports inputs of {name!r}, which is none of its leaves {list(weights)[:6]}'
      )
  return {name: reads[name] for name in inputs}


def _kind(block, weights, picked, reads, rows, criterion, structure, mesh, recover) -> _Kind:
  full = {_full(block, k): jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in weights.items()}
  known = kernel_layout.layouts(full, rows, pruned=[_full(block, k) for k in picked])
  layouts, shapes = {}, {}
  for local in picked:
    name = _full(block, local)
    kernel_layout.axes_of(known, name, 'prune')
    shape = kernel_layout.matrix_shape(known[name])
    if len(shape) != 2:
      raise ValueError(
        f'prune: {name!r} has shape {weights[local].shape} and is no kernel [in, out]; leave it out'
        ' with where='
      )
    layouts[local], shapes[local] = known[name], shape
  # The first of the picked kernels that reads an array stands for it.
  first: dict[str, str] = {}
  kernels = choose.Kernels(shapes, {k: first.setdefault(reads[k], k) for k in picked})
  run = lambda weights, hidden: block.run(decoder.nested(weights), hidden)
  on_inputs = lambda fn: lambda weights, hidden: fn(run(weights, hidden)[1])
  squares = lambda x: jnp.sum(jnp.square(x.reshape(-1, x.shape[-1]).astype(jnp.float32)), 0)
  norms = lambda inputs: {k: squares(inputs[k]) for k in dict.fromkeys(kernels.reads.values())}
  named = choose.Kernels(
    {_full(block, k): shape for k, shape in shapes.items()},
    {_full(block, a): _full(block, b) for a, b in kernels.reads.items()},
  )
  collect = prune_block = None
  if criterion.layerwise is not None:
    collect = jax.jit(segments.summed(on_inputs(choose.statistics(criterion, kernels)), mesh))
    prune_block = jax.jit(choose.masks(criterion, structure, named))

  def change(before, after, hidden):
    old, new = run(before, hidden)[0], run(after, hidden)[0]
    square = lambda tree: sum(
      jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)
    )
    moved = square(jax.tree.map(jnp.subtract, new, old))
    return jnp.sqrt(moved / square(jax.tree.map(jnp.subtract, old, hidden)))

  return _Kind(
    kernels,
    named,
    layouts,
    block.prefix,
    collect,
    jax.jit(segments.summed(on_inputs(norms), mesh)),
    prune_block,
    jax.jit(segments.mapped(lambda w, h: run(w, h)[0], mesh), donate_argnums=1),
    jax.jit(change),
    None if recover is None else reconstruction.step(recover, block.run),
  )


def _matrices(kind, weights):
  """The pruned kernels of a block as matrices [in, out]."""
  return {
    local: kernel_layout.to_matrix(jnp.asarray(weights[local]), layout)
    for local, layout in kind.layouts.items()
  }


def _as_leaves(kind, matrices, dtype=None):
  """Matrices in the shapes of their leaves, on the host."""
  return {
    local: np.asarray(kernel_layout.from_matrix(x, kind.layouts[local]), dtype)
    for local, x in matrices.items()
  }


def _chosen(kind, block, matrices, statistics, kept, criterion, structure):
  """({path in the block: mask}, {path: new weights}) of the kernels of a block, as matrices."""
  named = lambda tree: {_full_of(kind.first, local): x for local, x in tree.items()}
  inside = lambda tree: {name[len(kind.first) + 1 :]: x for name, x in tree.items()}
  kept = {
    kind.first + name[len(block.prefix) :]: count  # units are called by the first block of a kind
    for name, count in kept.items()
    if name.startswith(f'{block.prefix}/')
  }
  counts = choose.counts(criterion, structure, kind.named, kept)
  mask, new, nan = jax.device_get(
    kind.prune(_on_one_device(named(statistics)), named(matrices), counts)
  )
  if bool(nan):
    raise FloatingPointError(
      f'{block.prefix}: a score or a new weight is not finite; blocks from here on are not pruned'
    )
  return inside(mask), inside(new)


def _sparsities(owl, sparsity, leaves, blocks, kinds, kind_of, stream, sizes, folder, say):
  """The sparsity of each block by the outliers of the dense model, kept on disk."""
  where = None if folder is None else folder / 'outliers.json'
  if where is not None and files.exists(where):
    found = np.array(files.read_json(where)['outliers'])
  else:
    count = jax.jit(shares.outliers, static_argnums=2)
    hidden, found = stream.embedded(), []
    for number, block in enumerate(blocks):
      kind, weights = kinds[kind_of[number]], decoder.read(leaves, block)
      norms = _on_one_device(stream.summed(kind.norms, weights, hidden))
      outlying = 0
      for local, w in _matrices(kind, weights).items():
        outlying += int(count(jnp.sqrt(norms[kind.kernels.reads[local]]), w, owl.outlier))
      found.append(outlying / max(sizes[number], 1))
      if number + 1 < len(blocks):
        hidden = stream.advanced(kind.advance, weights, hidden)
      say(f'outliers of block {number + 1}/{len(blocks)}: {found[-1]:.5f}')
    found = np.array(found)
    if where is not None:
      files.write(where, json.dumps({'outliers': [float(x) for x in found]}) + '\n')
  return [float(x) for x in shares.by_outliers(owl, found, np.array(sizes, float), sparsity)]


def _masks_of_weights(leaves, blocks, kinds, kind_of, criterion, sparsity, allocation, structure):
  """{path: mask [in, out]} of all kernels at once, as `prune_transform` chooses them."""
  matrices = {}
  for block, number in zip(blocks, kind_of, strict=True):
    weights = decoder.read(leaves, block)
    found = _matrices(kinds[number], weights)
    matrices |= {_full(block, local): w for local, w in found.items()}
  link = prunejax.prune_transform(
    criterion,
    prunejax.constant(float(sparsity)),
    allocation=allocation,
    structure=structure,
    layout='in out',
  )

  @jax.jit
  def masks(matrices):
    _, state = link.update(jax.tree.map(jnp.zeros_like, matrices), link.init(matrices), matrices)
    return prunejax.get_masks(state, matrices)

  return jax.device_get(masks(matrices))


def _check(criterion, sparsity, allocation, owl, structure):
  """Refuses what does not go together."""
  for name, value, kind in (
    ('criterion', criterion, Criterion),
    ('allocation', allocation, Allocation),
    ('structure', structure, Structure),
  ):
    if not isinstance(value, kind):
      raise ValueError(f'prune: {name}={value!r} is no {kind.__name__}; is a call missing?')
  most = min(structure.cost, 1.0)
  if isinstance(sparsity, bool) or not 0 <= sparsity <= most or sparsity == 1:
    raise ValueError(
      f'sparsity={sparsity!r} is outside of what this structure can remove, [0, {most}]; it is the'
      ' fraction removed, so 50 % is 0.5'
    )
  more = sorted(criterion.needs - {'activations'})
  if more or (criterion.needs and criterion.layerwise is None):
    raise ValueError(
      f'prune: this criterion needs {", ".join(more) or "activations of the whole model"}; pruning'
      ' block by block has the activations of one block: take magnitude, deviations, random, wanda'
      ' or sparsegpt'
    )
  if criterion.needs and not allocation.by_shape:
    raise ValueError(
      'prune: this allocation compares the scores of several kernels, and the scores of a criterion'
      ' that reads activations exist one block at a time: take uniform(), per_output(), by_class()'
      ' or erk(), or owl() for the shares of blocks'
    )
  if owl is not None and not isinstance(owl, Owl):
    raise ValueError(f'prune: shares_of_blocks={owl!r}: expected what owl(...) returns, or None')
  if owl is not None and not criterion.needs:
    raise ValueError(
      'prune: owl() needs a criterion that is applied block by block, wanda or sparsegpt'
    )


def _joined(batches):
  """The calibration as one pytree of numpy arrays; None for none."""
  if batches is None:
    return None
  if isinstance(batches, list):
    if not batches:
      raise ValueError('prune: the list of calibration batches is empty')
    return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *batches)
  return jax.tree.map(np.asarray, batches)


def _segments(calibration) -> int:
  counts = {len(x) for x in jax.tree.leaves(calibration)}
  if len(counts) != 1 or 0 in counts:
    raise ValueError(
      f'prune: the arrays of the calibration have {sorted(counts)} segments on axis 0: expected one'
      ' number, above 0'
    )
  return counts.pop()


def _digest(calibration) -> str:
  digest = hashlib.sha256()
  for name, x in named_leaves(calibration).items():
    digest.update(f'{name}:{x.shape}:{x.dtype}'.encode())
    digest.update(np.ascontiguousarray(x).tobytes())
  return digest.hexdigest()[:16]


def _full(block: Block, local: str) -> str:
  return _full_of(block.prefix, local)


def _full_of(prefix, local):
  return f'{prefix}/{local}'


def _on_one_device(tree):
  """Whole arrays on one device, where one program decides for every mesh."""
  return jax.tree.map(lambda x: jnp.asarray(np.asarray(x.addressable_data(0))), tree)


def _copied(leaves, blocks, model):
  """The leaves, of which those that stack layers are copies that can be written."""
  out = dict(leaves)
  if model.layers:
    for place in blocks[0].places.values():
      out[place.path] = np.array(leaves[place.path])
  else:
    for block in blocks:
      for place in block.places.values():
        out[place.path] = np.asarray(leaves[place.path])
  return out


def _put(out, masks_of, leaves, block, arrays, in_place):
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
        masks_of[path] = mask
      else:
        masks_of.setdefault(path, np.ones(np.shape(leaves[path]), bool))[layer] = mask


def _mask_tree(params, masks_of):
  """Masks shaped like params."""
  whole = lambda name, x: masks_of[name] if name in masks_of else np.ones(np.shape(x), bool)
  return with_leaves(params, {name: whole(name, x) for name, x in named_leaves(params).items()})


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

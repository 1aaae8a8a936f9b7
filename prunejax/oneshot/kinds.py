"""A kind: the compiled functions that blocks which are alike share."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prunejax.oneshot import choose, decoder, reconstruction, segments
from prunejax.oneshot.decoder import Block
from prunejax.oneshot.stream import on_one_device
from prunejax.pruning import kernel_layout
from prunejax.pruning.paths import matches


class Kind(NamedTuple):
  """What blocks that are alike share. What they compute is compiled.

  Attributes:
    kernels: those that are pruned, by paths within the block.
    named: the same by the whole paths of the first such block, by which the program names units.
    layouts: {path within the block: Layout}.
    first: the path of the first such block.
    collect: (weights, hidden, valid) -> statistics of a batch; None without a `layerwise` part.
    norms: (weights, hidden, valid) -> {path: squares of what goes into a kernel [in]}.
    prune: (statistics, kernels, counts, before) -> (masks, new kernels, NaN); None as `collect`.
    advance: (weights, hidden, valid) -> the hidden states behind the block.
    change: (weights, hidden, hidden behind the pruned block) -> the relative change of what the
      block adds.
    fit: a step of `reconstruct`; None without one.
  """

  kernels: choose.Kernels
  named: choose.Kernels
  layouts: Mapping[str, Any]
  first: str
  collect: Callable | None
  norms: Callable
  prune: Callable | None
  advance: Callable
  change: Callable
  fit: Callable | None


def of_blocks(
  model, params, leaves, blocks, one_segment, where, layout, criterion, structure, mesh, recover
) -> list[Kind]:
  """Returns the kind of each block; blocks that are alike have the same one.

  Other arguments are those of `block_by_block.prune`.

  Args:
    model: a `Decoder`.
    params: its parameters.
    leaves: {path: leaf} of the parameters.
    blocks: see `decoder.blocks_of`.
    one_segment: shapes of the calibration, of one segment.
    where: which kernels are pruned.
    layout: which axes are inputs and outputs.
    criterion: SCORE.
    structure: TOGETHER.
    mesh: the mesh that divides batches.
    recover: what trains a block.

  Raises:
    ValueError: no kernel is pruned; a kernel that is no matrix; a block that does not return hidden
      states like those that it reads, or reports the input of a leaf that it lacks.
  """
  seen: dict[tuple, Kind] = {}
  kinds = []
  chosen = matches(where)
  hidden = jax.eval_shape(model.embed, jax.tree.map(decoder.abstract, params), one_segment)
  reported, picked_of = {}, []
  for block in blocks:
    shapes = decoder.shapes(leaves, block)
    signature = block.run, tuple((k, x.shape, str(x.dtype)) for k, x in shapes.items())
    if signature not in reported:
      reported[signature] = _reads(block, shapes, hidden)
    reads, _ = reported[signature]
    picked = tuple(k for k in reads if chosen(block.places[k].path, leaves[block.places[k].path]))
    picked_of.append((signature, reads, picked))
  known = _layouts(leaves, blocks, layout, [picked for _, _, picked in picked_of])
  for block, (signature, reads, picked) in zip(blocks, picked_of, strict=True):
    layouts = {local: known[full_path(block, local)] for local in picked}
    key = signature, tuple(layouts.items())
    if key not in seen:
      weights = decoder.shapes(leaves, block)
      _, widths = reported[signature]
      if criterion.needs:  # otherwise nothing is computed from the inputs
        _check_widths(block, layouts, widths)
      seen[key] = _kind(block, weights, layouts, reads, criterion, structure, mesh, recover)
    kinds.append(seen[key])
  if not any(kind.kernels.shapes for kind in kinds):
    names = [blocks[0].places[local].path for local in next(iter(reported.values()))[0]]
    raise ValueError(
      f'prune: where={where!r} matches no kernel; it must match a whole path such as'
      f' {", ".join(map(repr, names[:4])) or "(the blocks report no inputs)"}'
    )
  return kinds


def _layouts(leaves, blocks, layout, picked_of):
  """{whole path: Layout} of the leaves; rows match the paths that leaves have in the parameters."""
  inside = {place.path for block in blocks for place in block.places.values()}
  tree = {path: leaf for path, leaf in leaves.items() if path not in inside}
  names, pruned = {}, []
  for block, picked in zip(blocks, picked_of, strict=True):
    for local, place in block.places.items():
      shape = np.shape(leaves[place.path])
      shape = shape if place.layer is None else shape[1:]
      tree[full_path(block, local)] = jax.ShapeDtypeStruct(shape, leaves[place.path].dtype)
      names[full_path(block, local)] = place.path
    pruned += [full_path(block, local) for local in picked]
  return kernel_layout.layouts(tree, kernel_layout.parse(layout), pruned=pruned, names=names)


def _check_widths(block, layouts, widths):
  """Refuses an input that is no input of its kernel."""
  for local, layout in layouts.items():
    rows = kernel_layout.matrix_shape(layout)[0]
    if layout.axes is not None and widths[local] != rows:
      raise ValueError(
        f'{block.prefix} reports an input of {local!r} of width {widths[local]}, and the kernel has'
        f' {rows} inputs; if its axes are others, say so with layout='
      )


def _reads(block, weights, hidden) -> tuple[dict[str, str], dict[str, int]]:
  """What is known of the kernels whose inputs a block reports.

  {kernel: the first kernel that reads the same array}, and {kernel: the width of its input}.
  """
  reads: dict[str, str] = {}

  def probe(weights, hidden):
    returned = block.run(decoder.nested(weights), hidden)
    if not (
      isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping)
    ):
      raise ValueError(
        f'{block.prefix} returns {jax.tree.map(jnp.shape, returned)!r}: expected (hidden, inputs),'
        ' inputs a dict {path of a kernel: what goes into it}'
      )
    out, inputs = returned
    first: dict[int, str] = {}
    for name, x in inputs.items():
      reads[name] = first.setdefault(id(x), name)
    return out, inputs

  out, inputs = jax.eval_shape(probe, weights, hidden)
  same = lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype)
  if jax.tree.structure(out) != jax.tree.structure(hidden) or not all(
    jax.tree.leaves(jax.tree.map(same, out, hidden))
  ):
    raise ValueError(
      f'{block.prefix} returns hidden states {out}, but reads {hidden}: they must be alike'
    )
  for name in inputs:
    if name not in weights:
      raise ValueError(
        f'{block.prefix} reports inputs of {name!r}, which is none of its leaves'
        f' {list(weights)[:6]}'
      )
  return {name: reads[name] for name in inputs}, {name: x.shape[-1] for name, x in inputs.items()}


def _kind(block, weights, layouts, reads, criterion, structure, mesh, recover) -> Kind:
  shapes = {}
  for local, one_layout in layouts.items():
    name = full_path(block, local)
    kernel_layout.axes_of({name: one_layout}, name, 'prune')
    shape = kernel_layout.matrix_shape(one_layout)
    if len(shape) != 2:
      raise ValueError(
        f'prune: {name!r} has shape {weights[local].shape} and is no kernel [in, out]; leave it out'
        ' with where='
      )
    shapes[local] = shape
  # The first of the picked kernels that reads an array stands for it.
  first: dict[str, str] = {}
  kernels = choose.Kernels(shapes, {k: first.setdefault(reads[k], k) for k in shapes})
  run = lambda weights, hidden: block.run(decoder.nested(weights), hidden)
  on_inputs = lambda fn: lambda weights, hidden: fn(run(weights, hidden)[1])
  squares = lambda x: jnp.sum(jnp.square(x.reshape(-1, x.shape[-1]).astype(jnp.float32)), 0)
  norms = lambda inputs: {k: squares(inputs[k]) for k in dict.fromkeys(kernels.reads.values())}
  named = choose.Kernels(
    {full_path(block, k): shape for k, shape in shapes.items()},
    {full_path(block, a): full_path(block, b) for a, b in kernels.reads.items()},
  )
  collect = prune_block = None
  if criterion.layerwise is not None and shapes:
    collect = jax.jit(segments.summed(on_inputs(choose.statistics(criterion, kernels)), mesh))
    prune_block = choose.masks(criterion, structure, named)

  def change(weights, hidden, new):
    old = run(weights, hidden)[0]
    square = lambda tree: sum(
      jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)
    )
    moved = square(jax.tree.map(jnp.subtract, new, old))
    added = square(jax.tree.map(jnp.subtract, old, hidden))
    return jnp.where(moved == 0, 0.0, jnp.sqrt(moved / added))

  return Kind(
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


def matrices(kind: Kind, weights: Mapping[str, Any]) -> dict[str, jax.Array]:
  """Returns the pruned kernels of a block as matrices [in, out]."""
  return {
    local: kernel_layout.to_matrix(jnp.asarray(weights[local]), layout)
    for local, layout in kind.layouts.items()
  }


def pruned_before(kind: Kind, masks: Mapping[str, Any]) -> dict[str, jax.Array]:
  """Returns where earlier masks prune, as matrices; {} where no kernel of a block has such a mask.

  Args:
    kind: the kind of the block.
    masks: {path in the block: bool, True = kept}, of the kernels that have one.
  """
  if not masks:
    return {}
  whole = lambda layout: np.ones(layout.shape, bool)
  return {
    local: ~kernel_layout.to_matrix(jnp.asarray(masks.get(local, whole(layout))), layout)
    for local, layout in kind.layouts.items()
  }


def as_leaves(kind: Kind, matrices: Mapping[str, Any], dtype: Any = None) -> dict[str, np.ndarray]:
  """Returns matrices [in, out] in the shapes of their leaves, on the host."""
  return {
    local: np.asarray(kernel_layout.from_matrix(x, kind.layouts[local]), dtype)
    for local, x in matrices.items()
  }


def choose_masks(kind, block, matrices, statistics, kept, before, criterion, structure):
  """Chooses the masks of a block and its new weights.

  Args:
    kind: the kind of the block.
    block: the block.
    matrices: {path in the block: kernel [in, out]}.
    statistics: what `kind.collect` summed.
    kept: {whole path: units to keep}, of all blocks.
    before: {path in the block: bool, True for a weight that is pruned already}, as matrices; {} for
      none.
    criterion: see `block_by_block.prune`.
    structure: see there.

  Returns:
    ({path in the block: mask}, {path in the block: new weights}), as matrices.

  Raises:
    FloatingPointError: a score or a new weight is not finite.
  """
  named = lambda tree: {_full_of(kind.first, local): x for local, x in tree.items()}
  inside = lambda tree: {name[len(kind.first) + 1 :]: x for name, x in tree.items()}
  kept = {
    kind.first + name[len(block.prefix) :]: count  # the program names units by the first block
    for name, count in kept.items()
    if name.startswith(f'{block.prefix}/')
  }
  counts = choose.counts(criterion, structure, kind.named, kept, named(before))
  mask, new, nan = jax.device_get(
    kind.prune(on_one_device(named(statistics)), named(matrices), counts, named(before))
  )
  if bool(nan):
    raise FloatingPointError(
      f'{block.prefix}: a score or a new weight is not finite; this block and all after it are not'
      ' pruned'
    )
  return inside(mask), inside(new)


def full_path(block: Block, local: str) -> str:
  """Returns the whole path of a leaf of a block."""
  return _full_of(block.prefix, local)


def _full_of(prefix, local):
  return f'{prefix}/{local}'

"""Blocks that are alike share their compiled functions: a kind."""

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


def of_blocks(
  model, params, leaves, blocks, one, where, layout, criterion, structure, mesh, recover
) -> list[Kind]:
  """Returns the kind of each block; blocks that are alike have the same one.

  Args:
    model: a `Decoder`.
    params: its parameters.
    leaves: {path: leaf} of the parameters.
    blocks: see `decoder.blocks_of`.
    one: shapes of the calibration of one segment.
    where: see `block_by_block.prune`, as all that follow.
    layout: see there.
    criterion: see there.
    structure: see there.
    mesh: see there.
    recover: see there.

  Raises:
    ValueError: no kernel is pruned; a kernel that is no matrix; a block that does not return hidden
      states like those that it reads, or reports the input of a leaf that it lacks.
  """
  seen: dict[tuple, Kind] = {}
  kinds = []
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
      seen[key] = _kind(block, weights, picked, reads, rows, criterion, structure, mesh, recover)
    kinds.append(seen[key])
  if not any(kind.kernels.shapes for kind in kinds):
    names = [full_path(blocks[0], local) for local in next(iter(reported.values()))]
    raise ValueError(
      f'prune: where={where!r} matches no kernel; it must match a whole path such as'
      f' {", ".join(map(repr, names[:4])) or "(the blocks report no inputs)"}'
    )
  return kinds


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


def _kind(block, weights, picked, reads, rows, criterion, structure, mesh, recover) -> Kind:
  full = {full_path(block, k): jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in weights.items()}
  known = kernel_layout.layouts(full, rows, pruned=[full_path(block, k) for k in picked])
  layouts, shapes = {}, {}
  for local in picked:
    name = full_path(block, local)
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
    {full_path(block, k): shape for k, shape in shapes.items()},
    {full_path(block, a): full_path(block, b) for a, b in kernels.reads.items()},
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


def as_leaves(kind: Kind, matrices: Mapping[str, Any], dtype: Any = None) -> dict[str, np.ndarray]:
  """Returns matrices [in, out] in the shapes of their leaves, on the host."""
  return {
    local: np.asarray(kernel_layout.from_matrix(x, kind.layouts[local]), dtype)
    for local, x in matrices.items()
  }


def choose_masks(kind, block, matrices, statistics, kept, criterion, structure):
  """Chooses the masks of a block and its new weights, in one compiled program.

  Args:
    kind: the kind of the block.
    block: the block.
    matrices: {path in the block: kernel [in, out]}.
    statistics: what `kind.collect` summed.
    kept: {whole path: units to keep}, of all blocks.
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
    kind.first + name[len(block.prefix) :]: count  # units are called by the first block of a kind
    for name, count in kept.items()
    if name.startswith(f'{block.prefix}/')
  }
  counts = choose.counts(criterion, structure, kind.named, kept)
  mask, new, nan = jax.device_get(
    kind.prune(on_one_device(named(statistics)), named(matrices), counts)
  )
  if bool(nan):
    raise FloatingPointError(
      f'{block.prefix}: a score or a new weight is not finite; blocks from here on are not pruned'
    )
  return inside(mask), inside(new)


def full_path(block: Block, local: str) -> str:
  """Returns the whole path of a leaf of a block."""
  return _full_of(block.prefix, local)


def _full_of(prefix, local):
  return f'{prefix}/{local}'

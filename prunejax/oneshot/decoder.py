"""How a model is pruned block by block: three functions, and the leaves of each block."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.extend import core as jax_core
from jax.interpreters import partial_eval

from prunejax.models.hf import stored
from prunejax.pruning.paths import named_leaves


class Decoder(NamedTuple):
  """A model as three functions. All are pure and run under `jax.jit`.

  Attributes:
    embed: `embed(params, batch) -> hidden`. Every array of the batch and of `hidden`, any pytrees,
      has the segments on axis 0.
    block: `block(weights, hidden) -> (hidden, inputs)`. `weights` are the leaves of one block as
      nested dicts, without the prefix of the block. `inputs` is {path of a kernel in the block:
      what goes into it [..., in]}. Kernels that read the same array should return the same object:
      they then share its statistics. A kernel that is not in `inputs` is never pruned. Where
      blocks differ in more than weights, a tuple of one function a block; blocks that have the same
      function are compiled once.
    head: `head(params, hidden) -> logits`, float32.
    blocks: the paths of the subtrees of params that are the blocks, in their order, such as
      'encoder/layer_0'. With `layers`, one path.
    layers: how many blocks the leaves below the one path stack on axis 0; 0 for leaves that stack
      none.
  """

  embed: Callable[[Any, Any], Any]
  block: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]] | tuple[Callable, ...]
  head: Callable[[Any, Any], jax.Array]
  blocks: tuple[str, ...]
  layers: int = 0


class Place(NamedTuple):
  """Where a leaf of a block is: its path in params, and its index on axis 0 or None."""

  path: str
  layer: int | None


class Block(NamedTuple):
  """One block.

  Attributes:
    run: its function, see `Decoder.block`.
    prefix: its path. A block of stacked leaves has its number behind the path that they share.
    places: {path within the block: Place}.
  """

  run: Callable
  prefix: str
  places: dict[str, Place]


def blocks_of(model: Decoder, params: Any) -> list[Block]:
  """Lists the blocks of a model.

  Args:
    model: its functions.
    params: its parameters.

  Raises:
    ValueError: no blocks; a path of `model.blocks` that holds nothing; stacked leaves of another
      number.
  """
  if not model.blocks:
    raise ValueError('the model has no blocks: Decoder.blocks is empty')
  leaves = named_leaves(params)
  found = []
  for prefix in model.blocks:
    paths = {name[len(prefix) + 1 :]: name for name in leaves if name.startswith(f'{prefix}/')}
    if not paths:
      raise ValueError(
        f'the block {prefix!r} has no leaf: the leaves are {", ".join(list(leaves)[:4])}, ...'
      )
    for layer in range(model.layers) or [None]:
      places = {local: Place(path, layer) for local, path in paths.items()}
      for path in paths.values() if layer is not None else ():
        if np.shape(leaves[path])[:1] != (model.layers,):
          raise ValueError(
            f'{path!r} has shape {np.shape(leaves[path])}: expected {model.layers} layers on axis 0'
          )
      found.append((prefix if layer is None else f'{prefix}/{layer}', places))
  runs = model.block if isinstance(model.block, tuple) else (model.block,) * len(found)
  if len(runs) != len(found):
    raise ValueError(f'the model has {len(runs)} functions of blocks, and {len(found)} blocks')
  return [Block(run, *rest) for run, rest in zip(runs, found, strict=True)]


def read(leaves: Mapping[str, Any], block: Block) -> dict[str, Any]:
  """Returns the leaves of a block, {path within the block: array}; those in files are read."""

  def at(path, layer):
    leaf = leaves[path]
    if layer is None:
      return stored.whole(leaf)
    return leaf.read((slice(layer, layer + 1),))[0] if stored.is_stored(leaf) else leaf[layer]

  return {local: at(*place) for local, place in block.places.items()}


def shapes(leaves: Mapping[str, Any], block: Block) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of the leaves of a block, {path within the block: shape}."""
  at = lambda place: abstract(leaves[place.path], skip=0 if place.layer is None else 1)
  return {local: at(place) for local, place in block.places.items()}


def abstract(leaf: Any, skip: int = 0) -> jax.ShapeDtypeStruct:
  """Returns the shape of a leaf without its first `skip` axes."""
  if not stored.is_stored(leaf):
    leaf = jax.eval_shape(lambda x: x, leaf)
  return jax.ShapeDtypeStruct(
    leaf.shape[skip:], leaf.dtype, weak_type=getattr(leaf, 'weak_type', False)
  )


def embedding(model: Decoder, params: Any, batch: Any) -> tuple[Callable, list[Any]]:
  """Returns `model.embed` as a function of the leaves that it reads.

  Args:
    model: its functions.
    params: its parameters, of which some may be in files.
    batch: shapes of a batch, the only ones that the function then takes.

  Returns:
    The compiled function (leaves, batch) -> hidden, and the leaves of params to give it.
  """
  leaves, treedef = jax.tree.flatten(params)
  shapes = [abstract(leaf) for leaf in leaves]
  embed = lambda leaves, batch: model.embed(treedef.unflatten(leaves), batch)
  program, out = jax.make_jaxpr(embed, return_shape=True)(shapes, batch)
  jaxpr, used = partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
  call = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(jaxpr, program.consts))
  of_leaves, of_batch = used[: len(leaves)], used[len(leaves) :]

  def of_read(some, batch):
    given = [x for x, needed in zip(jax.tree.leaves(batch), of_batch, strict=True) if needed]
    return jax.tree.unflatten(jax.tree.structure(out), call(*some, *given))

  return jax.jit(of_read), [x for x, needed in zip(leaves, of_leaves, strict=True) if needed]


def write(
  leaves: dict[str, Any], block: Block, new: Mapping[str, np.ndarray], in_place: bool = False
) -> None:
  """Puts new leaves of a block in the place of the old. Stacked leaves must be numpy arrays.

  Args:
    leaves: {path: array}, changed in place.
    block: the block.
    new: {path within the block: array}.
    in_place: write into leaves that are numpy arrays, instead of replacing them.
  """
  for local, array in new.items():
    path, layer = block.places[local]
    if layer is not None:
      leaves[path][layer] = array
    elif in_place and can_be_written(leaves[path]):
      leaves[path][...] = array
    else:
      leaves[path] = np.asarray(array, leaves[path].dtype)


def can_be_written(leaf: Any) -> bool:
  """Whether a leaf is a numpy array that can be written into."""
  return isinstance(leaf, np.ndarray) and leaf.flags.writeable


def nested(flat: Mapping[str, Any]) -> dict:
  """Returns {'a': {'b': leaf}} for {'a/b': leaf}."""
  tree: dict = {}
  for path, leaf in flat.items():
    *levels, last = path.split('/')
    node = tree
    for level in levels:
      node = node.setdefault(level, {})
    node[last] = leaf
  return tree


def linen_block(block: Callable[[Any, Any], Any]) -> Callable:
  """Makes `Decoder.block` of a function that calls Flax Linen modules; records their `nn.Dense`.

  Args:
    block: (weights, hidden) -> hidden, such as
      `lambda weights, hidden: layer.apply({'params': weights}, hidden)`.

  Returns:
    A function (weights, hidden) -> (hidden, {path of a kernel: its input}).
  """

  def recorded(weights, hidden):
    inputs = {}

    def record(call, call_args, call_kwargs, context):
      if isinstance(context.module, nn.Dense) and context.method_name == '__call__':
        x = call_args[0] if call_args else call_kwargs['inputs']
        inputs['/'.join((*context.module.path, 'kernel'))] = x
      return call(*call_args, **call_kwargs)

    with nn.intercept_methods(record):
      return block(weights, hidden), inputs

  return recorded

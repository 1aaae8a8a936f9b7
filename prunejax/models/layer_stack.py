"""Layers of a model one after the other: unrolled, or as one scan over stacked weights.

A model that scans has one module `layers` in the place of `layer_0`, `layer_1`, ..., and each of
its leaves is [layers, ...]. XLA then compiles one layer instead of all of them. `stack` and
`unstack` lead from one tree of parameters to the other; files, reports and names of leaves are
those of the unrolled model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prunejax.models.activation_layout import by_example
from prunejax.models.hf.stored import Layers, is_stored

STACKED = 'layers'  # the module that holds all layers of a model that scans
LAYER = re.compile(r'layer_(\d+)')
# What a backward pass keeps of a layer; the rest is computed again.
REMAT = {
  'none': None,  # keeps everything
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # products with weights
  'full': jax.checkpoint_policies.nothing_saveable,  # the input of the layer alone
}


def stack(tree: Any) -> Any:
  """Returns a tree of parameters or masks with its layers stacked on a new first axis.

  Args:
    tree: nested dicts. Where a dict has the keys layer_0, layer_1, ..., their trees become one
      under the key 'layers'.

  Raises:
    ValueError: layers are missing or differ in shape, as those of a shrunk model do.
  """
  if not isinstance(tree, Mapping):
    return tree
  numbers = sorted(int(match[1]) for key in tree if (match := LAYER.fullmatch(str(key))))
  others = {key: stack(value) for key, value in tree.items() if not LAYER.fullmatch(str(key))}
  if not numbers:
    return others
  if numbers != list(range(len(numbers))) or STACKED in others:
    raise ValueError(f'layers to stack: expected layer_0, layer_1, ... alone, not {sorted(tree)}')
  layers = [stack(tree[f'layer_{i}']) for i in numbers]
  check_alike([_shapes(layer) for layer in layers])
  return others | {STACKED: jax.tree.map(lambda *leaves: _stacked(leaves), *layers)}


def unstack(tree: Any) -> Any:
  """Returns the tree that `stack` was given; a tree without stacked layers stays as it is."""
  if not isinstance(tree, Mapping):
    return tree
  plain = {key: unstack(value) for key, value in tree.items() if key != STACKED}
  if STACKED not in tree:
    return plain
  layers = unstack(tree[STACKED])
  depth = {leaf.shape[0] for leaf in jax.tree.leaves(layers)}
  for i in range(depth.pop() if depth else 0):
    plain[f'layer_{i}'] = jax.tree.map(lambda leaf, i=i: _slice(leaf, i), layers)
  return plain


def check_alike(layers: Sequence[Any]) -> None:
  """Checks that layers can be stacked.

  Args:
    layers: what must be equal in all layers, such as {path: shape}.

  Raises:
    ValueError: a layer differs from the first.
  """
  for i, layer in enumerate(layers):
    if layer != layers[0]:
      raise ValueError(
        f'model.scan_layers=True: layer {i} has other shapes than layer 0, as in a shrunk model,'
        ' or is of another kind, and cannot be stacked with it; set model.scan_layers=False'
      )


def run(
  parent: nn.Module,
  call: Callable,
  make: Callable[[Any, str], nn.Module],
  settings: Sequence[Any],
  x: Any,
  *,
  scan: bool = False,
  remat: str = 'none',
  dropouts: Mapping[str, Any] | None = None,
):
  """Runs layers one after the other, inside the `nn.compact` call of their parent.

  Args:
    parent: the calling module.
    call: (layer, x, keys) -> x. `keys` has the random key of each dropout, see `dropouts`; it is
      empty where a dropout draws its own.
    make: (one of `settings`, name) -> the module of a layer.
    settings: what tells the layers apart, such as their widths, one a layer.
    x: the input of the first layer.
    scan: run as one scan over stacked weights; all `settings` must then be equal.
    remat: a key of `REMAT`.
    dropouts: the dropout modules of a layer, as nested dicts of their names with {} at the end:
      {'attention': {'Dropout_0': {}}}. A scan hands each the key that it has in the unrolled model,
      so that both draw the same. None or {}: a layer has none.

  Returns:
    The output of the last layer.
  """
  policy = REMAT[remat]
  keyed = bool(dropouts) and parent.has_rng('dropout') and (scan or policy is not None)
  # A lifted transform would derive other keys from the same seed.
  drawn = lambda name: _keys(parent.scope.rewound().push(name), dropouts) if keyed else {}
  keys = [drawn(f'layer_{i}') for i in range(len(settings))]
  laid_out = lambda layer, x, keys: by_example(call(layer, x, keys))
  x = by_example(x)
  rerun = lambda fn, **kwargs: fn if policy is None else nn.remat(fn, policy=policy, **kwargs)
  if not scan:
    for i, setting in enumerate(settings):
      x = rerun(lambda layer, x, i=i: laid_out(layer, x, keys[i]))(make(setting, f'layer_{i}'), x)
    return x
  check_alike(settings)
  body = rerun(laid_out, prevent_cse=False)  # a scan keeps XLA from merging the two computations
  scanned = nn.scan(
    lambda layer, x, keys: (body(layer, x, keys), None),
    variable_axes={'params': 0, 'activations': 0, 'intermediates': 0},
    split_rngs={'params': True, 'dropout': True},
    length=len(settings),
  )
  stacked_keys = jax.tree.map(lambda *leaves: jnp.stack(leaves), *keys)
  return scanned(make(settings[0], STACKED), x, stacked_keys)[0]


def _keys(scope, names):
  """The keys that dropout modules of these names draw below a scope of Flax."""
  if not names:
    return scope.make_rng('dropout')
  return {name: _keys(scope.push(name), inner) for name, inner in names.items()}


def _stacked(leaves):
  if all(is_stored(leaf) for leaf in leaves):
    return Layers(leaves)
  if all(isinstance(leaf, np.ndarray) for leaf in leaves):
    return np.stack(leaves)
  return jnp.stack(leaves)


def _slice(leaf, i):
  if isinstance(leaf, jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
  return leaf[i]


def _shapes(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return [(path, tuple(leaf.shape)) for path, leaf in leaves]

"""Where a model that scans over its layers meets what goes by the names of single layers.

Its train state is stacked, [layers, ...]. Files, hashes, tables and the regexes of a config are
those of the unrolled model. Of a model that does not scan, everything here is as it was given.
"""

from typing import Any

import optax

from prunejax.models import layer_stack
from prunejax.pruning import layer_names
from prunejax.train.recipe import Model

# {regex of a stacked leaf: name of a layer}, as `prune_transform` takes it.
NAMES = {r'(.*)/layers/(.*)': r'\1/layer_{}/\2'}


def stacked(model: Model, params: Any) -> Any:
  """Returns parameters or masks of the unrolled model as the train state holds them."""
  return layer_stack.stack(params) if model.scan_layers else params


def unstacked(model: Model, params: Any) -> Any:
  """Returns parameters or masks of a train state as the unrolled model has them."""
  return layer_stack.unstack(params) if model.scan_layers else params


def names(model: Model) -> str | dict[str, str]:
  """Returns `stacked=` of `prune_transform`."""
  return NAMES if model.scan_layers else ''


def where(model: Model, pattern: str) -> Any:
  """Returns `where=` of a link for a regex that matches names of the unrolled model."""
  return layer_names.chooser(pattern, layer_names.parse(names(model)))


def one_by_one(
  model: Model, link: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
  """Returns a link that sees each layer as a leaf of its own; its state is the unrolled model's."""
  if not model.scan_layers:
    return link

  def update(updates, state, params=None, **extra):
    params = None if params is None else layer_stack.unstack(params)
    updates, state = link.update(layer_stack.unstack(updates), state, params, **extra)
    return layer_stack.stack(updates), state

  return optax.GradientTransformationExtraArgs(
    lambda params: link.init(layer_stack.unstack(params)), update
  )

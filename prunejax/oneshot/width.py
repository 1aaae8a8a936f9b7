"""Cuts inner neurons or groups of heads out of every layer: a plain narrower model.

First the units are pruned like any others, by any criterion, equally many in each layer. Then they
are cut out of the matrices, and the config says the new width, so other programs load the model.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util
from huggingface_hub.errors import StrictDataclassError

from prunejax.pruning.structures import tied
from prunejax.pruning.types import Structure

INWARD = ('query', 'key', 'value')
# The field of a config that holds the inner width, by model_type.
PLAIN, _FFN = 'intermediate_size', {'gpt2': 'n_inner', 'opt': 'ffn_dim'}


class Narrowing(NamedTuple):
  """What `oneshot.prune` is called with so that `cut` fits.

  Attributes:
    structure: the units.
    where: the kernels that hold them.
    sparsity: the share of units that goes.
    kind: 'ffn' or 'groups'.
    kept: units of each layer that stay.
  """

  structure: Structure
  where: str
  sparsity: float
  kind: str
  kept: int


def ffn_width(size: Any, neurons: int) -> Narrowing:
  """Keeps so many inner neurons of every feed-forward block.

  Args:
    size: the size of the model, a config of transformers.
    neurons: how many stay.

  Raises:
    ValueError: a number out of range.
  """
  _refuse_uneven('ffn_width', size)
  total = _inner(size)
  _check('ffn_width', 'neurons', neurons, total)
  table = {
    r'(.*/)ffn/(?:gate|intermediate)/kernel': (r'\1ffn/neurons', -1, 1),
    r'(.*/)ffn/output/kernel': (r'\1ffn/neurons', -2, 1),
  }
  return Narrowing(tied(table), r'.*/ffn/.*/kernel', 1 - neurons / total, 'ffn', neurons)


def kv_groups(size: Any, groups: int) -> Narrowing:
  """Keeps so many keys and values of every layer, each with the queries that share it.

  Args:
    size: the size of a model with `num_key_value_heads`.
    groups: how many stay.

  Raises:
    ValueError: a number out of range; a model whose config cannot say the new width, as GPT-2's.
  """
  total = getattr(size, 'num_key_value_heads', None)
  if total is None:
    raise ValueError(
      f'kv_groups: a config of model_type {size.model_type!r} has no num_key_value_heads: its'
      ' attention is as wide as the hidden state, so heads cannot be cut'
    )
  _refuse_uneven('kv_groups', size)
  _check('kv_groups', 'groups', groups, total)
  width, each = _head_width(size), size.num_attention_heads // total
  if refused := _refusal(size, groups):
    loads = [n for n in range(1, total) if not _refusal(size, n)]
    raise ValueError(
      f'kv_groups: transformers refuses the config of groups={groups} ({refused}): expected'
      f' {" or ".join(map(str, loads)) or "another model"}'
    )
  unit = r'\1attention/groups'
  table = {
    r'(.*/)attention/query/kernel': (unit, -1, each * width),
    r'(.*/)attention/(?:key|value)/kernel': (unit, -1, width),
    r'(.*/)attention/output/kernel': (unit, -2, each * width),
  }
  return Narrowing(tied(table), r'.*/attention/.*/kernel', 1 - groups / total, 'groups', groups)


def cut(params: Mapping, masks: Mapping, size: Any, how: Narrowing) -> tuple[dict, Any]:
  """Cuts the pruned units out of a model of `prunejax.models`.

  Args:
    params: pruned parameters.
    masks: bool, shaped like params, as `oneshot.prune` returned them for `how`.
    size: the size.
    how: what `ffn_width` or `kv_groups` returned.

  Returns:
    The narrower parameters and size.
  """
  leaves = {k: np.asarray(x) for k, x in traverse_util.flatten_dict(params, sep='/').items()}
  masks = traverse_util.flatten_dict(masks, sep='/')
  units = _inner(size) if how.kind == 'ffn' else size.num_key_value_heads
  for layer in range(size.num_hidden_layers):
    if how.kind == 'ffn':
      part = f'encoder/layer_{layer}/ffn'
      inward = ('gate', 'intermediate')
    else:
      part = f'encoder/layer_{layer}/attention'
      inward = INWARD
    inward = [name for name in inward if f'{part}/{name}/kernel' in leaves]
    output = f'{part}/output/kernel'
    kept = _kept(
      [*(masks[f'{part}/{name}/kernel'] for name in inward), np.asarray(masks[output]).T],
      units,
      how.kept,
    )
    of_units = lambda length, kept=kept: np.arange(length).reshape(units, -1)[kept].reshape(-1)
    for name in inward:
      kernel, bias = f'{part}/{name}/kernel', f'{part}/{name}/bias'
      stay = of_units(leaves[kernel].shape[1])
      leaves[kernel] = leaves[kernel][:, stay]
      if bias in leaves:
        leaves[bias] = leaves[bias][stay]
    leaves[output] = leaves[output][of_units(len(leaves[output]))]
  return traverse_util.unflatten_dict(leaves, sep='/'), _narrower(size, how.kind, how.kept)


def _kept(masks, units, count) -> np.ndarray:
  """Numbers of the units that stay: those of which a weight is kept, then any others, `count`.

  `masks` are [.., units times their width]. Of a model that was pruned before all weights of a unit
  may be pruned that is not cut out.
  """
  alive = np.zeros(units, bool)
  for mask in masks:
    alive |= np.asarray(mask).reshape(-1, units, mask.shape[-1] // units).any((0, 2))
  return np.sort(np.argsort(~alive, kind='stable')[:count])


def _narrower(size, kind, kept):
  """The size of a model of which so many units of each layer are kept."""
  size = copy.deepcopy(size)
  if kind == 'ffn':
    setattr(size, _FFN.get(size.model_type, PLAIN), kept)
  else:
    size.head_dim = _head_width(size)
    size.num_attention_heads = kept * (size.num_attention_heads // size.num_key_value_heads)
    size.num_key_value_heads = kept
  return size


def _refusal(size, groups) -> str:
  """Why transformers refuses the config of so many groups, as that of Llama may, or ''."""
  plain = _narrower(size, 'groups', groups).to_dict()
  try:
    type(size)(**plain)
  except (ValueError, TypeError, StrictDataclassError) as error:
    return ' '.join(str(error).split())
  return ''


def _inner(size) -> int:
  field = _FFN.get(size.model_type, PLAIN)
  return getattr(size, field) or 4 * size.n_embd


def _head_width(size) -> int:
  return getattr(size, 'head_dim', None) or size.hidden_size // size.num_attention_heads


def _refuse_uneven(label, size):
  """Refuses a model whose layers have widths of their own, such as `export --to=shrunk` writes."""
  for field in ('heads_per_layer', 'intermediate_per_layer'):
    if widths := getattr(size, field, None):
      raise ValueError(
        f'{label}: each layer of this model has a width of its own, {field}={list(widths)}, as'
        ' `export --to=shrunk` writes them: expected the model as `export --to=hf` writes it'
      )


def _check(label, name, value, total):
  if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < total:
    raise ValueError(f'{label}: {name}={value!r}; the model has {total}: expected 1 to {total - 1}')

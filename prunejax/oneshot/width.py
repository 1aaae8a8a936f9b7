"""Cuts inner neurons or groups of heads out of every layer: a plain narrower model.

First the units are pruned like any others, by any criterion, equally many in each layer. Then they
are cut out of the matrices, and the config says the new width, so other programs load the model.
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

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
  _check('kv_groups', 'groups', groups, total)
  width, each = _head_width(size), size.num_attention_heads // total
  # Heads have a width of their own, and still transformers refuses the config of another number.
  loads = [n for n in range(1, total) if size.hidden_size % (n * each) == 0]
  if groups not in loads:
    raise ValueError(
      f'kv_groups: groups={groups} leaves {groups * each} heads, which do not divide'
      f' hidden_size={size.hidden_size}, so transformers refuses the config: expected'
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
  for layer in range(size.num_hidden_layers):
    if how.kind == 'ffn':
      part = f'encoder/layer_{layer}/ffn'
      inward = ('gate', 'intermediate')
    else:
      part = f'encoder/layer_{layer}/attention'
      inward = INWARD
    for name in inward:
      kernel = f'{part}/{name}/kernel'
      if kernel not in leaves:
        continue
      kept = np.flatnonzero(masks[kernel].any(0))
      leaves[kernel] = leaves[kernel][:, kept]
      if f'{part}/{name}/bias' in leaves:
        leaves[f'{part}/{name}/bias'] = leaves[f'{part}/{name}/bias'][kept]
    kept = np.flatnonzero(masks[f'{part}/output/kernel'].any(1))
    leaves[f'{part}/output/kernel'] = leaves[f'{part}/output/kernel'][kept]
  size = copy.deepcopy(size)
  if how.kind == 'ffn':
    setattr(size, _FFN.get(size.model_type, PLAIN), how.kept)
  else:
    size.head_dim = _head_width(size)
    size.num_attention_heads = how.kept * (size.num_attention_heads // size.num_key_value_heads)
    size.num_key_value_heads = how.kept
  return traverse_util.unflatten_dict(leaves, sep='/'), size


def _inner(size) -> int:
  field = _FFN.get(size.model_type, PLAIN)
  return getattr(size, field) or 4 * size.n_embd


def _head_width(size) -> int:
  return getattr(size, 'head_dim', None) or size.hidden_size // size.num_attention_heads


def _check(label, name, value, total):
  if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < total:
    raise ValueError(f'{label}: {name}={value!r}; the model has {total}: expected 1 to {total - 1}')

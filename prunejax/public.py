"""The public names, by question. The package itself hands them out: `prunejax.magnitude`."""
# ruff: noqa: I001 (grouped by question, not by module)

# The link, its state, and the masks in it.
from prunejax.pruning.transform import gradient_from_updates, hold_zeros, prune_transform
from prunejax.pruning.state import PruneState, check_pruned, get_masks, nan_scores
from prunejax.pruning import masks
from prunejax.pruning.masks import mask_hash
from prunejax.pruning.scores_to_masks import select_masks
from prunejax.pruning.who_pays import format_report, who_pays

# SCORE: how much does each weight matter?
from prunejax.pruning.types import Criterion
from prunejax.pruning.criteria import (
  block_fisher,
  deviations,
  magnitude,
  movement,
  obd,
  obs,
  platon,
  random,
  regrow,
  rigl,
  snip,
  soft_movement,
  sparse_evolution,
  sparsegpt,
  taylor,
  wanda,
)

# WHEN: how sparse at a step, and do masks move at it?
from prunejax.pruning.schedules import Schedule, When
from prunejax.pruning.schedules import (
  constant,
  cubic,
  cycle,
  iterative,
  linear,
  one_shot,
  staircase,
)
from prunejax.pruning.schedules import every, until

# WHO PAYS: how many units does each leaf keep?
from prunejax.pruning.types import Allocation
from prunejax.pruning.allocations import (
  above,
  by_class,
  class_distribution,
  class_uniform,
  erk,
  global_threshold,
  per_output,
  uniform,
)

# TOGETHER: which weights are removed as one?
from prunejax.pruning.types import Structure
from prunejax.pruning.structures import block, columns, ffn, heads, n_m, rows, tied, unstructured

# Files of pruned weights.
from prunejax.compress.sparse_file import load_sparse, save_sparse

# Links beside pruning.
from prunejax.pruning.links.codebook import share
from prunejax.pruning.links.fresh_moments import reset_moments, with_fresh_moments
from prunejax.pruning.links.proximal import reweighted
from prunejax.pruning.links.rewind import rewind

__all__ = [
  'Allocation',
  'Criterion',
  'PruneState',
  'Schedule',
  'Structure',
  'When',
  'above',
  'block',
  'block_fisher',
  'by_class',
  'check_pruned',
  'class_distribution',
  'class_uniform',
  'columns',
  'constant',
  'cubic',
  'cycle',
  'deviations',
  'erk',
  'every',
  'ffn',
  'format_report',
  'get_masks',
  'global_threshold',
  'gradient_from_updates',
  'heads',
  'hold_zeros',
  'iterative',
  'linear',
  'load_sparse',
  'magnitude',
  'mask_hash',
  'masks',
  'movement',
  'n_m',
  'nan_scores',
  'obd',
  'obs',
  'one_shot',
  'per_output',
  'platon',
  'prune_transform',
  'random',
  'regrow',
  'reset_moments',
  'rewind',
  'reweighted',
  'rigl',
  'rows',
  'save_sparse',
  'select_masks',
  'share',
  'snip',
  'soft_movement',
  'sparse_evolution',
  'sparsegpt',
  'staircase',
  'taylor',
  'tied',
  'uniform',
  'unstructured',
  'until',
  'wanda',
  'who_pays',
  'with_fresh_moments',
]

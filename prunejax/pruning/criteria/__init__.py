"""SCORE: how much does each weight matter? One factory a criterion; each makes a `Criterion`.

To add a criterion, write a factory in the file that fits, and name it here: spec strings such as
'movement(learning_rate=0.01)' resolve to the names of this list.
"""

from prunejax.pruning.criteria.block_fisher import block_fisher
from prunejax.pruning.criteria.curvature import obd, obs
from prunejax.pruning.criteria.dynamic import gradient, noise, regrow, rigl, sparse_evolution
from prunejax.pruning.criteria.gradients import movement, platon, snip, soft_movement, taylor
from prunejax.pruning.criteria.layerwise import sparsegpt, wanda
from prunejax.pruning.criteria.weights import deviations, magnitude, random

__all__ = [
  'block_fisher',
  'deviations',
  'gradient',
  'magnitude',
  'movement',
  'noise',
  'obd',
  'obs',
  'platon',
  'random',
  'regrow',
  'rigl',
  'snip',
  'soft_movement',
  'sparse_evolution',
  'sparsegpt',
  'taylor',
  'wanda',
]

"""WHO PAYS: how many units does each leaf keep? One factory a rule; each makes an `Allocation`.

Counts are exact integers. The total is `n - floor(n s + 1/2)` units of n at sparsity s: of each
leaf where the rule is local, of all leaves together where it is global. Under a structure it is
units that are counted; `who_pays` shows the weights.

To add an allocation, write a factory in the file that fits, and name it here: spec strings such as
'global_threshold()' resolve to the names of this list.
"""

from prunejax.pruning.allocations.histogram import histogram
from prunejax.pruning.allocations.per_output import per_output
from prunejax.pruning.allocations.shares import by_class, erk, uniform
from prunejax.pruning.allocations.thresholds import (
  above,
  class_distribution,
  class_uniform,
  global_threshold,
)

__all__ = [
  'above',
  'by_class',
  'class_distribution',
  'class_uniform',
  'erk',
  'global_threshold',
  'histogram',
  'per_output',
  'uniform',
]

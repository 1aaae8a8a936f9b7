"""What a ledger says to a claim: reproduced, not reproduced, or undecided where seeds or differences do not suffice."""

import math
from typing import NamedTuple

from prunejax.report import statistics

REPRODUCED, NOT_REPRODUCED, UNDECIDED = 'reproduced', 'not reproduced', 'undecided'


class Verdict(NamedTuple):
  """A claim of a paper, what our ledger says to it, the numbers that say so, and the names of figures that show it."""

  name: str
  claim: str
  verdict: str
  evidence: str
  figures: tuple = ()


def side(values, threshold=0.0, level=0.95):
  """+1 where the mean of `values` (one a seed) is clear above `threshold`, -1 clear below, else 0.

  Clear: the wider of the bootstrap and Student's interval lies on one side. Fewer than two values are never clear.
  """
  estimate = statistics.cautious(values, level=level)
  if not math.isfinite(estimate.low):
    return 0
  return int(estimate.low > threshold) - int(estimate.high < threshold)


def word(yes, no=False):
  """The verdict of two findings; undecided when neither holds."""
  return REPRODUCED if yes else NOT_REPRODUCED if no else UNDECIDED


def all_of(sides):
  """The verdict of several: reproduced when each is +1, not reproduced when one is -1."""
  sides = list(sides)
  return word(bool(sides) and all(s > 0 for s in sides), any(s < 0 for s in sides))


def shown(values, form='.3f', scale=1.0, level=0.95):
  """'0.912 [0.905, 0.919]': the mean and its cautious interval, for evidence."""
  e = statistics.cautious([scale * v for v in values], level=level)
  reach = f' [{e.low:{form}}, {e.high:{form}}]' if math.isfinite(e.low) else ''
  return f'{e.mean:{form}}{reach}'

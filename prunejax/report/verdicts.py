"""The words of a verdict (reproduced, not reproduced, undecided) and the tests they rest on.

The rule of each claim is in `experiments/PAPER/claims.py`.
"""

import math
from typing import NamedTuple

from prunejax.report import statistics

REPRODUCED, NOT_REPRODUCED, UNDECIDED = 'reproduced', 'not reproduced', 'undecided'


class Verdict(NamedTuple):
  """What a ledger says to one claim of a paper.

  name: of the claim, one word with underscores.
  claim: the claim in a sentence.
  verdict: REPRODUCED, NOT_REPRODUCED or UNDECIDED.
  evidence: what the verdict rests on, in words and numbers; the notes where `tables` holds the
    numbers.
  figures: names of the figures that show it.
  number: the one number that decides, with its interval and unit.
  tables: `tables.Table`s with the numbers of the evidence.
  """

  name: str
  claim: str
  verdict: str
  evidence: str
  figures: tuple = ()
  number: str = ''
  tables: tuple = ()


def deciding(verdict: Verdict) -> str:
  """The number that decides a verdict, or the first clause of its evidence where none is named."""
  return verdict.number or verdict.evidence.split('; ')[0].removesuffix('.')


def side(values, threshold: float = 0.0, level: float = 0.95) -> int:
  """Tells on which side of a threshold the mean of some values lies.

  Args:
    values: one number a seed.
    threshold: what the mean is compared with.
    level: of the interval, the wider of the bootstrap and Student's.

  Returns:
    +1 where the interval lies above the threshold, -1 where it lies below, else 0. Fewer than two
    values have no interval and give 0.
  """
  estimate = statistics.cautious(values, level=level)
  if not math.isfinite(estimate.low):
    return 0
  return int(estimate.low > threshold) - int(estimate.high < threshold)


def word(yes: bool, no: bool = False) -> str:
  """The verdict of two findings: REPRODUCED if `yes`, NOT_REPRODUCED if `no`, else UNDECIDED."""
  return REPRODUCED if yes else NOT_REPRODUCED if no else UNDECIDED


def all_of(sides) -> str:
  """The verdict of several `side`s: REPRODUCED if each is +1, NOT_REPRODUCED if any is -1."""
  sides = list(sides)
  return word(bool(sides) and all(s > 0 for s in sides), any(s < 0 for s in sides))


def shown(values, form: str = '.3f', scale: float = 1.0, level: float = 0.95) -> str:
  """The mean of some values and its interval as text: '0.912 [0.905, 0.919]'."""
  estimate = statistics.cautious([scale * v for v in values], level=level)
  if not math.isfinite(estimate.low):
    return f'{estimate.mean:{form}}'
  return f'{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]'

"""The words of a verdict (reproduced, not reproduced, undecided) and the tests they rest on.

The rule of each claim is in `experiments/PAPER/claims.py`, or in a folder `claims/` there.
"""

import math
from collections.abc import Callable, Iterable
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


class Comparison(NamedTuple):
  """A mean over seeds, or over other units of replication, beside a threshold.

  what: unit and circumstances, the words after the number: 'points at 0.8'.
  values: one number a unit.
  threshold: what the mean is compared with.
  above: whether the claim says that the mean lies above the threshold; False for below.
  form: how the number is written.
  unit_of: what is written of a value, such as math.exp of a logarithm; None for the value.
  unit: what one number is of, the word where there is only one of them.
  """

  what: str
  values: Iterable[float]
  threshold: float = 0.0
  above: bool = True
  form: str = '+.3f'
  unit_of: Callable[[float], float] | None = None
  unit: str = 'seed'


def deciding(verdict: Verdict) -> str:
  """The number that decides a verdict; 'not measured' where the ledger has none."""
  return verdict.number or 'not measured'


def supports(comparison: Comparison, level: float = 0.95) -> int:
  """+1 where the interval lies on the side that is claimed, -1 on the other side, else 0."""
  on_side = side(comparison.values, comparison.threshold, level)
  return on_side if comparison.above else -on_side


def all_hold(comparisons: Iterable[Comparison]) -> str:
  """The verdict of a claim that rests on every one of some comparisons, see `all_of`."""
  return all_of(map(supports, comparisons))


def decided_by(comparisons: Iterable[Comparison]) -> str:
  """The number that decides `all_hold`: that of the comparison which supports the claim least.

  Returns:
    Its mean with the 95 % interval, its unit, and its threshold unless that is 0; '' for no
    comparisons.
  """
  weakest = min(comparisons, key=_support, default=None)
  return '' if weakest is None else _written(weakest)


def _support(comparison):
  """(side, distance of the mean from the threshold in half widths of the interval)."""
  estimate = statistics.cautious(comparison.values)
  if not estimate.n:
    return 0, -math.inf
  sign = 1 if comparison.above else -1
  distance = sign * (estimate.mean - comparison.threshold)
  width = (estimate.high - estimate.low) / 2
  return supports(comparison), distance / width if width > 0 else math.copysign(math.inf, distance)


def _written(comparison):
  what, threshold, form = comparison.what, comparison.threshold, comparison.form
  shown_as = comparison.unit_of or float
  estimate = statistics.cautious(comparison.values)
  if not estimate.n:
    return f'not measured: {what}'
  mean, low, high = (f'{shown_as(number):{form}}' for number in estimate[:3])
  interval = f' [{low}, {high}]' if estimate.n > 1 else f', one {comparison.unit},'
  against = f', against {shown_as(threshold):g}' if threshold or comparison.unit_of else ''
  return f'{mean}{interval} {what}{against}'


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

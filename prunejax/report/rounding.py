"""Writes numbers with three significant digits, and the unit that fits what is left of them."""

from collections.abc import Sequence


def short(value: float) -> str:
  """Returns a number with three significant digits, or with all of them above 999: '1,234'."""
  rounded = f'{value:.3g}'
  return rounded if abs(float(rounded)) < 1000 else f'{value:,.0f}'


def scaled(value: float, scales: Sequence[tuple[float, str]]) -> str:
  """Returns a number in the largest unit of which it has one when it is rounded: '1 ms'.

  Args:
    value: in the unit whose scale is 1.
    scales: (scale, unit), the largest first. The last one is taken for all that is smaller.
  """
  fitting = (one for one in scales if float(f'{value / one[0]:.3g}') >= 1)
  scale, unit = next(fitting, scales[-1])
  return f'{short(value / scale)} {unit}'

"""Curves of the arms against sparsity."""

import numpy as np

from experiments.gordon2020.analysis import arms
from prunejax.report import statistics


def draw(axes, table, names, *, line='-', label='{}', nudge=0.0, levels=('--', ':')):
  """Draws one curve an arm, with bars of 95 % bootstrap intervals.

  Every curve starts at the dense model; the levels of 'dense' and 'fresh' are lines.

  Args:
    axes: matplotlib axes.
    table: {(arm, sparsity): {key: value}}.
    names: the arms.
    line: matplotlib style of the curves.
    label: text of the legend, with {} for the name of the arm.
    nudge: moves all points sideways.
    levels: styles of the lines of 'dense' and 'fresh'.
  """
  start = table.get(('dense', 0.0))
  for arm, style in zip(('dense', 'fresh'), levels, strict=True):
    if numbers := table.get((arm, 0.0)):
      level = statistics.mean(numbers.values())
      text = label.format(arms.name(arm))
      axes.axhline(
        level, color=arms.colour(arm), linestyle=style, linewidth=1.4, label=text, zorder=1
      )
  shift = (
    0.0035 * (np.arange(len(names)) - (len(names) - 1) / 2) + nudge
  )  # keeps bars of one sparsity apart
  for beside, arm in zip(shift, names, strict=True):
    by_sparsity = {s: numbers for (name, s), numbers in table.items() if name == arm}
    if not by_sparsity:
      continue
    if start:
      by_sparsity.setdefault(0.0, start)
    at = sorted(by_sparsity)
    estimates = [statistics.bootstrap(by_sparsity[s].values()) for s in at]
    middle = np.array([e.mean for e in estimates])
    bars = np.nan_to_num(
      [[e.mean - e.low for e in estimates], [e.high - e.mean for e in estimates]]
    )
    axes.errorbar(
      np.array(at) + beside,
      middle,
      yerr=bars,
      color=arms.colour(arm),
      linestyle=line,
      marker=arms.MARKERS.get(arm, 'D'),
      markeredgecolor='white',
      markeredgewidth=0.8,
      capsize=3,
      elinewidth=1.3,
      label=label.format(arms.name(arm)),
      zorder=3,
    )
  ticks = sorted({s for (arm, s) in table if arm in names} | {0.0})
  axes.set_xlabel('sparsity (fraction of weights removed)')
  axes.set_xticks(ticks if len(ticks) <= 10 else np.linspace(0, 1, 11))
  axes.xaxis.set_major_formatter(lambda v, _: f'{v:g}')


def scaled(table, factor):
  """The table with every value times a factor, such as fractions as points of 100."""
  return {key: {seed: factor * v for seed, v in numbers.items()} for key, numbers in table.items()}

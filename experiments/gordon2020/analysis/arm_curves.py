"""Curves of the arms against sparsity."""

import numpy as np

from experiments.gordon2020.analysis import arms
from prunejax.report import statistics


def draw(axes, table, names, *, line='-', label='{}', nudge=0.0, levels=('--', ':')):
  """One curve an arm of `names` over {(arm, sparsity): {key: value}}, with bars of 95 % bootstrap intervals.

  Dense is every curve's 0-point, its level and that of `fresh` a line in the style of `levels`. line: the style of the
  curves; label: what the legend says, with {} for the name of the arm; nudge: moves all points sideways.
  """
  start = table.get(('dense', 0.0))
  for arm, style in zip(('dense', 'fresh'), levels, strict=True):
    if place := table.get((arm, 0.0)):
      level = statistics.mean(place.values())
      text = label.format(arms.name(arm))
      axes.axhline(
        level, color=arms.colour(arm), linestyle=style, linewidth=1.4, label=text, zorder=1
      )
  shift = (
    0.0035 * (np.arange(len(names)) - (len(names) - 1) / 2) + nudge
  )  # bars at one sparsity stay apart
  for beside, arm in zip(shift, names, strict=True):
    places = {s: place for (name, s), place in table.items() if name == arm}
    if not places:
      continue
    if start:
      places.setdefault(0.0, start)
    at = sorted(places)
    estimates = [statistics.bootstrap(places[s].values()) for s in at]
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
  """The table with every value times a factor: fractions as points of 100."""
  return {key: {seed: factor * v for seed, v in place.items()} for key, place in table.items()}

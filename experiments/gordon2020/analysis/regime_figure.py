"""The curves from which the ends of the regimes are read, with the ends, their intervals and the paper's."""

import math

from experiments.gordon2020.analysis import arms, regimes
from prunejax.report import drawing, statistics

CAPTION = (
  'The ends of the regimes: how far each curve has risen, its margin (dotted), where it crosses it (line) with the '
  "95 % interval (band), and where the paper's own curve does, by the same estimator (triangle)."
)
LOOKS = {
  'free, score': ('dense - pruned, dev score (points)', 'pruned', 100),
  'free, loss': ('pruned - dense, pre-train loss (nats)', 'pruned', 1),
  'fit, score': ('deleted - pruned, dev score (points)', 'deleted', 100),
  'fit, train loss': ('pruned - dense, train loss (nats)', 'pruned', 1),
}


def figure(rows, paper=None):
  """One panel an end, of `regimes.table`; None where no curve has two sparsities."""
  ours, theirs = regimes.curves(rows), regimes.paper_curves(paper) if paper else {}
  ours = {
    name: pair for name, pair in ours.items() if len(pair[0].levels) > 1 and len(pair[0].values)
  }
  if not ours:
    return None
  with drawing.canvas(3.6 * len(ours), 4, len(ours)) as (figure, panels):
    for axes, (name, (line, margin)) in zip(panels, ours.items(), strict=True):
      label, arm, scale = LOOKS[name]
      colour = arms.colour(arm)
      estimates = [statistics.bootstrap(column) for column in line.values.T]
      reach = [
        [max(e.mean - e.low, 0) if math.isfinite(e.low) else 0 for e in estimates],
        [max(e.high - e.mean, 0) if math.isfinite(e.high) else 0 for e in estimates],
      ]
      reach = [[scale * v for v in side] for side in reach]
      axes.errorbar(
        line.levels,
        [scale * e.mean for e in estimates],
        yerr=reach,
        color=colour,
        marker='o',
        markersize=4,
        capsize=2,
        linewidth=1.6,
      )
      axes.axhline(scale * margin, color='#555555', linestyle=':', linewidth=1.2)
      end, most = regimes.crossing(line, margin), line.levels[-1]
      if math.isfinite(end.at):
        axes.axvline(end.at, color=colour, linewidth=1.2)
      if math.isfinite(end.low):
        axes.axvspan(end.low, min(end.high, most), color=colour, alpha=0.12, linewidth=0)
      if name in theirs and math.isfinite(at := regimes.crossing(*theirs[name]).at):
        axes.plot(
          [at],
          [0],
          marker='^',
          color='#222222',
          clip_on=False,
          markersize=8,
          transform=axes.get_xaxis_transform(),
          zorder=4,
        )
      axes.set(xlabel='sparsity', ylabel=label, xlim=(-0.02, 1))
      axes.set_title(
        'end of "free"' if name.startswith('free') else 'start of "cannot fit"', fontsize=11
      )
    return drawing.png(figure)

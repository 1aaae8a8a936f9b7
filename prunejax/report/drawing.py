"""What every figure is drawn with: one style, one canvas, one way to draw the curves of the arms, bytes of a PNG."""

import contextlib
import io

import numpy as np

from prunejax.report import arms, statistics

try:
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
except ModuleNotFoundError as error:
  raise ModuleNotFoundError(
    "figures need matplotlib: python -m pip install 'prunejax[train]'", name='matplotlib'
  ) from error

STYLE = {
  'font.family': 'DejaVu Sans',
  'font.size': 11,
  'axes.titlesize': 12,
  'axes.labelsize': 11,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.edgecolor': '#555555',
  'axes.linewidth': 0.8,
  'axes.grid': True,
  'grid.color': '#e4e4e4',
  'grid.linewidth': 0.8,
  'axes.axisbelow': True,
  'legend.frameon': False,
  'legend.fontsize': 10,
  'xtick.color': '#333333',
  'ytick.color': '#333333',
  'axes.titlelocation': 'left',
  'axes.titleweight': 'bold',
  'lines.linewidth': 2,
  'lines.markersize': 6.5,
}


def curves(axes, table, names, *, line='-', label='{}', nudge=0.0, levels=('--', ':')):
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


@contextlib.contextmanager
def canvas(width, height, columns):
  """(figure, its row of axes), inches; everything drawn within has the style."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(width, height), facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    yield figure, figure.subplots(1, columns, squeeze=False)[0]


def ranges(groups):
  """(means, [below, above]) of groups of numbers, for error bars from the least to the greatest.

  The mean of equal numbers may lie a last bit beside them; no bar is shorter than nothing.
  """
  middle = [statistics.mean(group) for group in groups]
  reach = [(max(m - min(g), 0), max(max(g) - m, 0)) for m, g in zip(middle, groups, strict=True)]
  return middle, list(map(list, zip(*reach, strict=True)))


def below(figure, *axes, columns=3):
  """One legend for all panels, under them, so that it never covers a curve."""
  known = {}
  for panel in axes:
    for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
      known.setdefault(label, handle)
  if known:
    figure.legend(known.values(), known.keys(), loc='outside lower center', ncols=columns)
  else:
    axes[0].text(
      0.5,
      0.5,
      'no rows yet',
      ha='center',
      va='center',
      color='#888888',
      transform=axes[0].transAxes,
    )


def png(figure, caption=''):
  """The figure as the bytes of a PNG that depend on nothing but what was drawn."""
  if caption:
    figure.suptitle(caption, fontsize=10, color='#666666', x=0.995, ha='right')
  data = io.BytesIO()
  figure.savefig(data, format='png', dpi=150, metadata={'Software': None})
  return data.getvalue()


def scaled(table, factor):
  """The table with every value times a factor: fractions as points of 100."""
  return {key: {seed: factor * v for seed, v in place.items()} for key, place in table.items()}

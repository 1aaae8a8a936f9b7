"""Parts of every figure: a style, a canvas, a legend, the bytes of a PNG."""

import contextlib
import io

from prunejax.report import statistics

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


@contextlib.contextmanager
def canvas(width: float, height: float, columns: int):
  """(figure, its row of axes) of a size in inches; all that is drawn within has the style.

  Raises:
    ModuleNotFoundError: where matplotlib is missing. It is imported here, since a command that
      refuses its input draws nothing.
  """
  try:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      "figures need matplotlib: python -m pip install 'prunejax[train]'", name='matplotlib'
    ) from error
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(width, height), facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    yield figure, figure.subplots(1, columns, squeeze=False)[0]


def ranges(groups) -> tuple:
  """(means, [below, above]) of groups of numbers, for bars from the least to the greatest.

  The mean of equal numbers may differ from them in the last bit, so no bar is shorter than nothing.
  """
  middle = [statistics.mean(group) for group in groups]
  reach = [(max(m - min(g), 0), max(max(g) - m, 0)) for m, g in zip(middle, groups, strict=True)]
  return middle, list(map(list, zip(*reach, strict=True)))


def below(figure, *axes, columns: int = 3) -> None:
  """Draws one legend for all panels below them, where it covers no curve."""
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


def png(figure, caption: str = '') -> bytes:
  """The figure as the bytes of a PNG, which depend on nothing but what was drawn."""
  if caption:
    figure.suptitle(caption, fontsize=10, color='#666666', x=0.995, ha='right')
  data = io.BytesIO()
  figure.savefig(data, format='png', dpi=150, metadata={'Software': None})
  return data.getvalue()

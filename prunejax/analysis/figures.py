"""The paper's figures from ledger rows, each as the bytes of a PNG; no display, no global state."""

import contextlib
import io
import math

import numpy as np

from prunejax.analysis import statistics, tables

try:
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
except ModuleNotFoundError as error:
  raise ModuleNotFoundError("figures need matplotlib: python -m pip install 'prunejax[train]'",
                            name='matplotlib') from error

# Okabe and Ito's palette: told apart with any colour vision; markers say it once more.
COLOURS = {'pruned': '#0072B2', 'deleted': '#D55E00', 'after': '#009E73', 'random': '#CC79A7',
           'dense': '#222222', 'fresh': '#777777'}
MARKERS = {'pruned': 'o', 'deleted': 's', 'after': '^', 'random': 'X'}
SERIES = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#222222')
CURVES = ('pruned', 'deleted', 'after', 'random')
STYLE = {
    'font.family': 'DejaVu Sans', 'font.size': 11, 'axes.titlesize': 12, 'axes.labelsize': 11,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': '#555555',
    'axes.linewidth': 0.8, 'axes.grid': True, 'grid.color': '#e4e4e4', 'grid.linewidth': 0.8,
    'axes.axisbelow': True, 'legend.frameon': False, 'legend.fontsize': 10,
    'xtick.color': '#333333', 'ytick.color': '#333333', 'axes.titlelocation': 'left',
    'axes.titleweight': 'bold', 'lines.linewidth': 2, 'lines.markersize': 6.5,
}


def figure1(rows, *, chance=None):
  """Average dev score and average train loss against sparsity, one curve an arm (Figure 1).

  Error bars: 95 % bootstrap intervals over seeds of the mean over tasks. chance: the mean score
  of constant answers, drawn as a thin line when given.
  """
  rows = statistics.one_grid(rows)
  scores = _scaled(statistics.averages(statistics.points(rows)), 100)
  losses = statistics.averages(statistics.points(rows, statistics.train_loss))
  tasks = statistics.tasks_of(statistics.points(rows))
  with _canvas(11, 4.6, 2) as (figure, (left, right)):
    _curves(left, scores, CURVES)
    _curves(right, losses, CURVES)
    if chance is not None:
      left.axhline(100 * chance, color='#aaaaaa', linewidth=1)
      left.text(0.01, 100 * chance, 'chance', ha='left', va='bottom', color='#888888', fontsize=9,
                transform=left.get_yaxis_transform())
    left.set(title='Transfer to the tasks', ylabel='average dev score (points)')
    right.set(title='Fit to their training sets', ylabel='average train loss')
    _below(figure, left, right)
    return _png(figure, f'mean over {", ".join(tasks)}' if tasks else '')


def figure2a(rows):
  """Held-out pre-train loss against information-deletion score, one line a task (Figure 2a).

  A dot is one seed at one sparsity, dense included; each line is fitted to the dots drawn.
  """
  rows = statistics.one_grid(rows)
  scores, losses = statistics.points(rows), statistics.pretrain(rows)
  with _canvas(7.2, 5, 1) as (figure, (axes,)):
    for index, task in enumerate(statistics.tasks_of(scores)):
      colour, marker = SERIES[index % len(SERIES)], 'os^XDvP'[index % 7]
      dots = [(losses[source, s]['pretrain', seed], 100 * value)
              for (arm, s), place in sorted(scores.items())
              for source in [{'deleted': 'pruned', 'dense': 'dense'}.get(arm)]
              for (name, seed), value in place.items()
              if name == task and ('pretrain', seed) in losses.get((source, s), {})]
      if not dots:
        continue
      x, y = np.array(sorted(dots)).T
      line = statistics.fit(x, y)
      label = task
      if math.isfinite(line.slope):
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, line.slope * ends + line.intercept, color=colour, linewidth=1.6)
        label = f'{task}: {line.slope:+.1f} points a nat, r {line.r:+.2f}'
      axes.plot(x, y, marker, color=colour, markeredgecolor='white', markeredgewidth=0.7,
                alpha=0.9, label=label)
    axes.set(xlabel='held-out pre-train loss (MLM + NSP)',
             ylabel='dev score after information deletion (points)',
             title='Information deletion against pre-training loss')
    _below(figure, axes, columns=1)
    return _png(figure)


def pretrain_loss(rows, metric='loss'):
  """Held-out pre-train loss against sparsity: by magnitude and at random (Table 1's column)."""
  losses = statistics.pretrain(statistics.one_grid(rows), metric)
  by_seed = {key: {seed: v for (_, seed), v in place.items()} for key, place in losses.items()}
  with _canvas(6.4, 4.6, 1) as (figure, (axes,)):
    _curves(axes, by_seed, ('pruned', 'random'))
    axes.set(title='Pre-training', ylabel=f'held-out {_words(metric)}')
    _below(figure, axes)
    return _png(figure)


def learning_curve(points, *, label='held-out loss', title='Learning curve'):
  """A loss against steps; points: rows of (step, loss), or {name: such rows} for several."""
  curves = points if isinstance(points, dict) else {label: points}
  with _canvas(6.4, 4.2, 1) as (figure, (axes,)):
    for index, (name, rows) in enumerate(curves.items()):
      pairs = np.asarray([tuple(row)[:2] for row in rows], float).reshape(-1, 2)
      marker = 'o' if len(pairs) <= 30 else ''
      axes.plot(pairs[:, 0], pairs[:, 1], marker=marker, markersize=4, label=name,
                color=SERIES[index % len(SERIES)])
    axes.set(title=title, xlabel='step', ylabel='loss')
    axes.xaxis.set_major_formatter(lambda v, _: f'{v / 1000:g}k' if abs(v) >= 1000 else f'{v:g}')
    _below(figure, axes)
    return _png(figure)


def standard(rows, *, chance=None):
  """{'figure1': png, 'figure2a': png, 'pretrain_loss': png}: what a report shows by default."""
  return {'figure1': figure1(rows, chance=chance), 'figure2a': figure2a(rows),
          'pretrain_loss': pretrain_loss(rows)}


def _curves(axes, table, arms):
  # One curve an arm with dense as its 0-point, the dense level dashed, the fresh level dotted.
  dense, fresh = table.get(('dense', 0.0)), table.get(('fresh', 0.0))
  for place, arm, style in ((dense, 'dense', '--'), (fresh, 'fresh', ':')):
    if place:
      axes.axhline(statistics.mean(place.values()), color=COLOURS[arm], linestyle=style,
                   linewidth=1.4, label=tables.NAMES[arm], zorder=1)
  shift = 0.0035 * (np.arange(len(arms)) - (len(arms) - 1) / 2)  # bars at one sparsity stay apart
  for nudge, arm in zip(shift, arms, strict=True):
    places = {s: place for (name, s), place in table.items() if name == arm}
    if not places:
      continue
    if dense:
      places.setdefault(0.0, dense)
    levels = sorted(places)
    estimates = [statistics.bootstrap(places[s].values()) for s in levels]
    middle = np.array([e.mean for e in estimates])
    bars = np.nan_to_num([[e.mean - e.low for e in estimates],
                          [e.high - e.mean for e in estimates]])
    axes.errorbar(np.array(levels) + nudge, middle, yerr=bars, color=COLOURS[arm],
                  marker=MARKERS[arm], markeredgecolor='white', markeredgewidth=0.8, capsize=3,
                  elinewidth=1.3, label=tables.NAMES[arm], zorder=3)
  levels = sorted({s for (arm, s) in table if arm in arms} | {0.0})
  axes.set_xlabel('sparsity (fraction of weights removed)')
  axes.set_xticks(levels if len(levels) <= 10 else np.linspace(0, 1, 11))
  axes.xaxis.set_major_formatter(lambda v, _: f'{v:g}')


@contextlib.contextmanager
def _canvas(width, height, columns):
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(width, height), facecolor='white', layout='constrained')
    FigureCanvasAgg(figure)
    yield figure, figure.subplots(1, columns, squeeze=False)[0]


def _below(figure, *axes, columns=3):
  # One legend for all panels, under them, so that it never covers a curve.
  known = {}
  for panel in axes:
    for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
      known.setdefault(label, handle)
  if known:
    figure.legend(known.values(), known.keys(), loc='outside lower center', ncols=columns)
  else:
    axes[0].text(0.5, 0.5, 'no rows yet', ha='center', va='center', color='#888888',
                 transform=axes[0].transAxes)


def _png(figure, caption=''):
  if caption:
    figure.suptitle(caption, fontsize=10, color='#666666', x=0.995, ha='right')
  data = io.BytesIO()
  figure.savefig(data, format='png', dpi=150, metadata={'Software': None})
  return data.getvalue()


def _scaled(table, factor):
  return {key: {seed: factor * v for seed, v in place.items()} for key, place in table.items()}


def _words(metric):
  return 'pre-train loss (MLM + NSP)' if metric == 'loss' else metric.replace('_', ' ')
